"""HTTP requests to a target's port of which a client of the agent has those that its filter takes."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import trio

from mirrord_agent.wire.frames import Arrived, Close, Data, Eof, InetEndpoint, Reset
from tests.mirrord_agent.incoming.agents import (
    IncomingClient,
    Pod,
    agent_for,
    endpoint_of,
    listening_ports,
)
from tests.mirrord_agent.incoming.networks import POD, SHORT_S
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, versions
from tests.mirrord_agent.support import in_trio
from tests.waiting import has_ended, holds_within

MINE = '{"path": "^/mine"}'


def request(path: str, body: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: pod\r\nContent-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)


def response(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def receive(connection: socket.socket, expected: bytes) -> None:
    received = bytearray()
    while len(received) < len(expected):
        data = connection.recv(len(expected) - len(received))
        assert data, f"the end after {received!r}"
        received += data
    assert received == expected


@contextmanager
def served(pod: Pod, version: int = 4) -> Iterator[socket.socket]:
    """The target's listener."""
    with pod.inside.listen(version, PORT) as target:
        yield target


@contextmanager
def asked_of_target(pod: Pod, target: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client whose request is the target's and has come there; and the target's end."""
    with pod.outside.connect(POD[4], PORT) as client:
        accepted, _ = target.accept()
        with accepted:
            client.sendall(request("/theirs"))
            receive(accepted, request("/theirs"))
            yield client, accepted


async def in_thread(function: Callable[..., object], *arguments: object) -> None:
    """Calls what waits, while the agent is talked with."""
    await trio.to_thread.run_sync(partial(function, *arguments))


def has_been_ended(client: socket.socket) -> bool:
    """Whether it hears that its connection is over."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


async def answers_mine(agent: IncomingClient, stream: int, question: bytes, answer: bytes) -> None:
    assert await agent.heard(stream, len(question)) == question
    await agent.send(Data(stream, answer))


@versions
@places
@in_trio
async def test_requests_of_one_connection_are_told_apart(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        with served(pod, version) as target:
            subscription = await agent.subscribe(accepts=MINE)
            with network.connect(host, PORT) as client:
                accepted, _ = target.accept()
                with accepted:
                    accepted.settimeout(SHORT_S)
                    client.sendall(request("/theirs", b"1"))
                    receive(accepted, request("/theirs", b"1"))
                    accepted.sendall(response(b"theirs"))
                    receive(client, response(b"theirs"))
                    client.sendall(request("/mine", b"2") + request("/theirs", b"3"))
                    arrived = await agent.arrived()
                    expected = endpoint_of(client.getsockname()), InetEndpoint(host, PORT)
                    assert arrived == Arrived(2, subscription, *expected)
                    await answers_mine(agent, 2, request("/mine", b"2"), response(b"mine"))
                    receive(client, response(b"mine"))
                    receive(accepted, request("/theirs", b"3"))
                    accepted.sendall(response(b"theirs"))
                    receive(client, response(b"theirs"))
                    client.sendall(request("/mine", b"4"))
                    await answers_mine(agent, 2, request("/mine", b"4"), response(b"mine"))
                    receive(client, response(b"mine"))


@in_trio
async def test_responses_of_the_process_say_so_if_that_is_asked_for(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod):
            await agent.subscribe(accepts=MINE, mark=True)
            with pod.outside.connect(POD[4], PORT) as client:
                client.sendall(request("/mine"))
                await agent.arrived()
                await answers_mine(agent, 2, request("/mine"), response(b""))
                marked = response(b"")[:-2] + b"mirrord-trace-served-by: local-process\r\n\r\n"
                receive(client, marked)


@in_trio
async def test_a_long_request_and_its_answer_flow(pod: Pod) -> None:
    """More than all windows, buffers and limits hold."""
    body = bytes(12 << 20)
    async with agent_for(pod.pid) as agent:
        with served(pod):
            await agent.subscribe(accepts=MINE)
            with pod.outside.connect(POD[4], PORT) as client:
                client.settimeout(3 * SHORT_S)
                question = request("/mine", body)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(in_thread, client.sendall, question)
                    await agent.arrived()
                    assert await agent.heard(2, len(question)) == question
                    nursery.start_soon(in_thread, receive, client, response(body))
                    await agent.give(2, response(body))


@in_trio
async def test_a_process_that_cannot_be_reached(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod):
            await agent.subscribe(accepts=MINE)
            with pod.outside.connect(POD[4], PORT) as client:
                client.sendall(request("/mine"))
                await agent.send(Reset((await agent.arrived()).stream, errno.ECONNREFUSED))
                with pytest.raises(ConnectionResetError):
                    client.recv(1)


@in_trio
async def test_a_target_that_cannot_be_reached(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe(accepts=MINE)
        with pod.outside.connect(POD[4], PORT) as client:
            client.sendall(request("/mine"))
            await agent.arrived()
            await answers_mine(agent, 2, request("/mine"), response(b"mine"))
            receive(client, response(b"mine"))
            client.sendall(request("/theirs"))
            with pytest.raises(ConnectionResetError):
                client.recv(1)


@in_trio
async def test_a_process_that_closes_gets_a_new_connection(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod):
            subscription = await agent.subscribe(accepts=MINE)
            with pod.outside.connect(POD[4], PORT) as client:
                for number, last in ((2, Close(2)), (4, Eof(4)), (6, Reset(6, errno.ECONNRESET)), (8, None)):
                    client.sendall(request("/mine"))
                    assert (await agent.arrived()).stream == number
                    await answers_mine(agent, number, request("/mine"), response(b"mine"))
                    receive(client, response(b"mine"))
                    if last is not None:
                        await agent.send(last)
                        await agent.subscribe(PORT + number)
                assert subscription == 1


@in_trio
async def test_what_is_no_http_is_the_targets(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod) as target:
            await agent.subscribe(accepts=MINE)
            with pod.outside.connect(POD[4], PORT) as client:
                accepted, _ = target.accept()
                with accepted:
                    accepted.sendall(b"220 welcome\r\n")
                    receive(client, b"220 welcome\r\n")
                    client.sendall(b"\0\1\2\3")
                    receive(accepted, b"\0\1\2\3")
                    client.shutdown(socket.SHUT_WR)
                    assert accepted.recv(1) == b""
                    accepted.sendall(b"bye")
                    receive(client, b"bye")


@in_trio
async def test_two_sessions_with_different_filters(pod: Pod) -> None:
    async with agent_for(pod.pid) as first, agent_for(pod.pid) as second:
        with served(pod) as target:
            await first.subscribe(accepts='{"path": "^/first"}')
            await second.subscribe(accepts='{"path": "^/second"}')
            with pod.outside.connect(POD[4], PORT) as client:
                accepted, _ = target.accept()
                with accepted:
                    for name, agent in (("first", first), ("second", second)):
                        question, answer = request(f"/{name}"), response(name.encode())
                        client.sendall(question)
                        arrived = await agent.arrived()
                        await answers_mine(agent, arrived.stream, question, answer)
                        receive(client, answer)
                    client.sendall(request("/theirs"))
                    receive(accepted, request("/theirs"))


@in_trio
async def test_the_target_serves_again_when_one_of_two_agents_is_killed(pod: Pod) -> None:
    async with agent_for(pod.pid) as first, agent_for(pod.pid) as second:
        with served(pod) as target:
            for agent in (first, second):
                await agent.subscribe(accepts=MINE)
            idle: list[socket.socket] = []
            with ExitStack() as clients:
                for _ in range(100):
                    idle.append(clients.enter_context(pod.outside.connect(POD[4], PORT)))
                    clients.enter_context(target.accept()[0])
                for agent in (first, second):
                    os.kill(agent.agent, signal.SIGKILL)
                    assert holds_within(SHORT_S, lambda agent=agent: has_ended(agent.agent))  # type: ignore[misc]
                    with asked_of_target(pod, target):
                        pass
                assert all(has_been_ended(each) for each in idle)
            assert pod.inside.ruleset() == ""


@in_trio
async def test_a_goodbye_ends_connections_that_are_idle(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod) as target:
            await agent.subscribe(accepts=MINE)
            with asked_of_target(pod, target) as (client, accepted):
                accepted.sendall(response(b"theirs"))
                receive(client, response(b"theirs"))
                await agent.leave()
                assert client.recv(1) == b""
                assert accepted.recv(1) == b""


@in_trio
async def test_a_goodbye_lets_requests_to_the_target_be_answered(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod) as target:
            await agent.subscribe(accepts=MINE)
            with asked_of_target(pod, target) as (client, accepted):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(agent.leave)
                    assert await trio.to_thread.run_sync(holds_within, SHORT_S, lambda: not has_listener(pod))
                    accepted.sendall(response(b"theirs"))
                receive(client, response(b"theirs"))
                assert client.recv(1) == b""


def has_listener(pod: Pod) -> bool:
    """Whether the agent's is there, beside the target's."""
    return len(listening_ports(pod.inside, 6)) > 0


@in_trio
async def test_copies_of_requests(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with served(pod) as target:
            await agent.subscribe(mode="mirror", accepts=MINE)
            with pod.outside.connect(POD[4], PORT) as client:
                accepted, _ = target.accept()
                with accepted:
                    for path in ("/theirs", "/mine", "/theirs", "/mine/too"):
                        client.sendall(request(path, b"body"))
                        receive(accepted, request(path, b"body"))
                        accepted.sendall(response(b"answer"))
                        receive(client, response(b"answer"))
                    await agent.arrived()
                    expected = request("/mine", b"body") + request("/mine/too", b"body")
                    assert await agent.heard(2, len(expected)) == expected
                    await agent.send(Data(2, response(b"nobody hears it")))
                    client.shutdown(socket.SHUT_WR)
                    assert await agent.receive_kind(Eof) == Eof(2)
                    await agent.send(Close(2))
                    await agent.subscribe(PORT + 1)
