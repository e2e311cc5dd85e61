"""The sessions on one target: their order, and who steals which port.

Agents know nothing of each other but what abstract Unix sockets tell (unix(7)): their names belong to the target's
network namespace, and the kernel removes a name with the process that has it, however that ends. So what a session
claims is a name, which everybody reads in /proc/net/unix. Nobody has to be asked, and one that is stopped is in
nobody's way.

    mirrord-trace/incoming/ORDER       a session
    mirrord-trace/incoming/ORDER/PROTOCOL/PORT/all|some/LISTENER/OWNER
                                       a port that it steals, all of it or what a filter takes, and where it comes to;
                                       PROTOCOL is tcp or udp or, for one version of IP only, tcp4, tcp6, udp4 or udp6
    mirrord-trace/incoming/choosing    whoever is just about to take one of these

A session that came later stands before the others (`ruleset`). What it takes whole never reaches those behind it; so of
two on one port the one in front has to have a filter.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self, get_args

import attrs
import trio

from mirrord_agent.incoming import families
from mirrord_agent.incoming.ruleset import LAST_ORDER, Protocol
from mirrord_agent.wire.frames import AddressFamily

_PREFIX: Final = "mirrord-trace/incoming/"
_CHOOSING: Final = "choosing"
_LONGEST_NAME: Final = 107
"""Of struct sockaddr_un without the NUL in front, in bytes."""
#: How long others may take to choose, which they do at once; longer is one that was stopped in the middle.
_PATIENCE_S: Final = 5.0
_PAUSE_S: Final = 0.01
_SUFFIXES: Final[dict[AddressFamily | None, str]] = {None: "", "inet4": "4", "inet6": "6"}
"""By which a name tells the version of IP."""
_PROTOCOLS: Final[dict[str, tuple[Protocol, AddressFamily | None]]] = {
    protocol + suffix: (protocol, family) for protocol in get_args(Protocol) for family, suffix in _SUFFIXES.items()
}


@attrs.frozen
class Claim:
    """What a session steals of a port."""

    order: int
    protocol: Protocol
    port: int
    is_filtered: bool
    listener_port: int
    """To which the port is redirected."""
    owner: str
    """Who runs the session, in words for people."""
    family: AddressFamily | None = None
    """None: both."""

    @property
    def name(self) -> str:
        """That of its socket, behind the prefix; as much of the owner as fits."""
        extent = "some" if self.is_filtered else "all"
        protocol = self.protocol + _SUFFIXES[self.family]
        return f"{self.order}/{protocol}/{self.port}/{extent}/{self.listener_port}/{self.owner}"

    def excludes(self, other: Claim) -> bool:
        """Whether one of the two would get nothing of what it wants, as they stand."""
        in_front = max(self, other, key=lambda claim: claim.order)
        is_same = (self.protocol, self.port) == (other.protocol, other.port)
        return is_same and families.overlap(self.family, other.family) and not in_front.is_filtered


def parse_claim(name: str) -> Claim | None:
    """What a name claims; None if it is another."""
    match name.split("/", 5):
        case [order, name_of_protocol, port, ("all" | "some") as extent, listener_port, owner]:
            if name_of_protocol in _PROTOCOLS and all(map(_is_number, (order, port, listener_port))):
                protocol, family = _PROTOCOLS[name_of_protocol]
                return Claim(int(order), protocol, int(port), extent == "some", int(listener_port), owner, family)
    return None


def _is_number(text: str) -> bool:
    """Of a session or a port."""
    return text.isdecimal() and text.isascii() and 1 <= int(text) <= LAST_ORDER


def claims() -> Iterator[Claim]:
    """What sessions steal on the target whose network namespace this thread is in. Raises OSError."""
    return filter(None, map(parse_claim, _names()))


class Membership:
    """A session's place among those on its target, in the network namespace of this thread."""

    def __init__(self, order: int, place: socket.socket) -> None:
        self.order = order
        self._place = place

    @classmethod
    async def join(cls) -> Self:
        """Takes the place behind those that are there. Raises OSError."""
        with await _choosing():
            order = 1 + max((int(name) for name in _names() if _is_number(name)), default=0)
            if order > LAST_ORDER:
                raise OSError(errno.ENOSPC, f"there have been {LAST_ORDER} sessions on this target without a pause")
            return cls(order, _bind(str(order)))

    async def claim(
        self,
        protocol: Protocol,
        port: int,
        listener_port: int,
        owner: str,
        *,
        filtered: bool,
        family: AddressFamily | None = None,
    ) -> socket.socket:
        """Claims a port, until the result is closed. Raises OSError: EADDRINUSE if a session has it already."""
        claim = Claim(self.order, protocol, port, filtered, listener_port, _printable(owner), family)
        with await _choosing():
            for other in claims():
                if other.order != self.order and claim.excludes(other):
                    raise OSError(errno.EADDRINUSE, _conflict(claim, other))
            return _bind(claim.name)

    def close(self) -> None:
        """Leaves."""
        self._place.close()


def _conflict(claim: Claim, other: Claim) -> str:
    how = "with a filter" if other.is_filtered else "without a filter"
    advice = "end this session and start it anew, or mirror" if claim.is_filtered else "steal with a filter, or mirror"
    return f"{other.owner or 'another session'} steals {claim.protocol} port {claim.port} {how}; {advice}"


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


async def _choosing() -> socket.socket:
    """What keeps others from choosing, until it is closed. Raises OSError."""
    with trio.move_on_after(_PATIENCE_S):
        while True:
            try:
                return _bind(_CHOOSING)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await trio.sleep(_PAUSE_S)
    raise OSError(
        errno.EBUSY,
        "another session has been choosing its ports for long: its agent is stopped, or some process of the target's "
        f"has taken the name @{_PREFIX}{_CHOOSING}",
    )


def _bind(name: str) -> socket.socket:
    """A socket of this name, to which nothing can be sent."""
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(b"\0" + (_PREFIX + name).encode()[:_LONGEST_NAME])
    except BaseException:
        bound.close()
        raise
    return bound


def _names() -> Iterator[str]:
    """What sessions have, behind the prefix."""
    start = f"@{_PREFIX}".encode()
    for line in Path("/proc/thread-self/net/unix").read_bytes().split(b"\n"):
        path = b"".join(line.split(None, 7)[7:])
        if path.startswith(start):
            yield path.removeprefix(start).decode(errors="replace")
