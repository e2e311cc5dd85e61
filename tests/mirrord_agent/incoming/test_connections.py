"""Connections of the target's that are reset so that its clients come again, and those that are not."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming import connections, sock_diag
from mirrord_agent.incoming.netlink_messages import Attribute, Message, encode_attributes
from mirrord_agent.incoming.sock_diag import Connection
from mirrord_syscalls.abi import ABIS
from tests.mirrord_agent.incoming.networks import FAMILIES, LOOPBACK, OUTSIDE, POD, Network, Networks
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, port_of, reaches, session, versions
from tests.mirrord_syscalls.compiler import check_in_c
from tests.rights import as_user

HEADERS = ["netinet/tcp.h", "linux/netlink.h", "linux/sock_diag.h", "linux/inet_diag.h"]


def reset(pod: Network, port: int = PORT) -> int:
    with pod.entered():
        return connections.reset(port)


def is_reset(end: socket.socket) -> bool:
    """Whether that is what comes, maybe after what had come before."""
    try:
        while end.recv(16):
            pass
    except ConnectionError:
        return True
    return False


@versions
@places
@pytest.mark.parametrize("dual", [False, True], ids=["own family", "dual stack"])
def test_both_ends_learn_of_it_and_the_next_connection_is_the_sessions(
    networks: Networks, version: int, place: Place, dual: bool
) -> None:
    pod = networks.pod
    client_network, host = place(networks, version)
    with (
        pod.listen(6 if dual else version, PORT, dual=dual) as target,
        pod.listen(version) as listener,
        client_network.connect(host, PORT) as client,
        target.accept()[0] as served,
        session(pod) as redirects,
    ):
        redirects.add(PORT, port_of(listener))
        with pod.entered():
            assert redirects.flush(PORT) == 1
        with pytest.raises(ConnectionResetError):
            client.recv(16)
        with pytest.raises(ConnectionAbortedError):
            served.recv(16)
        with client_network.connect(host, PORT) as again:
            reaches(listener, again).close()
        with pod.entered():
            assert redirects.flush(PORT) == 0


@versions
def test_in_whatever_state_they_are(networks: Networks, version: int) -> None:
    pod, outside = networks.pod, networks.outside
    with pod.listen(version, PORT) as target:
        clients = [outside.connect(POD[version], PORT) for _ in range(6)]
        served = {}
        for client in clients[:5]:  # the last one is not accepted
            connection, _ = target.accept()
            connection.settimeout(target.gettimeout())
            served[client] = connection
        clients[0].shutdown(socket.SHUT_WR)
        assert served[clients[0]].recv(1) == b""  # CLOSE_WAIT
        served[clients[1]].shutdown(socket.SHUT_WR)
        assert clients[1].recv(1) == b""  # FIN_WAIT2
        served[clients[2]].shutdown(socket.SHUT_WR)
        assert clients[2].recv(1) == b""
        served[clients[2]].close()  # nobody has it any more
        served[clients[3]].send(b"unread")
        clients[4].send(b"unread")
        assert reset(pod) == 6
        for client in (clients[0], *clients[3:]):
            assert is_reset(client)
        for end in (*served.values(), *clients):
            end.close()


def test_other_connections_are_let_alone(networks: Networks) -> None:
    pod, outside = networks.pod, networks.outside
    with (
        pod.listen(4, PORT),
        pod.listen(4, PORT + 1) as other,
        outside.listen(4, PORT) as elsewhere,
        outside.connect(POD[4], PORT + 1) as to_other,
        pod.connect(OUTSIDE[4], PORT) as to_elsewhere,
        other.accept()[0] as served,
        elsewhere.accept()[0] as far,
        session(pod) as redirects,
        pod.listen(4) as listener,
    ):
        redirects.add(PORT, port_of(listener))
        with outside.connect(POD[4], PORT) as stolen, reaches(listener, stolen) as accepted:
            assert reset(pod) == 0
            accepted.send(b"still there")
            assert stolen.recv(16) == b"still there"
        served.send(b"still there")
        assert to_other.recv(16) == b"still there"
        to_elsewhere.send(b"still there")
        assert far.recv(16) == b"still there"


@versions
@pytest.mark.parametrize("dual", [False, True], ids=["own family", "dual stack"])
def test_what_sessions_pass_on_is_let_alone(networks: Networks, version: int, dual: bool) -> None:
    pod = networks.pod
    with (
        pod.listen(6 if dual else version, PORT, dual=dual) as target,
        session(pod, 1) as first,
        session(pod, 2) as second,
        pod.connect(POD[version], PORT, first.mark) as of_first,
        pod.connect(LOOPBACK[version], PORT, second.mark) as of_second,
        pod.connect(LOOPBACK[version], PORT) as of_nobody,
        pod.connect(LOOPBACK[version], PORT, 1337) as of_others,
    ):
        accepted = [target.accept()[0] for _ in range(4)]
        assert reset(pod) == 2
        assert is_reset(of_nobody)
        assert is_reset(of_others)
        for client, served in zip((of_first, of_second), accepted, strict=False):
            served.send(b"still there")
            assert client.recv(16) == b"still there"
        for served in accepted:
            served.close()


def test_many(networks: Networks) -> None:
    """More than one datagram of the kernel's lists."""
    pod, outside = networks.pod, networks.outside
    with pod.listen(4, PORT) as target:
        clients = [outside.connect(POD[4], PORT) for _ in range(100)]
        accepted = [target.accept()[0] for _ in clients]
        assert reset(pod) == len(clients)
        assert all(map(is_reset, clients))
        for end in (*clients, *accepted):
            end.close()


