"""Who waits for room in the outbox gets it, whatever those do who got it before."""

from __future__ import annotations

from mirrord_trace.session_link import SessionLink
from tests.mirrord_agent.support import in_trio, nobody_is_left_waiting, stream_pair


@in_trio
async def test_nobody_is_left_waiting_by_others_that_have_nothing_to_send() -> None:
    async with stream_pair() as (ours, theirs):
        await nobody_is_left_waiting(SessionLink(ours), theirs)
