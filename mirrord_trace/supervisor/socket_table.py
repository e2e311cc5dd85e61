"""What we know of each socket of the process tree that is not simply local, keyed by its inode.

The inode is the socket's identity: dup, fork, exec and SCM_RIGHTS leave it as it is. Records are immutable and replaced
whole, because the delivery's thread reads them while Trio's thread writes. Records of sockets that ended are kept for a
while (the process may still ask for their names), oldest out first.
"""

from __future__ import annotations

from collections import OrderedDict
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

    def translate(self, address: SocketAddress) -> SocketAddress:
        """Whom the address that a datagram came from stands for."""
        if self.to_others is not None:
            address = self.to_others.translate(address)
        return address if self.to_peer is None else self.to_peer.relay.translate(address)


Record = Connecting | Connected | Refused | Datagrams


@attrs.define(eq=False)
class SocketTable:
    """Records by inode."""

    _records: dict[int, Record] = attrs.field(factory=dict)
    _ended: OrderedDict[int, None] = attrs.field(factory=OrderedDict)

    def get(self, inode: int) -> Record | None:
        """The record of a socket; None for a socket that is this machine's own."""
        return self._records.get(inode)

    def put(self, inode: int, record: Record) -> None:
        """Replaces the record of a socket."""
        self._ended.pop(inode, None)
        self._records[inode] = record

    def remove(self, inode: int) -> None:
        """The socket is this machine's own again."""
        self._records.pop(inode, None)
        self._ended.pop(inode, None)

    def ended(self, inode: int) -> None:
        """Nothing serves the socket any more, but it may still be open in the process."""
        if inode in self._records:
            self._ended[inode] = None
            while len(self._ended) > _ENDED_KEPT:
                self._records.pop(self._ended.popitem(last=False)[0], None)
