"""The stand-in's API server: get, list in pages, selectors, watches, logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from kubernetes import client as official

from mirrord_trace.cluster.resources import EVENTS, JOBS, PODS, ROLLOUTS
from tests.cluster.plain_client import PlainClient
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.faults import Match
from tests.cluster.standin.interfaces import ControlPlane
from tests.cluster.standin.store import Object

IN_SHOP = PODS.path("shop")


def pod(name: str, labels: dict[str, str] | None = None, **parts: Any) -> Object:
    spec = {"containers": [{"name": "app", "image": "app:1"}]} | parts.pop("spec", {})
    metadata = {"name": name, "namespace": "shop", "labels": labels or {}}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec, **parts}


@pytest.fixture
def client(api_server: Cluster) -> PlainClient:
    return PlainClient(api_server.kubeconfig)


def names(answer: Any) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json["items"]]


def test_objects_have_what_the_server_adds(api_server: Cluster, client: PlainClient) -> None:
    created = client.create(IN_SHOP.replace("shop", "default"), {"spec": pod("a")["spec"], "metadata": {"name": "a"}})
    assert created.status == 201, created.body
    value = created.json
    assert (value["kind"], value["apiVersion"]) == ("Pod", "v1")
    assert {"uid", "resourceVersion", "creationTimestamp", "generation"} <= set(value["metadata"])
    assert value["metadata"]["creationTimestamp"].endswith("Z")
    assert value["spec"]["restartPolicy"] == "Always"
    assert value["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"
    assert [one["key"] for one in value["spec"]["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert value["status"] == {"phase": "Pending", "qosClass": "BestEffort"}
    assert client.get(PODS.path("default", "a")).json == value


def test_a_list_says_what_it_is_and_its_items_do_not(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a"))
    answer = client.get(IN_SHOP).json
    assert (answer["kind"], answer["apiVersion"]) == ("PodList", "v1")
    assert int(answer["metadata"]["resourceVersion"]) > 0
    assert "kind" not in answer["items"][0]


def test_the_official_client_reads_what_is_sent(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a"))
    api_server.patch(PODS, "shop", "a", {"status": {"phase": "Running", "podIP": "198.18.0.9"}})
    core: Any = official.CoreV1Api(official.ApiClient(client.configuration))
    assert core.read_namespaced_pod("a", "shop").status.pod_ip == "198.18.0.9"
    assert [one.metadata.name for one in core.list_namespaced_pod("shop").items] == ["a"]


def test_pages_show_one_version_and_can_expire(api_server: Cluster, client: PlainClient) -> None:
    for name in "abcde":
        api_server.apply(pod(name))
    first = client.get(IN_SHOP, limit="2")
    assert (names(first), first.json["metadata"]["remainingItemCount"]) == (["a", "b"], 3)
    api_server.delete(PODS, "shop", "c")
    second = client.get(IN_SHOP, limit="2", **{"continue": first.json["metadata"]["continue"]})
    assert names(second) == ["c", "d"]
    assert second.json["metadata"]["resourceVersion"] == first.json["metadata"]["resourceVersion"]
    last = client.get(IN_SHOP, limit="2", **{"continue": second.json["metadata"]["continue"]})
    assert names(last) == ["e"]
    assert "continue" not in last.json["metadata"]
    api_server.forget_pages()
    gone = client.get(IN_SHOP, limit="2", **{"continue": second.json["metadata"]["continue"]})
    assert (gone.status, gone.json["reason"]) == (410, "Expired")


def test_a_label_selector_selects(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a", {"app": "web", "tier": "front"}))
    api_server.apply(pod("b", {"app": "web"}))
    api_server.apply(pod("c", {"app": "db"}))
    assert names(client.get(IN_SHOP, labelSelector="app=web,!tier")) == ["b"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("metadata.name=a", ["a"]),
        ("status.phase=Running", ["a"]),
        ("status.phase!=Running,spec.nodeName=", ["b"]),
        ("spec.nodeName=node-1", ["a"]),
        ("spec.hostNetwork=false", ["a", "b"]),
    ],
)
def test_field_selectors(api_server: Cluster, client: PlainClient, selector: str, expected: list[str]) -> None:
    api_server.apply(pod("a", spec={"nodeName": "node-1"}, status={"phase": "Running"}))
    api_server.apply(pod("b"))
    assert names(client.get(IN_SHOP, fieldSelector=selector)) == expected


def test_events_are_selected_by_what_they_are_about(api_server: Cluster, client: PlainClient) -> None:
    for name in ("a", "b"):
        api_server.apply(
            {
                "kind": "Event",
                "apiVersion": "v1",
                "metadata": {"name": f"event-{name}", "namespace": "shop"},
                "involvedObject": {"kind": "Pod", "name": name, "namespace": "shop", "uid": "1"},
                "reason": "Failed",
            }
        )
    answer = client.get(EVENTS.path("shop"), fieldSelector="involvedObject.name=b,involvedObject.kind=Pod")
    assert names(answer) == ["event-b"]


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        (IN_SHOP, {"fieldSelector": "spec.foo=x"}, "field label not supported: spec.foo"),
        (
            JOBS.path("shop"),
            {"fieldSelector": "status.phase=x"},
            'field label "status.phase" not supported for batchv1.Job',
        ),
        (IN_SHOP, {"labelSelector": "a in"}, "unable to parse requirement: found '' expected: '('"),
        (
            IN_SHOP,
            {"watch": "1", "resourceVersion": "x"},
            'resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',
        ),
    ],
)
def test_queries_that_cannot_be_read(
    api_server: Cluster, client: PlainClient, path: str, query: dict[str, str], message: str
) -> None:
    answer = client.get(path, **query)
    assert (answer.status, answer.json["reason"], answer.message) == (400, "BadRequest", message)


def test_what_is_not_there(api_server: Cluster, client: PlainClient) -> None:
    answer = client.get(JOBS.path("shop", "a"))
    assert answer.status == 404
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'jobs.batch "a" not found',
        "reason": "NotFound",
        "details": {"name": "a", "group": "batch", "kind": "jobs"},
        "code": 404,
    }
    assert client.get("/api/v1/namespaces/shop/nonsense").json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the server could not find the requested resource",
        "reason": "NotFound",
        "details": {},
        "code": 404,
    }
    missing = client.get(ROLLOUTS.path("shop"))
    assert (missing.status, missing.body) == (404, b"404 page not found\n")
    api_server.install(ROLLOUTS)
    assert client.get(ROLLOUTS.path("shop")).json["kind"] == "RolloutList"
    assert client.request("PUT", PODS.path("shop", "a"), {}).status == 405


def test_a_watch_begins_with_what_exists_and_tells_changes(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a"))
    with client.watch(IN_SHOP) as events:
        assert next(events)[1]["metadata"]["name"] == "a"
        api_server.patch(PODS, "shop", "a", {"status": {"phase": "Running"}})
        kind, value = next(events)
        assert (kind, value["status"]["phase"], value["kind"]) == ("MODIFIED", "Running", "Pod")
        api_server.apply(pod("b") | {"metadata": {"name": "b", "namespace": "elsewhere"}})
        api_server.delete(PODS, "shop", "a")
        kind, last = next(events)
        assert (kind, last["metadata"]["name"]) == ("DELETED", "a")
        assert int(last["metadata"]["resourceVersion"]) > int(value["metadata"]["resourceVersion"])


def test_a_watch_from_a_version_misses_nothing(api_server: Cluster, client: PlainClient) -> None:
    version = client.get(IN_SHOP).json["metadata"]["resourceVersion"]
    api_server.apply(pod("a"))
    api_server.delete(PODS, "shop", "a")
    with client.watch(IN_SHOP, resourceVersion=version) as events:
        assert [next(events)[0], next(events)[0]] == ["ADDED", "DELETED"]


def test_what_ceases_to_be_selected_is_deleted_for_the_watcher(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a", {"app": "db"}))
    with client.watch(IN_SHOP, labelSelector="app=web") as events:
        api_server.patch(PODS, "shop", "a", {"metadata": {"labels": {"app": "web"}}})
        assert next(events)[0] == "ADDED"
        api_server.patch(PODS, "shop", "a", {"metadata": {"labels": {"app": "db"}}})
        kind, value = next(events)
        assert (kind, value["metadata"]["labels"]) == ("DELETED", {"app": "web"})


def test_a_watch_from_a_version_that_is_gone(api_server: Cluster, client: PlainClient) -> None:
    version = client.get(IN_SHOP).json["metadata"]["resourceVersion"]
    api_server.faults.forget_versions(PODS)
    with client.watch(IN_SHOP, resourceVersion=version) as events:
        kind, status = next(events)
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")
        assert status["message"].startswith(f"too old resource version: {version} (")
        assert next(events, None) is None


def test_a_watch_ends_in_good_order_and_with_a_bookmark_if_asked(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a"))
    with client.watch(IN_SHOP, timeoutSeconds="1", allowWatchBookmarks="true") as events:
        (_, first), (kind, bookmark) = events
    assert kind == "BOOKMARK"
    assert int(bookmark["metadata"]["resourceVersion"]) >= int(first["metadata"]["resourceVersion"])
    with client.watch(IN_SHOP) as events:
        next(events)
        assert api_server.faults.end_streams(Match(verb="watch")) == 1
        assert next(events, None) is None


def test_initial_events_end_with_a_bookmark(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply(pod("a"))
    asked = {"sendInitialEvents": "true", "allowWatchBookmarks": "true", "resourceVersionMatch": "NotOlderThan"}
    with client.watch(IN_SHOP, **asked) as events:
        assert next(events)[0] == "ADDED"
        kind, bookmark = next(events)
    assert (kind, bookmark["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})


def test_a_watcher_that_goes_away_is_let_go(api_server: Cluster, client: PlainClient) -> None:
    with client.watch(IN_SHOP):
        pass
    api_server.apply(pod("a"))
    answered = api_server.requests[-1]
    assert (answered.verb, answered.status) == ("watch", 200)


class Writing:
    """A node whose containers write two lines, and a third when they are let go on."""

    def __init__(self) -> None:
        self.go_on = trio.Event()

    async def run(self, control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()

    async def log(self, pod: Object, container: str, *, follow: bool) -> AsyncIterator[bytes]:
        yield b"one\ntw"
        yield b"o\n"
        if follow:
            await self.go_on.wait()
            yield f"{container}\n".encode()

    async def dial(self, pod: Object, port: int) -> trio.SocketStream:
        raise ConnectionRefusedError


RUNNING = {"name": "app", "state": {"running": {}}, "ready": True, "restartCount": 0, "image": "app:1", "imageID": "x"}


def test_a_log_is_followed(tmp_path: Path) -> None:
    node = Writing()
    with Cluster(tmp_path, node) as cluster:
        client = PlainClient(cluster.kubeconfig)
        cluster.apply(pod("a", spec={"nodeName": "node-1"}, status={"containerStatuses": [RUNNING]}))
        path = f"{PODS.path('shop', 'a')}/log"
        assert client.get(path).body == b"one\ntwo\n"
        assert client.get(path, tailLines="1").body == b"two\n"
        assert client.get(path, limitBytes="5").body == b"one\nt"
        with client.lines(path, follow="true", container="app") as lines:
            assert [next(lines), next(lines)] == [b"one", b"two"]
            cluster.in_loop(node.go_on.set)
            assert list(lines) == [b"app"]


def test_logs_that_there_are_not(tmp_path: Path) -> None:
    two = [{"name": "app", "image": "app:1"}, {"name": "proxy", "image": "proxy:1"}]
    with Cluster(tmp_path, Writing()) as cluster:
        client = PlainClient(cluster.kubeconfig)

        def message(name: str, **query: str) -> str:
            answer = client.get(f"{PODS.path('shop', name)}/log", **query)
            assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
            return answer.message

        cluster.apply(pod("unscheduled"))
        assert client.get(f"{PODS.path('shop', 'unscheduled')}/log").body == b""
        cluster.apply(pod("two", spec={"containers": two, "nodeName": "node-1"}))
        wanted = "a container name must be specified for pod two, choose one of: [app proxy]"
        assert message("two") == wanted
        assert message("two", container="db") == "container db is not valid for pod two"
        assert message("two", container="app") == 'container "app" in pod "two" is not available'
        waiting = RUNNING | {"state": {"waiting": {"reason": "ContainerCreating"}}}
        cluster.patch(PODS, "shop", "two", {"status": {"containerStatuses": [waiting]}})
        wanted = 'container "app" in pod "two" is waiting to start: ContainerCreating'
        assert message("two", container="app") == wanted
        waiting["state"] = {"waiting": {"reason": "ImagePullBackOff"}}
        cluster.patch(PODS, "shop", "two", {"status": {"containerStatuses": [waiting]}})
        wanted = 'container "app" in pod "two" is waiting to start: trying and failing to pull image'
        assert message("two", container="app") == wanted
