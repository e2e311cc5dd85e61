"""What we know of each socket of the process tree that is not simply local, keyed by its inode.

The inode is the socket's identity: dup, fork, exec and SCM_RIGHTS leave it as it is. Records are immutable and replaced
whole, because the delivery's thread reads them while Trio's thread writes. Records of sockets that ended are kept for a
while (the process may still ask for their names), oldest out first.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import SocketAddress
from mirrord_trace.relay.tcp import Attempt
from mirrord_trace.relay.udp import DatagramRelay

_ENDED_KEPT: Final = 4096


@attrs.frozen(eq=False)
class Connecting:
    """A stream socket whose connect() waits for the far side."""

    attempt: Attempt


@attrs.frozen(eq=False)
class Connected:
    """A stream socket that a relay serves, with the names that it shows."""

    attempt: Attempt
    local: SocketAddress
    peer: SocketAddress


@attrs.frozen(eq=False)
class Refused:
    """A stream socket whose connect() failed after it had returned EINPROGRESS."""

    attempt: Attempt
    errno: int


@attrs.frozen(eq=False)
class ConnectedDatagrams:
    """The peer of a connected UDP socket, with the names that it shows."""

    relay: DatagramRelay
    local: SocketAddress
    peer: SocketAddress


@attrs.frozen(eq=False)
class Datagrams:
    """A UDP socket that sends through relays: to its one peer if it is connected, to all others it names."""

    to_peer: ConnectedDatagrams | None = None
    to_others: DatagramRelay | None = None
    to_clients: DatagramRelay | None = None
    """For those that have sent to the target's port which this socket serves."""

    def translate(self, address: SocketAddress) -> SocketAddress:
        """Whom the address that a datagram came from stands for."""
        for relay in (self.to_clients, self.to_others, None if self.to_peer is None else self.to_peer.relay):
            shown = address if relay is None else relay.translate(address)
            if shown != address:
                return shown
        return address


StreamRecord = Connecting | Connected | Refused
Record = StreamRecord | Datagrams


@attrs.define(eq=False)
class SocketTable:
    """Records by inode. From any thread."""

    _records: dict[int, Record] = attrs.field(factory=dict)
    _ended: OrderedDict[int, Attempt] = attrs.field(factory=OrderedDict)
    _writing: threading.Lock = attrs.field(factory=threading.Lock)

    def get(self, inode: int) -> Record | None:
        """The record of a socket; None for a socket that is this machine's own."""
        return self._records.get(inode)

    def put(self, inode: int, record: Record) -> None:
        """Replaces the record of a socket."""
        with self._writing:
            self._ended.pop(inode, None)
            self._records[inode] = record

    def change(self, inode: int, change: Callable[[Datagrams], Datagrams]) -> None:
        """Replaces the record of a UDP socket by what `change` makes of it; an empty one stands for none."""
        with self._writing:
            before = self._records.get(inode)
            after = change(before if isinstance(before, Datagrams) else Datagrams())
            if after.to_peer is None and after.to_others is None and after.to_clients is None:
                self._records.pop(inode, None)
            else:
                self._records[inode] = after

    # An attempt may be told of when its socket is already on its next one: what it says then must change nothing.

    def advance(self, record: StreamRecord) -> None:
        """Replaces the record of the same attempt, if that is still the socket's."""
        attempt = record.attempt
        with self._writing:
            if self._belongs_to(attempt):
                self._records[attempt.inode] = record

    def drop(self, attempt: Attempt) -> None:
        """The socket is this machine's own again, if the attempt is still its."""
        with self._writing:
            if self._belongs_to(attempt):
                self._records.pop(attempt.inode)
                self._ended.pop(attempt.inode, None)

    def ended(self, attempt: Attempt) -> None:
        """Nothing serves the attempt's socket any more, but the process may still have it open."""
        with self._writing:
            if self._belongs_to(attempt):
                self._ended[attempt.inode] = attempt
                while len(self._ended) > _ENDED_KEPT:
                    self._records.pop(self._ended.popitem(last=False)[0], None)

    def _belongs_to(self, attempt: Attempt) -> bool:
        record = self._records.get(attempt.inode)
        return isinstance(record, StreamRecord) and record.attempt is attempt
