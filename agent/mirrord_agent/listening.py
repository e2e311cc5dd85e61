"""Waiting for the client on a port of the loopback interface.

Whoever shares the loopback can connect, so connecting proves nothing: each comer is asked for the secret, strangers are
turned away, a few at a time, and the first who knows it gets the session. Then nobody else is let in.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import sys

import trio

from mirrord_agent.server import serve
from mirrord_agent.target import Target
from mirrord_agent.wire.frames import Goodbye, GoodbyeKind

#: How long to wait for the first client that knows the secret, if nothing else is asked for.
FIRST_CLIENT_TIMEOUT_S = 60.0
#: How many comers may be asked for the secret at a time; more wait in the backlog.
_MAX_COMERS = 16


def parse_address(text: str) -> tuple[str, int]:
    """`127.0.0.1:8000` or `[::1]:8000`. Raises ValueError for anything that is not on the loopback interface."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{host} is not a loopback address")
    if not 0 <= int(port) <= 65535:
        raise ValueError(f"{port} is not a port")
    return host, int(port)


def open_listener(address: tuple[str, int]) -> socket.socket:
    """A listening socket. Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.create_server(address, family=family)
    host, port = listener.getsockname()[:2]
    sys.stdout.write(f"listening on {f'[{host}]' if ':' in host else host}:{port}\n")
    sys.stdout.flush()
    return listener


async def serve_first_client(
    listener: socket.socket,
    target: Target | Goodbye,
    secret_hash: str,
    communication_timeout_s: float,
    first_client_timeout_s: float = FIRST_CLIENT_TIMEOUT_S,
    owner: str = "",
) -> Goodbye:
    """Serves the first client that proves the secret; returns how that ended. Closes the listener."""
    door = _Door(target, secret_hash, communication_timeout_s, first_client_timeout_s, owner)
    await door.open(listener)
    return door.ending


class _Door:
    def __init__(
        self,
        target: Target | Goodbye,
        secret_hash: str,
        communication_timeout_s: float,
        first_client_timeout_s: float,
        owner: str,
    ) -> None:
        self._target = target
        self._secret_hash = secret_hash
        self._communication_timeout_s = communication_timeout_s
        self._first_client_timeout_s = first_client_timeout_s
        self._owner = owner
        self._taken = False
        self._listening = trio.CancelScope()
        self._waiting = trio.CancelScope()
        self._slots = trio.Semaphore(_MAX_COMERS)
        self.ending = Goodbye(GoodbyeKind.TIMEOUT, f"no client came within {first_client_timeout_s:.0f} s")

    async def open(self, listener: socket.socket) -> None:
        self._waiting.deadline = trio.current_time() + self._first_client_timeout_s
        with self._waiting:
            async with trio.open_nursery() as nursery:
                with self._listening:
                    async with trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as accepting:
                        while True:
                            await self._slots.acquire()
                            nursery.start_soon(self._serve, await accepting.accept())

    async def _serve(self, stream: trio.SocketStream) -> None:
        claimed = False

        def claim() -> bool:
            nonlocal claimed
            if self._taken:
                return False
            self._taken = claimed = True
            self._listening.cancel()
            self._waiting.deadline = math.inf
            return True

        ending = await serve(stream, self._target, self._secret_hash, self._communication_timeout_s, claim, self._owner)
        self._slots.release()
        if claimed:
            self.ending = ending
            self._waiting.cancel()
