import errno
import os
import socket
import struct
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.abi import ABIS
from mirrord_syscalls.sock_diag import (
    NETLINK_SOCK_DIAG,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_SENT,
    EndOfAnswers,
    Protocol,
    SocketRow,
    decode_answers,
    dump_request,
    lookup_request,
)
from mirrord_syscalls.sockaddr import Inet4, Inet6
from tests.mirrord_syscalls.compiler import check_in_c

LISTEN, ESTABLISHED = 10, 1
LOOPBACK: dict[int, str] = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
families = pytest.mark.parametrize("family", LOOPBACK, ids=["ipv4", "ipv6"])


def datagrams_of_dump(request: bytes) -> list[bytes]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(request)
        datagrams = [kernel.recv(1 << 16)]
        while not any(isinstance(answer, EndOfAnswers) for answer in decode_answers(datagrams[-1])):
            datagrams.append(kernel.recv(1 << 16))
    return datagrams


def rows_of_dump(request: bytes) -> list[SocketRow]:
    answers = [answer for datagram in datagrams_of_dump(request) for answer in decode_answers(datagram)]
    assert answers.pop() == EndOfAnswers(0)
    return [answer for answer in answers if isinstance(answer, SocketRow)]


def look_up(protocol: Protocol, local: Inet4 | Inet6, remote: Inet4 | Inet6) -> SocketRow | EndOfAnswers:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(lookup_request(protocol, local, remote))
        return next(decode_answers(kernel.recv(1 << 16)))


def address(name: tuple[str, int]) -> Inet4 | Inet6:
    host, port = ip_address(name[0]), name[1]
    return Inet4(host, port) if isinstance(host, IPv4Address) else Inet6(host, port)


def own_name(endpoint: socket.socket) -> Inet4 | Inet6:
    return address(endpoint.getsockname()[:2])


def inode(endpoint: socket.socket) -> int:
    return os.fstat(endpoint.fileno()).st_ino


@families
def test_a_listening_socket_is_found_by_its_port(family: int) -> None:
    with socket.create_server((LOOPBACK[family], 0), family=family) as listener:
        local = own_name(listener)
        rows = rows_of_dump(dump_request("tcp", family, TCP_LISTEN, local_port=local.port))
        nobody = address(("0.0.0.0" if family == socket.AF_INET else "::", 0))
        only = family == socket.AF_INET6  # create_server makes it so
        assert rows == [SocketRow(LISTEN, local, nobody, inode(listener), is_ipv6_only=only)]
        assert rows_of_dump(dump_request("tcp", family, TCP_SYN_SENT, local_port=local.port)) == []


@pytest.mark.parametrize("only", [False, True])
@pytest.mark.parametrize(("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)])
def test_a_socket_that_waits_says_whether_it_takes_ipv4_too(protocol: Protocol, kind: int, only: bool) -> None:
    with socket.socket(socket.AF_INET6, kind) as waiting:
        waiting.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        waiting.bind(("::", 0))
        if protocol == "tcp":
            waiting.listen()
        rows = rows_of_dump(dump_request(protocol, socket.AF_INET6, local_port=own_name(waiting).port))
        assert [(row.inode, row.is_ipv6_only) for row in rows] == [(inode(waiting), only)]


@families
def test_a_tcp_connection_is_found_by_its_addresses_and_by_its_far_port(family: int) -> None:
    with (
        socket.create_server((LOOPBACK[family], 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        local, remote = own_name(client), own_name(listener)
        row = SocketRow(ESTABLISHED, local, remote, inode(client))
        assert look_up("tcp", local, remote) == row
        assert rows_of_dump(dump_request("tcp", family, TCP_ESTABLISHED, remote_port=remote.port)) == [row]
        server, _ = listener.accept()
        with server:
            assert look_up("tcp", remote, local) == SocketRow(ESTABLISHED, remote, local, inode(server))


@families
def test_a_connected_udp_socket_is_found_by_its_addresses(family: int) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as left,
        socket.socket(family, socket.SOCK_DGRAM) as right,
    ):
        left.bind((LOOPBACK[family], 0))
        right.connect(left.getsockname())
        left.connect(right.getsockname())
        for mine, other in ((left, right), (right, left)):
            found = look_up("udp", own_name(mine), own_name(other))
            assert found == SocketRow(ESTABLISHED, own_name(mine), own_name(other), inode(mine))


@families
def test_a_socket_that_does_not_exist_is_an_error(family: int) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as bound:  # bound, not connected: nobody else has this port
        bound.bind((LOOPBACK[family], 0))
        found = look_up("tcp", own_name(bound), address((LOOPBACK[family], 1)))
    assert found == EndOfAnswers(errno.ENOENT)


@given(st.data())
def test_an_answer_that_is_cut_is_refused(data: st.DataObject) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        request = dump_request("tcp", socket.AF_INET, TCP_LISTEN, local_port=listener.getsockname()[1])
        raw = datagrams_of_dump(request)[0]
    length = data.draw(st.integers(1, int.from_bytes(raw[:4], "little") - 1))
    with pytest.raises(ValueError, match=r"cut short|no netlink message"):
        list(decode_answers(raw[:length]))


@given(st.lists(st.tuples(st.sampled_from([2, 3, 20, 21]), st.binary(max_size=100), st.integers(-20, 4))))
def test_any_bytes_are_answers_or_an_error(messages: list[tuple[int, bytes, int]]) -> None:
    raw = b""
    for kind, body, error in messages:
        raw += struct.pack("<IHHII", max(16 + len(body) + error, 0), kind, 0, 1, 0) + body
    try:
        answers = list(decode_answers(raw))
    except ValueError:
        return
    assert len(answers) <= len(raw) // 16


@pytest.mark.parametrize("architecture", ABIS)
def test_constants_and_sizes_are_those_of_the_kernel_headers(architecture: str, tmp_path: Path) -> None:
    claims = [
        f"NETLINK_SOCK_DIAG == {NETLINK_SOCK_DIAG}",
        f"1 << TCP_ESTABLISHED == {TCP_ESTABLISHED}",
        f"1 << TCP_SYN_SENT == {TCP_SYN_SENT}",
        f"1 << TCP_LISTEN == {TCP_LISTEN}",
        f"sizeof(struct nlmsghdr) + sizeof(struct inet_diag_req_v2) == {len(dump_request('tcp', 2))}",
    ]
    headers = ["netinet/tcp.h", "linux/netlink.h", "linux/sock_diag.h", "linux/inet_diag.h"]
    check_in_c(architecture, headers, claims, tmp_path)
