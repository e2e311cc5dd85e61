"""The protocol between mirrord-trace and its agent, without any I/O.

Bytes in, frames out; frames in, bytes out. Nothing below this package imports Trio, a socket or a clock, so that both
sides use it and tests need neither. Its parts:

- `frames`: what can be said, one attrs class each.
- `codec`: frames to bytes and back, with hard limits.
- `handshake`: the first exchange: version, features, proof of the session's secret.
- `windows`: credit windows, which bound what one stream may have under way.
- `outbox`: what waits to be written: control frames first, streams in turn.
"""

from mirrord_agent.wire.codec import Decoder, ProtocolError, encode
from mirrord_agent.wire.outbox import Outbox
from mirrord_agent.wire.windows import ReceiveWindow, SendWindow, WindowPool

__all__ = ["Decoder", "Outbox", "ProtocolError", "ReceiveWindow", "SendWindow", "WindowPool", "encode"]
