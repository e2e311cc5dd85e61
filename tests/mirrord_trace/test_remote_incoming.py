"""Subscriptions, against an agent that says what a test wants."""

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from mirrord_agent.wire import frames, handshake
from mirrord_agent.wire.frames import Frame, InetEndpoint
from mirrord_trace.remote_incoming import OPEN_AT_MOST
from mirrord_trace.session import RemoteListener, Session, SessionLost, open_session
from tests.mirrord_agent.support import SECRET, FrameClient, in_trio, stream_pair

CLIENT = InetEndpoint("198.18.0.7", 40000)
POD = InetEndpoint("198.18.0.10", 80)


async def welcome(agent: FrameClient, features: tuple[str, ...] = ("incoming",)) -> None:
    assert isinstance(await agent.receive(), frames.Hello)
    await agent.send(frames.Welcome(handshake.VERSION, features, frames.Facts("pod", "(none)", 1, 0.0)))


@asynccontextmanager
async def session_with(
    serve: Callable[[FrameClient], Awaitable[None]], features: tuple[str, ...] = ("incoming",)
) -> AsyncIterator[Session]:
    """A session with an agent that serves so, after its welcome, and then listens until the session ends."""
    async with stream_pair() as (ours, theirs):
        agent = FrameClient(theirs)

        async def run() -> None:
            await welcome(agent, features)
            await serve(agent)
            while not isinstance(await agent.receive(), frames.Goodbye | None):
                pass
            await theirs.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            async with open_session(ours, SECRET) as session:
                yield session


def tell_nobody(text: str) -> None:
    raise AssertionError(text)


async def subscribe(session: Session, tell: Callable[[str], None] = tell_nobody) -> RemoteListener:
    return await session.incoming.subscribe(80, "steal", tell, http_filter="{}", flush=True, mark=True, family="inet6")


async def accept(agent: FrameClient, *more: Frame) -> frames.Subscribe:
    asked = await agent.receive_kind(frames.Subscribe)
    await agent.send(frames.Subscribed(asked.stream), *more)
    return asked


@in_trio
async def test_what_arrives_is_received_and_answered() -> None:
    async def serve(agent: FrameClient) -> None:
        early = (frames.Arrived(2, 1, CLIENT, POD), frames.Data(2, b"question"), frames.Eof(2))
        assert await accept(agent, *early) == frames.Subscribe(1, 80, "tcp", "steal", "{}", True, True, "inet6")
        assert await agent.receive_kind(frames.Data) == frames.Data(2, b"answer")
        assert await agent.receive_kind(frames.Eof) == frames.Eof(2)
        await agent.send(frames.Arrived(4, 1, CLIENT, POD), frames.Reset(4, errno.ECONNABORTED))
        await agent.receive_kind(frames.Close)

    async with session_with(serve) as session:
        listener = await subscribe(session)
        stream = await listener.receive()
        assert (stream.peer, stream.local) == (CLIENT, POD)
        assert await stream.receive() == b"question"
        assert await stream.receive() == b""
        await stream.send(b"answer")
        await stream.send_eof()
        cut = await listener.receive()
        with pytest.raises(OSError, match="abort") as raised:
            await cut.receive()
        assert raised.value.errno == errno.ECONNABORTED
        listener.close()
        with pytest.raises(trio.ClosedResourceError):
            await listener.receive()


@in_trio
async def test_a_refusal_is_told_in_the_agents_words() -> None:
    async def serve(agent: FrameClient) -> None:
        asked = await agent.receive_kind(frames.Subscribe)
        await agent.send(frames.Failed(asked.stream, errno.EADDRINUSE, "ann on devbox has it"))

    async with session_with(serve) as session:
        with pytest.raises(OSError, match="ann on devbox has it") as raised:
            await subscribe(session)
        assert raised.value.errno == errno.EADDRINUSE


@in_trio
async def test_an_agent_without_the_feature_is_not_asked() -> None:
    async def serve(agent: FrameClient) -> None:
        """Whatever it was asked, there would be no answer."""

    async with session_with(serve, features=()) as session:
        with pytest.raises(OSError, match="older") as raised:
            await subscribe(session)
        assert raised.value.errno == errno.EOPNOTSUPP


