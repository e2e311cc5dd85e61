"""TCP connections to a target's port that come to a listener of the agent; real ones, in namespaces of their own."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirrord_agent.incoming import guardian, nft, redirects, ruleset
from mirrord_agent.incoming.destinations import original_destination
from mirrord_agent.incoming.nft import Family, Hook, Request, Table
from mirrord_agent.incoming.redirects import Lack, Redirects
from mirrord_agent.wire.frames import AddressFamily, InetEndpoint
from mirrord_trace.supervisor.descent import children_of
from tests.mirrord_agent.incoming.networks import OUTSIDE, POD, Networks, pod_and_outside
from tests.mirrord_agent.incoming.sessions import (
    PLACES,
    PORT,
    Place,
    kernels,
    places,
    port_of,
    reaches,
    session,
    versions,
)

FAMILIES: tuple[AddressFamily, AddressFamily] = ("inet4", "inet6")


@kernels
@versions
@places
def test_connections_come_while_they_are_redirected(
    networks: Networks, version: int, place: Place, lacking: Sequence[Lack]
) -> None:
    pod = networks.pod
    client_network, host = place(networks, version)
    with pod.listen(version, PORT) as target, pod.listen(version) as listener:
        with session(pod, lacking=lacking) as redirects:
            with client_network.connect(host, PORT) as client:
                reaches(target, client).close()
            for _ in range(2):
                redirects.add(PORT, port_of(listener))
                with client_network.connect(host, PORT) as client, reaches(listener, client) as accepted:
                    assert client.getpeername()[:2] == (host, PORT)
                    assert original_destination(accepted) == InetEndpoint(host, PORT)
                redirects.remove(PORT)
                with client_network.connect(host, PORT) as client:
                    reaches(target, client).close()
            redirects.add(PORT, port_of(listener))
        assert pod.ruleset() == ""
        with client_network.connect(host, PORT) as client:
            reaches(target, client).close()


@kernels
@versions
@places
def test_one_version_of_ip(networks: Networks, version: int, place: Place, lacking: Sequence[Lack]) -> None:
    pod, families = networks.pod, FAMILIES if version == 4 else FAMILIES[::-1]
    with (
        pod.listen(6, PORT, dual=True) as target,
        pod.listen(6, dual=True) as first,
        pod.listen(6, dual=True) as second,
        session(pod, lacking=lacking) as redirects,
    ):

        def come_to(listener: socket.socket, other: socket.socket) -> None:
            for each, reached in ((version, listener), (10 - version, other)):
                client_network, host = place(networks, each)
                with client_network.connect(host, PORT) as client:
                    reaches(reached, client).close()

        redirects.add(PORT, port_of(first), "tcp", families[0])
        come_to(first, target)
        with pytest.raises(ValueError, match="already"):
            redirects.add(PORT, port_of(second))
        redirects.add(PORT, port_of(second), "tcp", families[1])
        come_to(first, second)
        redirects.remove(PORT, "tcp", families[0])
        come_to(target, second)


@versions
@places
def test_what_the_session_passes_on_reaches_the_target(networks: Networks, version: int, place: Place) -> None:
    pod = networks.pod
    _, host = place(networks, version)
    with pod.listen(version, PORT) as target, pod.listen(version) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        with pod.connect(host, PORT, redirects.mark) as onwards:
            reaches(target, onwards).close()


@kernels
def test_pods_with_ipv6_only(lacking: Sequence[Lack]) -> None:
    with (
        pod_and_outside([6]) as networks,
        networks.pod.listen(6, PORT),
        networks.pod.listen(6) as listener,
        session(networks.pod, lacking=lacking) as redirects,
    ):
        redirects.add(PORT, port_of(listener))
        for place in PLACES.values():
            client_network, host = place(networks, 6)
            with client_network.connect(host, PORT) as client:
                reaches(listener, client).close()


@pytest.mark.parametrize("lacking", [(Lack.INET_NAT, Lack.IPV6), (*Lack,)], ids=["owned", "guarded"])
def test_kernels_without_ipv6(networks: Networks, lacking: Sequence[Lack]) -> None:
    pod = networks.pod
    with (
        pod.listen(6, PORT, dual=True) as target,
        pod.listen(4) as listener,
        session(pod, lacking=lacking) as redirects,
    ):
        redirects.add(PORT, port_of(listener))
        assert "table ip mirrord-trace-1" in pod.ruleset()
        assert "table ip6" not in pod.ruleset()
        redirects.add(PORT + 1, port_of(listener), "tcp", "inet6")
        redirects.remove(PORT + 1, "tcp", "inet6")
        with networks.outside.connect(POD[4], PORT) as client:
            reaches(listener, client).close()
        with networks.outside.connect(POD[6], PORT) as client:
            reaches(target, client).close()


@versions
def test_what_the_pod_sends_elsewhere_is_let_alone(networks: Networks, version: int) -> None:
    pod, outside = networks.pod, networks.outside
    with outside.listen(version, PORT) as elsewhere, pod.listen(version) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        with pod.connect(OUTSIDE[version], PORT) as client:
            reaches(elsewhere, client).close()


@versions
def test_other_ports_are_let_alone(networks: Networks, version: int) -> None:
    pod = networks.pod
    with pod.listen(version, PORT + 1) as other, pod.listen(version) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        redirects.add(PORT + 1, port_of(listener), "udp")
        with networks.outside.connect(POD[version], PORT + 1) as client:
            reaches(other, client).close()


def test_ports_where_nobody_listens_can_be_had(networks: Networks) -> None:
    pod = networks.pod
    with pod.listen(4) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        with networks.outside.connect(POD[4], PORT) as client:
            reaches(listener, client).close()
        redirects.remove(PORT)
        with pytest.raises(ConnectionRefusedError):
            networks.outside.connect(POD[4], PORT)


def test_many_ports_of_one_listener(networks: Networks) -> None:
    pod = networks.pod
    with pod.listen(4) as listener, session(pod) as redirects:
        for port in range(1, 101):
            redirects.add(port, port_of(listener))
        for port in (1, 50, 100):
            with networks.outside.connect(POD[4], port) as client, reaches(listener, client) as accepted:
                assert original_destination(accepted) == InetEndpoint(POD[4], port)


@versions
@places
@pytest.mark.parametrize("speaks_first", ["client", "target"])
def test_connections_from_before_go_on(networks: Networks, version: int, place: Place, speaks_first: str) -> None:
    """Nobody has tracked them, so what comes next looks like the beginning of something."""
    pod = networks.pod
    client_network, host = place(networks, version)
    with (
        pod.listen(version, PORT) as target,
        pod.listen(version) as listener,
        client_network.connect(host, PORT) as client,
        reaches(target, client) as served,
    ):
        with session(pod) as redirects:
            redirects.add(PORT, port_of(listener))
            ends = (client, served) if speaks_first == "client" else (served, client)
            for sender, receiver in (ends, ends[::-1]) * 2:
                sender.send(b"still there")
                assert receiver.recv(16) == b"still there"
        client.send(b"and now")
        assert served.recv(16) == b"and now"


def test_connections_that_came_here_stay_when_their_port_does_not(networks: Networks) -> None:
    pod = networks.pod
    with pod.listen(4, PORT), pod.listen(4) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        with networks.outside.connect(POD[4], PORT) as client, reaches(listener, client) as accepted:
            redirects.remove(PORT)
            client.send(b"still there")
            assert accepted.recv(16) == b"still there"


@kernels
def test_what_a_session_does_not_do(networks: Networks, lacking: Sequence[Lack]) -> None:
    with session(networks.pod, lacking=lacking) as redirects:
        redirects.add(PORT, 4000)
        redirects.add(PORT, 4000, "udp")
        before = networks.pod.ruleset()
        with pytest.raises(ValueError, match="tcp port 80 is redirected already"):
            redirects.add(PORT, 4001)
        with pytest.raises(ValueError, match="another UDP port than 81 has listener port 4000"):
            redirects.add(PORT + 1, 4000, "udp")
        with pytest.raises(KeyError):
            redirects.remove(PORT + 1)
        assert networks.pod.ruleset() == before


@pytest.mark.parametrize("order", [0, 65536])
def test_numbers_of_sessions_are_limited(order: int) -> None:
    with pytest.raises(ValueError, match="1 to 65535"):
        Redirects.open(order)


def test_a_session_of_the_same_number_that_lives_is_not_disturbed(networks: Networks) -> None:
    with session(networks.pod) as first:
        first.add(PORT, 4000)
        before = networks.pod.ruleset()
        with networks.pod.entered(), pytest.raises(OSError, match="another agent that runs has this table"):
            Redirects.open(1)
        assert networks.pod.ruleset() == before


def test_a_table_that_somebody_removed(networks: Networks) -> None:
    with session(networks.pod, lacking=(Lack.OWNERS,)) as redirects:
        redirects.add(PORT + 1, 4001)
        networks.pod.run("nft", "flush", "ruleset")
        with pytest.raises(OSError, match=r"removing port 81 .* somebody has removed the table"):
            redirects.remove(PORT + 1)
        for port in (PORT, PORT + 1):
            with pytest.raises(OSError, match=rf"adding port {port} .* somebody has removed the table"):
                redirects.add(port, 4000)


def test_a_kernel_without_owners_is_found_out(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    """To one before Linux 5.12 the flag is as unknown as this one."""
    monkeypatch.setattr(nft, "_IS_OWNED", 0x4000_0000)
    children = children_of(os.getpid())
    with session(networks.pod):
        assert "table inet mirrord-trace-1" in networks.pod.ruleset()
        assert len(children_of(os.getpid())) == len(children) + 1
    assert children_of(os.getpid()) == children


def test_a_kernel_without_nat_for_both_families_is_found_out(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To one before Linux 5.2 the type of chain is as unknown as this one; to one before 5.8 the rule."""
    make = ruleset.make

    def make_for_one(table: Table, order: int, *, is_owned: bool) -> list[Request]:
        requests = make(table, order, is_owned=is_owned)
        if table.family is Family.INET:
            requests.append(nft.new_base_chain(table, "x", "none-such", Hook.OUTPUT, 0))
        return requests

    monkeypatch.setattr(ruleset, "make", make_for_one)
    with session(networks.pod):
        rules = networks.pod.ruleset()
        assert "table inet" not in rules
        for family in ("ip", "ip6"):
            assert f"table {family} mirrord-trace-1" in rules
        assert rules.count("flags owner") == 2


