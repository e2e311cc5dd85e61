"""UDP: a connected socket is connected to a relay port of its own, other datagrams are sent to the port of their peer.

The agent must open a socket in the pod first (for a connected one: with an address and perhaps an error that the
process is to see), so the first datagram to a peer waits for it; those that follow are only pointed to the port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence

import attrs
import trio

from mirrord_agent.wire.frames import InetEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.policy.outgoing import OutgoingPolicy, Side
from mirrord_trace.relay.addresses import address_of_endpoint, inet_endpoint_of, wished_source
from mirrord_trace.relay.udp import DatagramRelay, DatagramRelays, Handle
from mirrord_trace.session import RemoteDatagrams
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, UseAddress, UseAddresses, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.socket_table import ConnectedDatagrams, Datagrams, SocketTable


@attrs.frozen
class Message:
    """One datagram that is to be sent."""

    address: Inet4 | Inet6 | None
    """Its destination; None when it has none of its own."""
    control: bytes | None = None
    """The control messages that must take the place of its own if it is sent through a relay; None: its own."""
    is_too_long: bool = False
    """Whether its control messages are too long to be looked at."""


@attrs.define(eq=False)
class DatagramHandlers:
    """UDP sockets of the process tree."""

    table: SocketTable
    policy: OutgoingPolicy
    listeners: TreeListeners
    relays: DatagramRelays
    token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)

    def is_local(self, address: Inet4 | Inet6) -> bool:
        """Whether UDP to `address` is none of our business, whoever listens."""
        return self.policy.side("udp", address) is Side.LOCAL

    def connect(
        self, call: Call, borrowed: socket.socket, descriptor: int, inode: int, address: Inet4 | Inet6
    ) -> Answer:
        """Connect of a UDP socket."""
        if borrowed.family == socket.AF_INET and isinstance(address, Inet6):
            return PASS  # EAFNOSUPPORT
        if not self._is_remote(address):
            return self._connect_here(inode, address)
        handle = Handle(call.tid, descriptor, inode)
        return self._connect(handle, borrowed.family, address, wished_source(borrowed, address))

    def _connect_here(self, inode: int, address: Inet4 | Inet6) -> Verdict:
        if not isinstance(self.table.get(inode), Datagrams):
            return PASS

        def done(result: int) -> int:
            if result == 0:
                self.forget(inode)
            return result

        return UseAddress(address, done)

    async def _connect(
        self, handle: Handle, family: int, address: Inet4 | Inet6, local: InetEndpoint | None
    ) -> Verdict:
        relay = self.relays.add(handle, self._ended, connected=True)
        try:
            in_pod, port = await relay.open(address, local)
        except OSError as error:
            self.relays.remove(relay)
            return Fail(error.errno or errno.ENETUNREACH)
        except trio.Cancelled:
            self.relays.remove(relay)
            raise
        here, peer = (address_of_endpoint(end, family) for end in (in_pod, inet_endpoint_of(address)))

        def done(result: int) -> int:
            if result == 0:
                self._replace_peer(handle.inode, ConnectedDatagrams(relay, here, peer))
            else:
                self.token.run_sync_soon(self.relays.remove, relay)
            return result

        return UseAddress(port, done)

    def send(self, call: Call, descriptor: int, inode: int, message: Message) -> Answer:
        """A datagram with a destination."""
        address = message.address
        if address is None:
            return PASS
        port = self._client_port(inode, address)
        if port is None and not self._is_remote_destination(address):
            return PASS
        if message.is_too_long:
            return Fail(errno.ENOBUFS)
        port = port or self._port(inode, address)
        if port is not None:
            return UseAddress(port, control=message.control)
        return self._open_and_send(call, descriptor, inode, message)

    async def _open_and_send(self, call: Call, descriptor: int, inode: int, message: Message) -> Verdict:
        ports = await self._open(call, descriptor, inode, [message.address])
        if isinstance(ports, Fail):
            return ports
        return PASS if ports[0] is None else UseAddress(ports[0], control=message.control)

    def send_many(self, call: Call, descriptor: int, inode: int, messages: Sequence[Message], is_all: bool) -> Answer:
        """Datagrams of one sendmmsg, each with a destination or without. `is_all`: there are no more of them."""
        remote = [
            message.address is not None
            and (self._client_port(inode, message.address) is not None or self._is_remote_destination(message.address))
            for message in messages
        ]
        if not any(remote):
            return PASS if is_all else UseAddresses((None,) * len(messages))
        wanted = [message.address if is_remote else None for message, is_remote in zip(messages, remote, strict=True)]
        if any(message.is_too_long and address for message, address in zip(messages, wanted, strict=True)):
            return Fail(errno.ENOBUFS)
        return self._open_and_send_many(call, descriptor, inode, messages, wanted)

    async def _open_and_send_many(
        self,
        call: Call,
        descriptor: int,
        inode: int,
        messages: Sequence[Message],
        wanted: Sequence[Inet4 | Inet6 | None],
    ) -> Verdict:
        ports = await self._open(call, descriptor, inode, wanted)
        if isinstance(ports, Fail):
            return ports
        controls = {
            position: message.control
            for position, (message, port) in enumerate(zip(messages, ports, strict=True))
            if port is not None and message.control is not None
        }
        return UseAddresses(tuple(ports), controls)

    async def _open(
        self, call: Call, descriptor: int, inode: int, addresses: Sequence[Inet4 | Inet6 | None]
    ) -> Fail | list[Inet4 | Inet6 | None]:
        """The port of each address; None for those that keep their own destination, as all do of other sockets."""
        try:
            with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
                if (borrowed.type, borrowed.proto) != (socket.SOCK_DGRAM, socket.IPPROTO_UDP):
                    return [None] * len(addresses)
                sources = [wished_source(borrowed, address) if address else None for address in addresses]
        except OSError as error:
            return Fail(error.errno or errno.EBADF)
        ports: list[Inet4 | Inet6 | None] = []
        for address, source in zip(addresses, sources, strict=True):
            port = None if address is None else self._port(inode, address)
            if address is not None and port is None:
                try:
                    relay = self._relay_to_others(Handle(call.tid, descriptor, inode))
                    _, port = await relay.open(address, source)
                except OSError as error:
                    return Fail(error.errno or errno.ENETUNREACH)
            ports.append(port)
        return ports

    def _client_port(self, inode: int, address: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        """What stands for a client that the process serves in the target's place, wherever that may be."""
        match self.table.get(inode):
            case Datagrams(to_clients=DatagramRelay() as relay):
                return relay.known(address)
        return None

    def _port(self, inode: int, address: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        record = self.table.get(inode)
        if not isinstance(record, Datagrams):
            return None
        port = record.to_clients.known(address) if record.to_clients is not None else None
        if port is None and record.to_peer is not None:
            port = record.to_peer.relay.known(address)
        if port is None and record.to_others is not None:
            port = record.to_others.known(address)
        return port

    def _relay_to_others(self, handle: Handle) -> DatagramRelay:
        record = self.table.get(handle.inode)
        if isinstance(record, Datagrams) and record.to_others is not None:
            return record.to_others
        relay = self.relays.add(handle, self._ended, connected=False)
        self.table.change(handle.inode, lambda before: attrs.evolve(before, to_others=relay))
        return relay

    def serve(self, handle: Handle, remote: RemoteDatagrams, answers_count: bool) -> DatagramRelay:
        """From now on a socket hears who sends to a port of the target. In Trio's thread."""
        relay = self.relays.add(handle, self._ended, connected=False)
        relay.serve(remote, answers_count=answers_count)
        self.serve_too(handle.inode, relay)
        return relay

    def serve_too(self, inode: int, relay: DatagramRelay) -> None:
        """Another socket hears of the same port."""
        self.table.change(inode, lambda before: attrs.evolve(before, to_clients=relay))

    def _is_remote(self, address: Inet4 | Inet6) -> bool:
        side = self.policy.side("udp", address)
        return side is Side.REMOTE or (side is Side.LISTENER and not self.listeners.serves("udp", address))

    def _is_remote_destination(self, address: Inet4 | Inet6) -> bool:
        """As `_is_remote`; but nobody sends to port 0 (EINVAL), which a socket may be connected to."""
        return address.port != 0 and self._is_remote(address)

    def _replace_peer(self, inode: int, peer: ConnectedDatagrams | None) -> None:
        def replace(before: Datagrams) -> Datagrams:
            if before.to_peer is not None:
                self.token.run_sync_soon(self.relays.remove, before.to_peer.relay)
            return attrs.evolve(before, to_peer=peer)

        self.table.change(inode, replace)

    def forget(self, inode: int) -> None:
        """The socket has no peer in the pod any more."""
        if isinstance(self.table.get(inode), Datagrams):
            self._replace_peer(inode, None)

    def _ended(self, relay: DatagramRelay) -> None:
        """The process's socket is gone, the session is, or the relay was replaced."""
        if self.relays.session.lost.is_set():
            return  # the sockets that are left keep their names

        def without(before: Datagrams) -> Datagrams:
            is_peers = before.to_peer is not None and before.to_peer.relay is relay
            return Datagrams(
                None if is_peers else before.to_peer,
                None if before.to_others is relay else before.to_others,
                None if before.to_clients is relay else before.to_clients,
            )

        if isinstance(self.table.get(relay.handle.inode), Datagrams):
            self.table.change(relay.handle.inode, without)
