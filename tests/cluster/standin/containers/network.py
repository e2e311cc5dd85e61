"""The cluster's network: one namespace for the nodes, which routes, and one for each pod, joined to it by a veth pair.

It is flat as a cluster's is: every pod reaches every other by its address, of whatever node. Each pod has the whole
range on its link, and the nodes' namespace answers for the others (proxy ARP), so neither gateways nor a bridge are
needed. There is no default route, in no namespace. A network namespace is held by its descriptor, without a process.
"""

from __future__ import annotations

import ipaddress
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from mirrord_trace.targets import netlink
from mirrord_trace.targets.pod_init import configure_network, write

from . import kernel

RANGE = ipaddress.IPv4Network("198.18.0.0/15")
"""For benchmarks of networks (RFC 2544): nobody's on the internet."""
NODES_ADDRESS = ipaddress.IPv4Address("198.18.0.1")
NAME_SERVER = ipaddress.IPv4Address("198.18.0.10")

_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_POD_INDEX = 2
"""Of eth0 in a pod; 1 is `lo`."""
_NODES_SYSCTLS = {
    "conf/all/forwarding": b"1",
    "conf/all/proxy_arp": b"1",
    "conf/all/rp_filter": b"0",
    "conf/default/rp_filter": b"0",
}


@attrs.frozen
class PodNetwork:
    """A pod's place in the network."""

    address: ipaddress.IPv4Address
    index: int
    """Of the nodes' end of its link; more than 1, and nobody else's."""


def make_nodes_network() -> int:
    """A descriptor of a new network namespace for the nodes. Raises OSError."""
    made: list[int | OSError] = []

    def make() -> None:
        # In a thread of its own, which ends with the namespace that it has moved to.
        try:
            kernel.unshare(kernel.CLONE_NEWNET)
            for path, value in _NODES_SYSCTLS.items():
                write(f"/proc/sys/net/ipv4/{path}", value)
            own = [ipaddress.ip_interface(address) for address in (NODES_ADDRESS, NAME_SERVER)]
            _carry_out(netlink.loopback_with(list(own), []))
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    return result


@contextmanager
def within(network: int) -> Iterator[None]:
    """Moves the calling thread to a network namespace for a block, which must not await: sockets made there stay."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        kernel.setns(network, kernel.CLONE_NEWNET)
        try:
            yield
        finally:
            kernel.setns(own, kernel.CLONE_NEWNET)
    finally:
        os.close(own)


def join(pod: PodNetwork) -> None:
    """Moves this process from the nodes' network namespace to a new one, which has an eth0. Raises OSError."""
    nodes = os.open("/proc/self/ns/net", os.O_RDONLY)
    kernel.unshare(kernel.CLONE_NEWNET)
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    route = netlink.add_route(
        ipaddress.ip_network(pod.address), netlink.RouteKind.UNICAST, index=pod.index, source=NODES_ADDRESS
    )
    with within(nodes):
        _carry_out([_link_to(here, pod.index), route])
        # By default answers for others come after up to 0.8 s.
        write(f"/proc/sys/net/ipv4/neigh/veth{pod.index}/proxy_delay", b"0")
    address = ipaddress.ip_interface(f"{pod.address}/{RANGE.prefixlen}")
    up = [*netlink.loopback_with([], []), netlink.link(_POD_INDEX, up=True)]
    _carry_out([*up, netlink.add_address(_POD_INDEX, address)])
    os.close(nodes)
    os.close(here)


def _link_to(network: int, index: int) -> bytes:
    """A request for a veth pair whose far end is `eth0` of another network namespace, given by a descriptor."""
    far = struct.pack("=BxHiII", 0, 0, _POD_INDEX, 0, 0)
    far += netlink.attribute(_IFLA_IFNAME, b"eth0\0")
    far += netlink.attribute(_IFLA_NET_NS_FD, struct.pack("=I", network))
    pair = netlink.attribute(_IFLA_INFO_KIND, b"veth") + netlink.attribute(
        _IFLA_INFO_DATA, netlink.attribute(_VETH_INFO_PEER, far)
    )
    name = netlink.attribute(_IFLA_IFNAME, b"veth%d\0" % index)
    return netlink.link(index, up=True, attributes=name + netlink.attribute(_IFLA_LINKINFO, pair), create=True)


def _carry_out(requests: list[bytes]) -> None:
    configure_network([request.decode("latin-1") for request in requests])
