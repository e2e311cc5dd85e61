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
from collections import OrderedDict
from collections.abc import Callable
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

    def close(self) -> None:
        """Refuses what is sent from now on; whoever reads from the port is woken."""
        trio.lowlevel.notify_closing(self.socket)
        self.socket.close()


def _open_port(is_ipv4: bool, port: int = 0) -> socket.socket:
    opened = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        opened.bind((str(LOOPBACK4 if is_ipv4 else LOOPBACK6), port))
    except OSError:
        opened.close()
        raise
    return opened


def _unmapped(address: Inet4 | Inet6) -> Inet4 | Inet6:
    return mapped_ipv4(address) or address


@attrs.define(eq=False)
class DatagramRelay:
    """The relay of one UDP socket. All methods but `known` and `translate` are for Trio's thread."""

    handle: Handle
    _owner: DatagramRelays
    connected: bool
    on_end: Callable[[DatagramRelay], None]
    """Told when the relay was closed, because the process's socket is gone or otherwise."""
    born: float = attrs.field(factory=trio.current_time)
    _remotes: dict[AddressFamily, RemoteDatagrams] = attrs.field(factory=dict)
    _peers: OrderedDict[Inet4 | Inet6, PeerPort] = attrs.field(factory=OrderedDict)
    _by_address: dict[Inet4 | Inet6, Inet4 | Inet6] = attrs.field(factory=dict)
    _process: dict[AddressFamily, tuple[str, int]] = attrs.field(factory=dict)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    @property
    def was_used(self) -> bool:
        """Whether the process has sent anything."""
        return bool(self._process)

    def known(self, peer: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        """The loopback address that stands for a peer already, as a socket of the peer's family must name it."""
        port = self._peers.get(_unmapped(peer))
        if port is None:
            return None
        address = port.address
        return to_mapped(address) if isinstance(address, Inet4) and isinstance(peer, Inet6) else address

    def translate(self, address: SocketAddress) -> SocketAddress:
        """Whom a loopback address stands for; every other address stands for itself."""
        if not isinstance(address, Inet4 | Inet6):
            return address
        peer = self._by_address.get(_unmapped(address))
        if peer is None:
            return address
        return to_mapped(peer) if isinstance(peer, Inet4) and isinstance(address, Inet6) else peer

    async def open(self, peer: Inet4 | Inet6, local: InetEndpoint | None) -> InetEndpoint:
        """Makes a port for `peer`; the agent's local address. Raises OSError with the pod's errno."""
        plain = _unmapped(peer)
        family: AddressFamily = "inet4" if isinstance(plain, Inet4) else "inet6"
        remote = self._remotes.get(family)
        if remote is None:
            wanted = inet_endpoint_of(plain) if self.connected else None
            remote = await self._owner.session.open_datagrams(family, wanted, local)
            if family in self._remotes:  # another task was faster
                remote.close()
                remote = self._remotes[family]
            else:
                self._remotes[family] = remote
                self._owner.nursery.start_soon(self._receive, family, remote)
        if plain not in self._peers:
            self._add_port(plain)
        return remote.local

    def close(self) -> None:
        """Gives everything back."""
        self._scope.cancel()
        for port in self._peers.values():
            port.close()
        for remote in self._remotes.values():
            remote.close()
        self._peers.clear()

    def _add_port(self, peer: Inet4 | Inet6, number: int = 0) -> PeerPort:
        opened = _open_port(isinstance(peer, Inet4), number)
        port = PeerPort(peer, address_of_name(opened.getsockname()), opened)
        self._by_address[port.address] = peer
        self._peers[peer] = port
        self._owner.nursery.start_soon(self._send, port)
        while len(self._peers) > PEERS_PER_SOCKET:
            _, oldest = self._peers.popitem(last=False)
            del self._by_address[oldest.address]
            oldest.close()
        return port

    async def _send(self, port: PeerPort) -> None:
        family: AddressFamily = "inet4" if isinstance(port.peer, Inet4) else "inet6"
        to = None if self.connected else inet_endpoint_of(port.peer)
        here = trio.socket.from_stdlib_socket(port.socket)
        while True:
            try:
                data, name = await here.recvfrom(_DATAGRAM_MAXIMUM)
            except trio.ClosedResourceError:
                return
            except OSError:
                if port.socket.fileno() < 0:
                    return
                continue  # an ICMP error of a reply that the process did not want any more
            if self._process.get(family) != name[:2]:
                if not self._is_the_process(port, name):
                    continue
                self._process[family] = name[:2]
            if port.peer in self._peers:
                self._peers.move_to_end(port.peer)
            with contextlib.suppress(SessionLost):
                self._remotes[family].send(data, to)

    def _is_the_process(self, port: PeerPort, name: object) -> bool:
        return self._owner.here.inode("udp", address_of_name(name), port.address) == self.handle.inode

    async def _receive(self, family: AddressFamily, remote: RemoteDatagrams) -> None:
        with self._scope:
            while True:
                try:
                    data, source = await remote.receive()
                except SessionLost:
                    self._owner.remove(self)
                    return
                except OSError as error:
                    self._report(error.errno or errno.ECONNREFUSED)
                    continue
                self._deliver(family, data, source)

    def _deliver(self, family: AddressFamily, data: bytes, source: InetEndpoint | None) -> None:
        if self.connected:
            port = next(iter(self._peers.values()))
        else:
            if source is None:
                return
            address = address_of_endpoint(source, socket.AF_INET if family == "inet4" else socket.AF_INET6)
            assert isinstance(address, Inet4 | Inet6)
            port = self._peers.get(address) or self._add_port(address)
        process = self._process.get(family)
        if process is not None:
            with contextlib.suppress(OSError):  # lost, as datagrams may be
                port.socket.sendto(data, process)

    def _report(self, error: int) -> None:
        if not self.connected or error != errno.ECONNREFUSED:
            return  # only connected sockets are told of ICMP errors (udp(7)), and of the others we can make none here
        _, port = self._peers.popitem()
        number = port.address.port
        port.close()
        borrowed = borrow_socket(self.handle.tid, self.handle.descriptor, self.handle.inode)
        if borrowed is not None:
            with borrowed, contextlib.suppress(OSError):
                borrowed.send(b"", socket.MSG_DONTWAIT)
        self._add_port(port.peer, number)


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

    async def sweep(self) -> None:
        """Closes the relays of sockets that are gone, again and again."""
        while True:
            with trio.move_on_after(_SWEEP_INTERVAL_S):
                await self._crowded.wait()
            self._crowded = trio.Event()
            self._since_sweep = 0
            if self._relays:
                present = self.here.inodes("udp")
                deadline = trio.current_time() - _GRACE_S
                for relay in list(self._relays):
                    if relay.handle.inode not in present and (relay.was_used or relay.born < deadline):
                        self.remove(relay)
