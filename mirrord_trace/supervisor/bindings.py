"""What the process asked for when it bound its sockets, and what they have got on this machine, keyed by inode.

Sockets for which the kernel chose the port, and those that were bound before the process was ours, are not here. The
oldest are forgotten when there are too many: who has not listened by then listens on this machine only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import attrs

from mirrord_syscalls.sockaddr import Inet4, Inet6
from mirrord_trace.policy.incoming import Claim, Protocol, overlap

_KEPT: Final = 4096


@attrs.frozen
class Binding:
    """One socket's."""

    protocol: Protocol
    asked: Inet4 | Inet6
    here: Inet4 | Inet6
    """Its true address."""
    is_dual: bool = False
    """See `Claim`."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it has another port than it seems."""
        return self.asked.port != self.here.port


@attrs.define(eq=False)
class Bindings:
    """From any thread."""

    _by_inode: OrderedDict[int, Binding] = attrs.field(factory=OrderedDict)
    _writing: threading.Lock = attrs.field(factory=threading.Lock)

    def get(self, inode: int) -> Binding | None:
        """The binding of a socket."""
        return self._by_inode.get(inode)

    def put(self, inode: int, binding: Binding) -> None:
        """A socket was bound."""
        with self._writing:
            self._by_inode[inode] = binding
            while len(self._by_inode) > _KEPT:
                self._by_inode.popitem(last=False)

    def rivals(self, protocol: Protocol, claim: Claim) -> dict[int, Binding]:
        """Those that cannot be beside a socket, unless all agree to share; some may have ended."""
        with self._writing:
            return {
                inode: binding
                for inode, binding in self._by_inode.items()
                if binding.protocol == protocol and overlap(Claim(binding.asked, binding.is_dual), claim)
            }

    def elsewhere(self, protocol: Protocol, port: int) -> list[Binding]:
        """Those that seem to have a port and have another; some may have ended."""
        with self._writing:
            return [
                binding
                for binding in self._by_inode.values()
                if binding.is_elsewhere and binding.protocol == protocol and binding.asked.port == port
            ]
