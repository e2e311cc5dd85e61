"""Word from the kernel that a socket which listened has ended.

Nobody tells when the last process closes a descriptor, but sock_diag(7) tells of every TCP socket that goes; of no use
are those that had a peer, so a filter in the kernel drops them. A socket that is shut down stays, without word: so
whoever wants to know looks now and then anyway.
"""

from __future__ import annotations

import socket
from typing import Final

import attrs
import trio

from mirrord_syscalls.bpf import socket_filter_half_word
from mirrord_syscalls.sock_diag import NETLINK_SOCK_DIAG, REMOTE_PORT_OFFSET, TCP_DESTROYED_GROUPS
from mirrord_trace.socket_filters import attach_filter

_LOOK_EVERY_S: Final = 1.0
_MESSAGE_ROOM: Final = 4096


def _subscribed() -> socket.socket | None:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    try:
        netlink.setblocking(False)
        attach_filter(netlink, socket_filter_half_word(REMOTE_PORT_OFFSET, 0))
        netlink.bind((0, TCP_DESTROYED_GROUPS))
    except OSError:  # this kernel does not tell, or not us
        netlink.close()
        return None
    return netlink


@attrs.define(eq=False)
class Endings:
    """Endings in the network namespace that this was made in. For Trio's thread."""

    _netlink: socket.socket | None = attrs.field(init=False, factory=_subscribed)

    async def next(self) -> None:
        """Returns when a listener may have ended; after a second in any case."""
        with trio.move_on_after(_LOOK_EVERY_S):
            if self._netlink is None:
                await trio.sleep_forever()
            else:
                await trio.lowlevel.wait_readable(self._netlink)
                self._take_all(self._netlink)

    def _take_all(self, netlink: socket.socket) -> None:
        while True:
            try:
                netlink.recv(_MESSAGE_ROOM)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: there were too many (netlink(7)); they are word enough
                continue

    def close(self) -> None:
        """Gives the netlink socket back."""
        if self._netlink is not None:
            self._netlink.close()
