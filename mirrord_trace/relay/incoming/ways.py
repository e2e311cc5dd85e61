"""How a listener of the process is reached from this machine. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import attrs

from mirrord_agent.wire.frames import AddressFamily
from mirrord_syscalls.sockaddr import Inet4, Inet6, mapped_ipv4
from mirrord_trace.policy.incoming import Claim, families
from mirrord_trace.sockets_here import LOOPBACK4, LOOPBACK6


@attrs.frozen
class Listening:
    """A socket of the process that listens, or is about to."""

    inode: int
    here: Inet4 | Inet6
    """Its true address."""
    asked: Inet4 | Inet6
    """What the process has asked for."""
    is_ipv6_only: bool = False

    @property
    def families(self) -> frozenset[AddressFamily]:
        """By which versions of IP clients may come that `ways` has a way for."""
        if self.asked.host == LOOPBACK6:
            return frozenset(["inet4", "inet6"])
        return families(Claim(self.asked, not self.is_ipv6_only))


@attrs.frozen
class Way:
    """Where to connect to, so that a listener gets the connection."""

    to: Inet4 | Inet6
    listening: Listening


def ways(listeners: Iterable[Listening], client: Inet4 | Inet6, local: Inet4 | Inet6) -> list[Way]:
    """The ways to those that hear this client and can show it to the process. The best comes first.

    `local` is the address of the target that the client has connected to; both are plain. In the pod a socket on a
    loopback address hears nobody from outside; so one on ::1 is no worse for IPv4 than one on 127.0.0.1. But a socket
    of IPv4 cannot name a client of IPv6.
    """
    candidates = [
        (rank, Way(to, listening))
        for listening in listeners
        if _hears(listening, local)
        for rank, to in enumerate(_addresses(listening, client))
    ]
    return [way for _, way in sorted(candidates, key=lambda candidate: candidate[0])]


def only(families: Collection[AddressFamily]) -> AddressFamily | None:
    """How these versions of IP, one or both, are asked for."""
    (family, *others) = families
    return None if others else family


def _hears(listening: Listening, local: Inet4 | Inet6) -> bool:
    """Whether what comes to an address of the target is for it: one that asked for another address hears nothing of it.

    Only who asked for an address of the target is bound to another here than it asked for, namely to all.
    """
    asked, here = (mapped_ipv4(address) or address for address in (listening.asked, listening.here))
    return asked.host in (here.host, local.host)


def _addresses(listening: Listening, client: Inet4 | Inet6) -> Iterator[Inet4 | Inet6]:
    bound = mapped_ipv4(listening.here) or listening.here
    if isinstance(bound, Inet4) and isinstance(client, Inet6):
        return
    if not bound.host.is_unspecified:
        yield bound
    elif isinstance(bound, Inet4):
        yield Inet4(LOOPBACK4, bound.port)
    elif isinstance(client, Inet6):
        yield Inet6(LOOPBACK6, bound.port)
        if not listening.is_ipv6_only:  # where this machine has no ::1
            yield Inet4(LOOPBACK4, bound.port)
    elif not listening.is_ipv6_only:
        yield Inet4(LOOPBACK4, bound.port)
