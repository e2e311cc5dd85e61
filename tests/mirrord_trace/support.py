"""What tests of handlers and relays share: a process that is this one, and a target whose network is this machine's.

Handlers are given calls of a task that is this thread, with its real sockets; a `Machine` carries their verdicts out as
a delivery would. `Target` is a session with scripted answers; what it connects are sockets that the test holds.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address
from typing import Any, cast

import attrs
import trio

from mirrord_agent.wire.frames import AddressFamily, Endpoint, InetEndpoint, UnixEndpoint
from mirrord_syscalls.abi import X86_64
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, encode_sockaddr
from mirrord_syscalls.structs import Mmsghdr, Msghdr
from mirrord_trace.policy.incoming import IncomingPolicy
from mirrord_trace.policy.outgoing import OutgoingPolicy
from mirrord_trace.relay.incoming.datagrams import IncomingDatagrams
from mirrord_trace.relay.incoming.ports import IncomingPorts
from mirrord_trace.relay.tcp import StreamRelay
from mirrord_trace.relay.udp import DatagramRelays
from mirrord_trace.session import Session, SessionLost
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor.delivery.base import Call, Fail, MemoryFault, UseAddress, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers
from mirrord_trace.supervisor.handlers.incoming import IncomingHandlers
from mirrord_trace.supervisor.handlers.sockets import SocketHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import SocketTable

POD = "198.18.7.1"
"""The pod's own address."""
PEER = Inet4(cast(Any, ip_address("198.18.0.10")), 8080)
PEER6 = Inet6(cast(Any, ip_address("fd00:198:18::10")), 8080)
PAGE = 0x10000
_libc = ctypes.CDLL(None, use_errno=True)


def inet(host: str, port: int) -> Inet4 | Inet6:
    parsed = ip_address(host)
    return Inet4(parsed, port) if parsed.version == 4 else Inet6(parsed, port)


def name_of(address: SocketAddress) -> Any:
    match address:
        case Unix(path):
            return path
        case Inet4(host, port) | Inet6(host, port):
            return str(host), port
    raise TypeError(address)


@attrs.define
class Page:
    """The only memory that a call has, from PAGE on; the rest is not there."""

    data: bytearray = attrs.field(factory=bytearray)

    def put(self, raw: bytes) -> int:
        self.data += bytes(-len(self.data) % 8)
        place = PAGE + len(self.data)
        self.data += raw
        return place

    def read(self, address: int, length: int) -> bytes:
        begin = address - PAGE
        if begin < 0 or begin + length > len(self.data):
            raise MemoryFault(hex(address))
        return bytes(self.data[begin : begin + length])

    def write(self, address: int, data: bytes) -> None:
        self.read(address, len(data))
        self.data[address - PAGE : address - PAGE + len(data)] = data

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        return bytes(self.data[address - PAGE :]).partition(b"\0")[0]


@attrs.define(eq=False)
class ScriptedCall(Call):
    """A call of this thread. `signal` says whether one waits."""

    signal: Callable[[], bool] = lambda: False

    def has_pending_signal(self) -> bool:
        return self.signal()


def call_of(name: str, *arguments: int, memory: Page | None = None, signal: Callable[[], bool] | None = None) -> Call:
    padded = (*(argument & 0xFFFF_FFFF_FFFF_FFFF for argument in arguments), *(0,) * (6 - len(arguments)))
    made = ScriptedCall(os.getpid(), name, padded, memory or Page(), X86_64)
    if signal is not None:
        made.signal = signal
    return made


def connect_call(of: socket.socket, address: SocketAddress | bytes, signal: Callable[[], bool] | None = None) -> Call:
    memory = Page()
    raw = address if isinstance(address, bytes) else encode_sockaddr(address)
    return call_of("connect", of.fileno(), memory.put(raw), len(raw), memory=memory, signal=signal)


def sendto_call(of: socket.socket, address: SocketAddress | bytes, flags: int = 0) -> Call:
    memory = Page()
    raw = address if isinstance(address, bytes) else encode_sockaddr(address)
    return call_of("sendto", of.fileno(), 0, 0, flags, memory.put(raw), len(raw), memory=memory)


