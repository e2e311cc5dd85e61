"""Who waits for room in the outbox gets it, whatever those do who got it before; at the end nobody waits."""

from __future__ import annotations

import trio
import trio.testing

from mirrord_agent.link import Link
from mirrord_agent.wire.frames import Data, Ping
from tests.mirrord_agent.support import in_trio, nobody_is_left_waiting, stream_pair


@in_trio
async def test_nobody_is_left_waiting_by_others_that_have_nothing_to_send() -> None:
    async with stream_pair() as (ours, theirs):
        await nobody_is_left_waiting(Link(ours), theirs)


@in_trio
async def test_nothing_is_sent_after_the_end_and_nobody_waits_for_it() -> None:
    async with stream_pair() as (ours, theirs):
        link = Link(ours)
        while link.has_room:
            link.put_ordered(Data(1, bytes(64 << 10)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.room)
            nursery.start_soon(link.flush)
            await trio.testing.wait_all_tasks_blocked()
            link.end()
        assert not await trio.to_thread.run_sync(link.send_from_any_thread, lambda: Ping(1))
        link.put_at_once(Ping(2))
        await ours.aclose()
        assert await theirs.receive_some() == b""
