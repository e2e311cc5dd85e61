"""Connections and datagrams to a target's port of which a client of the agent has copies."""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import struct
from collections.abc import Iterator

import pytest

from mirrord_agent.incoming.mirrored_stream import MAX_BEHIND
from mirrord_agent.wire.frames import Arrived, Close, Credit, Data, Datagram, Eof, InetEndpoint, Notice, Reset
from mirrord_agent.wire.windows import INITIAL_WINDOW
from tests.mirrord_agent.incoming.agents import Pod, agent_for, endpoint_of, pod_with_process
from tests.mirrord_agent.incoming.datagrams import Server, asks, connected
from tests.mirrord_agent.incoming.networks import POD
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, reaches, versions
from tests.mirrord_agent.support import in_trio


@pytest.fixture
def pod() -> Iterator[Pod]:
    with pod_with_process() as made:
        yield made


def carry(data: bytes, client: socket.socket, accepted: socket.socket) -> None:
    """Sends something from one end to the other. It has to fit what the kernel keeps of it."""
    client.sendall(data)
    received = bytearray()
    while len(received) < len(data):
        received += accepted.recv(len(data))
    assert received == data


@versions
@places
@in_trio
async def test_a_copy_of_what_the_client_says(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(version, PORT) as target:
            subscription = await agent.subscribe(mode="mirror")
            with network.connect(host, PORT) as client, reaches(target, client) as accepted:
                arrived = await agent.arrived()
                assert arrived == Arrived(2, subscription, endpoint_of(client.getsockname()), InetEndpoint(host, PORT))
                client.sendall(b", and more")
                assert await agent.heard(2, 15) == b"hello, and more"
                accepted.sendall(b"answer")
                assert client.recv(16) == b"answer"
                client.shutdown(socket.SHUT_WR)
                assert await agent.receive_kind(Eof) == Eof(2)


@in_trio
async def test_versions_of_ip_are_mirrored_by_themselves(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(6, PORT, dual=True) as target:
            subscriptions = {6: await agent.subscribe(mode="mirror", family="inet6")}
            for version in (4, 6):
                with pod.outside.connect(POD[version], PORT) as client, reaches(target, client):
                    if version in subscriptions:
                        assert (await agent.arrived()).peer == endpoint_of(client.getsockname())
            subscriptions[4] = await agent.subscribe(mode="mirror", family="inet4")
            for version in (4, 6):
                with pod.outside.connect(POD[version], PORT) as client, reaches(target, client):
                    assert (await agent.arrived()).subscription == subscriptions[version]


@versions
@in_trio
async def test_a_large_copy(pod: Pod, version: int) -> None:
    sent = random.Random(0).randbytes(3 << 20)
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(version, PORT) as target:
            await agent.subscribe(mode="mirror")
            with pod.outside.connect(POD[version], PORT) as client, reaches(target, client) as accepted:
                await agent.arrived()
                for start in range(0, len(sent), 1 << 18):
                    carry(sent[start : start + (1 << 18)], client, accepted)
                assert await agent.heard(2, len(sent) + 5) == b"hello" + sent


@pytest.mark.parametrize("by_target", [False, True])
@in_trio
async def test_a_reset(pod: Pod, by_target: bool) -> None:
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            await agent.subscribe(mode="mirror")
            with pod.outside.connect(POD[4], PORT) as client, reaches(target, client) as accepted:
                await agent.arrived()  # from then on the target is heard
                breaker = accepted if by_target else client
                breaker.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                breaker.close()
                assert await agent.heard(2, 5) == b"hello"
                assert await agent.receive_kind(Reset) == Reset(2, errno.ECONNRESET)


@in_trio
async def test_a_client_that_takes_nothing_is_cut_off_and_the_target_serves_on(pod: Pod) -> None:
    piece = bytes(1 << 18)
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            subscription = await agent.subscribe(mode="mirror")
            with pod.outside.connect(POD[4], PORT) as client, reaches(target, client) as accepted:
                await agent.arrived()
                for _ in range(MAX_BEHIND // len(piece) + 2):
                    carry(piece, client, accepted)
                taken = 0
                while not isinstance(frame := await agent.receive(), Notice):
                    assert isinstance(frame, Data)
                    taken += len(frame.payload)
                assert frame.stream == subscription
                assert "cut" in frame.message
                assert await agent.receive_kind(Reset) == Reset(2, errno.ECONNABORTED)
                assert taken <= INITIAL_WINDOW


@in_trio
async def test_a_slow_client_holds_up_no_other_copy(pod: Pod) -> None:
    piece = bytes(1 << 18)
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            await agent.subscribe(mode="mirror")
            with (
                pod.outside.connect(POD[4], PORT) as slow,
                reaches(target, slow) as accepted,
                pod.outside.connect(POD[4], PORT) as quick,
                reaches(target, quick),
            ):
                for _ in range(4):
                    carry(piece, slow, accepted)
                quick.sendall(b" world")
                quick_data = b""
                slow_size = 0
                while quick_data != b"hello world" or slow_size < INITIAL_WINDOW:
                    frame = await agent.receive_kind(Data)
                    if frame.stream == 4:
                        quick_data += frame.payload
                    else:
                        slow_size += len(frame.payload)
                await agent.send(Credit(2, 1 << 20))
                while slow_size < 5 + 4 * len(piece):
                    slow_size += len((await agent.receive_kind(Data)).payload)


@in_trio
async def test_a_copy_that_is_closed(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            subscription = await agent.subscribe(mode="mirror")
            with pod.outside.connect(POD[4], PORT) as client, reaches(target, client) as accepted:
                await agent.arrived()
                await agent.send(Close(2), Close(subscription))
                await agent.subscribe(PORT + 1, mode="mirror")
                carry(b"hello", client, accepted)
            with pod.outside.connect(POD[4], PORT) as client:
                reaches(target, client).close()
            with pod.inside.listen(4, PORT + 1) as other, pod.outside.connect(POD[4], PORT + 1) as client:
                reaches(other, client).close()
                assert (await agent.arrived()).local.port == PORT + 1


@in_trio
async def test_the_target_serves_on_while_the_agent_is_stopped(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            await agent.subscribe(mode="mirror")
            os.kill(agent.agent, signal.SIGSTOP)
            piece = bytes(1 << 20)
            with pod.outside.connect(POD[4], PORT) as client, reaches(target, client) as accepted:
                for _ in range(4):
                    carry(piece[: 1 << 18], client, accepted)
                os.kill(agent.agent, signal.SIGCONT)
                await agent.arrived()
                assert await agent.heard(2, 5 + len(piece)) == b"hello" + piece


@versions
@places
@in_trio
async def test_datagrams(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        subscription = await agent.subscribe(protocol="udp", mode="mirror")
        with Server(pod.inside, version, PORT) as server, connected(network, host) as client:
            for question in (b"one", b"", b"three"):
                asks(client, server, host, question)
                expected = Datagram(subscription, endpoint_of(client.getsockname()), question)
                assert await agent.receive_kind(Datagram) == expected


@in_trio
async def test_what_a_session_passes_on_is_not_seen_again(pod: Pod) -> None:
    """A later session that steals with a filter has the client's connection, and makes one of its own to the target."""
    async with agent_for(pod.pid) as watcher, agent_for(pod.pid) as thief:
        with pod.inside.listen(4, PORT) as target:
            await watcher.subscribe(mode="mirror")
            await thief.subscribe(accepts='{"path": "^/mine"}')
            with pod.outside.connect(POD[4], PORT) as client:
                client.sendall(b"GET /theirs HTTP/1.1\r\nHost: pod\r\n\r\n")
                accepted, _ = target.accept()
                with accepted:
                    assert accepted.recv(100).startswith(b"GET /theirs")
                    assert (await watcher.arrived()).peer == endpoint_of(client.getsockname())
                    client.sendall(b"GET /theirs/too HTTP/1.1\r\nHost: pod\r\n\r\n")
                    assert accepted.recv(100).startswith(b"GET /theirs/too")
            assert await watcher.receive_kind(Eof) == Eof(2)
