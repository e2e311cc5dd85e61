"""Sockets that serve the ports of several targets at a time, which come and go; what arrives there is scripted."""

import errno
import socket
from typing import cast

import pytest
import trio
import trio.testing

from mirrord_agent.wire.frames import InetEndpoint
from mirrord_syscalls.sockaddr import SocketAddress
from mirrord_trace.relay.addresses import address_of_name
from mirrord_trace.session import Session, SessionLost
from mirrord_trace.supervisor.delivery.base import PresentAddresses, Return
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.supervisor.handlers.test_incoming import CLIENT, Process, free_port, process
from tests.mirrord_trace.support import FakeDatagrams, FakeStream, Target, call_of, inet

OTHER_POD = "198.18.7.2"


def join(it: Process, other: Target, name: str = "pod web-2") -> list[trio.Event]:
    session = cast(Session, other)
    return [
        *it.here.incoming.ports.join(session, name),
        *it.here.incoming.datagrams.join(session, name),
    ]


def leave(it: Process, other: Target) -> None:
    it.here.incoming.ports.leave(cast(Session, other))
    it.here.incoming.datagrams.leave(cast(Session, other))


async def is_answered(it: Process, listening: socket.socket, target: Target, pod: str) -> bool:
    """Whether a connection that comes to a target reaches the process, with its true names."""
    port = target.incoming.asked[-1]
    stream = FakeStream(local=InetEndpoint(pod, port), peer=CLIENT)
    target.incoming.listeners[-1].arrives(stream)
    accepted, shown = await it.accept(listening)
    assert shown == inet(CLIENT.host, CLIENT.port)
    assert it.name(accepted, "getsockname") == inet(pod, port)
    accepted.sendall(b"answer")
    accepted.close()
    stream.gives(b"")
    await stream.until(lambda: stream.has_closed)
    return bytes(stream.sent) == b"answer"


@in_trio
async def test_all_that_are_there_are_subscribed_to_before_listen_returns() -> None:
    with free_port() as port:
        async with process() as it:
            other = Target()
            join(it, other)
            other.incoming.may_answer = trio.Event()
            made = it.make()
            assert await it.bind(made, inet("0.0.0.0", port)) == 0
            returned = trio.Event()

            async def listen() -> None:
                assert await it.listen(made) == Return(0)
                returned.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert it.here.target.incoming.listeners
                assert not returned.is_set()
                other.incoming.may_answer.set()
            assert await is_answered(it, made, it.here.target, "198.18.7.1")
            assert await is_answered(it, made, other, OTHER_POD)


@in_trio
async def test_one_that_comes_later_is_subscribed_to_what_is_listened_on() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            other = Target()
            join(it, other)
            await trio.testing.wait_all_tasks_blocked()
            assert await is_answered(it, listening, other, OTHER_POD)
            leave(it, other)
            assert other.incoming.listeners[0].is_closed
            assert await is_answered(it, listening, it.here.target, "198.18.7.1")


@in_trio
async def test_each_is_asked_for_what_the_listeners_hear() -> None:
    with free_port() as port:
        async with process() as it:
            other, last = Target(), Target()
            join(it, other)
            four = await it.serve(inet("0.0.0.0", port))
            six = await it.serve(inet("::", port), only=True)
            join(it, last)
            await trio.testing.wait_all_tasks_blocked()
            asked = [[each.family for each in one.incoming.listeners] for one in (it.here.target, other, last)]
            assert asked == [["inet4", "inet6"], ["inet4", "inet6"], [None]]
            four.close()
            while not it.listener(0).is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            closed = [[each.is_closed for each in one.incoming.listeners] for one in (it.here.target, other, last)]
            assert closed == [[True, False], [True, False], [False]]
            six.close()


@in_trio
async def test_one_that_leaves_before_it_has_answered_is_told() -> None:
    with free_port() as port:
        async with process() as it:
            await it.serve(inet("0.0.0.0", port))
            other = Target()
            other.incoming.may_answer = trio.Event()
            [joined] = join(it, other)
            await trio.testing.wait_all_tasks_blocked()
            leave(it, other)
            assert not joined.is_set()
            other.incoming.may_answer.set()
            await joined.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert other.incoming.listeners[0].is_closed
            assert not it.here.target.incoming.listeners[0].is_closed


