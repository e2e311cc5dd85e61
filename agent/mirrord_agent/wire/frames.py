"""What the two sides can say to each other; what they say about files is in `file_frames`.

Every frame is a frozen attrs class. A number `stream` names a request and the stream it may open: the client counts
1, 3, 5, …, never twice in a session; the streams that the agent opens are 2, 4, 6, …, never twice either. Requests are
answered in any order, each exactly once, by the frame its docstring names or by `Failed`.

Order is kept among the `StreamFrame`s of one stream. All others may overtake them, and so may the client's `Reset`.
"""

from __future__ import annotations

import enum
from typing import Literal

import attrs

from mirrord_agent.wire.file_frames import FileAnswer, FileData, FileRequest, Listed, Looked

#: Longest payload of one frame, in bytes. Longer data travels in several frames.
MAX_PAYLOAD = 1 << 20

AddressFamily = Literal["inet4", "inet6"]
Transport = Literal["tcp", "udp"]
IncomingMode = Literal["mirror", "steal"]


@attrs.frozen
class InetEndpoint:
    """An address and port of IPv4 or IPv6, as the pod's kernel knows it."""

    host: str
    """Numeric text, never a name: `10.0.0.7`, `fd00::7`."""
    port: int
    """0 to 65535, host byte order."""
    scope_id: int = 0
    """Interface index of a link-local IPv6 address, in the pod's numbering (ipv6(7)); otherwise 0."""


@attrs.frozen
class UnixEndpoint:
    """The address of a Unix socket in the pod (unix(7))."""

    path: bytes
    """A path below the pod's root; an abstract name begins with NUL; empty is an unnamed socket."""


Endpoint = InetEndpoint | UnixEndpoint


@attrs.frozen
class Facts:
    """What the agent knows of the target when the session begins."""

    hostname: str
    """The target's host name, from its UTS namespace (uname(2) nodename)."""
    domain_name: str
    """The target's NIS domain name, `(none)` when there is none."""
    pid: int
    """The target's process, in the agent's pid namespace."""
    communication_timeout_s: float
    """The agent leaves when it hears nothing for so many seconds; 0 means that it waits for the stream's end only."""


class GoodbyeKind(enum.Enum):
    """Why a session ends or never begins."""

    PROTOCOL = "protocol"
    SECRET = "secret"
    VERSION = "version"
    TARGET_GONE = "target-gone"
    PERMISSION = "permission"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    FAILURE = "failure"


# The first exchange.


@attrs.frozen
class Hello:
    """The client's first frame. Answered by `Welcome` or `Goodbye`."""

    version: int
    features: tuple[str, ...]
    """Names of optional parts of the protocol that the client can use."""
    secret: bytes = attrs.field(repr=False)
    """Proof that the client started this agent; the agent knows only its SHA-256."""


@attrs.frozen
class Welcome:
    """The session begins."""

    version: int
    features: tuple[str, ...]
    """The features both sides have; only these may be used."""
    facts: Facts


@attrs.frozen
class Goodbye:
    """The last frame of a side, with the reason in words for people."""

    kind: GoodbyeKind
    message: str


# Requests and their answers.


@attrs.frozen
class GetEnvironment:
    """Asks for the target's environment. Answered by `Part`s that make up /proc/PID/environ, then `Done`."""

    stream: int


@attrs.frozen
class Part:
    """A piece of an answer; pieces come in order."""

    stream: int
    payload: bytes


@attrs.frozen
class Done:
    """Ends an answer that has nothing to say besides its parts."""

    stream: int


@attrs.frozen
class Failed:
    """The request failed. `errno` is Linux's number, `message` says for people what was tried."""

    stream: int
    errno: int
    message: str


@attrs.frozen
class Connect:
    """Asks for a connected stream socket. Answered by `Connected`, with an initial window for both directions."""

    stream: int
    remote: Endpoint
    local: InetEndpoint | None
    """Where the connection should come from, if that can be had: a wish. Port 0 wishes for the address only."""


@attrs.frozen
class Connected:
    """The connection stands."""

    stream: int
    local: Endpoint
    peer: Endpoint


@attrs.frozen
class OpenDatagrams:
    """Asks for a UDP socket, connected when `peer` is given. Answered by `DatagramsOpened`."""

    stream: int
    family: AddressFamily
    peer: InetEndpoint | None
    local: InetEndpoint | None


