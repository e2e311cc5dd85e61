"""Beside a service mesh: rules as Istio's init container makes them, and a proxy that unseals what comes from outside.

The process of a session must get what the target would get, not what is on the wire; and what it does not want must
reach the target as it would have.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import trio

from mirrord_agent.wire.frames import Data
from tests.mirrord_agent.incoming.agents import agent_for, pod_with_process
from tests.mirrord_agent.incoming.mesh_proxy import INBOUND_PORT, turned_over
from tests.mirrord_agent.incoming.networks import LOOPBACK, POD, Network, Networks
from tests.mirrord_agent.incoming.sessions import PORT, port_of, session, versions
from tests.mirrord_agent.support import in_trio
from tests.rights import as_user

PROXY_USER = 1337
OUTBOUND_PORT = 15001
SOURCES = {4: "127.0.0.6/32", 6: "::6/128"}
LOCALHOSTS = {4: "127.0.0.1/32", 6: "::1/128"}
PROGRAMS = {
    "iptables-legacy": {4: "iptables-legacy", 6: "ip6tables-legacy"},
    "iptables-nft": {4: "iptables-nft", 6: "ip6tables-nft"},
}


def rules(version: int) -> list[str]:
    """What a sidecar of Istio's has in table nat, by hand: all inbound and outbound TCP goes through it."""
    proxy = f"-m owner --uid-owner {PROXY_USER}"
    others = f"-m owner ! --uid-owner {PROXY_USER}"
    return [
        "-N ISTIO_INBOUND",
        "-N ISTIO_REDIRECT",
        "-N ISTIO_IN_REDIRECT",
        "-N ISTIO_OUTPUT",
        f"-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}",
        f"-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {INBOUND_PORT}",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN",
        "-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN",
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        "-A OUTPUT -p tcp -j ISTIO_OUTPUT",
        f"-A ISTIO_OUTPUT -s {SOURCES[version]} -o lo -j RETURN",
        f"-A ISTIO_OUTPUT ! -d {LOCALHOSTS[version]} -o lo -p tcp ! --dport 15008 {proxy} -j ISTIO_IN_REDIRECT",
        f"-A ISTIO_OUTPUT -o lo {others} -j RETURN",
        f"-A ISTIO_OUTPUT {proxy} -j RETURN",
        f"-A ISTIO_OUTPUT -d {LOCALHOSTS[version]} -j RETURN",
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
    ]


@contextmanager
def mesh(pod: Network, programs: dict[int, str], style: str) -> Iterator[None]:
    """A mesh's rules and proxy in a pod."""
    for version, program in programs.items():
        for rule in rules(version):
            pod.run(program, "-t", "nat", "-w", *rule.split())
    pod.add_to_loopback(SOURCES[6])
    command = [sys.executable, "-m", "tests.mirrord_agent.incoming.mesh_proxy", style]
    with pod.start([*as_user(PROXY_USER, reads_everything=True), *command]) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            proxy.kill()


def speak(client: socket.socket, listener: socket.socket, *, sealed: bool) -> None:
    """A client's words come out at a listener, and the answer at the client."""
    change = turned_over if sealed else bytes
    accepted, _ = listener.accept()
    accepted.settimeout(listener.gettimeout())
    with accepted:
        client.send(change(b"question"))
        assert accepted.recv(16) == b"question"
        accepted.send(b"answer")
        assert change(client.recv(16)) == b"answer"


meshes = pytest.mark.parametrize("programs", PROGRAMS.values(), ids=PROGRAMS)
styles = pytest.mark.parametrize("style", ["loopback", "own-source"])


@meshes
@styles
@versions
def test_a_session_gets_what_the_target_would(
    networks: Networks, version: int, programs: dict[int, str], style: str
) -> None:
    pod, outside = networks.pod, networks.outside
    with mesh(pod, programs, style), pod.listen(version, PORT) as target, pod.listen(version) as listener:
        with outside.connect(POD[version], PORT) as client:
            speak(client, target, sealed=True)
        with session(pod) as redirects:
            redirects.add(PORT, port_of(listener))
            with outside.connect(POD[version], PORT) as client:
                speak(client, listener, sealed=True)
            for host in (POD[version], LOOPBACK[version]):
                with pod.connect(host, PORT) as client:
                    speak(client, listener, sealed=False)
                with pod.connect(host, PORT, redirects.mark) as onwards:
                    speak(onwards, target, sealed=False)
        with outside.connect(POD[version], PORT) as client:
            speak(client, target, sealed=True)


@meshes
def test_what_a_session_passes_on_passes_other_sessions(networks: Networks, programs: dict[int, str]) -> None:
    pod, outside = networks.pod, networks.outside
    with (
        mesh(pod, programs, "own-source"),
        pod.listen(4, PORT) as target,
        pod.listen(4) as of_first,
        pod.listen(4) as of_second,
        session(pod, 1) as first,
        session(pod, 2) as second,
    ):
        first.add(PORT, port_of(of_first))
        second.add(PORT, port_of(of_second))
        with outside.connect(POD[4], PORT) as client:
            speak(client, of_second, sealed=True)
        with pod.connect(POD[4], PORT, second.mark) as onwards:
            speak(onwards, of_first, sealed=False)
        with pod.connect(POD[4], PORT, first.mark) as onwards:
            speak(onwards, target, sealed=False)


@meshes
def test_ports_that_the_mesh_leaves_alone(networks: Networks, programs: dict[int, str]) -> None:
    pod = networks.pod
    with mesh(pod, programs, "loopback"), pod.listen(4, 15090), pod.listen(4) as listener, session(pod) as redirects:
        redirects.add(15090, port_of(listener))
        with networks.outside.connect(POD[4], 15090) as client:
            speak(client, listener, sealed=False)


@styles
@versions
@in_trio
async def test_what_the_target_gets_is_mirrored_and_not_what_its_proxy_gets(version: int, style: str) -> None:
    with pod_with_process() as pod, mesh(pod.inside, PROGRAMS["iptables-nft"], style):
        async with agent_for(pod.pid) as agent:
            with pod.inside.listen(version, PORT) as target, ExitStack() as clients:
                await agent.subscribe(mode="mirror")
                for number in (2, 4):
                    client = clients.enter_context(pod.outside.connect(POD[version], PORT))
                    await trio.to_thread.run_sync(partial(speak, client, target, sealed=True))
                    assert (await agent.arrived()).stream == number
                    assert await agent.receive_kind(Data) == Data(number, b"question")
