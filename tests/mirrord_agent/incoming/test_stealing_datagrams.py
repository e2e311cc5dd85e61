"""Datagrams to a target's port that a client of the agent has instead, and its answers."""

from __future__ import annotations

from mirrord_agent.wire.frames import AddressFamily, Close, Datagram
from tests.mirrord_agent.incoming.agents import Pod, agent_for, endpoint_of
from tests.mirrord_agent.incoming.datagrams import Server, asks, connected
from tests.mirrord_agent.incoming.networks import POD
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, versions
from tests.mirrord_agent.support import in_trio


@versions
@places
@in_trio
async def test_questions_and_answers(pod: Pod, version: int, place: Place) -> None:
    network, host = place(pod.networks, version)
    async with agent_for(pod.pid) as agent:
        with Server(pod.inside, version, PORT) as server, connected(network, host) as client:
            asks(client, server, host)
            subscription = await agent.subscribe(protocol="udp")
            peer = endpoint_of(client.getsockname())
            for size in (0, 1, 60_000):
                client.send(bytes(size))
                assert await agent.receive_kind(Datagram) == Datagram(subscription, peer, bytes(size))
                await agent.send(Datagram(subscription, peer, b"a" * size))
                assert client.recv(1 << 16) == b"a" * size
            await agent.send(Close(subscription))
            await agent.subscribe(PORT + 1, protocol="udp")
            asks(client, server, host)


@versions
@in_trio
async def test_one_version_of_ip(pod: Pod, version: int) -> None:
    families: tuple[AddressFamily, AddressFamily] = ("inet4", "inet6")
    family, other = families if version == 4 else families[::-1]
    async with agent_for(pod.pid) as agent:
        subscriptions = {version: await agent.subscribe(protocol="udp", family=family)}
        with Server(pod.inside, 10 - version, PORT) as server, connected(pod.outside, POD[10 - version]) as client:
            asks(client, server, POD[10 - version])
        subscriptions[10 - version] = await agent.subscribe(protocol="udp", family=other)
        for each, subscription in subscriptions.items():
            with connected(pod.outside, POD[each]) as client:
                client.send(b"question")
                assert (await agent.receive_kind(Datagram)).stream == subscription
                await agent.send(Datagram(subscription, endpoint_of(client.getsockname()), b"answer"))
                assert client.recv(16) == b"answer"


@versions
@in_trio
async def test_answers_come_from_where_each_has_asked(pod: Pod, version: int) -> None:
    other = {4: "198.18.7.7", 6: "fd00:7::7"}[version]
    pod.inside.add_to_loopback(f"{other}/{32 if version == 4 else 128}")
    async with agent_for(pod.pid) as agent:
        subscription = await agent.subscribe(protocol="udp")
        host = {4: "127.0.0.1", 6: "::1"}[version]
        with connected(pod.inside, host) as first, connected(pod.inside, other) as second:
            for client in (first, second):
                client.send(b"question")
                await agent.receive_kind(Datagram)
            for client in (first, second, first):
                await agent.send(Datagram(subscription, endpoint_of(client.getsockname()), b"answer"))
                assert client.recv(16) == b"answer"
