"""What tests of redirects share: sessions, where clients come from, and kernels that lack something."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from mirrord_agent.addresses import from_sockaddr, unmapped
from mirrord_agent.incoming.redirects import Lack, Redirects
from tests.mirrord_agent.incoming.networks import LOOPBACK, POD, Network, Networks

PORT = 80
KERNELS: dict[str, Sequence[Lack]] = {
    "as it is": (),
    "without owners": (Lack.OWNERS,),
    "without NAT for both families": (Lack.INET_NAT,),
    "without either": (Lack.OWNERS, Lack.INET_NAT),
}
kernels = pytest.mark.parametrize("lacking", KERNELS.values(), ids=KERNELS)
versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
Place = Callable[[Networks, int], tuple[Network, str]]
PLACES: dict[str, Place] = {
    "outside": lambda networks, version: (networks.outside, POD[version]),
    "pod": lambda networks, version: (networks.pod, POD[version]),
    "loopback": lambda networks, version: (networks.pod, LOOPBACK[version]),
}
places = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
"""From where a client comes, and to which address."""


@contextmanager
def session(pod: Network, order: int = 1, lacking: Sequence[Lack] = ()) -> Iterator[Redirects]:
    """A session in a pod."""
    with pod.entered():
        opened = Redirects.open(order, lacking=lacking)
    with opened:
        yield opened


def port_of(listener: socket.socket) -> int:
    """Its own."""
    port: int = listener.getsockname()[1]
    return port


def reaches(listener: socket.socket, client: socket.socket) -> socket.socket:
    """What a listener accepts, which must be this client's connection, and carry what either says."""
    accepted, peer = listener.accept()
    accepted.settimeout(listener.gettimeout())
    assert unmapped(from_sockaddr(peer)) == unmapped(from_sockaddr(client.getsockname()))
    for sender, receiver in ((client, accepted), (accepted, client)):
        sender.send(b"hello")
        assert receiver.recv(16) == b"hello"
    return accepted