@attrs.frozen
class Sent:
    """A message of a sendmsg or sendmmsg."""

    address: SocketAddress | bytes | None = None
    control: bytes = b""
    name_length: int | None = None
    is_nowhere: bool = False

    def header(self, memory: Page) -> Msghdr:
        raw = b"" if self.address is None else self.address
        raw = raw if isinstance(raw, bytes) else encode_sockaddr(raw)
        name = memory.put(raw) if raw else 0
        length = len(raw) if self.name_length is None else self.name_length
        control = memory.put(self.control) if self.control else 0
        return Msghdr(1 if self.is_nowhere else name, length, 0, 0, control, len(self.control), 0)


def sendmsg_call(of: socket.socket, message: Sent) -> Call:
    memory = Page()
    header = message.header(memory)
    return call_of("sendmsg", of.fileno(), memory.put(header.encode()), memory=memory)


def sendmmsg_call(of: socket.socket, messages: Sequence[Sent], count: int | None = None, flags: int = 0) -> Call:
    memory = Page()
    headers = b"".join(Mmsghdr(message.header(memory), 0).encode() for message in messages)
    return call_of("sendmmsg", of.fileno(), memory.put(headers), count or len(messages), flags, memory=memory)


def inode_of(of: socket.socket) -> int:
    return os.fstat(of.fileno()).st_ino


def open_descriptors() -> int:
    gc.collect()  # what earlier tests have left
    return len(os.listdir("/proc/self/fd"))


@attrs.define(eq=False)
class FakeStream:
    """The pod's end of a connection, as a session gives it: what it gets is scripted, what it sends is kept."""

    local: Endpoint = attrs.field(factory=lambda: InetEndpoint(POD, 40000))
    peer: Endpoint = attrs.field(factory=lambda: InetEndpoint("198.18.0.10", 8080))
    sent: bytearray = attrs.field(factory=bytearray)
    has_reset: bool = False
    reset_errno: int = 0
    has_closed: bool = False
    is_eof_sent: bool = False
    send_error: OSError | None = None
    changed: trio.Event = attrs.field(factory=trio.Event)
    _script: list[bytes | OSError] = attrs.field(factory=list)
    _more: trio.Event = attrs.field(factory=trio.Event)

    def gives(self, *what: bytes | OSError) -> None:
        """What the far side says next: bytes, b"" for its end, an error."""
        self._script += what
        self._more.set()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.send_error is not None:
            raise self.send_error
        self.sent += data
        self._tell()

    async def send_eof(self) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.is_eof_sent = True
        self._tell()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> bytes:
        while not self._script:
            self._more = trio.Event()
            await self._more.wait()
            if self.has_reset:
                raise OSError(errno.EBADF, "closed")
        first = self._script[0]
        if isinstance(first, OSError):
            raise first
        if first:
            self._script.pop(0)
        return first

    def reset(self, number: int = errno.ECONNRESET) -> None:
        if not self.has_closed:
            self.has_reset = self.has_closed = True
            self.reset_errno = number
            self._more.set()
            self._tell()

    async def aclose(self) -> None:
        self.has_closed = True
        self._tell()
        await trio.lowlevel.checkpoint()


@attrs.define(eq=False)
class FakeDatagrams:
    """The agent's UDP socket: what it sends is kept, what it receives is scripted."""

    local: InetEndpoint
    peer: InetEndpoint | None
    family: AddressFamily | None = None
    """Of clients of a port that is served."""
    is_closed: bool = False
    sent: list[tuple[bytes, InetEndpoint | None]] = attrs.field(factory=list)
    got: trio.Event = attrs.field(factory=trio.Event)
    _script: Any = attrs.field(
        factory=lambda: trio.open_memory_channel[tuple[bytes, InetEndpoint | None] | OSError](99)
    )

    def gives(self, data: bytes | OSError, source: InetEndpoint | None = None) -> None:
        self._script[0].send_nowait(data if isinstance(data, OSError) else (data, source))

    def send(self, data: bytes, to: InetEndpoint | None = None) -> None:
        assert not self.is_closed, "sent on a closed flow"
        self.sent.append((data, to))
        self.got.set()
        self.got = trio.Event()

    async def until_sent(self, count: int) -> None:
        while len(self.sent) < count:
            await self.got.wait()

    async def receive(self) -> tuple[bytes, InetEndpoint | None]:
        received = await self._script[1].receive()
        if isinstance(received, OSError):
            raise received
        return cast("tuple[bytes, InetEndpoint | None]", received)

    def close(self) -> None:
        self.is_closed = True