@in_trio
async def test_connections_that_nobody_has_received_are_reset_and_those_received_live_on() -> None:
    async def serve(agent: FrameClient) -> None:
        await accept(agent, frames.Arrived(2, 1, CLIENT, POD), frames.Arrived(4, 1, CLIENT, POD))
        said = [await agent.receive(), await agent.receive()]
        assert sorted(map(repr, said)) == sorted(map(repr, (frames.Close(1), frames.Reset(4, errno.ECONNRESET))))
        # What was on its way when the subscription ended.
        await agent.send(frames.Arrived(6, 1, CLIENT, POD), frames.Data(6, b"x"), frames.Data(2, b"lives"))
        assert await agent.receive_kind(frames.Reset) == frames.Reset(6, errno.ECONNRESET)

    async with session_with(serve) as session:
        listener = await subscribe(session)
        stream = await listener.receive()
        await trio.testing.wait_all_tasks_blocked()
        listener.close()
        assert await stream.receive() == b"lives"


@in_trio
async def test_who_gives_up_while_it_subscribes_says_so() -> None:
    async def serve(agent: FrameClient) -> None:
        asked = await agent.receive_kind(frames.Subscribe)
        assert await agent.receive_kind(frames.Reset) == frames.Reset(asked.stream, errno.ECANCELED)
        await agent.send(frames.Subscribed(asked.stream), frames.Arrived(2, asked.stream, CLIENT, POD))
        assert await agent.receive_kind(frames.Reset) == frames.Reset(2, errno.ECONNRESET)

    async with session_with(serve) as session:
        with trio.move_on_after(0.01):
            await subscribe(session)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not session.lost.is_set()


@in_trio
async def test_notices_are_told_until_the_subscription_ends() -> None:
    async def serve(agent: FrameClient) -> None:
        await accept(agent, frames.Notice(1, "one was cut"))
        await agent.receive_kind(frames.Close)
        await agent.send(frames.Notice(1, "late"), frames.Pong(1))

    told: list[str] = []
    async with session_with(serve) as session:
        listener = await subscribe(session, told.append)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert told == ["one was cut"]
        listener.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert told == ["one was cut"]


@in_trio
async def test_datagrams_are_heard_and_answered() -> None:
    async def serve(agent: FrameClient) -> None:
        early = frames.Datagram(1, CLIENT, b"question")
        assert await accept(agent, early) == frames.Subscribe(1, 53, "udp", "steal", None, False, False, "inet4")
        assert await agent.receive_kind(frames.Datagram) == frames.Datagram(1, CLIENT, b"answer")
        await agent.receive_kind(frames.Close)

    async with session_with(serve) as session:
        flow = await session.incoming.subscribe_datagrams(53, "steal", tell_nobody, family="inet4")
        assert await flow.receive() == (b"question", CLIENT)
        flow.send(b"answer", CLIENT)
        flow.close()


@in_trio
async def test_when_the_session_is_lost_nothing_arrives_any_more() -> None:
    async def serve(agent: FrameClient) -> None:
        await accept(agent)
        await agent.stream.aclose()

    async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:
        agent = FrameClient(theirs)

        async def run() -> None:
            await welcome(agent)
            await serve(agent)

        nursery.start_soon(run)
        async with open_session(ours, SECRET) as session:
            listener = await subscribe(session)
            with pytest.raises(SessionLost):
                await listener.receive()
            with pytest.raises(SessionLost):
                await subscribe(session)
            listener.close()


@in_trio
async def test_more_connections_than_may_be_open_are_reset() -> None:
    async def serve(agent: FrameClient) -> None:
        numbers = range(2, 2 * OPEN_AT_MOST + 4, 2)
        await accept(agent, *(frames.Arrived(number, 1, CLIENT, POD) for number in numbers))
        assert await agent.receive_kind(frames.Reset) == frames.Reset(numbers[-1], errno.ECONNRESET)

    async with session_with(serve) as session:
        await subscribe(session)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert not session.lost.is_set()


@pytest.mark.parametrize(
    "said",
    [
        frames.Arrived(4, 1, CLIENT, POD),
        frames.Arrived(3, 1, CLIENT, POD),
        frames.Arrived(2, 3, CLIENT, POD),
        frames.Subscribed(3),
        frames.Subscribed(1),
        frames.Notice(3, "x"),
        frames.Data(2, b"x"),
        frames.Credit(2, 1),
    ],
    ids=str,
)
def test_an_agent_that_says_what_it_may_not_is_lost(said: Frame) -> None:
    @in_trio
    async def test() -> None:
        async with stream_pair() as (ours, theirs), trio.open_nursery() as nursery:
            agent = FrameClient(theirs)

            async def run() -> None:
                await welcome(agent)
                await accept(agent, said)

            nursery.start_soon(run)
            async with open_session(ours, SECRET) as session:
                with pytest.raises(SessionLost):
                    await (await subscribe(session)).receive()
                assert "may not" in (session.loss_reason or "")

    test()