@pytest.mark.parametrize("lacking", [(), (Lack.OWNERS,)], ids=["owned", "guarded"])
def test_kernels_that_lack_more(networks: Networks, lacking: Sequence[Lack], monkeypatch: pytest.MonkeyPatch) -> None:
    """All ways are tried, the last is told of, and neither a table nor a guardian is left."""
    make = ruleset.make

    def make_more(table: Table, order: int, *, is_owned: bool) -> list[Request]:
        return [*make(table, order, is_owned=is_owned), nft.new_base_chain(table, "x", "none-such", Hook.OUTPUT, 0)]

    monkeypatch.setattr(ruleset, "make", make_more)
    children = children_of(os.getpid())
    words = "making the none-such chain x of the table ip mirrord-trace-1: No such file"
    with networks.pod.entered(), pytest.raises(OSError, match=words):
        Redirects.open(1, lacking=lacking)
    assert networks.pod.ruleset() == ""
    assert children_of(os.getpid()) == children


def test_a_guardian_that_is_stopped_holds_up_nobody(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = tmp_path / "guardian.py"
    stopped.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n")
    monkeypatch.setattr(guardian, "__file__", str(stopped))
    monkeypatch.setattr(redirects, "_START_S", 0.1)
    children = children_of(os.getpid())
    with networks.pod.entered(), pytest.raises(OSError, match="did not start"):
        Redirects.open(1, lacking=[Lack.OWNERS])
    assert networks.pod.ruleset() == ""
    assert children_of(os.getpid()) == children
