"""bind(2), listen(2), accept(2): the process serves ports of the target with sockets of this machine.

A socket is bound to the address that the process asks for. Where this machine does not give it (the port is taken or
privileged), another port serves as well, for whoever matters reaches it through the target; where the address is the
target's, all addresses of this machine do. The process sees what it asked for. What it would be refused in the pod, it
is refused here: a port that the tree itself has already.

bind and listen are carried out here, on a duplicate of the process's socket, which is the same open socket.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Coroutine
from functools import partial
from ipaddress import ip_address
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import AddressFamily
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, decode_sockaddr, mapped_ipv4
from mirrord_syscalls.subscription import NonZero, Rule
from mirrord_trace.policy.incoming import Claim, IncomingPolicy, Protocol, Wanted, families, unspecified_like
from mirrord_trace.relay.addresses import address_of_name, inet_endpoint_of
from mirrord_trace.relay.incoming.arrivals import Arrival, Arrivals, shown
from mirrord_trace.relay.incoming.datagrams import IncomingDatagrams
from mirrord_trace.relay.incoming.ports import Asked, IncomingPorts
from mirrord_trace.relay.incoming.ways import Listening
from mirrord_trace.relay.udp import Handle
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor.bindings import Binding, Bindings
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, Interest, PresentAddresses, Return, Verdict
from mirrord_trace.supervisor.handlers import messages
from mirrord_trace.supervisor.handlers.answer import Answer

_SIGNAL_CHECK_S: Final = 0.02
_LONGEST_BACKLOG: Final = 0x7FFF_FFFF
_TCP_PROTOCOLS: Final = (socket.IPPROTO_TCP, 262)  # 262: IPPROTO_MPTCP
_SO_PEERNAME: Final = 28  # asm-generic/socket.h
_NAME_BYTES: Final = {socket.AF_INET: 16, socket.AF_INET6: 28}
"""Of struct sockaddr_in and sockaddr_in6."""
_NOT_TO_BE_HAD: Final = (errno.EADDRINUSE, errno.EACCES)


@attrs.define(eq=False)
class IncomingHandlers:
    """Sockets of the process tree that serve."""

    policy: IncomingPolicy
    ports: IncomingPorts
    datagrams: IncomingDatagrams
    bindings: Bindings
    listeners: TreeListeners
    tell: Callable[[str], None]
    """Tells the user something; in Trio's thread."""
    flush: bool = False
    mark: bool = False
    token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)
    _targets: set[Inet4 | Inet6] = attrs.field(init=False, factory=set)
    """Addresses that the target is known to have, with port 0."""

    def interests(self) -> tuple[Interest, ...]:
        """Our calls; none where all ports are this machine's. An accept that wants no address is not seen."""
        if self.policy.mode is None:
            return ()
        return (
            Interest(Rule("bind"), self.bind),
            Interest(Rule("listen"), self.listen),
            Interest(Rule("accept", (NonZero(1),)), self.accept),
            Interest(Rule("accept4", (NonZero(1),)), self.accept),
        )

    # bind

    def bind(self, call: Call) -> Answer:
        """bind(2)."""
        address = messages.read_address(call, call.arguments[1], call.integer(2))
        if not isinstance(address, Inet4 | Inet6) or not call.shares_namespace("net"):
            return PASS
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            return PASS
        with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
            protocol = _protocol_of(borrowed)
            if protocol is None or not _fits(borrowed, address):
                return PASS
            wanted = self.policy.wanted(protocol, address)
            if wanted is None and not _is_specific(address):
                return PASS
            claim = Claim(address, _is_dual(borrowed))
            request = _Bind(Handle(call.tid, descriptor, inode), protocol, claim, wanted)
            error = self._try(borrowed, request, attrs.evolve(address, port=self.policy.port_here(address.port)))
        if error == errno.EADDRNOTAVAIL:
            return self._bind_for_target(call, request)
        return self._bound(call, request, error)

    async def _bind_for_target(self, call: Call, request: _Bind) -> Verdict:
        """This machine does not have the address; the target may."""
        if attrs.evolve(mapped_ipv4(request.asked) or request.asked, port=0) not in self._targets:
            is_targets = await self._unless_signalled(call, request.asked)
            if is_targets is None:
                return Fail(errno.EINTR)
            if not is_targets:
                return Fail(errno.EADDRNOTAVAIL)
        anywhere = unspecified_like(request.asked)
        with socket.socket(fileno=call.borrow(request.handle.descriptor)) as borrowed:
            error = self._try(borrowed, request, attrs.evolve(anywhere, port=self.policy.port_here(anywhere.port)))
        answer = self._bound(call, request, error)
        return await answer if isinstance(answer, Coroutine) else answer

    def _try(self, borrowed: socket.socket, request: _Bind, here: Inet4 | Inet6) -> int:
        """Binds the socket to an address, or the same with another port. 0 or an errno."""
        error = _bind(borrowed, here)
        if error in _NOT_TO_BE_HAD and request.wanted is not None:
            error = self._try_another_port(borrowed, request, here, error)
        if not error:
            got = address_of_name(borrowed.getsockname())
            asked = request.asked if request.asked.port else attrs.evolve(request.asked, port=got.port)
            binding = Binding(request.protocol, _without_flow(asked), got, request.claim.is_dual)
            self.bindings.put(request.handle.inode, binding)
        return error

    def _try_another_port(self, borrowed: socket.socket, request: _Bind, here: Inet4 | Inet6, error: int) -> int:
        rivals = self.bindings.rivals(request.protocol, request.claim)
        rivals = {inode: rivals[inode] for inode in self.listeners.open_in_tree(rivals)}
        if rivals:  # they may share the port, if all say so: SO_REUSEPORT (socket(7))
            elsewhere = next((rival.here.port for rival in rivals.values() if rival.is_elsewhere), None)
            return error if elsewhere is None else _bind(borrowed, attrs.evolve(here, port=elsewhere))
        if here.port != request.asked.port:
            why = "the configuration's listen_ports name it, but it"
            self._tell_later(f"port {here.port} cannot be had on this machine: {why} {_IN_WORDS[error]}")
            return error
        other = _bind(borrowed, attrs.evolve(here, port=0))
        if not other:
            port, number = borrowed.getsockname()[1], request.asked.port
            self._tell_later(
                f"port {number} of this machine {_IN_WORDS[error]}: the command has port {port} here instead"
            )
        return other

    def _bound(self, call: Call, request: _Bind, error: int) -> Answer:
        if error:
            return Fail(error)
        if request.protocol == "udp" and request.wanted is not None:
            return self._hear_datagrams(call, request.handle, request.wanted, families(request.claim))
        return Return(0)

    async def _hear_datagrams(
        self, call: Call, handle: Handle, wanted: Wanted, by: frozenset[AddressFamily]
    ) -> Verdict:
        """A signal ends the wait only: the port is served as soon as it can be."""
        is_heard = trio.Event()

        async def hear() -> None:
            await self.datagrams.hear(handle, wanted.port, wanted.mode, by)
            is_heard.set()

        self.ports.nursery.start_soon(hear)
        await _until(call, is_heard)
        return Return(0)

    async def _unless_signalled(self, call: Call, address: Inet4 | Inet6) -> bool | None:
        """Whether the target has an address; None if a signal comes before the answer."""
        is_answered = trio.Event()
        found: list[bool] = []

        async def ask() -> None:
            found.append(await self._is_targets(address))
            is_answered.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await _until(call, is_answered)
            nursery.cancel_scope.cancel()
        return found[0] if found else None

    async def _is_targets(self, address: Inet4 | Inet6) -> bool:
        """Whether the target has an address, found out by a socket that wishes for it."""
        plain = mapped_ipv4(address) or address
        family: AddressFamily = "inet4" if isinstance(plain, Inet4) else "inet6"
        try:
            flow = await self.ports.session.open_datagrams(family, None, inet_endpoint_of(attrs.evolve(plain, port=0)))
        except OSError:
            return False
        flow.close()
        found = ip_address(flow.local.host) == plain.host
        if found:
            self._targets.add(attrs.evolve(plain, port=0))
        return found

    # listen

    def listen(self, call: Call) -> Answer:
        """listen(2)."""
        inode = call.socket_inode(call.integer(0))
        binding = None if inode is None else self.bindings.get(inode)
        if inode is None or binding is None or binding.protocol != "tcp" or not call.shares_namespace("net"):
            return PASS
        wanted = self.policy.wanted("tcp", binding.asked)
        return PASS if wanted is None else self._listen(call, inode, binding, wanted)

    async def _listen(self, call: Call, inode: int, binding: Binding, wanted: Wanted) -> Verdict:
        """The socket listens before the first connection comes, and the call returns when they come."""
        backlog = call.integer(1)
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            borrowed.listen(backlog if backlog >= 0 else _LONGEST_BACKLOG)  # as the kernel takes a negative one
            # One that was shut down before may have lost its port, if the kernel had chosen that.
            binding = attrs.evolve(binding, here=address_of_name(borrowed.getsockname()))
        self.bindings.put(inode, binding)
        only = isinstance(binding.here, Inet6) and not binding.is_dual
        listening = Listening(inode, binding.here, binding.asked, only)
        asked = Asked(
            wanted.port,
            wanted.mode,
            wanted.http_filter,
            flush=self.flush and wanted.mode == "steal" and wanted.http_filter is None,
            mark=self.mark and wanted.http_filter is not None,
        )
        await _until(call, self.ports.listen(listening, asked))
        return Return(0)

    # accept, and names

    def accept(self, call: Call) -> Verdict:
        """accept(2), accept4(2): the real client."""
        inode = call.socket_inode(call.integer(0))
        binding = None if inode is None else self.bindings.get(inode)
        if binding is None or binding.protocol != "tcp":
            return PASS
        accepting = _Accepting(self.ports.arrivals, binding.here.port)
        return PresentAddresses(accepting.client, accepted=accepting.has_made)

    def getpeername(self, call: Call, inode: int) -> Verdict:
        """getpeername(2) of a socket that is connected to no target."""
        arrival = self._arrival(call, inode)
        return PASS if arrival is None else PresentAddresses(partial(shown, arrival.client))

    def getsockname(self, call: Call, inode: int) -> Verdict:
        """getsockname(2) of such a socket."""
        binding = self.bindings.get(inode)
        if binding is not None:
            return PASS if binding.asked == binding.here else PresentAddresses(lambda _: binding.asked)
        arrival = self._arrival(call, inode)
        return PASS if arrival is None else PresentAddresses(partial(shown, arrival.local))

    def _arrival(self, call: Call, inode: int) -> Arrival | None:
        arrivals = self.ports.arrivals
        known = arrivals.of_socket(inode)
        if known is not None or not arrivals.are_named():
            return known
        try:
            with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
                if _protocol_of(borrowed) != "tcp":
                    return None
                peer = _peer_of(borrowed)
                here = address_of_name(borrowed.getsockname())
        except OSError:
            return None
        found = arrivals.named(peer, here.port)
        if found is not None:
            arrivals.accepted(inode, found)
        return found

    def stand_in(self, protocol: Protocol, address: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        """Where the tree is reached on this machine by whom it tells that it listens on `address`, if not there."""
        for binding in self.bindings.elsewhere(protocol, address.port):
            there = attrs.evolve(address, port=binding.here.port)
            if self.listeners.serves(protocol, there):
                return there
        return None

    def _tell_later(self, text: str) -> None:
        self.token.run_sync_soon(self.tell, text)


_IN_WORDS: Final = {errno.EADDRINUSE: "is taken", errno.EACCES: "is for privileged users"}


@attrs.frozen
class _Bind:
    """What a bind asks for."""

    handle: Handle
    protocol: Protocol
    claim: Claim
    wanted: Wanted | None
    """None: nothing from the target; but the address may be the target's."""

    @property
    def asked(self) -> Inet4 | Inet6:
        return self.claim.address


@attrs.define(eq=False)
class _Accepting:
    """One accept of a socket that listens on a port of this machine."""

    arrivals: Arrivals
    port: int
    _arrival: Arrival | None = attrs.field(init=False, default=None)

    def client(self, address: SocketAddress) -> SocketAddress:
        """The real client of what comes from `address`."""
        self._arrival = self.arrivals.named(address, self.port)
        return address if self._arrival is None else shown(self._arrival.client, address)

    def has_made(self, inode: int) -> None:
        """What came from there is this socket: who asks for its names next need not look at it."""
        if self._arrival is not None:
            self.arrivals.accepted(inode, self._arrival)


async def _until(call: Call, event: trio.Event) -> None:
    """Waits for an event, or until a signal waits for the task."""
    while not event.is_set():
        with trio.move_on_after(_SIGNAL_CHECK_S):
            await event.wait()
        if not event.is_set() and call.has_pending_signal():
            return


def _bind(borrowed: socket.socket, address: Inet4 | Inet6) -> int:
    """0 or an errno."""
    host = str(address.host)
    try:
        borrowed.bind((host, address.port) if isinstance(address, Inet4) else (host, address.port, 0, address.scope_id))
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _peer_of(borrowed: socket.socket) -> SocketAddress:
    """As getpeername(2), but known after a reset as well. Raises OSError."""
    return decode_sockaddr(borrowed.getsockopt(socket.SOL_SOCKET, _SO_PEERNAME, _NAME_BYTES[borrowed.family]))


def _protocol_of(borrowed: socket.socket) -> Protocol | None:
    if borrowed.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if borrowed.type == socket.SOCK_STREAM and borrowed.proto in _TCP_PROTOCOLS:
        return "tcp"
    return "udp" if (borrowed.type, borrowed.proto) == (socket.SOCK_DGRAM, socket.IPPROTO_UDP) else None


def _fits(borrowed: socket.socket, address: Inet4 | Inet6) -> bool:
    """Whether the socket takes such an address; otherwise the kernel says what is wrong."""
    return isinstance(address, Inet6 if borrowed.family == socket.AF_INET6 else Inet4)


def _is_dual(borrowed: socket.socket) -> bool:
    return borrowed.family == socket.AF_INET6 and not borrowed.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _is_specific(address: Inet4 | Inet6) -> bool:
    """Whether it may be an address of the target, and of no other."""
    host = (mapped_ipv4(address) or address).host
    return not (host.is_unspecified or host.is_loopback or host.is_multicast)


def _without_flow(address: Inet4 | Inet6) -> Inet4 | Inet6:
    """As getsockname(2) shows it."""
    return attrs.evolve(address, flow_info=0) if isinstance(address, Inet6) else address
