"""Datagrams between a UDP socket of the process and the pod.

The process's own socket sends to ports on loopback that stand for its peers, one port each (`PeerPort`), and receives
from them; which port stands for whom is what the handlers translate. In the pod the agent has one socket for all peers
of an unconnected socket, so that they all see the same source; a connected socket has one peer and one agent socket.

A connected socket's ICMP errors reach the process as they would natively: the peer's port is closed for a moment, and a
datagram sent to it through the process's own socket (borrowed) makes the kernel set the error there.

Ports and relays live as long as the process's socket: sock_diag(7) is asked from time to time which sockets are left.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from mirrord_agent.wire.frames import AddressFamily, InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, mapped_ipv4, to_mapped
from mirrord_trace.borrow import borrow_socket
from mirrord_trace.relay.addresses import address_of_endpoint, address_of_name, inet_endpoint_of
from mirrord_trace.session import RemoteDatagrams, Session, SessionLost
from mirrord_trace.sockets_here import LOOPBACK4, LOOPBACK6, SocketsHere

PEERS_PER_SOCKET: Final = 256
"""Ports that one unconnected socket may hold; the one not used for longest goes first."""
_NAMES_KEPT: Final = 16 * PEERS_PER_SOCKET
"""For so many ports it is known whom they stood for: the process may read their datagrams late."""
_DATAGRAM_MAXIMUM: Final = 65535
_RECEIVE_BUFFER: Final = 1 << 20
_SWEEP_INTERVAL_S: Final = 1.0
_SWEEP_EVERY: Final = 64
_GRACE_S: Final = 5.0
"""A socket that has sent nothing yet may not be bound, and sock_diag does not list it."""


@attrs.frozen
class Handle:
    """Where the process has its socket: to borrow it when an error must be put on it."""

    tid: int
    descriptor: int
    inode: int


@attrs.define(eq=False)
class PeerPort:
    """The loopback port that stands for one peer."""

    peer: Inet4 | Inet6
    address: Inet4 | Inet6
    """What the process sends to."""
    socket: socket.socket

    @classmethod
    def open(cls, peer: Inet4 | Inet6, number: int = 0) -> PeerPort:
        """Port `number`, or any. Where this machine has no ::1, IPv6 peers too have a port of IPv4. Raises OSError."""
        if isinstance(peer, Inet6):
            with contextlib.suppress(OSError):
                return cls._bound(peer, socket.AF_INET6, str(LOOPBACK6), number)
        return cls._bound(peer, socket.AF_INET, str(LOOPBACK4), number)

    @classmethod
    def _bound(cls, peer: Inet4 | Inet6, family: int, host: str, number: int) -> PeerPort:
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
            opened.bind((host, number))
        except OSError:
            opened.close()
            raise
        return cls(peer, address_of_name(opened.getsockname()), opened)

    def named_by(self, peer: Inet4 | Inet6) -> Inet4 | Inet6:
        """The port's address as a socket that names its peer as `peer` must name it."""
        return to_mapped(self.address) if isinstance(self.address, Inet4) and isinstance(peer, Inet6) else self.address

    def close(self) -> None:
        """Refuses what is sent from now on; whoever reads from the port is woken. May be called again."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()


def _plain(address: Inet4 | Inet6) -> Inet4 | Inet6:
    """What two ways to name one peer have in common."""
    address = mapped_ipv4(address) or address
    if isinstance(address, Inet4):
        return address
    return Inet6(address.host, address.port, 0, address.scope_id if address.host.is_link_local else 0)


@attrs.define(eq=False)
class _Flow:
    """The agent's socket for one address family, and who receives from it."""

    remote: RemoteDatagrams
    process: tuple[str, int] | None = None
    """Where the process's socket is, once that is known."""
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define(eq=False)
class DatagramRelay:
    """The relay of one UDP socket. All methods but `known` and `translate` are for Trio's thread."""

    handle: Handle
    _owner: DatagramRelays
    connected: bool
    on_end: Callable[[DatagramRelay], None]
    """Told when the relay was closed, because the process's socket is gone or otherwise."""
    born: float = attrs.field(factory=trio.current_time)
    _flows: dict[AddressFamily, _Flow] = attrs.field(factory=dict)
    _peers: OrderedDict[Inet4 | Inet6, PeerPort] = attrs.field(factory=OrderedDict)
    _retired: deque[PeerPort] = attrs.field(factory=deque)
    """Ports that are given out no more. What is on its way to them still counts."""
    _settled: int = 0
    _by_address: OrderedDict[Inet4 | Inet6, Inet4 | Inet6] = attrs.field(factory=OrderedDict)
    _is_closed: bool = False
    _is_serving: bool = False
    _answers_count: bool = True

    @property
    def was_used(self) -> bool:
        """Whether the process has sent anything, or is bound to hear others."""
        return self._is_serving or any(flow.process is not None for flow in self._flows.values())

    @property
    def is_closed(self) -> bool:
        """Whether nothing is heard or passed on any more."""
        return self._is_closed

    def known(self, peer: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        """The loopback address that stands for a peer already, as a socket of the peer's family must name it."""
        port = self._peers.get(_plain(peer))
        return None if port is None else port.named_by(peer)

    def translate(self, address: SocketAddress) -> SocketAddress:
        """Whom a loopback address stands for; every other address stands for itself."""
        if not isinstance(address, Inet4 | Inet6):
            return address
        peer = self._by_address.get(_plain(address))
        if peer is None:
            return address
        return to_mapped(peer) if isinstance(peer, Inet4) and isinstance(address, Inet6) else peer

    async def open(self, peer: Inet4 | Inet6, local: InetEndpoint | None) -> tuple[InetEndpoint, Inet4 | Inet6]:
        """Makes a port for `peer`; the agent's local address, and what `known` says of the peer from now on.

        Raises OSError with the pod's errno, or with ours when we have no port.
        """
        plain = _plain(peer)
        flow = await self._flow(plain, local)
        port = self._peers.get(plain)
        if port is None:
            port = self._add_port(plain)
        return flow.remote.local, port.named_by(peer)

    async def _flow(self, plain: Inet4 | Inet6, local: InetEndpoint | None) -> _Flow:
        family: AddressFamily = "inet4" if isinstance(plain, Inet4) else "inet6"
        if not self._is_closed and family in self._flows:
            return self._flows[family]
        wanted = inet_endpoint_of(plain) if self.connected else None
        remote = await self._owner.session.open_datagrams(family, wanted, local)
        if self._is_closed or family in self._flows:  # while we waited
            remote.close()
            if self._is_closed:
                raise OSError(errno.ENETUNREACH, "the relay was closed meanwhile")
            return self._flows[family]
        flow = self._flows[family] = _Flow(remote)
        self._owner.nursery.start_soon(self._receive, flow)
        return flow

    def serve(self, remote: RemoteDatagrams, *, answers_count: bool) -> None:
        """Hears from `remote` whoever sends there, of either family; what the process answers goes there, or nowhere.

        To be called before anything else.
        """
        self._is_serving, self._answers_count = True, answers_count
        flow = self._flows["inet4"] = _Flow(remote)
        self._flows["inet6"] = _Flow(remote)
        self._owner.nursery.start_soon(self._receive, flow)

    def drain(self) -> None:
        """Passes on what the process has sent and nobody has looked at."""
        for port in (*self._peers.values(), *self._retired):
            with contextlib.suppress(OSError):
                while True:
                    self._pass_on(port, *port.socket.recvfrom(_DATAGRAM_MAXIMUM, socket.MSG_DONTWAIT))

    def close(self) -> None:
        """Gives everything back."""
        self.drain()
        self._is_closed = True
        for port in (*self._peers.values(), *self._retired):
            port.close()
        for flow in self._flows.values():
            flow.scope.cancel()
            flow.remote.close()
        self._peers.clear()
        self._retired.clear()

    def close_retired(self) -> None:
        """Closes the ports that had been given out no more when this was last called."""
        for _ in range(min(self._settled, len(self._retired))):
            self._retired.popleft().close()
        self._settled = len(self._retired)

    def _add_port(self, peer: Inet4 | Inet6, number: int = 0) -> PeerPort:
        if self._is_closed:
            raise OSError(errno.ENETUNREACH, "the relay is closed")
        port = PeerPort.open(peer, number)
        self._by_address[port.address] = peer
        self._by_address.move_to_end(port.address)
        self._peers[peer] = port
        self._owner.nursery.start_soon(self._send, port, trio.socket.from_stdlib_socket(port.socket))
        while len(self._peers) > PEERS_PER_SOCKET:
            self._retired.append(self._peers.popitem(last=False)[1])
        while len(self._retired) > PEERS_PER_SOCKET:
            self._retired.popleft().close()
        while len(self._by_address) > _NAMES_KEPT:
            self._by_address.popitem(last=False)
        return port

    # from the process

    async def _send(self, port: PeerPort, here: trio.socket.SocketType) -> None:
        while True:
            try:
                data, name = await here.recvfrom(_DATAGRAM_MAXIMUM)
            except trio.ClosedResourceError:
                return
            except OSError:
                if port.socket.fileno() < 0:
                    return
                continue  # an ICMP error of a reply that the process did not want any more
            self._pass_on(port, data, name)

    def _pass_on(self, port: PeerPort, data: bytes, name: tuple[str, int]) -> None:
        if self._is_closed:
            return
        flow = self._flow_of(port)
        if flow.process != name[:2]:
            if not self._is_the_process(name):
                return
            flow.process = name[:2]
        if self._peers.get(port.peer) is port:
            self._peers.move_to_end(port.peer)
        if not self._answers_count:
            return
        with contextlib.suppress(OSError):  # the session is lost
            flow.remote.send(data, None if self.connected else inet_endpoint_of(port.peer))

    def _is_the_process(self, name: tuple[str, int]) -> bool:
        """Whether it is not somebody else on this machine who sends to our ports.

        A process may send and close at once. Then its socket is nowhere, and its port is nobody's.
        """
        owners = self._owner.here.inodes("udp", name[1])
        if owners:
            return self.handle.inode in owners
        return self.handle.inode not in self._owner.here.inodes("udp")

    # from the pod

    async def _receive(self, flow: _Flow) -> None:
        with flow.scope:
            while True:
                try:
                    data, source = await flow.remote.receive()
                except SessionLost:
                    self._end_with_an_error()
                    return
                except OSError as error:
                    self._report(error.errno or errno.ECONNREFUSED)
                    continue
                with contextlib.suppress(OSError):  # lost, as datagrams may be
                    self._deliver(data, source)

    def _deliver(self, data: bytes, source: InetEndpoint | None) -> None:
        port = next(iter(self._peers.values())) if self.connected and self._peers else self._port_of(source)
        flow = self._flow_of(port)
        if flow.process is None:
            flow.process = self._find_process(port)
        if flow.process is not None:
            port.socket.sendto(data, flow.process)

    def _flow_of(self, port: PeerPort) -> _Flow:
        return self._flows["inet4" if isinstance(port.peer, Inet4) else "inet6"]

    def _port_of(self, source: InetEndpoint | None) -> PeerPort:
        if source is None:
            raise OSError(errno.EDESTADDRREQ, "a datagram without source on a flow that is not connected")
        address = address_of_endpoint(source, socket.AF_INET)
        assert isinstance(address, Inet4 | Inet6)
        return self._peers.get(_plain(address)) or self._add_port(_plain(address))

    def _find_process(self, port: PeerPort) -> tuple[str, int] | None:
        """Where to reach a socket that has not sent anything yet."""
        number = self._owner.here.udp_port(self.handle.inode)
        return None if number is None else (str(port.address.host), number)

    def _end_with_an_error(self) -> None:
        """Nothing is answered any more: whoever waits on a connected socket is told."""
        ports = list(self._peers.values()) if self.connected else []
        self._owner.remove(self)
        for port in ports:
            with self._borrow_if_connected_to(port) as borrowed:
                if borrowed is not None:
                    _provoke_refusal(borrowed)

    @contextlib.contextmanager
    def _borrow_if_connected_to(self, port: PeerPort) -> Iterator[socket.socket | None]:
        """The process's socket; None when it cannot be had, or is connected elsewhere by now."""
        borrowed = borrow_socket(self.handle.tid, self.handle.descriptor, self.handle.inode)
        if borrowed is None:
            yield None
            return
        with borrowed:
            try:
                is_connected = _plain(address_of_name(borrowed.getpeername())) == port.address
            except OSError:
                is_connected = False
            yield borrowed if is_connected else None

    def _report(self, error: int) -> None:
        if not self.connected or error != errno.ECONNREFUSED or not self._peers:
            return  # only connected sockets are told of ICMP errors (udp(7)), and of the others we can make none here
        port = next(iter(self._peers.values()))
        with self._borrow_if_connected_to(port) as borrowed:
            if borrowed is None:
                return
            try:
                port.close()
                _provoke_refusal(borrowed)
                self._reopen(port, borrowed)
            except OSError:
                self._owner.remove(self)

    def _reopen(self, port: PeerPort, borrowed: socket.socket) -> None:
        try:
            self._add_port(port.peer, port.address.port)
        except OSError:  # somebody was faster: the process's socket must follow us to another port
            borrowed.connect(_name_of(self._add_port(port.peer).named_by(address_of_name(borrowed.getpeername()))))


def _provoke_refusal(borrowed: socket.socket) -> None:
    """Sends a datagram to where nobody listens, so that the kernel puts ECONNREFUSED on the socket (udp(7))."""
    for _ in range(2):
        try:
            borrowed.send(b"", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            return
        except ConnectionRefusedError:
            continue  # an earlier error that the process has not seen yet, and which we took
        except OSError:
            return


def _name_of(address: Inet4 | Inet6) -> tuple[str, int]:
    return str(address.host), address.port


@attrs.define(eq=False)
class DatagramRelays:
    """All UDP relays of one session. For Trio's thread."""

    session: Session
    nursery: trio.Nursery
    here: SocketsHere = attrs.field(factory=SocketsHere)
    _relays: set[DatagramRelay] = attrs.field(factory=set)
    _crowded: trio.Event = attrs.field(factory=trio.Event)
    _since_sweep: int = 0

    def add(self, handle: Handle, on_end: Callable[[DatagramRelay], None], *, connected: bool) -> DatagramRelay:
        """A relay without peers for a socket of the process."""
        relay = DatagramRelay(handle, self, connected, on_end)
        self._relays.add(relay)
        self._since_sweep += 1
        if self._since_sweep >= _SWEEP_EVERY:
            self._crowded.set()
        return relay

    def remove(self, relay: DatagramRelay) -> None:
        """Closes a relay."""
        if relay in self._relays:
            self._relays.remove(relay)
            relay.close()
            relay.on_end(relay)

    def drain(self) -> None:
        """Passes on what processes have sent before they ended."""
        for relay in self._relays:
            relay.drain()

    async def sweep(self) -> None:
        """Closes the relays of sockets that are gone, again and again; when cancelled, all of them."""
        try:
            while True:
                with trio.move_on_after(_SWEEP_INTERVAL_S):
                    await self._crowded.wait()
                self._crowded = trio.Event()
                self._since_sweep = 0
                self._close_those_gone()
        finally:
            for relay in list(self._relays):
                self.remove(relay)

    def _close_those_gone(self) -> None:
        if not self._relays:
            return
        present = self.here.inodes("udp")
        deadline = trio.current_time() - _GRACE_S
        for relay in list(self._relays):
            relay.close_retired()
            if relay.handle.inode not in present and (relay.was_used or relay.born < deadline):
                self.remove(relay)
