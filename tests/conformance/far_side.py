"""A second network namespace behind a veth pair, made from inside a sandbox pod; `tests.conformance.pods` has the map.

Arguments: a JSON list of argument lists, the programs to run there. Says "ready" on standard output once the pair is up
and each of the programs has written something.

The child moves to a new network namespace; the parent stays in the pod's and gives it one end of the pair. Neither
outlives the pod.
"""

from __future__ import annotations

import ctypes
import ipaddress
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mirrord_trace.targets import netlink
from mirrord_trace.targets.netlink import RouteKind

NEAR_ADDRESSES = ("198.18.1.1/24", "fd00:198:18:1::1/64")
FAR_ADDRESSES = ("198.18.1.2/24", "fd00:198:18:1::2/64")
BEHIND_FAR_SIDE = {2: RouteKind.UNREACHABLE, 3: RouteKind.BLACKHOLE, 4: RouteKind.PROHIBIT, 5: None}
IN_POD = {6: RouteKind.UNREACHABLE, 7: RouteKind.BLACKHOLE, 8: RouteKind.PROHIBIT}

NEAR_INDEX, FAR_INDEX = 10, 11
CLONE_NEWNET = 0x40000000
IFLA_IFNAME, IFLA_LINKINFO, IFLA_NET_NS_PID = 3, 18, 19
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
FAR_SYSCTLS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    # Tests want an ICMP message for every packet.
    "ipv4/icmp_ratelimit": "0",
    "ipv6/icmp/ratelimit": "0",
}


def networks(number: int) -> list[netlink.Network]:
    return [ipaddress.ip_network(f"198.18.{number}.0/24"), ipaddress.ip_network(f"fd00:198:18:{number}::/64")]


def carry_out(requests: list[bytes]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as connection:
        for request in requests:
            connection.send(request)
            (error,) = struct.unpack_from("=i", connection.recv(65536), 16)
            if error:
                raise OSError(-error, f"{os.strerror(-error)}: {request!r}")


def addresses(index: int, texts: tuple[str, ...]) -> list[bytes]:
    return [netlink.add_address(index, ipaddress.ip_interface(text)) for text in texts]


def dead_ends(kinds: Mapping[int, RouteKind | None]) -> list[bytes]:
    return [
        netlink.add_route(network, kind, index=netlink.LOOPBACK_INDEX if network.version == 6 else None)
        for number, kind in kinds.items()
        if kind is not None
        for network in networks(number)
    ]


def veth_pair(far_pid: int) -> bytes:
    """`veth0` here, `veth1` in the network namespace of a process."""
    far_name = netlink.attribute(IFLA_IFNAME, b"veth1\0")
    far_namespace = netlink.attribute(IFLA_NET_NS_PID, struct.pack("=I", far_pid))
    far = struct.pack("=BxHiII", 0, 0, FAR_INDEX, 0, 0) + far_name + far_namespace
    pair = netlink.attribute(IFLA_INFO_KIND, b"veth") + netlink.attribute(
        IFLA_INFO_DATA, netlink.attribute(VETH_INFO_PEER, far)
    )
    name = netlink.attribute(IFLA_IFNAME, b"veth0\0")
    return netlink.link(NEAR_INDEX, up=True, attributes=name + netlink.attribute(IFLA_LINKINFO, pair), create=True)


def be_far_side(programs: list[list[str]], moved: socket.socket) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    moved.send(b"x")
    if not moved.recv(1):
        raise OSError("the near side failed")
    links = [netlink.link(netlink.LOOPBACK_INDEX, up=True), netlink.link(FAR_INDEX, up=True)]
    carry_out([*links, *addresses(FAR_INDEX, FAR_ADDRESSES), *dead_ends(BEHIND_FAR_SIDE)])
    for name, value in FAR_SYSCTLS.items():
        Path("/proc/sys/net", name).write_text(value)
    running = [subprocess.Popen(program, stdout=subprocess.PIPE) for program in programs]
    for process in running:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise OSError(f"{process.args!r} ended before it was ready")
    os.write(1, b"ready\n")
    for process in running:
        process.wait()
    moved.recv(1)


def main() -> None:
    programs: list[list[str]] = json.loads(sys.argv[1])
    near, far = socket.socketpair()
    far_pid = os.fork()
    if far_pid == 0:
        near.close()
        be_far_side(programs, far)
        return
    far.close()
    if not near.recv(1):
        raise OSError("the far side failed")
    routes = [
        netlink.add_route(network, RouteKind.UNICAST, gateway=ipaddress.ip_interface(gateway).ip)
        for number in BEHIND_FAR_SIDE
        for network, gateway in zip(networks(number), FAR_ADDRESSES, strict=True)
    ]
    carry_out([veth_pair(far_pid), *addresses(NEAR_INDEX, NEAR_ADDRESSES)])
    near.send(b"x")
    carry_out([*routes, *dead_ends(IN_POD)])
    os.waitpid(far_pid, 0)


if __name__ == "__main__":
    main()
