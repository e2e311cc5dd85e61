"""Who waits for room in the outbox gets it, whatever those do who got it before; and other threads may send."""

from __future__ import annotations

import os
from contextlib import suppress

import trio
import trio.testing

from mirrord_agent.wire import Decoder
from mirrord_agent.wire.frames import Frame, Ping
from mirrord_trace.session_link import SessionLink
from tests.mirrord_agent.support import in_trio, nobody_is_left_waiting, stream_pair


@in_trio
async def test_nobody_is_left_waiting_by_others_that_have_nothing_to_send() -> None:
    async with stream_pair() as (ours, theirs):
        await nobody_is_left_waiting(SessionLink(ours), theirs)


@in_trio
async def test_another_thread_sends_at_once_if_nothing_waits() -> None:
    async with stream_pair() as (ours, theirs):
        link = SessionLink(ours)
        assert await trio.to_thread.run_sync(link.send_from_any_thread, lambda: Ping(7))
        assert Decoder().feed(await theirs.receive_some(1 << 16)) == [Ping(7)]
        link.put(Ping(8))
        assert not await trio.to_thread.run_sync(link.send_from_any_thread, _never_asked)


@in_trio
async def test_another_thread_sends_nothing_while_somebody_sends_or_when_the_agent_is_gone() -> None:
    async with stream_pair() as (ours, _):
        link = SessionLink(ours)
        with link.lock:
            assert not await trio.to_thread.run_sync(link.send_from_any_thread, _never_asked)
        link.lose("for the test")
        assert not await trio.to_thread.run_sync(link.send_from_any_thread, _never_asked)


@in_trio
async def test_what_another_thread_could_not_write_at_once_the_writer_writes() -> None:
    async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:
        link = SessionLink(ours)
        nursery.start_soon(link.write)
        await trio.testing.wait_all_tasks_blocked()
        filled = _fill(ours.socket.fileno())
        assert await trio.to_thread.run_sync(link.send_from_any_thread, lambda: Ping(9))
        received = b""
        while len(received) <= filled:
            received += await theirs.receive_some(1 << 16)
        assert Decoder().feed(received[filled:]) == [Ping(9)]
        await link.flush()
        nursery.cancel_scope.cancel()


def _never_asked() -> Frame:
    raise AssertionError("a frame was made that is not sent")


def _fill(descriptor: int) -> int:
    """Writes until nothing more goes in; returns how much that was."""
    written = 0
    for size in (1 << 16, 1):
        with suppress(BlockingIOError):
            while True:
                written += os.write(descriptor, bytes(size))
    return written
