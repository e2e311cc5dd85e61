"""Sockets of this machine on which forwarded connections begin. Opened before a target is disturbed."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import attrs

from mirrord_trace.errors import Failure
from mirrord_trace.forwarding.forwards import Forward, host_and_port

_BACKLOG: Final = 1024
_TRIES: Final = 20
"""How many free ports of one address are tried for being free on the other as well."""
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


@attrs.frozen
class Listening:
    """A forward and its sockets."""

    forward: Forward
    sockets: tuple[socket.socket, ...]

    @property
    def near(self) -> str:
        """Where is listened, in words."""
        return " and ".join(host_and_port(*each.getsockname()[:2]) for each in self.sockets)


@contextmanager
def listening(forwards: Iterable[Forward]) -> Iterator[list[Listening]]:
    """Listens for all of them; closed with the block. Raises Failure when one cannot be had."""
    with ExitStack() as resources:
        found = []
        for forward in forwards:
            opened = _open(forward)
            for each in opened:
                resources.callback(each.close)
            found.append(Listening(forward, opened))
        yield found


def _open(forward: Forward) -> tuple[socket.socket, ...]:
    for left in reversed(range(_TRIES)):
        with ExitStack() as opening:
            try:
                opened = _open_at(forward, opening)
            except _Taken as taken:
                if left and not forward.local_port:
                    continue
                raise Failure(
                    f"cannot listen on {taken.where}: {taken.reason}",
                    "Choose another LOCAL_PORT; with 0 one that is free is taken, and told.",
                ) from taken
            opening.pop_all()
            return opened
    raise AssertionError("the last try returns or raises")


class _Taken(Exception):
    def __init__(self, where: str, reason: str) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason


def _open_at(forward: Forward, opening: ExitStack) -> tuple[socket.socket, ...]:
    """The sockets of one try. An IPv6 address that was not asked for by itself may be missing."""
    opened: list[socket.socket] = []
    port = forward.local_port
    for host in forward.bind:
        with contextlib.ExitStack() as one:
            try:
                server = one.enter_context(_bound(host, port))
            except OSError as error:
                if opened and error.errno in _NO_SUCH_ADDRESS:
                    continue
                raise _Taken(host_and_port(host, port), error.strerror or str(error)) from error
            one.pop_all()
        opening.callback(server.close)
        opened.append(server)
        port = server.getsockname()[1]
    return tuple(opened)


def _bound(host: str, port: int) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind((host, port))
        server.listen(_BACKLOG)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server
