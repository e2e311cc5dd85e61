"""Sessions on one port of one target: the later one has what is sent there, and passes it on to the one before it."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Sequence
from contextlib import ExitStack

import pytest

from mirrord_agent.incoming.redirects import Lack, Redirects
from tests.mirrord_agent.incoming.datagrams import Server, asks, connected
from tests.mirrord_agent.incoming.networks import POD, Network, Networks
from tests.mirrord_agent.incoming.sessions import PORT, Place, kernels, places, port_of, reaches, session, versions

ORDERS = (1, 2, 300, 65535)
"""Of the sessions here."""


class Chain:
    """A target and sessions that have its port, with their listeners."""

    def __init__(self, resources: ExitStack, pod: Network, version: int) -> None:
        self._resources = resources
        self._pod = pod
        self._version = version
        self.target = resources.enter_context(pod.listen(version, PORT))
        self.sessions: dict[int, tuple[Redirects, socket.socket]] = {}

    def begin(self, order: int, lacking: Sequence[Lack] = ()) -> None:
        redirects = self._resources.enter_context(session(self._pod, order, lacking))
        listener = self._resources.enter_context(self._pod.listen(self._version))
        redirects.add(PORT, port_of(listener))
        self.sessions[order] = redirects, listener

    def end(self, order: int) -> None:
        self.sessions.pop(order)[0].close()

    def check(self, client_network: Network, host: str) -> None:
        """What a client sends passes all sessions, the latest first, and reaches the target."""
        network, mark = client_network, 0
        for _, (redirects, listener) in sorted(self.sessions.items(), reverse=True):
            with network.connect(host, PORT, mark) as client:
                reaches(listener, client).close()
            network, mark = self._pod, redirects.mark
        with network.connect(host, PORT, mark) as client:
            reaches(self.target, client).close()


@versions
@places
@pytest.mark.parametrize("began", [*itertools.permutations(ORDERS[:3]), ORDERS])
def test_each_passes_on_to_the_one_before(networks: Networks, version: int, place: Place, began: Sequence[int]) -> None:
    """Also if their tables were made in another order, and whoever is the first to go."""
    with ExitStack() as resources:
        chain = Chain(resources, networks.pod, version)
        for order in began:
            chain.begin(order)
            chain.check(*place(networks, version))
        for order in began:
            chain.end(order)
            chain.check(*place(networks, version))


@kernels
@places
def test_with_and_without_owners(networks: Networks, place: Place, lacking: Sequence[Lack]) -> None:
    with ExitStack() as resources:
        chain = Chain(resources, networks.pod, 4)
        for order, lacks in ((1, lacking), (2, ()), (3, lacking)):
            chain.begin(order, lacks)
        chain.check(*place(networks, 4))
        chain.end(2)
        chain.check(*place(networks, 4))


@versions
@places
@pytest.mark.parametrize("began", [(1, 2), (2, 1)])
def test_datagrams_are_passed_on_as_well(networks: Networks, version: int, place: Place, began: Sequence[int]) -> None:
    pod = networks.pod
    client_network, host = place(networks, version)
    with (
        Server(pod, version, PORT) as target,
        Server(pod, version) as first,
        Server(pod, version) as second,
        connected(client_network, host) as client,
        ExitStack() as resources,
    ):
        sessions = {order: resources.enter_context(session(pod, order)) for order in began}
        sessions[1].add(PORT, first.port, "udp")
        sessions[2].add(PORT, second.port, "udp")
        clients = [resources.enter_context(connected(pod, host, mark=sessions[order].mark)) for order in (1, 2)]
        asks(client, second, host)
        asks(clients[1], first, host)
        asks(clients[0], target, host)
        sessions[2].close()
        asks(client, first, host)
        asks(clients[1], first, host)
        sessions[1].close()
        for each in (client, *clients):
            asks(each, target, host)


def test_ports_of_their_own(networks: Networks) -> None:
    pod, outside = networks.pod, networks.outside
    with (
        session(pod, 1) as first,
        session(pod, 2) as second,
        pod.listen(4, PORT + 1) as target,
        pod.listen(4) as of_first,
        pod.listen(4) as of_second,
    ):
        first.add(PORT, port_of(of_first))
        second.add(PORT + 1, port_of(of_second))
        for listener, port in ((of_first, PORT), (of_second, PORT + 1)):
            with outside.connect(POD[4], port) as client:
                reaches(listener, client).close()
        second.remove(PORT + 1)
        for listener, port in ((of_first, PORT), (target, PORT + 1)):
            with outside.connect(POD[4], port) as client:
                reaches(listener, client).close()
