"""A byte stream to a pod's port, against the stand-in: a pod's ports are services in this test's own loop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from mirrord_agent import listening
from mirrord_agent.target import Target
from mirrord_trace.cluster.api import ApiRefusal, ApiServer, open_api
from mirrord_trace.cluster.port_forward import PortForward, port_forward
from mirrord_trace.cluster.resources import POD_PORT_FORWARD, PODS
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.session import open_session
from tests.cluster.loopback_node import cluster_with_pod
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.faults import Match
from tests.cluster.standin.listening import OTHER_NAME
from tests.mirrord_agent.support import SECRET, SECRET_HASH, in_trio

FORWARD = Match(resource=POD_PORT_FORWARD)
Service = Callable[[trio.SocketStream], Awaitable[object]]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster with a pod, web-1 in the namespace shop, that runs."""
    with cluster_with_pod(tmp_path) as cluster:
        yield cluster


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[int]:
    """A service on a port of the pod's loopback."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await service(stream)

        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def api_at(kubeconfig: Path) -> AsyncIterator[ApiServer]:
    async with open_api(ClusterConfiguration(kubeconfig=str(kubeconfig))) as api:
        yield api


@asynccontextmanager
async def forwarding(cluster: Cluster, port: int, kubeconfig: Path | None = None) -> AsyncIterator[PortForward]:
    async with api_at(kubeconfig or cluster.kubeconfig) as api, port_forward(api, "shop", "web-1", port) as forward:
        yield forward


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([bytes(piece) async for piece in stream])


async def read_exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = await stream.receive_some()
        assert piece, f"ended after {len(data)} bytes"
        data += piece
    return data


async def echo(stream: trio.SocketStream) -> None:
    async for piece in stream:
        await stream.send_all(piece)


# Bytes.


@in_trio
async def test_bytes_arrive_whole_and_in_order_both_ways_at_once(cluster: Cluster) -> None:
    sent = os.urandom(8 << 20)
    async with serving(echo) as port, forwarding(cluster, port) as forward, trio.open_nursery() as nursery:
        nursery.start_soon(forward.stream.send_all, sent)
        assert await read_exactly(forward.stream, len(sent)) == sent


@in_trio
async def test_small_messages_do_not_wait_for_more(cluster: Cluster) -> None:
    async with serving(echo) as port, forwarding(cluster, port) as forward:
        for number in range(100):
            await forward.stream.send_all(bytes([number]))
            assert await forward.stream.receive_some() == bytes([number])


@in_trio
async def test_who_is_not_read_can_write_no_more_than_the_buffers_hold(cluster: Cluster) -> None:
    """Nothing on the way piles up what a pod does not read."""
    read_now = trio.Event()
    received = 0

    async def reluctant(stream: trio.SocketStream) -> None:
        nonlocal received
        await read_now.wait()
        async for piece in stream:
            received += len(piece)

    async with serving(reluctant) as port, forwarding(cluster, port) as forward:
        sent = 0
        descriptor = forward.stream.socket.fileno()
        stalled = False
        while not stalled:
            with trio.move_on_after(0.5) as waiting:
                await trio.lowlevel.wait_writable(descriptor)
                sent += os.write(descriptor, bytes(1 << 20))
            stalled = waiting.cancelled_caught
            assert sent < 64 << 20
        read_now.set()
        await forward.stream.send_all(b"the end")
        while received < sent + len(b"the end"):
            await trio.testing.wait_all_tasks_blocked(0.01)


@in_trio
async def test_a_session_runs_over_it(cluster: Cluster) -> None:
    target = Target.open(os.getpid())
    listener = listening.open_listener(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listening.serve_first_client, listener, target, SECRET_HASH, 30)
        async with forwarding(cluster, port) as forward, open_session(forward.stream, SECRET) as session:
            assert (await session.environment())[b"PATH"] == os.environb[b"PATH"]


# Ends.


@in_trio
async def test_the_pods_end_is_the_streams_end_after_all_that_came_before(cluster: Cluster) -> None:
    sent = os.urandom(3 << 20)

    async def say(stream: trio.SocketStream) -> None:
        await stream.send_all(sent)

    async with serving(say) as port, forwarding(cluster, port) as forward:
        assert await read_all(forward.stream) == sent
        assert forward.trouble is None
        with pytest.raises(trio.BrokenResourceError):
            await forward.stream.send_all(b"too late")


@in_trio
async def test_a_reset_in_the_pod_is_told(cluster: Cluster) -> None:
    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)  # and leave the other one unread

    async with serving(reset) as port, forwarding(cluster, port) as forward:
        await forward.stream.send_all(b"ab")
        await read_all(forward.stream)
        assert forward.trouble is not None
        assert "connection reset by peer" in forward.trouble


@in_trio
async def test_nobody_listening_is_told_in_the_nodes_words(cluster: Cluster) -> None:
    async with serving(echo) as port:
        pass
    async with forwarding(cluster, port) as forward:
        assert await read_all(forward.stream) == b""
        assert forward.trouble is not None
        assert forward.trouble.startswith(f"error forwarding port {port} to pod ")
        assert "connect: connection refused" in forward.trouble


@in_trio
async def test_leaving_the_block_ends_the_pods_connection(cluster: Cluster) -> None:
    ended = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        await echo(stream)
        ended.set()

    async with serving(watch) as port:
        async with forwarding(cluster, port) as forward:
            await forward.stream.send_all(b"a")
            assert await forward.stream.receive_some() == b"a"
        await ended.wait()


@in_trio
async def test_closing_the_stream_ends_the_pods_connection(cluster: Cluster) -> None:
    ended = trio.Event()

    async def watch(stream: trio.SocketStream) -> None:
        await echo(stream)
        ended.set()

    async with serving(watch) as port, forwarding(cluster, port) as forward:
        await forward.stream.send_all(b"a")
        await forward.stream.aclose()
        await ended.wait()


@in_trio
async def test_it_can_be_cancelled_while_both_directions_are_full(cluster: Cluster) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        with trio.move_on_after(20):
            await stream.send_all(bytes(1 << 28))

    async with serving(flood) as port:
        with trio.CancelScope() as scope:
            async with forwarding(cluster, port) as forward:
                descriptor = forward.stream.socket.fileno()
                while True:
                    with trio.move_on_after(0.2) as waiting:
                        await trio.lowlevel.wait_writable(descriptor)
                        os.write(descriptor, bytes(1 << 20))
                    if waiting.cancelled_caught:
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


@in_trio
async def test_what_the_block_raises_leaves_it_as_it_is(cluster: Cluster) -> None:
    async with serving(echo) as port:
        with pytest.raises(ZeroDivisionError):
            async with forwarding(cluster, port):
                raise ZeroDivisionError


@in_trio
async def test_a_connection_that_breaks_ends_the_stream(cluster: Cluster) -> None:
    async with serving(echo) as port, forwarding(cluster, port) as forward:
        await forward.stream.send_all(b"a")
        assert await forward.stream.receive_some() == b"a"
        assert cluster.faults.cut(FORWARD) == 1
        assert await read_all(forward.stream) == b""
        assert forward.trouble is not None
        assert forward.trouble.startswith("the connection to the API server ")


@in_trio
async def test_an_api_server_that_goes_away_ends_the_stream(cluster: Cluster) -> None:
    async with serving(echo) as port, forwarding(cluster, port) as forward:
        await forward.stream.send_all(b"a")
        assert await forward.stream.receive_some() == b"a"
        cluster.go_away()
        assert await read_all(forward.stream) == b""
        assert forward.trouble is not None


# Refusals, and what is tried again.


async def refusal(cluster: Cluster, port: int = 80, pod: str = "web-1", kubeconfig: Path | None = None) -> ApiRefusal:
    async with api_at(kubeconfig or cluster.kubeconfig) as api:
        with pytest.raises(ApiRefusal) as caught:
            async with port_forward(api, "shop", pod, port):
                pass
    return caught.value


@in_trio
async def test_a_pod_that_is_not_there_is_refused(cluster: Cluster) -> None:
    refused = await refusal(cluster, pod="web-2")
    assert (refused.status, refused.reason, refused.message) == (404, "NotFound", 'pods "web-2" not found')
    assert (refused.verb, refused.resource, refused.namespace, refused.name) == (
        "get",
        POD_PORT_FORWARD,
        "shop",
        "web-2",
    )


@in_trio
async def test_a_missing_right_is_refused(cluster: Cluster) -> None:
    refused = await refusal(cluster, kubeconfig=cluster.kubeconfig_for("dev"))
    assert (refused.status, refused.reason) == (403, "Forbidden")
    assert 'User "dev" cannot' in refused.message


@pytest.mark.parametrize(
    ("phase", "node", "status", "message"),
    [
        ("Pending", "", 400, "pod web-1 does not have a host assigned"),
        ("Pending", "node-1", 500, 'pod not found ("web-1_shop")'),
        ("Succeeded", "node-1", 500, 'pod not found ("web-1_shop")'),
    ],
)
def test_a_pod_that_does_not_run_is_refused(cluster: Cluster, phase: str, node: str, status: int, message: str) -> None:
    cluster.patch(PODS, "shop", "web-1", {"spec": {"nodeName": node or None}, "status": {"phase": phase}})
    refused = trio.run(refusal, cluster)
    assert (refused.status, refused.message) == (status, message)


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (0, 'port "0" must be > 0'),
        (70000, 'cannot convert to []int32: strconv.ParseUint: parsing "70000": value out of range'),
    ],
)
def test_what_is_no_port_is_refused(cluster: Cluster, port: int, message: str) -> None:
    refused = trio.run(refusal, cluster, port)
    assert (refused.status, refused.message) == (400, message)


@in_trio
async def test_expired_credentials_are_renewed(cluster: Cluster) -> None:
    kubeconfig = cluster.kubeconfig_for(auth="exec")
    async with serving(echo) as port, api_at(kubeconfig) as api:
        cluster.expire_tokens()
        async with port_forward(api, "shop", "web-1", port) as forward:
            await forward.stream.send_all(b"a")
            assert await forward.stream.receive_some() == b"a"


@in_trio
async def test_credentials_that_cannot_be_renewed_are_refused(cluster: Cluster) -> None:
    cluster.expire_tokens()
    assert (await refusal(cluster)).status == 401


@pytest.mark.parametrize("fault", ["dropped", "busy", "unavailable"])
def test_a_passing_fault_is_overcome(cluster: Cluster, fault: str) -> None:
    match fault:
        case "dropped":
            cluster.faults.drop(FORWARD)
        case "busy":
            cluster.faults.answer(429, FORWARD)
        case "unavailable":
            cluster.faults.answer(503, FORWARD)

    async def use() -> None:
        async with serving(echo) as port, api_at(cluster.kubeconfig) as api:
            async with port_forward(api, "shop", "web-1", port) as forward:
                await forward.stream.send_all(b"a")
                assert await forward.stream.receive_some() == b"a"
            assert api.requests == 2

    trio.run(use)
    assert len(cluster.requests) == 2


@in_trio
async def test_a_wait_for_an_answer_can_be_cancelled(cluster: Cluster) -> None:
    hold = cluster.faults.hold(FORWARD)
    async with trio.open_nursery() as nursery, api_at(cluster.kubeconfig) as api:

        async def connect() -> None:
            async with port_forward(api, "shop", "web-1", 80):
                pass

        nursery.start_soon(connect)
        await trio.to_thread.run_sync(hold.reached.wait)
        nursery.cancel_scope.cancel()
    hold.release()


@in_trio
async def test_an_api_server_that_is_not_there_is_a_failure(cluster: Cluster) -> None:
    async with api_at(cluster.kubeconfig) as api:
        cluster.go_away()
        with pytest.raises(Failure, match=r"https://127.0.0.1:\d+: connection refused$"):
            async with port_forward(api, "shop", "web-1", 80):
                pass


# Ways to the server.


@pytest.mark.parametrize(
    "options",
    [
        {"auth": "certificate"},
        {"auth": "token-file"},
        {"certificate": "other-name", "tls_server_name": OTHER_NAME},
        {"certificate": "expired", "insecure": True},
    ],
)
def test_each_way_of_authentication_serves(cluster: Cluster, options: dict[str, Any]) -> None:
    trio.run(_echoes, cluster, cluster.kubeconfig_for(**options))


def test_it_goes_through_a_proxy(cluster: Cluster) -> None:
    url, proxy = cluster.proxy("s3cret")
    trio.run(_echoes, cluster, cluster.kubeconfig_for(proxy_url=url))
    assert proxy.targets == [f"127.0.0.1:{cluster.port}"]


async def _echoes(cluster: Cluster, kubeconfig: Path) -> None:
    async with serving(echo) as port, forwarding(cluster, port, kubeconfig) as forward:
        await forward.stream.send_all(b"a")
        assert await forward.stream.receive_some() == b"a"


def test_a_proxy_that_refuses_is_a_failure(cluster: Cluster) -> None:
    url, _ = cluster.proxy("s3cret")
    kubeconfig = cluster.kubeconfig_for(proxy_url=url.replace("s3cret", "wrong"))

    async def connect() -> None:
        with pytest.raises(Failure, match=r"proxy.*407"):
            async with forwarding(cluster, 80, kubeconfig):
                pass

    trio.run(connect)


@pytest.mark.parametrize(
    "options", [{"trusted": False}, {"certificate": "expired"}, {"certificate": "other-name"}], ids=str
)
def test_a_certificate_that_does_not_hold_is_a_failure(cluster: Cluster, options: dict[str, Any]) -> None:
    kubeconfig = cluster.kubeconfig_for(**options)

    async def connect() -> None:
        with pytest.raises(Failure, match="certificate of the API server"):
            async with forwarding(cluster, 80, kubeconfig):
                pass

    trio.run(connect)
