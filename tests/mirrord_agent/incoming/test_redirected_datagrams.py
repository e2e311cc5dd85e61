"""Datagrams to a target's UDP port that come to a listener of the agent's, and its answers."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import sys
from collections.abc import Sequence

import pytest

from mirrord_agent.incoming.redirects import Lack
from tests.mirrord_agent.incoming.datagrams import Server, asks, connected
from tests.mirrord_agent.incoming.networks import OUTSIDE, POD, Network, Networks
from tests.mirrord_agent.incoming.sessions import PORT, Place, kernels, places, session, versions

_SO_NO_CHECK = 11
_SIOCETHTOOL, _ETHTOOL_SRXCSUM, _ETHTOOL_STXCSUM = 0x8946, 0x15, 0x17


@kernels
@versions
@places
@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_datagrams_of_one_client_come_while_they_are_redirected(
    networks: Networks, version: int, place: Place, lacking: Sequence[Lack], tracked: bool
) -> None:
    """The very next one, whether or not somebody in the pod has the kernel track flows."""
    pod = networks.pod
    client_network, host = place(networks, version)
    if tracked:
        track(pod)
    with (
        Server(pod, version, PORT) as target,
        Server(pod, version) as listener,
        connected(client_network, host) as client,
    ):
        asks(client, target, host)
        with session(pod, lacking=lacking) as redirects:
            asks(client, target, host)
            for _ in range(2):
                redirects.add(PORT, listener.port, "udp")
                asks(client, listener, host)
                redirects.remove(PORT, "udp")
                asks(client, target, host)
            redirects.add(PORT, listener.port, "udp")
            asks(client, listener, host)
        asks(client, target, host)


def track(pod: Network) -> None:
    """Has the kernel track the pod's flows, and translate what it is told to, for as long as the pod lives."""
    pod.run(
        "nft",
        "-f",
        "-",
        input="""
        table inet others {
            chain prerouting { type nat hook prerouting priority dstnat; tcp dport 1 redirect to :2; }
            chain output { type nat hook output priority -100; ct state invalid drop; tcp dport 1 redirect to :2; }
        }
    """,
    )


@versions
@places
def test_what_the_session_passes_on_reaches_the_target(networks: Networks, version: int, place: Place) -> None:
    pod = networks.pod
    _, host = place(networks, version)
    with Server(pod, version, PORT) as target, Server(pod, version) as listener, session(pod) as redirects:
        redirects.add(PORT, listener.port, "udp")
        with connected(pod, host, mark=redirects.mark) as onwards:
            asks(onwards, target, host)


@versions
@pytest.mark.parametrize("size", [0, 1, 1400, 4000, 60000])
def test_datagrams_of_any_size(networks: Networks, version: int, size: int) -> None:
    """Large ones are fragments on the link; their checksums are right at either end, or the kernel would drop them."""
    pod = networks.pod
    with (
        Server(pod, version) as listener,
        session(pod) as redirects,
        connected(networks.outside, POD[version]) as client,
    ):
        redirects.add(PORT, listener.port, "udp")
        asks(client, listener, POD[version], b"q" * size, b"a" * size)


@places
@pytest.mark.parametrize("size", [10, 4000])
def test_datagrams_without_a_checksum(networks: Networks, place: Place, size: int) -> None:
    pod = networks.pod
    client_network, host = place(networks, 4)
    with Server(pod, 4) as listener, session(pod) as redirects, connected(client_network, host) as client:
        redirects.add(PORT, listener.port, "udp")
        for each in (client, listener.socket):
            each.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        asks(client, listener, host, bytes(size), bytes(size))


@versions
def test_checksums_where_no_device_takes_care_of_them(networks: Networks, version: int) -> None:
    pod, outside = networks.pod, networks.outside
    for each in (pod, outside):
        compute_checksums(each)
    with Server(pod, version) as listener, session(pod) as redirects, connected(outside, POD[version]) as client:
        redirects.add(PORT, listener.port, "udp")
        asks(client, listener, POD[version])
        asks(client, listener, POD[version], b"q" * 4001, b"a" * 4001)


@versions
def test_what_the_pod_sends_elsewhere_is_let_alone(networks: Networks, version: int) -> None:
    pod = networks.pod
    with (
        Server(networks.outside, version, PORT) as elsewhere,
        Server(pod, version) as listener,
        session(pod) as redirects,
    ):
        redirects.add(PORT, listener.port, "udp")
        with connected(pod, OUTSIDE[version]) as client:
            asks(client, elsewhere, OUTSIDE[version])


@versions
def test_tcp_and_other_ports_are_let_alone(networks: Networks, version: int) -> None:
    pod = networks.pod
    with Server(pod, version, PORT + 1) as other, Server(pod, version) as listener, session(pod) as redirects:
        redirects.add(PORT, listener.port, "udp")
        with connected(networks.outside, POD[version], PORT + 1) as client:
            asks(client, other, POD[version])
        with pytest.raises(ConnectionRefusedError):
            networks.outside.connect(POD[version], PORT)


def compute_checksums(network: Network) -> None:
    """Has the kernel compute and check checksums of what goes over eth0, which a device might do."""
    with network.open_socket(4, socket.SOCK_DGRAM) as any_socket:
        for command in (_ETHTOOL_SRXCSUM, _ETHTOOL_STXCSUM):
            value = ctypes.create_string_buffer(struct.pack("=II", command, 0), 8)
            fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", b"eth0", ctypes.addressof(value)))


HOLDER = """
import sys
from mirrord_agent.incoming.redirects import Lack, Redirects
redirects = Redirects.open(1, lacking=[Lack[name] for name in sys.argv[2:]])
redirects.add(80, int(sys.argv[1]), "udp")
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
@versions
def test_kill_9_gives_a_client_back_at_once(networks: Networks, version: int, tracked: bool) -> None:
    """It need not stop sending first."""
    pod = networks.pod
    if tracked:
        track(pod)
    with (
        Server(pod, version, PORT) as target,
        Server(pod, version) as listener,
        connected(networks.outside, POD[version]) as client,
    ):
        asks(client, target, POD[version])
        with pod.start([sys.executable, "-c", HOLDER, str(listener.port)]) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n"
            asks(client, listener, POD[version])
            holder.kill()
        asks(client, target, POD[version])