def test_a_connection_that_is_gone_by_then(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    pod, outside = networks.pod, networks.outside
    end = sock_diag.end_connection
    with pod.listen(4, PORT) as target, outside.connect(POD[4], PORT) as client:
        served, _ = target.accept()

        def end_late(connection: Connection) -> bytes:
            served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            served.close()
            return end(connection)

        monkeypatch.setattr(sock_diag, "end_connection", end_late)
        assert reset(pod) == 0
        assert is_reset(client)


def test_another_connection_of_the_same_addresses_is_let_alone(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod, outside = networks.pod, networks.outside
    end = sock_diag.end_connection
    later: list[socket.socket] = []
    with pod.listen(4, PORT) as target, outside.connect(POD[4], PORT) as client:
        served, _ = target.accept()

        def end_late(connection: Connection) -> bytes:
            name = client.getsockname()
            for each in (served, client):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.close()
            again = outside.open_socket(4)
            again.bind(name)
            again.connect((POD[4], PORT))
            later.extend([again, target.accept()[0]])
            return end(connection)

        monkeypatch.setattr(sock_diag, "end_connection", end_late)
        assert reset(pod) == 0
        later[1].send(b"still there")
        assert later[0].recv(16) == b"still there"
        for each in later:
            each.close()


WITHOUT_RIGHTS = """
from mirrord_agent.incoming import connections
try:
    connections.reset(80)
except OSError as error:
    print(error)
"""


def test_without_the_capability(networks: Networks) -> None:
    pod, outside = networks.pod, networks.outside
    with pod.listen(4, PORT) as target, outside.connect(POD[4], PORT) as client:
        said = pod.run(*as_user(reads_everything=True), sys.executable, "-c", WITHOUT_RIGHTS)
        host, port = client.getsockname()
        assert f"resetting the connection of {host}, port {port}, to port 80: Operation not permitted" in said
        assert "it needs CAP_NET_ADMIN" in said
        target.accept()[0].close()


@pytest.mark.parametrize("architecture", ABIS)
def test_constants_and_sizes_are_those_of_the_kernels_headers(architecture: str, tmp_path: Path) -> None:
    states = ["ESTABLISHED", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "CLOSE_WAIT", "LAST_ACK", "CLOSING"]
    claims = [
        f"SOCK_DIAG_BY_FAMILY == {sock_diag.BY_FAMILY}",
        f"SOCK_DESTROY == {sock_diag.DESTROY}",
        f"INET_DIAG_MARK == {sock_diag._MARK}",
        f"({' | '.join(f'1 << TCP_{state}' for state in states)}) == {sock_diag.CONNECTED}",
        f"sizeof(struct inet_diag_req_v2) == {len(sock_diag.list_connections(2, 0))}",
        f"sizeof(struct inet_diag_msg) == {sock_diag._ANSWER_BYTES}",
        f"sizeof(struct inet_diag_sockid) == {sock_diag._IDENTITY_BYTES}",
    ]
    check_in_c(architecture, HEADERS, claims, tmp_path)


@given(
    st.data(),
    st.sampled_from([4, 6]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.none() | st.integers(0, 2**32 - 1),
)
def test_rows(data: st.DataObject, version: int, local_port: int, remote_port: int, mark: int | None) -> None:
    local, remote = (data.draw(st.ip_addresses(v=version)) for _ in range(2))  # type: ignore[arg-type]
    cookie = data.draw(st.binary(min_size=12, max_size=12))
    identity = b"".join(
        [
            local_port.to_bytes(2, "big"),
            remote_port.to_bytes(2, "big"),
            local.packed.ljust(16, b"\0"),
            remote.packed.ljust(16, b"\0"),
            cookie,
        ]
    )
    marks = [] if mark is None else [Attribute(15, mark.to_bytes(4, sys.byteorder))]
    raw = bytes([FAMILIES[version], 1, 0, 0]) + identity + bytes(20) + encode_attributes([Attribute(8, b"\0"), *marks])
    found = sock_diag.decode_connection(Message(20, 0, 1, raw))
    mapped = [getattr(address, "ipv4_mapped", None) or address for address in (local, remote)]
    ends = (mapped[0], local_port), (mapped[1], remote_port)
    assert found == Connection(*ends, mark or 0, FAMILIES[version], identity)
    assert sock_diag.end_connection(found)[8:] == identity
    with pytest.raises(ValueError, match="cut short"):
        sock_diag.decode_connection(Message(20, 0, 1, raw[: data.draw(st.integers(0, 71))]))


def test_mapped_addresses_are_those_of_ipv4() -> None:
    raw = bytes([FAMILIES[6], 1, 0, 0, 0, 80, 1, 0]) + ip_address("::ffff:127.0.0.1").packed * 2 + bytes(32)
    found = sock_diag.decode_connection(Message(20, 0, 1, raw))
    assert found.local == (ip_address("127.0.0.1"), 80)
