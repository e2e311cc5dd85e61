"""What a passive capture tells about connections and datagrams to the target's ports.

A connection is `Opened` first; `Data` follow and one ending: `Eof`, `Reset` or `Cut`. Behind `Eof` there may still be a
`Reset`; behind the others there is nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import attrs

from mirrord_agent.wire.frames import InetEndpoint


@attrs.frozen
class Opened:
    """A client has connected, and its first acknowledgment shows that the target's kernel has accepted it."""

    connection: int
    """Counts from 1, never the same twice."""
    client: InetEndpoint
    local: InetEndpoint
    """What the client connected to."""


class Data(NamedTuple):
    """The next bytes from the client. A tuple, which is made quickest: there is one for nearly every packet."""

    connection: int
    payload: bytes


@attrs.frozen
class Eof:
    """The client sends no more; it may still receive."""

    connection: int


@attrs.frozen
class Reset:
    """The connection was broken, by the client or by the target."""

    connection: int
    by_target: bool


@attrs.frozen
class Cut:
    """The connection goes on, but what is seen of it here does not suffice any more."""

    connection: int
    reason: str
    """For the user, as the rest of a sentence behind a colon."""


@attrs.frozen
class Datagram:
    """A UDP datagram to a port of the target."""

    client: InetEndpoint
    local: InetEndpoint
    payload: bytes


Event = Opened | Data | Eof | Reset | Cut | Datagram
