"""The stand-in's API server: what can go wrong on demand, what is recorded, and how it begins and ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
import urllib3

from mirrord_trace.cluster.resources import JOBS, PODS
from tests.cluster.plain_client import PlainClient
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.faults import Match
from tests.cluster.standin.interfaces import ControlPlane
from tests.cluster.standin.kinds import NAMESPACES
from tests.cluster.standin.store import Object

IN_SHOP = PODS.path("shop")
POD: Object = {
    "kind": "Pod",
    "apiVersion": "v1",
    "metadata": {"name": "a", "namespace": "shop"},
    "spec": {"containers": [{"name": "app", "image": "app:1"}]},
}
BROKEN = (urllib3.exceptions.ProtocolError, urllib3.exceptions.SSLError)


@pytest.fixture
def client(api_server: Cluster) -> PlainClient:
    api_server.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
    return PlainClient(api_server.kubeconfig)


def test_requests_are_recorded(api_server: Cluster, client: PlainClient) -> None:
    client.create(IN_SHOP, POD)
    client.get(IN_SHOP, labelSelector="a=b")
    client.get(PODS.path("shop", "b"))
    created, listed, missed = api_server.requests
    assert (created.user, created.verb, created.resource, created.status) == ("admin", "create", PODS, 201)
    assert created.object() == POD
    assert (listed.verb, listed.namespace, listed.query) == ("list", "shop", {"labelSelector": ["a=b"]})
    assert (missed.verb, missed.name, missed.status) == ("get", "b", 404)


def test_connections_end_before_and_after_the_work_is_done(api_server: Cluster, client: PlainClient) -> None:
    creates = Match(verb="create", resource=PODS)
    api_server.faults.drop(creates)
    with pytest.raises(BROKEN):
        client.create(IN_SHOP, POD)
    assert api_server.get(PODS, "shop", "a") is None
    api_server.faults.drop(creates, handled=True)
    with pytest.raises(BROKEN):
        client.create(IN_SHOP, POD)
    assert api_server.get(PODS, "shop", "a") is not None
    assert client.create(IN_SHOP, POD).status == 409


def test_the_server_is_busy_or_ill(api_server: Cluster, client: PlainClient) -> None:
    api_server.faults.answer(429)
    busy = client.get(IN_SHOP)
    assert (busy.status, busy.headers["retry-after"]) == (429, "1")
    assert busy.body == b"Too many requests, please try again later.\n"
    api_server.faults.answer(503, retry_after_s=2)
    ill = client.get(IN_SHOP)
    assert (ill.status, ill.json["reason"], ill.headers["retry-after"]) == (503, "ServiceUnavailable", "2")
    assert client.get(IN_SHOP).status == 200


def test_requests_wait_until_they_are_let_go(api_server: Cluster, client: PlainClient) -> None:
    hold = api_server.faults.hold(Match(verb="list", resource=PODS))
    statuses: list[int] = []
    waiting = threading.Thread(target=lambda: statuses.append(client.get(IN_SHOP).status))
    waiting.start()
    assert hold.reached.wait(10)
    assert client.get(JOBS.path("shop")).status == 200
    assert not statuses
    hold.release()
    waiting.join(10)
    assert statuses == [200]


def test_a_watch_is_cut(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(POD)
    with client.watch(IN_SHOP) as events:
        next(events)
        assert api_server.faults.cut(Match(verb="watch", resource=PODS)) == 1
        with pytest.raises(BROKEN):
            next(events)


def test_the_server_goes_away_and_comes_back(api_server: Cluster, client: PlainClient) -> None:
    assert client.get(IN_SHOP).status == 200
    api_server.go_away()
    with pytest.raises((*BROKEN, urllib3.exceptions.NewConnectionError)):
        client.get(IN_SHOP)
    api_server.come_back()
    assert client.get(IN_SHOP).status == 200


def test_a_test_waits_for_what_happens(api_server: Cluster, client: PlainClient) -> None:
    later = threading.Thread(target=client.create, args=(IN_SHOP, POD))
    later.start()
    found = api_server.wait_until(lambda store: store.find(PODS, "shop", "a"))
    assert found["metadata"]["name"] == "a"
    later.join(10)
    with pytest.raises(TimeoutError):
        api_server.wait_until(lambda store: store.find(PODS, "shop", "b"), timeout_s=0.01)


def test_objects_that_cannot_be_are_not_applied_either(api_server: Cluster) -> None:
    with pytest.raises(AssertionError, match=r"unknown field spec\.node"):
        api_server.apply({**POD, "spec": {**POD["spec"], "node": "x"}})
    with pytest.raises(AssertionError, match=r"spec\.containers"):
        api_server.apply({**POD, "spec": {}})
    with pytest.raises(AssertionError, match="no such kind"):
        api_server.apply({**POD, "kind": "Pods"})


def test_an_applied_object_keeps_its_status(api_server: Cluster) -> None:
    api_server.apply({**POD, "status": {"phase": "Running"}})
    again = api_server.apply({**POD, "metadata": {**POD["metadata"], "labels": {"a": "b"}}})
    assert (again["status"]["phase"], again["metadata"]["labels"]) == ("Running", {"a": "b"})


def test_faults_of_the_stand_in_itself_fail_the_test(tmp_path: Path) -> None:
    def meet_a_fault() -> None:
        with Cluster(tmp_path) as cluster:
            cluster.in_loop(lambda: setattr(cluster.store, "find", lambda *_: 1 / 0))
            assert PlainClient(cluster.kubeconfig).get(PODS.path("shop", "a")).status == 500

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        meet_a_fault()


class Crashing:
    """Machinery that fails once a namespace "trouble" is there."""

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while control.store.find(NAMESPACES, None, "trouble") is None:
            await control.store.news.wait()
        raise ZeroDivisionError("trouble")

    def log(self, pod: Object, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        raise NotImplementedError

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        raise ConnectionRefusedError


def test_machinery_that_fails_fails_the_test(tmp_path: Path) -> None:
    def meet_trouble() -> None:
        with Cluster(tmp_path, Crashing()) as cluster:
            cluster.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "trouble"}})

    with pytest.raises(ExceptionGroup) as caught:
        meet_trouble()
    assert caught.group_contains(ZeroDivisionError, match="trouble")


def test_it_serves_while_the_test_s_own_loop_runs(api_server: Cluster, client: PlainClient) -> None:
    async def main() -> int:
        api_server.apply(POD)
        answer = await trio.to_thread.run_sync(client.get, IN_SHOP)
        return answer.status

    assert trio.run(main) == 200


def test_it_can_be_run_by_hand(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.cluster.standin", "--bare", str(tmp_path / "by-hand")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        kubeconfig = Path(process.stdout.readline().strip())
        assert PlainClient(kubeconfig).get("/version").status == 200
        process.stdin.close()
        assert process.wait(20) == 0