@attrs.frozen
class DatagramsOpened:
    """The UDP socket is there, bound to `local`."""

    stream: int
    local: InetEndpoint
    peer: InetEndpoint | None


@attrs.frozen
class Subscribe:
    """Asks for what is sent to a port of the target. Answered by `Subscribed`; a `Close` of the stream ends it.

    `Failed` says EADDRINUSE when another session steals the port (its message names that session's owner), EPERM or
    EOPNOTSUPP when the agent lacks a capability or its kernel a part, EINVAL when the filter is none.
    """

    stream: int
    port: int
    """1 to 65535."""
    protocol: Transport
    mode: IncomingMode
    filter: str | None
    """Only HTTP requests that this JSON text describes, as `incoming.http.filters` reads it; only with TCP."""
    flush: bool
    """Whether the connections that the target has on the port are reset once new ones are stolen."""
    mark: bool
    """Whether responses of the client's process carry the header of `incoming.http.marks`; only with a filter."""
    family: AddressFamily | None = None
    """Only what comes by this version of IP; None: both. A session may have a subscription of a port for each."""


@attrs.frozen
class Subscribed:
    """What begins from now on is caught, and told by `Arrived` or, for UDP, by `Datagram`s on this stream."""

    stream: int


# Streams.


@attrs.frozen
class Arrived:
    """A connection has come to a subscribed port: from the agent, which opens the stream with it.

    With a filter it comes with the first request of the connection that is the client's. Both windows are initial.

    Where the process cannot be reached the client says `Reset` with ECONNREFUSED. On a mirrored connection it sends
    neither `Data` nor `Eof`, unless there is a filter: HTTP/2 takes what the process says to go on, so the client
    passes that on at least where the first `Data` begins with HTTP/2's preface. It says `Close` or `Reset` in the end:
    an `Eof` of the agent leaves the stream open.
    """

    stream: int
    subscription: int
    """The stream of the `Subscribe`, which may be closed since."""
    peer: InetEndpoint
    """The real client."""
    local: InetEndpoint
    """The target's address and port that it connected to."""


@attrs.frozen
class Notice:
    """Something about a subscription that the user should be told, in words; from the agent, at most one a second."""

    stream: int
    message: str


@attrs.frozen
class Data:
    """Bytes of a connection. They use up the receiver's window."""

    stream: int
    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


@attrs.frozen
class Eof:
    """The sender of this frame sends no more data on the stream: a half-close (FIN)."""

    stream: int


@attrs.frozen
class Reset:
    """The connection is broken.

    From the agent: it ended with this errno, ECONNABORTED when a mirrored connection could not be followed further.
    From the client: it is to be ended by a RST; or, while the request is under way, its answer is no longer wanted.
    """

    stream: int
    errno: int


@attrs.frozen
class Close:
    """The client is done with the stream: what it sent before goes out, then the socket is closed (close(2))."""

    stream: int


@attrs.frozen
class Credit:
    """The receiver of the stream's data has room for so many bytes more."""

    stream: int
    amount_bytes: int


@attrs.frozen
class Datagram:
    """One UDP datagram. From the client, `peer` is where to (none on a connected socket); from the agent where from.

    On a stolen port the client's datagram comes from the target's address that `peer` sent to last.
    """

    stream: int
    peer: InetEndpoint | None
    payload: bytes = attrs.field(repr=lambda payload: f"<{len(payload)} bytes>")


@attrs.frozen
class DatagramError:
    """The pod's UDP socket reported an error: an ICMP answer, or a datagram that could not be sent."""

    stream: int
    errno: int


# Liveness.


@attrs.frozen
class Ping:
    """The client is alive. Answered by `Pong` with the same number."""

    number: int


@attrs.frozen
class Pong:
    """The agent is alive."""

    number: int


Frame = (
    Hello
    | Welcome
    | Goodbye
    | GetEnvironment
    | Part
    | Done
    | Failed
    | Connect
    | Connected
    | OpenDatagrams
    | DatagramsOpened
    | Subscribe
    | Subscribed
    | Arrived
    | Notice
    | Data
    | Eof
    | Reset
    | Close
    | Credit
    | Datagram
    | DatagramError
    | Ping
    | Pong
    | FileRequest
    | FileAnswer
)

#: Frames that keep their order within a stream.
StreamFrame = Part | Done | Looked | FileData | Listed | Data | Eof | Reset | Close | Datagram | DatagramError
