"""What sockets exist on this machine, asked of the kernel through sock_diag(7).

Answers are of the moment, so nothing needs to be tracked: who listens is looked up when a process connects to loopback.
An instance belongs to one thread.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address

import attrs

from mirrord_syscalls.sock_diag import (
    ANY_STATE,
    NETLINK_SOCK_DIAG,
    TCP_ESTABLISHED,
    TCP_LISTEN,
    TCP_SYN_SENT,
    EndOfAnswers,
    Protocol,
    SocketRow,
    decode_answers,
    dump_request,
    lookup_request,
)
from mirrord_syscalls.sockaddr import Inet4, Inet6, mapped_ipv4

_ANSWER_ROOM = 1 << 16
LOOPBACK4 = IPv4Address("127.0.0.1")
LOOPBACK6 = IPv6Address("::1")
_FAMILIES = (socket.AF_INET, socket.AF_INET6)


@attrs.define(eq=False)
class SocketsHere:
    """The sockets of the network namespace that this was made in."""

    _netlink: socket.socket = attrs.field(
        init=False,
        factory=lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG),
    )

    def row(self, protocol: Protocol, local: Inet4 | Inet6, remote: Inet4 | Inet6) -> SocketRow | None:
        """The socket with these two addresses; None when there is none."""
        self._netlink.send(lookup_request(protocol, local, remote))
        for answer in decode_answers(self._netlink.recv(_ANSWER_ROOM)):
            if isinstance(answer, SocketRow) and not (protocol == "tcp" and 1 << answer.state == TCP_LISTEN):
                return answer  # and not the listener that a new connection would come to
        return None

    def inode(self, protocol: Protocol, local: Inet4 | Inet6, remote: Inet4 | Inet6) -> int | None:
        """The inode of that socket; None when there is none."""
        row = self.row(protocol, local, remote)
        return None if row is None else row.inode

    def bound(self, protocol: Protocol, port: int) -> Iterator[SocketRow]:
        """TCP listeners, or UDP sockets of any kind, on a port."""
        states = TCP_LISTEN if protocol == "tcp" else ANY_STATE
        for family in _FAMILIES:
            yield from self._dump(dump_request(protocol, family, states, port))

    def connecting(self) -> set[int]:
        """The inodes of all TCP sockets that are connected or want to be."""
        requests = (dump_request("tcp", family, TCP_ESTABLISHED | TCP_SYN_SENT) for family in _FAMILIES)
        return {row.inode for request in requests for row in self._dump(request)}

    def inodes(self, protocol: Protocol, port: int = 0) -> set[int]:
        """The inodes of all sockets of a protocol, or of those on a port."""
        requests = (dump_request(protocol, family, local_port=port) for family in _FAMILIES)
        return {row.inode for request in requests for row in self._dump(request)}

    def udp_port(self, inode: int) -> int | None:
        """The port of a UDP socket; None when it has none."""
        requests = (dump_request("udp", family) for family in _FAMILIES)
        return next((row.local.port for request in requests for row in self._dump(request) if row.inode == inode), None)

    def close(self) -> None:
        """Gives the netlink socket back."""
        self._netlink.close()

    def _dump(self, request: bytes) -> Iterator[SocketRow]:
        self._netlink.send(request)
        rows: list[SocketRow] = []
        while True:
            for answer in decode_answers(self._netlink.recv(_ANSWER_ROOM)):
                if isinstance(answer, EndOfAnswers):
                    return iter(rows)
                rows.append(answer)


def takes(row: SocketRow, destination: Inet4 | Inet6) -> bool:
    """Whether a socket bound as `row` says gets what is sent to `destination` on its port.

    Linux takes an unspecified destination for 127.0.0.1 or ::1. A socket bound to `::` gets IPv4 too unless it is
    IPV6_V6ONLY (ipv6(7)).
    """
    wanted = mapped_ipv4(destination) or destination
    bound = mapped_ipv4(row.local) or row.local
    if bound.host.is_unspecified:
        return type(bound) is type(wanted) or (isinstance(bound, Inet6) and not row.is_ipv6_only)
    if not wanted.host.is_unspecified:
        return bound.host == wanted.host
    return bound.host == (LOOPBACK4 if isinstance(wanted, Inet4) else LOOPBACK6)


@attrs.define(eq=False)
class TreeListeners:
    """Whether a process of the tree listens somewhere. Used from the delivery's thread."""

    process_ids: Callable[[], Iterable[int]]
    _here: SocketsHere = attrs.field(init=False, factory=SocketsHere)
    _known: set[int] = attrs.field(init=False, factory=set)

    def serves(self, protocol: Protocol, destination: Inet4 | Inet6) -> bool:
        """Whether a listener (for UDP: a bound socket) of the tree would get what goes to `destination`."""
        candidates = {row.inode for row in self._here.bound(protocol, destination.port) if takes(row, destination)}
        if not candidates:
            return False
        if candidates & self._known:
            return True
        for pid in self.process_ids():
            found = candidates & set(_socket_inodes(pid))
            if found:
                if len(self._known) > 4096:
                    self._known.clear()
                self._known |= found
                return True
        return False

    def open_in_tree(self, inodes: Iterable[int]) -> set[int]:
        """Those of the sockets that a process of the tree has open, whatever their state."""
        wanted, found = set(inodes), set[int]()
        for pid in self.process_ids() if wanted else ():
            found |= wanted.intersection(_socket_inodes(pid))
        return found


def _socket_inodes(pid: int) -> Iterator[int]:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        try:
            link = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if link.startswith("socket:["):
            yield int(link[8:-1])
