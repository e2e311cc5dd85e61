"""Connections to a target's port that a client of the agent has instead."""

from __future__ import annotations

import errno
import os
import signal
import socket

import pytest

from mirrord_agent.wire.frames import Arrived, Close, Data, Eof, Failed, InetEndpoint, Reset
from tests.mirrord_agent.incoming.agents import Pod, agent_for, endpoint_of, listening_ports
from tests.mirrord_agent.incoming.networks import OUTSIDE, POD, SHORT_S
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, reaches, versions
from tests.mirrord_agent.support import in_trio
from tests.waiting import has_ended, holds_within

SOURCE_PORT = 30000
"""Of a client that chooses its own."""


@versions
@places
@in_trio
async def test_a_connection_is_the_clients(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        subscription = await agent.subscribe()
        with network.connect(host, PORT) as client:
            arrived = await agent.arrived()
            assert arrived == Arrived(2, subscription, endpoint_of(client.getsockname()), InetEndpoint(host, PORT))
            client.sendall(b"question")
            assert await agent.heard(2, 8) == b"question"
            await agent.send(Data(2, b"answer"), Eof(2))
            assert client.recv(16) == b"answer"
            assert client.recv(16) == b""
            client.shutdown(socket.SHUT_WR)
            assert await agent.receive_kind(Eof) == Eof(2)


@versions
@places
@in_trio
async def test_a_subscription_that_ends_leaves_the_port_to_the_target(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    with pod.inside.listen(version, PORT) as target:
        async with agent_for(pod.pid) as agent:
            for number in (2, 4):
                subscription = await agent.subscribe()
                with network.connect(host, PORT) as client:
                    assert (await agent.arrived()).stream == number
                    await agent.send(Close(subscription), Data(number, b"still there"))
                    assert client.recv(16) == b"still there"
                    await agent.subscribe(PORT + number)
                    with network.connect(host, PORT) as other:
                        reaches(target, other).close()


@in_trio
async def test_versions_of_ip_are_stolen_by_themselves(pod: Pod) -> None:
    async with agent_for(pod.pid) as first, agent_for(pod.pid, "bob") as second:
        with pod.inside.listen(6, PORT, dual=True) as target:
            with (
                pod.outside.connect(POD[6], PORT) as of_six,
                reaches(target, of_six) as kept,
                pod.outside.connect(POD[4], PORT) as of_four,
                reaches(target, of_four) as flushed,
            ):
                subscription = await first.subscribe(flush=True, family="inet4")
                with pytest.raises(ConnectionAbortedError):
                    flushed.recv(1)
                kept.sendall(b"still there")
                assert of_six.recv(16) == b"still there"
            with pod.outside.connect(POD[6], PORT) as client:
                reaches(target, client).close()
            with pod.outside.connect(POD[4], PORT) as client:
                assert (await first.arrived()).peer == endpoint_of(client.getsockname())
            assert isinstance(await first.ask(), Failed)
            assert isinstance(await second.ask(), Failed)
            of_second = await second.subscribe(family="inet6")
            with pod.outside.connect(POD[6], PORT) as client:
                assert (await second.arrived()).subscription == of_second
            await first.send(Close(subscription))
            await first.subscribe(PORT + 1)
            with pod.outside.connect(POD[4], PORT) as client:
                reaches(target, client).close()


@versions
@places
@in_trio
async def test_clients_are_who_they_are_if_one_comes_to_two_ports_from_the_same(
    pod: Pod, version: int, place: Place
) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        for port in (PORT, PORT + 1):
            await agent.subscribe(port)
        with network.open_socket(version) as first, network.open_socket(version) as second:
            for client, port in ((first, PORT), (second, PORT + 1)):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind((host if network is pod.inside else OUTSIDE[version], SOURCE_PORT))
                client.connect((host, port))
                arrived = await agent.arrived()
                assert arrived.peer == endpoint_of(client.getsockname())
                assert arrived.local == InetEndpoint(host, port)


@in_trio
async def test_ends_by_the_client(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        with pod.outside.connect(POD[4], PORT) as client:
            await agent.send(Reset((await agent.arrived()).stream, errno.ECONNREFUSED))
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        with pod.outside.connect(POD[4], PORT) as client:
            await agent.send(Data((await agent.arrived()).stream, b"answer"), Close(4))
            assert client.recv(16) == b"answer"
            assert client.recv(16) == b""


@in_trio
async def test_a_reset_of_the_real_client(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        client = pod.outside.connect(POD[4], PORT)
        await agent.arrived()
        client.sendall(b"last words")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert await agent.receive_kind(Reset) == Reset(2, errno.ECONNRESET)


@in_trio
async def test_whoever_was_not_redirected_is_refused(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        for port in (PORT, PORT + 1):
            await agent.subscribe(port)
        ports = listening_ports(pod.inside, 6)
        assert len(ports) == 2
        for port in ports:
            with pytest.raises(ConnectionError), pod.outside.connect(POD[4], port) as client:
                client.recv(1)


@in_trio
async def test_a_listener_goes_with_its_subscription(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.send(Close(await agent.subscribe()))
        await agent.subscribe(PORT + 1)
        assert len(listening_ports(pod.inside, 6)) == 1


@in_trio
async def test_existing_connections_are_reset_if_that_is_asked_for(pod: Pod) -> None:
    with pod.inside.listen(4, PORT) as target:
        async with agent_for(pod.pid) as agent:
            with pod.outside.connect(POD[4], PORT) as former, reaches(target, former):
                await agent.subscribe(flush=True)
                with pytest.raises(ConnectionResetError):
                    former.recv(1)


@in_trio
async def test_the_target_serves_again_when_the_agent_is_killed(pod: Pod) -> None:
    with pod.inside.listen(4, PORT) as target:
        async with agent_for(pod.pid) as agent:
            await agent.subscribe()
            await agent.subscribe(PORT + 2)
            with pod.outside.connect(POD[4], PORT) as client:
                await agent.arrived()
                os.kill(agent.agent, signal.SIGKILL)
                assert client.recv(1) == b""
            assert holds_within(SHORT_S, lambda: has_ended(agent.agent))
            with pod.outside.connect(POD[4], PORT) as client:
                reaches(target, client).close()
            assert pod.inside.ruleset() == ""


@versions
@in_trio
async def test_a_client_comes_again_from_the_same_port_to_the_session_that_follows(pod: Pod, version: int) -> None:
    def connect(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((OUTSIDE[version], SOURCE_PORT))
        client.connect((POD[version], PORT))

    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        with pod.outside.open_socket(version) as client:
            connect(client)
            await agent.arrived()
            os.kill(agent.agent, signal.SIGKILL)
            assert client.recv(1) == b""
            # With the table goes whatever would let connection tracking see the client's end.
            assert holds_within(SHORT_S, lambda: has_ended(agent.agent) and pod.inside.ruleset() == "")
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        with pod.outside.open_socket(version) as client:
            connect(client)
            assert (await agent.arrived()).peer == endpoint_of(client.getsockname())


@in_trio
async def test_a_goodbye_lets_what_was_said_reach_the_real_client(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        with pod.outside.connect(POD[4], PORT) as client:
            await agent.arrived()
            await agent.send(Data(2, bytes(100_000)))
            await agent.leave()
            received = b""
            while data := client.recv(1 << 16):
                received += data
            assert len(received) == 100_000
        assert pod.inside.ruleset() == ""


@in_trio
async def test_a_port_of_two_sessions(pod: Pod) -> None:
    async with agent_for(pod.pid, "alice on laptop") as first, agent_for(pod.pid, "bob") as second:
        subscription = await first.subscribe()
        failed = await second.ask()
        assert isinstance(failed, Failed)
        assert failed.errno == errno.EADDRINUSE
        assert "alice on laptop steals tcp port 80 without a filter" in failed.message
        await second.subscribe(PORT + 1)
        await first.send(Close(subscription))
        await first.subscribe(PORT + 2)
        await second.subscribe()
        with pod.outside.connect(POD[4], PORT):
            await second.arrived()


@in_trio
async def test_a_port_twice(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        failed = await agent.ask(mode="mirror")
        assert isinstance(failed, Failed)
        assert failed.errno == errno.EADDRINUSE


@pytest.mark.parametrize("accepts", ["", "{", "[]", '{"header": "("}', '{"colour": "red"}'])
@in_trio
async def test_a_filter_that_is_none(pod: Pod, accepts: str) -> None:
    async with agent_for(pod.pid) as agent:
        failed = await agent.ask(accepts=accepts)
        assert isinstance(failed, Failed)
        assert failed.errno == errno.EINVAL
        assert "filter" in failed.message
        await agent.subscribe()


@in_trio
async def test_what_is_missing_is_said(pod: Pod) -> None:
    without = ["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-all"]
    async with agent_for(pod.pid, prefix=without) as agent:
        for mode, capability in (("steal", "CAP_NET_ADMIN"), ("mirror", "CAP_NET_RAW"), ("steal", "CAP_NET_ADMIN")):
            failed = await agent.ask(mode=mode)  # type: ignore[arg-type]
            assert isinstance(failed, Failed)
            assert failed.errno == errno.EPERM
            assert capability in failed.message


@in_trio
async def test_a_thousand_connections_at_once(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        await agent.subscribe()
        clients = [pod.outside.connect(POD[4], PORT) for _ in range(1000)]
        peers = {(await agent.arrived()).peer for _ in clients}
        assert peers == {endpoint_of(client.getsockname()) for client in clients}
        for client in clients:
            client.close()
        ended = {(await agent.receive_kind(Eof)).stream for _ in clients}
        assert len(ended) == len(clients)
        assert OUTSIDE[4] == next(iter(peers)).host
