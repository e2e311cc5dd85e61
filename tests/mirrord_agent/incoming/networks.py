"""Network namespaces of tests: a pod, and beside it a place for its clients, joined by a veth pair.

They are held by descriptors; the test's own thread goes into one to make a socket there, which then stays.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from mirrord_agent import libc
from mirrord_trace.targets import netlink
from mirrord_trace.targets.pod_init import CLONE_NEWNET, checked, configure_network, write
from mirrord_trace.targets.pod_init import libc as libc_of_pods
from tests.waiting import holds_within

POD = {4: "198.18.1.1", 6: "fd00:198:18:1::1"}
OUTSIDE = {4: "198.18.1.2", 6: "fd00:198:18:1::2"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
SHORT_S = 5.0
"""How long something may take that does not take long."""

_LINK = 10
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_SIOCGIFFLAGS, _IFF_RUNNING, _RTF_LOCAL = 0x8913, 0x40, 0x80000000
# Addresses are used at once.
_SYSCTLS = {"net/ipv6/conf/default/accept_dad": b"0", "net/ipv6/conf/all/accept_dad": b"0"}


@attrs.frozen
class Network:
    """A network namespace."""

    descriptor: int

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Moves the calling thread into it for a block."""
        own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            libc.setns(self.descriptor, CLONE_NEWNET)
            try:
                yield
            finally:
                libc.setns(own, CLONE_NEWNET)
        finally:
            os.close(own)

    def open_socket(self, version: int, kind: int = socket.SOCK_STREAM, mark: int = 0) -> socket.socket:
        """A socket in it, which waits for nothing long."""
        with self.entered():
            made = socket.socket(FAMILIES[version], kind)
        made.settimeout(SHORT_S)
        if mark:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        return made

    def listen(self, version: int, port: int = 0, host: str | None = None, *, dual: bool = False) -> socket.socket:
        """A TCP listener; without a `host` at the unspecified address, which is IPv4's as well if `dual`."""
        listener = self.open_socket(version)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        listener.bind((host or {4: "0.0.0.0", 6: "::"}[version], port))
        listener.listen()
        return listener

    def connect(self, host: str, port: int, mark: int = 0) -> socket.socket:
        """A TCP connection from here."""
        connection = self.open_socket(ipaddress.ip_address(host.partition("%")[0]).version, mark=mark)
        try:
            with self.entered():  # where interfaces have their numbers
                address = socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0][4]
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def run(self, *command: str, **options: Any) -> str:
        """What a command says here. Fails if it does."""
        if shutil.which(command[0]) is None:
            raise FileNotFoundError(f"there is no {command[0]}: install it with `.ci/system-packages tests`")
        with self.entered():
            result: subprocess.CompletedProcess[str] = subprocess.run(
                command, text=True, capture_output=True, timeout=60, **options
            )
        assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
        return result.stdout

    def start(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """A process here, with pipes for its standard input and output."""
        with self.entered():
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    def is_up(self, addresses: Sequence[str]) -> bool:
        """Whether its eth0 sends what it is given and these addresses are its own: some time after they were given."""
        with self.open_socket(4, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s16x", b"eth0"))
        (flags,) = struct.unpack_from("=H", answer, 16)
        return bool(flags & _IFF_RUNNING) and self._has_local([address for address in addresses if ":" in address])

    def _has_local(self, addresses: Sequence[str]) -> bool:
        """Whether IPv6 addresses are among the routes."""
        with self.entered():
            routes = [row.split() for row in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
        local = {route[0] for route in routes if int(route[8], 16) & _RTF_LOCAL}
        return {ipaddress.IPv6Address(address).packed.hex() for address in addresses} <= local

    def add_to_loopback(self, address: str) -> None:
        """One address more, on `lo`, which is usable at once."""
        with self.entered():
            _carry_out([netlink.add_address(netlink.LOOPBACK_INDEX, ipaddress.ip_interface(address))])
        assert holds_within(SHORT_S, lambda: ":" not in address or self._has_local([address.partition("/")[0]]))

    def link_local(self) -> str:
        """The address of its eth0 that is good on the link only, with `%eth0`. The kernel makes it soon."""
        found: list[str] = []

        def is_there() -> bool:
            rows = [row.split() for row in self.run("cat", "/proc/net/if_inet6").splitlines()]
            found.extend(row[0] for row in rows if row[3:] == ["20", "80", "eth0"])
            return bool(found)

        assert holds_within(SHORT_S, is_there)
        return f"{ipaddress.IPv6Address(bytes.fromhex(found[0]))}%eth0"

    def ruleset(self) -> str:
        """What nft(8) says is there."""
        return self.run("nft", "--numeric-priority", "list", "ruleset")


@contextmanager
def network() -> Iterator[Network]:
    """A fresh one, in which only `lo` is up. Needs root."""
    made: list[int | OSError] = []

    def make() -> None:
        # In a thread of its own, which ends with the namespace that it has moved to.
        try:
            checked("unshare; run the tests as root", libc_of_pods.unshare(CLONE_NEWNET))
            for path, value in _SYSCTLS.items():
                write(f"/proc/sys/{path}", value)
            _carry_out([netlink.link(netlink.LOOPBACK_INDEX, up=True)])
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (result,) = made
    if isinstance(result, OSError):
        raise result
    try:
        yield Network(result)
    finally:
        os.close(result)


@attrs.frozen
class Networks:
    """A pod's network and its clients'."""

    pod: Network
    outside: Network


@contextmanager
def pod_and_outside(versions: Sequence[int] = (4, 6)) -> Iterator[Networks]:
    """The two, with addresses of these versions of IP."""
    with ExitStack() as resources:
        pod, outside = (resources.enter_context(network()) for _ in range(2))
        with pod.entered():
            _carry_out([_veth_to(outside)])
        for each, addresses in ((pod, POD), (outside, OUTSIDE)):
            with each.entered():
                _carry_out([netlink.link(_LINK, up=True), *_addresses(addresses, versions)])
        for each, addresses in ((pod, POD), (outside, OUTSIDE)):
            local = [addresses[version] for version in versions]
            assert holds_within(SHORT_S, partial(each.is_up, local)), "the veth pair does not come up"
        yield Networks(pod, outside)


def _veth_to(other: Network) -> bytes:
    name = netlink.attribute(_IFLA_IFNAME, b"eth0\0")
    there = struct.pack("=BxHiII", 0, 0, _LINK, 0, 0) + name
    there += netlink.attribute(_IFLA_NET_NS_FD, struct.pack("=I", other.descriptor))
    pair = netlink.attribute(_IFLA_INFO_KIND, b"veth")
    pair += netlink.attribute(_IFLA_INFO_DATA, netlink.attribute(_VETH_INFO_PEER, there))
    return netlink.link(_LINK, up=True, attributes=name + netlink.attribute(_IFLA_LINKINFO, pair), create=True)


def _addresses(addresses: Mapping[int, str], versions: Sequence[int]) -> list[bytes]:
    lengths = {4: 24, 6: 64}
    texts = [f"{addresses[version]}/{lengths[version]}" for version in versions]
    return [netlink.add_address(_LINK, ipaddress.ip_interface(text)) for text in texts]


def _carry_out(requests: list[bytes]) -> None:
    configure_network([request.decode("latin-1") for request in requests])
