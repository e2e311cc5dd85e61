"""Pods that have one version of IP only, kernels that lack something, and clients that say what they may not."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrord_agent.wire.frames import (
    Arrived,
    Close,
    Credit,
    Data,
    Datagram,
    Eof,
    Failed,
    Frame,
    Goodbye,
    GoodbyeKind,
    InetEndpoint,
    Reset,
    Subscribe,
)
from tests.mirrord_agent.incoming.agents import Pod, agent_for, endpoint_of, pod_with_process
from tests.mirrord_agent.incoming.datagrams import Server, asks, connected
from tests.mirrord_agent.incoming.networks import POD, Network
from tests.mirrord_agent.incoming.sessions import PORT, reaches, versions
from tests.mirrord_agent.support import in_trio

PEER = InetEndpoint("198.18.1.2", 1)


@versions
@in_trio
async def test_a_pod_with_one_version_of_ip(version: int) -> None:
    with pod_with_process((version,)) as pod:
        if version == 4:
            without_ipv6(pod.inside)
        async with agent_for(pod.pid) as agent:
            await agent.subscribe()
            with pod.outside.connect(POD[version], PORT) as client:
                assert (await agent.arrived()).peer == endpoint_of(client.getsockname())
            subscription = await agent.subscribe(protocol="udp")
            with connected(pod.outside, POD[version]) as client:
                client.send(b"question")
                peer = endpoint_of(client.getsockname())
                assert await agent.receive_kind(Datagram) == Datagram(subscription, peer, b"question")
                await agent.send(Datagram(subscription, peer, b"answer"))
                assert client.recv(16) == b"answer"
            await agent.subscribe(PORT + 1, mode="mirror")
            await agent.subscribe(PORT + 1, "udp", "mirror")
            with (
                pod.inside.listen(version, PORT + 1) as target,
                pod.outside.connect(POD[version], PORT + 1) as client,
                Server(pod.inside, version, PORT + 1) as server,
                connected(pod.outside, POD[version], PORT + 1) as sender,
            ):
                reaches(target, client).close()
                assert await agent.heard((await agent.arrived()).stream, 5) == b"hello"
                asks(sender, server, POD[version])
                assert (await agent.receive_kind(Datagram)).payload == b"question"


def without_ipv6(inside: Network) -> None:
    with inside.entered():
        for name in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")


@pytest.fixture(scope="module")
def pod() -> Iterator[Pod]:
    with pod_with_process() as made:
        yield made


@pytest.mark.parametrize(
    "said",
    [
        [Data(2, b"x")],
        [Close(2)],
        [Subscribe(2, 80, "tcp", "steal", None, False, False)],
        [Arrived(2, 1, PEER, PEER)],
        [Subscribe(1, 53, "udp", "mirror", None, False, False), Datagram(1, PEER, b"x")],
        [Subscribe(1, 53, "udp", "steal", None, False, False), Datagram(1, None, b"x")],
        [Subscribe(1, 53, "udp", "steal", None, False, False), Credit(1, 1 << 40)],
    ],
    ids=lambda said: " ".join(type(frame).__name__ for frame in said),
)
@in_trio
async def test_what_a_client_may_not_say(pod: Pod, said: list[Frame]) -> None:
    async with agent_for(pod.pid) as agent:
        if len(said) > 1:
            await agent.send(said[0])
            await agent.receive()
        await agent.send(said[-1])
        assert (await agent.receive_kind(Goodbye)).kind is GoodbyeKind.PROTOCOL


@pytest.mark.parametrize("frame", [Data, Eof])
@in_trio
async def test_a_copy_is_not_answered(pod: Pod, frame: type[Data] | type[Eof]) -> None:
    async with agent_for(pod.pid) as agent:
        with pod.inside.listen(4, PORT) as target:
            await agent.subscribe(mode="mirror")
            with pod.outside.connect(POD[4], PORT) as client, reaches(target, client):
                number = (await agent.arrived()).stream
                await agent.send(Data(number, b"x") if frame is Data else Eof(number))
                assert (await agent.receive_kind(Goodbye)).kind is GoodbyeKind.PROTOCOL


@in_trio
async def test_what_comes_for_a_subscription_that_is_over(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        for protocol in ("tcp", "udp"):
            for mode in ("steal", "mirror"):
                number = await agent.subscribe(protocol=protocol, mode=mode)
                over: list[Frame] = [
                    Close(number),
                    Credit(number, 5),
                    Datagram(number, PEER, b"x"),
                    Reset(number, 5),
                    Close(number),
                ]
                await agent.send(*over)
        assert await agent.subscribe() == 9


@in_trio
async def test_a_subscription_that_is_not_wanted_any_more(pod: Pod) -> None:
    async with agent_for(pod.pid) as agent:
        for number in range(1, 41, 2):
            await agent.send(Subscribe(number, PORT, "tcp", "steal", None, False, False), Reset(number, errno.EINTR))
        await agent.send(Subscribe(41, PORT, "tcp", "steal", None, False, False))
        frame = await agent.receive()
        while frame is not None and getattr(frame, "stream", None) != 41:
            frame = await agent.receive()
        assert not isinstance(frame, Failed)
