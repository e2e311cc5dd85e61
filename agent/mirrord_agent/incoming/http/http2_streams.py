"""What a router keeps of HTTP/2 streams, and of the connections that they go on to."""

from __future__ import annotations

import attrs

from mirrord_agent.incoming.http.actions import Side
from mirrord_agent.incoming.http.filters import Headers
from mirrord_agent.incoming.http.http2_flows import Flow
from mirrord_agent.incoming.http.http2_leg import Leg


@attrs.define(eq=False)
class Stream:
    """A request and its answer."""

    number: int
    """The client's."""
    headers: Headers
    upward: Flow
    drops_continue: bool = False
    """Whether the client has been told already to send the body."""
    server: Server | None = None
    """Who has it."""
    server_number: int = 0
    """The server's."""
    downward: Flow | None = None
    reset_at_end: int | None = None
    """How the server broke the stream off when it had answered."""


@attrs.define(eq=False)
class Server:
    """A connection to a server, and what it is asked for."""

    side: Side
    leg: Leg
    streams: dict[int, Stream] = attrs.Factory(dict)
    """By the server's numbers."""
    is_used: bool = False
    is_leaving: bool = False
    """Whether it takes no more streams."""
