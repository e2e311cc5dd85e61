"""Who waits for room in the outbox gets it, whatever those do who got it before."""

from __future__ import annotations

import socket

import trio
import trio.testing

from mirrord_agent.link import Link
from mirrord_agent.wire.frames import Data
from tests.mirrord_agent.support import in_trio

_WAITING = 50
_CHUNK = bytes(64 << 10)


@in_trio
async def test_nobody_is_left_waiting_by_others_that_have_nothing_to_send() -> None:
    ours, theirs = (trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair())
    async with ours, theirs:
        link = Link(ours)
        while link.has_room:
            link.put_ordered(Data(1, _CHUNK))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.write)
            async with trio.open_nursery() as waiting:
                for _ in range(_WAITING):
                    waiting.start_soon(link.room)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(_read_all, theirs)
                with trio.fail_after(10):
                    while waiting.child_tasks:
                        await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()


async def _read_all(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass
