"""Calls that name a socket address: which handler decides, and what the process sees as names of its sockets.

A call whose address may be the target's is never left to the kernel because we could not look closer: it fails then.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, Unspecified
from mirrord_syscalls.structs import Msghdr
from mirrord_syscalls.subscription import Equals, NonZero, Rule
from mirrord_trace.supervisor.delivery.base import (
    CONTROL_MAXIMUM,
    PASS,
    Call,
    Fail,
    Interest,
    MemoryFault,
    PresentAddresses,
    Return,
    UseAddress,
    Verdict,
)
from mirrord_trace.supervisor.handlers import control, messages
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers, Message
from mirrord_trace.supervisor.handlers.incoming import IncomingHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import Connected, Datagrams, Refused, SocketTable

_SO_ERROR: Final = 4
_TCP_PROTOCOLS: Final = (socket.IPPROTO_TCP, 262)  # 262: IPPROTO_MPTCP
_AT_ONCE: Final = 64
"""So many messages of a sendmmsg are looked at; a call may always send fewer than it was asked to."""
_int = struct.Struct("=i")


@attrs.frozen
class SocketHandlers:
    """Sends each call to the handlers of its kind of socket."""

    table: SocketTable
    streams: StreamHandlers
    datagrams: DatagramHandlers
    incoming: IncomingHandlers | None = None
    """None where all ports are this machine's."""

    def interests(self) -> tuple[Interest, ...]:
        """What BPF can tell apart is told apart there: calls without an address run at native speed."""
        return (
            *(() if self.incoming is None else self.incoming.interests()),
            Interest(Rule("connect"), self.connect),
            Interest(Rule("getpeername"), self.getpeername),
            Interest(Rule("getsockname"), self.getsockname),
            Interest(
                Rule("getsockopt", (Equals(1, socket.SOL_SOCKET, 0xFFFF_FFFF), Equals(2, _SO_ERROR, 0xFFFF_FFFF))),
                self.get_error,
            ),
            Interest(Rule("sendto", (NonZero(4),)), self.sendto),
            Interest(Rule("sendmsg"), self.sendmsg),
            Interest(Rule("sendmmsg"), self.sendmmsg),
            Interest(Rule("recvfrom", (NonZero(4),)), self.receive),
            Interest(Rule("recvmsg"), self.recvmsg),
            Interest(Rule("recvmmsg"), self.receive),
        )

    def connect(self, call: Call) -> Answer:
        """connect(2)."""
        address = messages.read_address(call, call.arguments[1], call.integer(2))
        if not isinstance(address, Inet4 | Inet6 | Unix | Unspecified) or not call.shares_namespace("net"):
            return PASS
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            return self._without_socket(call, descriptor, address)
        try:
            if isinstance(address, Unspecified):
                return self._disconnect(inode)
            if isinstance(address, Unix):
                return self.streams.connect_unix(call, descriptor, inode, address)
            return self._connect_inet(call, descriptor, inode, address)
        except OSError as error:
            return Fail(error.errno or errno.EBADF)

    def _connect_inet(self, call: Call, descriptor: int, inode: int, address: Inet4 | Inet6) -> Answer:
        again = self.streams.connect_again(call, inode)
        if again is not None:
            return again
        if self._is_local(address) and self.table.get(inode) is None:
            return PASS
        with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
            if _is_tcp(borrowed):
                return self.streams.connect(call, borrowed, inode, address)
            if (borrowed.type, borrowed.proto) == (socket.SOCK_DGRAM, socket.IPPROTO_UDP):
                return self.datagrams.connect(call, borrowed, descriptor, inode, address)
        return PASS

    def _is_local(self, address: SocketAddress) -> bool:
        return not isinstance(address, Inet4 | Inet6) or (
            self.streams.is_local(address) and self.datagrams.is_local(address)
        )

    def _without_socket(self, call: Call, descriptor: int, address: SocketAddress) -> Verdict:
        if self._is_local(address):
            return PASS
        try:
            os.readlink(f"/proc/{call.tid}/fd/{descriptor}")
        except OSError as error:  # EACCES: the process hides itself (PR_SET_DUMPABLE, prctl(2))
            return Fail(errno.EACCES if isinstance(error, PermissionError) else errno.EBADF)
        return Fail(errno.ENOTSOCK)

    def _disconnect(self, inode: int) -> Verdict:
        """connect(2) with AF_UNSPEC dissolves the association; the relay sees the connection end."""
        if self.table.get(inode) is None:
            return PASS

        def done(result: int) -> int:
            if result == 0:
                self.datagrams.forget(inode)
                self.streams.disconnected(inode)
            return result

        return UseAddress(Unspecified(), done)

    def getpeername(self, call: Call) -> Verdict:
        """getpeername(2): the real peer, where the kernel says that there is one."""
        inode = call.socket_inode(call.integer(0))
        match None if inode is None else self.table.get(inode):
            case Datagrams(to_peer=object(peer=Inet4(port=0) | Inet6(port=0))):
                return Fail(errno.ENOTCONN)  # connected to learn its own address only, says the kernel too
            case Connected(peer=peer) | Datagrams(to_peer=object(peer=peer)):
                return PresentAddresses(lambda _: peer)
        return PASS if inode is None or self.incoming is None else self.incoming.getpeername(call, inode)

    def getsockname(self, call: Call) -> Verdict:
        """getsockname(2): the address that the agent's socket has in the pod, or that the process asked for."""
        inode = call.socket_inode(call.integer(0))
        match None if inode is None else self.table.get(inode):
            case Connected(local=local) | Datagrams(to_peer=object(local=local)):
                return PresentAddresses(lambda _: local)
        return PASS if inode is None or self.incoming is None else self.incoming.getsockname(call, inode)

    def get_error(self, call: Call) -> Verdict:
        """getsockopt(2) of SO_ERROR: the pod's errno, where the kernel's own can only be ECONNREFUSED."""
        match self._record(call):
            case Refused(errno=real) if real != errno.ECONNREFUSED:
                pass
            case _:
                return PASS
        value_address, length_address = call.arguments[3:5]
        (room,) = _int.unpack(call.memory.read(length_address, _int.size))
        if room < 0:
            return Fail(errno.EINVAL)
        try:
            with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
                error = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError:
            return PASS
        shown = _int.pack(real if error == errno.ECONNREFUSED else error)[:room]
        return Return(0, ((value_address, shown), (length_address, _int.pack(len(shown)))))

    def sendto(self, call: Call) -> Answer:
        """sendto(2) with an address."""
        place, length = call.arguments[4], call.integer(5)
        try:
            address = messages.read_destination(call, place, length, _family_of(call))
            return self._send(call, Message(address), call.integer(3))
        except OSError as error:
            return Fail(error.errno or errno.EBADF)

    def sendmsg(self, call: Call) -> Answer:
        """sendmsg(2)."""
        header = messages.read_header(call)
        if not header.name and not header.control:
            return PASS
        try:
            message = self._message(call, header, _family_of(call))
            return self._send(call, message, call.integer(2))
        except OSError as error:
            return Fail(error.errno or errno.EBADF)

    def _send(self, call: Call, message: Message, flags: int) -> Answer:
        address = message.address
        if address is None or not call.shares_namespace("net"):
            return PASS
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            return self._without_socket(call, descriptor, address)
        if flags & socket.MSG_FASTOPEN:
            with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
                if _is_tcp(borrowed):
                    again = self.streams.connect_again(call, inode)
                    return self.streams.connect(call, borrowed, inode, address) if again is None else again
        return self.datagrams.send(call, descriptor, inode, message)

    def sendmmsg(self, call: Call) -> Answer:
        """sendmmsg(2)."""
        found: list[Message] = []
        headers = messages.read_headers(call)
        for header in headers:
            try:
                found.append(self._message(call, header, _family_of(call)))
            except MemoryFault:
                break  # so will the kernel
            except OSError as error:
                return Fail(error.errno or errno.EBADF)
            if len(found) == _AT_ONCE:
                break
        is_all = next(headers, None) is None
        if (is_all and all(message.address is None for message in found)) or not call.shares_namespace("net"):
            return PASS
        return self._send_many(call, found, is_all)

    def _send_many(self, call: Call, found: list[Message], is_all: bool) -> Answer:
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            addresses = (message.address for message in found if message.address is not None)
            verdicts = [self._without_socket(call, descriptor, address) for address in addresses]
            return next((verdict for verdict in verdicts if verdict is not PASS), PASS)
        if call.integer(3) & socket.MSG_FASTOPEN:
            try:
                with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
                    if _is_tcp(borrowed):
                        return Fail(errno.EOPNOTSUPP)  # as where the system does not do it (tcp(7), tcp_fastopen)
            except OSError as error:
                return Fail(error.errno or errno.EBADF)
        return self.datagrams.send_many(call, descriptor, inode, found, is_all)

    def _message(self, call: Call, header: Msghdr, family: Callable[[], int]) -> Message:
        """What a message asks for. Without an address it matters only if it says where it is to be sent from."""
        address = messages.read_message_destination(call, header, family)
        if address is None:
            record = self._record(call) if header.control and not header.name else None
            if not isinstance(record, Datagrams) or record.to_peer is None:
                return Message(None)
            sent = messages.read_control(call, header, CONTROL_MAXIMUM)
            if sent is None or not control.names_a_source(sent):
                return Message(None)
            assert isinstance(record.to_peer.peer, Inet4 | Inet6)
            return Message(record.to_peer.peer, control.without_source(sent))
        sent = messages.read_control(call, header, CONTROL_MAXIMUM)
        if sent is None:
            return Message(address, is_too_long=True)
        return Message(address, control.without_source(sent) if control.names_a_source(sent) else None)

    def recvmsg(self, call: Call) -> Verdict:
        """recvmsg(2); a header without room for an address or for control messages passes."""
        header = messages.read_header(call)
        if header.name:
            return self.receive(call)
        return self.receive(call) if header.control and isinstance(self._record(call), Datagrams) else PASS

    def receive(self, call: Call) -> Verdict:
        """recvfrom(2), recvmsg(2), recvmmsg(2): true sources.

        While the call waits another thread may send for the first time, so what is known is asked when it returns.
        """
        inode = call.socket_inode(call.integer(0))
        if inode is None:
            return PASS
        return PresentAddresses(
            lambda address: self._source(inode, address), lambda received: self._control(inode, received)
        )

    def _source(self, inode: int, address: SocketAddress) -> SocketAddress:
        record = self.table.get(inode)
        return record.translate(address) if isinstance(record, Datagrams) else address

    def _control(self, inode: int, received: bytes) -> bytes:
        match self.table.get(inode):
            case Datagrams(to_peer=object(local=local, peer=peer)):
                return control.shown_in_pod(received, local, peer)
        return received

    def _record(self, call: Call) -> object:
        inode = call.socket_inode(call.integer(0))
        return None if inode is None else self.table.get(inode)


def _is_tcp(borrowed: socket.socket) -> bool:
    return borrowed.type == socket.SOCK_STREAM and borrowed.proto in _TCP_PROTOCOLS


def _family_of(call: Call) -> Callable[[], int]:
    """What tells the family of the call's socket, for the rare case that it matters. Raises OSError."""

    def family() -> int:
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            return borrowed.family

    return family