@attrs.define(eq=False)
class FakeListener:
    """A subscription to a TCP port: what arrives there is scripted."""

    port: int
    mode: str
    http_filter: str | None
    tell: Callable[[str], None]
    family: AddressFamily | None = None
    is_closed: bool = False
    _arriving: Any = attrs.field(factory=lambda: trio.open_memory_channel[FakeStream | OSError](99))

    def arrives(self, stream: FakeStream | OSError) -> None:
        self._arriving[0].send_nowait(stream)

    async def receive(self) -> FakeStream:
        try:
            arrived = await self._arriving[1].receive()
        except trio.EndOfChannel as end:
            raise trio.ClosedResourceError from end
        if isinstance(arrived, OSError):
            raise arrived
        return cast(FakeStream, arrived)

    def close(self) -> None:
        self.is_closed = True
        self._arriving[0].close()


@attrs.define(eq=False)
class FakeIncoming:
    """What a session's subscriptions get."""

    listeners: list[FakeListener] = attrs.field(factory=list)
    flows: list[FakeDatagrams] = attrs.field(factory=list)
    asked: list[int] = attrs.field(factory=list)
    refusal: OSError | None = None
    may_answer: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.may_answer.set()

    async def _answer(self, port: int) -> None:
        self.asked.append(port)
        await self.may_answer.wait()
        if self.refusal is not None:
            raise self.refusal

    async def subscribe(
        self,
        port: int,
        mode: str,
        tell: Callable[[str], None],
        *,
        http_filter: str | None = None,
        flush: bool = False,
        mark: bool = False,
        family: AddressFamily | None = None,
    ) -> FakeListener:
        await self._answer(port)
        listener = FakeListener(port, mode, http_filter, tell, family)
        self.listeners.append(listener)
        return listener

    async def subscribe_datagrams(
        self, port: int, mode: str, tell: Callable[[str], None], *, family: AddressFamily | None = None
    ) -> FakeDatagrams:
        await self._answer(port)
        flow = FakeDatagrams(InetEndpoint("::", port), None, family)
        self.flows.append(flow)
        return flow


@attrs.define(eq=False)
class Target:
    """A session: what a connect gets is decided by the test, at once or when it says so."""

    lost: trio.Event = attrs.field(factory=trio.Event)
    asked: list[tuple[Endpoint, InetEndpoint | None]] = attrs.field(factory=list)
    cancelled: int = 0
    gave_up: trio.Event = attrs.field(factory=trio.Event)
    flows: list[FakeDatagrams] = attrs.field(factory=list)
    datagram_error: OSError | None = None
    may_open: trio.Event = attrs.field(factory=trio.Event)
    incoming: FakeIncoming = attrs.field(factory=FakeIncoming)
    addresses: tuple[str, ...] = (POD,)
    """What sockets of the pod can be bound to."""
    _answer: FakeStream | OSError | None = None
    _answered: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.may_open.set()

    def answers(self, answer: FakeStream | int) -> None:
        """A connection, or the errno."""
        self._answer = OSError(answer, os.strerror(answer)) if isinstance(answer, int) else answer
        self._answered.set()

    def is_lost(self) -> None:
        self.lost.set()
        self._answer = SessionLost("the agent is gone")
        self._answered.set()
        for flow in self.flows:
            flow.gives(SessionLost("the agent is gone"))

    async def connect(self, remote: InetEndpoint | UnixEndpoint, local: InetEndpoint | None = None) -> FakeStream:
        self.asked.append((remote, local))
        try:
            await self._answered.wait()
        except trio.Cancelled:
            self.cancelled += 1
            self.gave_up.set()
            raise
        if isinstance(self._answer, OSError):
            raise self._answer
        assert self._answer is not None
        return self._answer

    async def open_datagrams(
        self, family: AddressFamily, peer: InetEndpoint | None, local: InetEndpoint | None = None
    ) -> FakeDatagrams:
        await self.may_open.wait()
        if self.lost.is_set():
            raise SessionLost("the agent is gone")
        if self.datagram_error is not None:
            raise self.datagram_error
        host = POD if peer is not None and family == "inet4" else "0.0.0.0" if family == "inet4" else "::"
        host = "fd00:198:18::99" if peer is not None and family == "inet6" else host
        if local is not None and local.host in self.addresses:
            host = local.host
        flow = FakeDatagrams(InetEndpoint(host, 41000 + len(self.flows)), peer)
        self.flows.append(flow)
        return flow


