"""The first exchange of a session.

The client says hello with the version it speaks, the features it has and the session's secret; the agent, which knows
only the secret's hash, answers welcome or goodbye. What may follow depends on how that went, so each outcome is a type
of its own: nobody holds a session without an `Accepted` or a `Welcomed`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

import attrs

from mirrord_agent.wire.codec import ProtocolError
from mirrord_agent.wire.frames import Facts, Frame, Goodbye, GoodbyeKind, Hello, Welcome

#: Both sides must speak the same version; it changes with whatever an older side would misunderstand.
VERSION = 4
#: Optional parts of the protocol that this code has.
FEATURES: tuple[str, ...] = ("environment", "files", "incoming", "outgoing-tcp", "outgoing-udp", "outgoing-unix")
#: Length of a session's secret, in bytes.
SECRET_LENGTH = 32


def new_secret() -> bytes:
    """A secret for one session."""
    return secrets.token_bytes(SECRET_LENGTH)


def hash_secret(secret: bytes) -> str:
    """What an agent is given instead of the secret: its SHA-256 in hexadecimal."""
    return hashlib.sha256(secret).hexdigest()


@attrs.frozen
class Accepted:
    """The agent's side: the client may have a session."""

    features: tuple[str, ...]

    def welcome(self, facts: Facts) -> Welcome:
        """The frame that begins the session."""
        return Welcome(VERSION, self.features, facts)


@attrs.frozen
class Refused:
    """Either side: there is no session. The agent sends the goodbye, the client has received it."""

    goodbye: Goodbye


@attrs.frozen
class Welcomed:
    """The client's side: the session has begun."""

    features: tuple[str, ...]
    facts: Facts


def hello(secret: bytes) -> Hello:
    """The client's first frame."""
    return Hello(VERSION, FEATURES, secret)


def answer_hello(frame: Frame, secret_hash: str) -> Accepted | Refused:
    """What the agent makes of a client's first frame.

    The secret is looked at first and compared in constant time: a stranger learns nothing, not even the version.
    """
    if not isinstance(frame, Hello):
        return Refused(Goodbye(GoodbyeKind.PROTOCOL, f"expected a hello, got {type(frame).__name__}"))
    if not hmac.compare_digest(hash_secret(frame.secret).encode(), secret_hash.lower().encode()):
        return Refused(Goodbye(GoodbyeKind.SECRET, "this is not the secret of this agent's session"))
    if frame.version != VERSION:
        return Refused(
            Goodbye(GoodbyeKind.VERSION, f"the agent speaks version {VERSION}, the client version {frame.version}")
        )
    return Accepted(tuple(feature for feature in FEATURES if feature in frame.features))


def read_answer(frame: Frame) -> Welcomed | Refused:
    """What the client makes of the agent's first frame. Raises ProtocolError when it is neither of the two."""
    match frame:
        case Welcome(version=version) if version != VERSION:
            return Refused(
                Goodbye(GoodbyeKind.VERSION, f"the agent speaks version {version}, this client version {VERSION}")
            )
        case Welcome(features=features, facts=facts):
            return Welcomed(features, facts)
        case Goodbye():
            return Refused(frame)
        case _:
            raise ProtocolError(f"expected a welcome, got {type(frame).__name__}")
