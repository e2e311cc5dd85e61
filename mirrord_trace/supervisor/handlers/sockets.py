"""Calls that name a socket address: which handler decides, and what the process sees as names of its sockets."""

from __future__ import annotations

import errno
import socket
import struct

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, Unspecified, decode_sockaddr
from mirrord_syscalls.structs import Mmsghdr, Msghdr
from mirrord_syscalls.subscription import Equals, NonZero, Rule
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, Interest, PresentAddresses, Return, Verdict
from mirrord_trace.supervisor.handlers.answer import Answer
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import Connected, Datagrams, Refused, SocketTable

SOCKADDR_MAXIMUM = 128
_MESSAGES_MAXIMUM = 1024  # UIO_MAXIOV
_SO_ERROR = 4
_TCP_PROTOCOLS = (socket.IPPROTO_TCP, 262)  # 262: IPPROTO_MPTCP
_int = struct.Struct("=i")


@attrs.frozen
class SocketHandlers:
    """Sends each call to the handlers of its kind of socket."""

    table: SocketTable
    streams: StreamHandlers
    datagrams: DatagramHandlers

    def interests(self) -> tuple[Interest, ...]:
        """What BPF can tell apart is told apart there: calls without an address run at native speed."""
        return (
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
        address = _read_address(call, call.arguments[1], call.integer(2))
        if not isinstance(address, Inet4 | Inet6 | Unix | Unspecified) or not call.shares_namespace("net"):
            return PASS
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            return PASS
        if isinstance(address, Unspecified):
            return self._disconnect(inode)
        if isinstance(address, Unix):
            return self.streams.connect_unix(call, descriptor, inode, address)
        again = self.streams.connect_again(call, inode)
        if again is not None:
            return again
        if self.streams.is_local(address) and self.datagrams.is_local(address):
            return PASS
        with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
            kind = borrowed.type, borrowed.proto
            if kind[0] == socket.SOCK_STREAM and kind[1] in _TCP_PROTOCOLS:
                return self.streams.connect(call, borrowed, inode, address)
            if kind == (socket.SOCK_DGRAM, socket.IPPROTO_UDP):
                return self.datagrams.connect(call, borrowed, descriptor, inode, address)
        return PASS

    def _disconnect(self, inode: int) -> Verdict:
        """connect(2) with AF_UNSPEC dissolves the association; the relay sees the connection end."""
        self.datagrams.forget(inode)
        self.table.remove(inode)
        return PASS

    def getpeername(self, call: Call) -> Verdict:
        """getpeername(2): the real peer, where the kernel says that there is one."""
        match self._record(call):
            case Datagrams(to_peer=object(peer=Inet4(port=0) | Inet6(port=0))):
                return Fail(errno.ENOTCONN)  # connected to learn its own address only, says the kernel too
            case Connected(peer=peer) | Datagrams(to_peer=object(peer=peer)):
                return PresentAddresses(lambda _: peer)
        return PASS

    def getsockname(self, call: Call) -> Verdict:
        """getsockname(2): the address that the agent's socket has in the pod."""
        match self._record(call):
            case Connected(local=local) | Datagrams(to_peer=object(local=local)):
                return PresentAddresses(lambda _: local)
        return PASS

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
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            error = borrowed.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        shown = _int.pack(real if error == errno.ECONNREFUSED else error)[:room]
        return Return(0, ((value_address, shown), (length_address, _int.pack(len(shown)))))

    def sendto(self, call: Call) -> Answer:
        """sendto(2) with an address."""
        address = _read_address(call, call.arguments[4], call.integer(5))
        return self._send(call, address, call.integer(3))

    def sendmsg(self, call: Call) -> Answer:
        """sendmsg(2); without an address in its header it passes."""
        header = Msghdr.decode(call.memory.read(call.arguments[1], Msghdr.SIZE))
        address = _read_address(call, header.name, header.name_length) if header.name else None
        return self._send(call, address, call.integer(2))

    def _send(self, call: Call, address: SocketAddress | None, flags: int) -> Answer:
        if not isinstance(address, Inet4 | Inet6) or not call.shares_namespace("net"):
            return PASS
        descriptor = call.integer(0)
        inode = call.socket_inode(descriptor)
        if inode is None:
            return PASS
        if flags & socket.MSG_FASTOPEN:
            with socket.socket(fileno=call.borrow(descriptor)) as borrowed:
                if borrowed.type == socket.SOCK_STREAM and borrowed.proto in _TCP_PROTOCOLS:
                    return self.streams.connect(call, borrowed, inode, address)
        return self.datagrams.send(call, descriptor, inode, address)

    def sendmmsg(self, call: Call) -> Answer:
        """sendmmsg(2)."""
        count = min(call.arguments[2] & 0xFFFF_FFFF, _MESSAGES_MAXIMUM)
        raw = call.memory.read(call.arguments[1], count * Mmsghdr.SIZE)
        headers = [Msghdr.decode(raw, position * Mmsghdr.SIZE) for position in range(count)]
        addresses = [
            _read_address(call, header.name, header.name_length) if header.name else None for header in headers
        ]
        if not any(isinstance(address, Inet4 | Inet6) for address in addresses) or not call.shares_namespace("net"):
            return PASS
        inode = call.socket_inode(call.integer(0))
        return PASS if inode is None else self.datagrams.send_many(call, call.integer(0), inode, addresses)

    def recvmsg(self, call: Call) -> Verdict:
        """recvmsg(2); a header without room for an address passes."""
        header = Msghdr.decode(call.memory.read(call.arguments[1], Msghdr.SIZE))
        return self.receive(call) if header.name else PASS

    def receive(self, call: Call) -> Verdict:
        """recvfrom(2), recvmsg(2), recvmmsg(2): true sources."""
        record = self._record(call)
        return PresentAddresses(record.translate) if isinstance(record, Datagrams) else PASS

    def _record(self, call: Call) -> object:
        inode = call.socket_inode(call.integer(0))
        return None if inode is None else self.table.get(inode)


def _read_address(call: Call, place: int, length: int) -> SocketAddress | None:
    """The socket address in the task's memory; None where the kernel itself will find fault with it."""
    if not 0 < length <= SOCKADDR_MAXIMUM:
        return None
    try:
        return decode_sockaddr(call.memory.read(place, length))
    except ValueError:
        return None
