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
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress
from mirrord_trace.policy.outgoing import OutgoingPolicy, Side
from mirrord_trace.relay.addresses import address_of_endpoint, inet_endpoint_of, wished_source
from mirrord_trace.relay.udp import DatagramRelay, DatagramRelays, Handle
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, UseAddress, UseAddresses, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.socket_table import ConnectedDatagrams, Datagrams, SocketTable


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
        if not self._is_remote(address) or (borrowed.family == socket.AF_INET and isinstance(address, Inet6)):
            self.forget(inode)
            return PASS
        handle = Handle(call.tid, descriptor, inode)
        return self._connect(handle, borrowed.family, address, wished_source(borrowed, address))

    async def _connect(
        self, handle: Handle, family: int, address: Inet4 | Inet6, local: InetEndpoint | None
    ) -> Verdict:
        relay = self.relays.add(handle, self._ended, connected=True)
        try:
            here = address_of_endpoint(await relay.open(address, local), family)
        except OSError as error:
            self.relays.remove(relay)
            return Fail(error.errno or errno.ENETUNREACH)
        except trio.Cancelled:
            self.relays.remove(relay)
            raise
        port = relay.known(address)
        assert port is not None, "open made it"
        peer = address_of_endpoint(inet_endpoint_of(address), family)

        def done(result: int) -> int:
            if result == 0:
                self._replace_peer(handle.inode, ConnectedDatagrams(relay, here, peer))
            else:
                self.token.run_sync_soon(self.relays.remove, relay)
            return result

        return UseAddress(port, done)

    def send(self, call: Call, descriptor: int, inode: int, address: Inet4 | Inet6) -> Answer:
        """A datagram with a destination."""
        if not address.port or not self._is_remote(address):
            return PASS  # to port 0: EINVAL
        port = self._port(inode, address)
        if port is not None:
            return UseAddress(port)
        return self._open_and_send(call, descriptor, inode, address)

    async def _open_and_send(self, call: Call, descriptor: int, inode: int, address: Inet4 | Inet6) -> Verdict:
        ports = await self._open(call, descriptor, inode, [address])
        if isinstance(ports, Fail) or ports[0] is None:
            return ports if isinstance(ports, Fail) else PASS
        return UseAddress(ports[0])

    def send_many(self, call: Call, descriptor: int, inode: int, addresses: Sequence[SocketAddress | None]) -> Answer:
        """Datagrams of one sendmmsg, each with a destination or without."""
        remote = [
            address if isinstance(address, Inet4 | Inet6) and self._is_remote(address) else None
            for address in addresses
        ]
        if not any(remote):
            return PASS
        return self._open_and_send_many(call, descriptor, inode, remote)

    async def _open_and_send_many(
        self, call: Call, descriptor: int, inode: int, addresses: Sequence[Inet4 | Inet6 | None]
    ) -> Verdict:
        ports = await self._open(call, descriptor, inode, addresses)
        return ports if isinstance(ports, Fail) else UseAddresses(tuple(ports))

    async def _open(
        self, call: Call, descriptor: int, inode: int, addresses: Sequence[Inet4 | Inet6 | None]
    ) -> Fail | list[Inet4 | Inet6 | None]:
        """The port of each address; None for those that keep their own destination."""
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
                relay = self._relay_to_others(Handle(call.tid, descriptor, inode))
                try:
                    await relay.open(address, source)
                except OSError as error:
                    return Fail(error.errno or errno.ENETUNREACH)
                port = relay.known(address)
            ports.append(port)
        return ports

    def _port(self, inode: int, address: Inet4 | Inet6) -> Inet4 | Inet6 | None:
        record = self.table.get(inode)
        if not isinstance(record, Datagrams):
            return None
        port = record.to_others.known(address) if record.to_others is not None else None
        if port is None and record.to_peer is not None:
            port = record.to_peer.relay.known(address)
        return port

    def _relay_to_others(self, handle: Handle) -> DatagramRelay:
        record = self.table.get(handle.inode)
        if isinstance(record, Datagrams) and record.to_others is not None:
            return record.to_others
        relay = self.relays.add(handle, self._ended, connected=False)
        to_peer = record.to_peer if isinstance(record, Datagrams) else None
        self.table.put(handle.inode, Datagrams(to_peer, relay))
        return relay

    def _is_remote(self, address: Inet4 | Inet6) -> bool:
        side = self.policy.side("udp", address)
        return side is Side.REMOTE or (side is Side.LISTENER and not self.listeners.serves("udp", address))

    def _replace_peer(self, inode: int, peer: ConnectedDatagrams | None) -> None:
        record = self.table.get(inode)
        before = record if isinstance(record, Datagrams) else Datagrams()
        if before.to_peer is not None:
            self.token.run_sync_soon(self.relays.remove, before.to_peer.relay)
        if peer is None and before.to_others is None:
            self.table.remove(inode)
        else:
            self.table.put(inode, attrs.evolve(before, to_peer=peer))

    def forget(self, inode: int) -> None:
        """The socket has no peer in the pod any more."""
        if isinstance(self.table.get(inode), Datagrams):
            self._replace_peer(inode, None)

    def _ended(self, relay: DatagramRelay) -> None:
        """The process's socket is gone, or the relay was replaced."""
        record = self.table.get(relay.handle.inode)
        if isinstance(record, Datagrams) and (
            record.to_others is relay or (record.to_peer is not None and record.to_peer.relay is relay)
        ):
            self.table.remove(relay.handle.inode)
