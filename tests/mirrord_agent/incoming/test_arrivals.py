from __future__ import annotations

import trio

from mirrord_agent.incoming.arrivals import MAX_ARRIVED, Arrivals
from mirrord_agent.link import Link
from mirrord_agent.wire.frames import Arrived, InetEndpoint
from tests.mirrord_agent.support import FrameClient, in_trio, stream_pair

PEER, LOCAL = InetEndpoint("198.18.1.2", 40000), InetEndpoint("198.18.1.1", 80)


class Handler:
    """Hears nothing here."""

    def on_data(self, payload: bytes) -> None: ...
    def on_eof(self) -> None: ...
    def on_close(self) -> None: ...
    def on_reset(self, number: int) -> None: ...
    def on_credit(self, amount: int) -> None: ...


@in_trio
async def test_numbers_are_even_and_told() -> None:
    async with stream_pair() as (ours, theirs):
        streams: dict[int, object] = {}
        arrivals = Arrivals(Link(ours), streams)  # type: ignore[arg-type]
        handler = Handler()
        for expected in (2, 4, 6):
            stream = arrivals.next_stream()
            arrivals.announce(stream, handler, 1, PEER, LOCAL)
            assert (stream, streams[stream], arrivals.last_stream) == (expected, handler, expected)
            arrivals.end(stream)
            arrivals.end(stream)
        assert streams == {}
        client = FrameClient(theirs)
        assert [await client.receive() for _ in range(3)] == [Arrived(n, 1, PEER, LOCAL) for n in (2, 4, 6)]


@in_trio
async def test_there_are_so_many_places() -> None:
    async with stream_pair() as (ours, _):
        arrivals = Arrivals(Link(ours), {})
        assert all(arrivals.take_place() for _ in range(MAX_ARRIVED))
        assert not arrivals.take_place()
        arrivals.leave_place()
        assert arrivals.take_place()


@in_trio
async def test_a_client_that_does_not_read_gets_no_more() -> None:
    async with stream_pair() as (ours, theirs):
        link = Link(ours)
        arrivals = Arrivals(link, {})
        told = 0
        while arrivals.take_place():
            arrivals.leave_place()
            arrivals.announce(arrivals.next_stream(), Handler(), 1, PEER, LOCAL)
            told += 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.write)
            client = FrameClient(theirs)
            for _ in range(told):
                await client.receive_kind(Arrived)
            assert arrivals.take_place()
            nursery.cancel_scope.cancel()