@attrs.define(eq=False)
class Machine:
    """Handlers for this process, and what carries their verdicts out."""

    target: Target
    nursery: trio.Nursery
    table: SocketTable
    relay: StreamRelay
    relays: DatagramRelays
    sockets: SocketHandlers
    incoming: IncomingHandlers
    told: list[str]
    """What the user was told."""

    async def decide(self, answer: Answer) -> Verdict:
        """The verdict, waited for where it must be."""
        return answer if not hasattr(answer, "__await__") else await cast(Any, answer)

    async def connect(
        self, of: socket.socket, address: SocketAddress | bytes, signal: Callable[[], bool] | None = None
    ) -> int:
        """connect(2) as the process sees it: its result, negative for an errno."""
        return await self.carry_out_connect(
            of, address, await self.decide(self.sockets.connect(connect_call(of, address, signal)))
        )

    async def carry_out_connect(self, of: socket.socket, address: SocketAddress | bytes, verdict: Verdict) -> int:
        match verdict:
            case Fail(number):
                return -number
            case UseAddress(other, done):
                # The kernel's part may wait for our relay, so it must not stand in its way.
                result = await trio.to_thread.run_sync(_connect_in_kernel, of, other, abandon_on_cancel=True)
                return done(result)
        raise AssertionError(f"{verdict} for {address!r}")

    async def sendto(self, of: socket.socket, data: bytes, address: SocketAddress) -> int:
        """sendto(2) as the process sees it."""
        match await self.decide(self.sockets.sendto(sendto_call(of, address))):
            case Fail(number):
                return -number
            case UseAddress(other):
                raw = encode_sockaddr(other)
                sent: int = _libc.sendto(of.fileno(), data, len(data), 0, raw, len(raw))
                return -ctypes.get_errno() if sent < 0 else sent
        raise AssertionError("not for the target")


def _connect_in_kernel(of: socket.socket, address: SocketAddress) -> int:
    raw = encode_sockaddr(address)
    return 0 if _libc.connect(of.fileno(), raw, len(raw)) == 0 else -ctypes.get_errno()


@asynccontextmanager
async def machine(
    policy: OutgoingPolicy | None = None,
    hold_s: float = 0.05,
    tree: Iterable[int] = (),
    incoming: IncomingPolicy | None = None,
) -> AsyncIterator[Machine]:
    """Handlers with relays of their own; everything is given back at the end."""
    target = Target()
    table, wanted = SocketTable(), policy or OutgoingPolicy()
    listeners = TreeListeners(lambda: tree)
    with ExitStack() as owned:
        owned.callback(listeners._here.close)
        async with trio.open_nursery() as nursery:
            relay = StreamRelay(cast(Session, target), nursery)
            relays = DatagramRelays(cast(Session, target), nursery)
            owned.callback(relay.here.close)
            owned.callback(relays.here.close)
            nursery.start_soon(relays.sweep)
            told: list[str] = []
            datagrams = DatagramHandlers(table, wanted, listeners, relays)
            ports = IncomingPorts(cast(Session, target), relay, nursery, told.append)
            nursery.start_soon(ports.watch)
            serving = IncomingHandlers(
                incoming or IncomingPolicy(mode=None),
                ports,
                IncomingDatagrams(cast(Session, target), datagrams.serve, datagrams.serve_too, told.append, nursery),
                datagrams.bindings,
                listeners,
                told.append,
            )
            streams = StreamHandlers(table, wanted, listeners, relay, hold_s, serving.stand_in)
            handlers = SocketHandlers(table, streams, datagrams, serving)
            yield Machine(target, nursery, table, relay, relays, handlers, serving, told)
            nursery.cancel_scope.cancel()
