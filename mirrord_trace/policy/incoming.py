"""Which ports the process serves in the target's place, and how: pure decisions on the addresses that it binds.

A port is the target's when somebody there can know its number beforehand; so port 0, for which the kernel chooses one,
stays this machine's, and so do multicast and broadcast addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, mapped_ipv4, to_mapped

Protocol = Literal["tcp", "udp"]
Mode = Literal["mirror", "steal"]
Family = Literal["inet4", "inet6"]


@attrs.frozen
class Wanted:
    """What is to be asked of the agent for a socket of the process."""

    port: int
    """The target's."""
    mode: Mode
    http_filter: str | None = None
    """Only requests that this describes; None: everything."""


@attrs.frozen(kw_only=True)
class IncomingPolicy:
    """What the configuration says about incoming traffic."""

    mode: Mode | None = "mirror"
    """None: all ports are this machine's."""
    ports: frozenset[int] | None = None
    """Only these; None: all. Here and in `ignore_ports` a port counts by its number at the target or in the process."""
    ignore_ports: frozenset[int] = frozenset()
    ignore_localhost: bool = False
    """Whether sockets on loopback addresses are this machine's."""
    port_mapping: Mapping[int, int] = attrs.field(factory=dict)
    """The target's port for the process's, where they differ."""
    listen_ports: Mapping[int, int] = attrs.field(factory=dict)
    """This machine's port for the one that the process asks for."""
    http_filter: str | None = None
    """What HTTP requests are the process's, as `frames.Subscribe` takes it."""
    filter_ports: frozenset[int] | None = None
    """Where the filter applies; None: everywhere."""

    def wanted(self, protocol: Protocol, asked: Inet4 | Inet6) -> Wanted | None:
        """What a socket that the process binds to `asked` is to get from the target; None: nothing.

        Who filters wants no more than the filter lets through: a port where it does not apply, and every UDP port, is
        the process's only if `ports` names it.
        """
        plain = mapped_ipv4(asked) or asked
        remote = self.port_mapping.get(plain.port, plain.port)
        numbers = {plain.port, remote}
        if self.mode is None or not plain.port or not _can_be_served(plain):
            return None
        if self.ignore_localhost and plain.host.is_loopback:
            return None
        if numbers & self.ignore_ports or (self.ports is not None and not numbers & self.ports):
            return None
        if self.http_filter is None:
            return Wanted(remote, self.mode)
        if protocol == "tcp" and (self.filter_ports is None or numbers & self.filter_ports):
            return Wanted(remote, self.mode, self.http_filter)
        return Wanted(remote, self.mode) if self.ports is not None else None

    def port_here(self, asked: int) -> int:
        """The port of this machine that the process gets for one that it asks for, if that can be had."""
        return self.listen_ports.get(asked, asked)


def _can_be_served(address: Inet4 | Inet6) -> bool:
    return not address.host.is_multicast and int(address.host) != 0xFFFF_FFFF


def unspecified_like(address: Inet4 | Inet6) -> Inet4 | Inet6:
    """The same port of all addresses of a machine, in the family that `address` is of."""
    if isinstance(address, Inet4):
        return Inet4(IPv4Address(0), address.port)
    anywhere = Inet4(IPv4Address(0), address.port)
    return Inet6(IPv6Address(0), address.port) if mapped_ipv4(address) is None else to_mapped(anywhere)


@attrs.frozen
class Claim:
    """An address that a socket wants."""

    address: Inet4 | Inet6
    is_dual: bool = False
    """Whether it is a socket of IPv6 that hears IPv4 as well: not IPV6_V6ONLY (ipv6(7))."""


def families(claim: Claim) -> frozenset[Family]:
    """By which versions of IP a socket's clients may come."""
    plain = mapped_ipv4(claim.address) or claim.address
    if isinstance(plain, Inet4):
        return frozenset(["inet4"])
    return frozenset(["inet4", "inet6"] if claim.is_dual and plain.host.is_unspecified else ["inet6"])


def overlap(first: Claim, second: Claim) -> bool:
    """Whether two sockets cannot have both unless they agree to share (bind(2), EADDRINUSE)."""
    one, other = (mapped_ipv4(claim.address) or claim.address for claim in (first, second))
    if one.port != other.port:
        return False
    if type(one) is type(other):
        return one.host == other.host or one.host.is_unspecified or other.host.is_unspecified
    wide = first if isinstance(one, Inet6) else second
    return wide.is_dual and wide.address.host.is_unspecified