@in_trio
async def test_a_refusal_of_one_is_told_and_the_others_serve() -> None:
    with free_port() as port:
        async with process() as it:
            other = Target()
            other.incoming.refusal = OSError(errno.EADDRINUSE, "ann@desk steals it")
            join(it, other)
            listening = await it.serve(inet("0.0.0.0", port))
            assert it.here.told == [
                f"port {port} is not stolen from pod web-2, the command serves the others: ann@desk steals it"
            ]
            assert await is_answered(it, listening, it.here.target, "198.18.7.1")


@in_trio
async def test_the_others_are_served_on_when_the_first_is_lost() -> None:
    with free_port() as port:
        async with process() as it:
            listening = await it.serve(inet("0.0.0.0", port))
            it.listener().arrives(cast(FakeStream, SessionLost("the agent is gone")))
            it.here.target.lost.set()
            other = Target()
            join(it, other)
            await trio.testing.wait_all_tasks_blocked()
            assert await is_answered(it, listening, other, OTHER_POD)
            listening.close()
            while not other.incoming.listeners[0].is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)


@in_trio
async def test_notices_name_the_pod() -> None:
    with free_port() as port:
        async with process() as it:
            other = Target()
            join(it, other)
            await it.serve(inet("0.0.0.0", port))
            it.listener().tell("a connection was cut")
            other.incoming.listeners[0].tell("a connection was cut")
            assert it.here.told == [
                f"port {port}: a connection was cut",
                f"port {port} of pod web-2: a connection was cut",
            ]


# UDP


async def hears(it: Process, served: socket.socket, flow: FakeDatagrams, data: bytes) -> SocketAddress:
    """Whom the process hears from, at the target of this flow."""
    flow.gives(data, CLIENT)
    received, name = await trio.to_thread.run_sync(served.recvfrom, 99)
    assert received == data
    verdict = it.here.sockets.receive(call_of("recvfrom", served.fileno(), 0, 0, 0, 1, 1))
    assert isinstance(verdict, PresentAddresses)
    return verdict.translate(address_of_name(name))


@pytest.mark.parametrize("is_later", [False, True])
def test_datagrams_are_answered_where_the_client_sent_to_last(is_later: bool) -> None:
    @in_trio
    async def test() -> None:
        with free_port(socket.SOCK_DGRAM) as port:
            async with process() as it:
                other = Target()
                if not is_later:
                    join(it, other)
                served = it.make(kind=socket.SOCK_DGRAM)
                assert await it.bind(served, inet("0.0.0.0", port)) == 0
                if is_later:
                    [joined] = join(it, other)
                    await joined.wait()
                [first], [second] = it.here.target.incoming.flows, other.incoming.flows
                for flow, data in ((first, b"1"), (second, b"2"), (first, b"3")):
                    client = await hears(it, served, flow, data)
                    assert client == inet(CLIENT.host, CLIENT.port)
                    assert await it.here.sendto(served, data, client) == 1
                    await flow.until_sent(1)
                    assert flow.sent[-1] == (data, CLIENT)
                    flow.sent.clear()
                assert not second.sent

    test()


@in_trio
async def test_datagrams_of_the_others_are_heard_when_one_is_lost() -> None:
    with free_port(socket.SOCK_DGRAM) as port:
        async with process() as it:
            other = Target()
            join(it, other)
            served = it.make(kind=socket.SOCK_DGRAM)
            assert await it.bind(served, inet("0.0.0.0", port)) == 0
            it.here.target.incoming.flows[0].gives(SessionLost("the agent is gone"))
            await trio.testing.wait_all_tasks_blocked()
            assert await hears(it, served, other.incoming.flows[0], b"2") == inet(CLIENT.host, CLIENT.port)
            served.close()
            while not other.incoming.flows[0].is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)


@in_trio
async def test_a_socket_that_has_ended_is_of_no_use_to_one_that_comes_later() -> None:
    with free_port(socket.SOCK_DGRAM) as port:
        async with process() as it:
            served = it.make(kind=socket.SOCK_DGRAM)
            assert await it.bind(served, inet("0.0.0.0", port)) == 0
            served.close()
            [flow] = it.here.target.incoming.flows
            while not flow.is_closed:
                await trio.testing.wait_all_tasks_blocked(0.01)
            other = Target()
            join(it, other)
            await trio.testing.wait_all_tasks_blocked()
            assert not other.incoming.asked
