"""What a client has subscribed to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from mirrord_agent.incoming.notices import Notices
from mirrord_agent.wire.frames import AddressFamily, IncomingMode, InetEndpoint, Transport

if TYPE_CHECKING:
    from mirrord_agent.incoming.http.filters import Filter


@attrs.frozen(eq=False)
class Subscription:
    """A port of the target."""

    stream: int
    port: int
    protocol: Transport
    family: AddressFamily | None
    """None: both."""
    mode: IncomingMode
    accepts: Filter | None
    """Which HTTP requests are the client's; None if everything is."""
    marks: bool
    """Whether responses of the client's process say so."""
    notices: Notices


def in_words(endpoint: InetEndpoint) -> str:
    """An address and port for people."""
    return f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"
