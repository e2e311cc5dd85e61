"""Our side of the API, against the stand-in's: every verb, each kind of credentials, and what goes wrong on the way."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from mirrord_trace.cluster import credentials, exchange
from mirrord_trace.cluster.api import ApiRefusal, ApiServer, open_api
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import (
    DEPLOYMENTS,
    JOBS,
    POD_EPHEMERAL_CONTAINERS,
    POD_PORT_FORWARD,
    PODS,
    ROLLOUTS,
)
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure
from tests.cluster.standin.admission import Webhook
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.faults import Match
from tests.cluster.standin.interfaces import ControlPlane
from tests.cluster.standin.kubeconfigs import Auth

T = TypeVar("T")
Object = dict[str, Any]
PATIENCE_S = 20.0
NAMESPACE = {"kind": "Namespace", "apiVersion": "v1"}


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def cluster(api_server: Cluster) -> Cluster:
    api_server.apply(NAMESPACE | {"metadata": {"name": "shop"}})
    return api_server


def asking(kubeconfig: Path, work: Callable[[ApiServer], Awaitable[T]], **more: Any) -> T:
    """What comes of work with the API server of a kubeconfig."""

    async def main() -> T:
        with trio.fail_after(PATIENCE_S):
            async with open_api(ClusterConfiguration(kubeconfig=str(kubeconfig), **more)) as api:
                return await work(api)

    return trio.run(main)


def pod(name: str, **labels: str) -> Object:
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"containers": [{"name": "app", "image": "shop/web:1"}]},
    }


def job(name: str, **pod_spec: Any) -> Object:
    spec = {"restartPolicy": "Never", "containers": [{"name": "agent", "image": "agent:1"}]} | pod_spec
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"spec": spec}},
    }


async def names(api: ApiServer, **selectors: str) -> list[str]:
    return [found["metadata"]["name"] for found in await api.list(PODS, "shop", **selectors)]


async def create(api: ApiServer) -> None:
    await api.create(JOBS, "shop", job("agent"))


def test_objects_come_and_go(cluster: Cluster) -> None:
    async def work(api: ApiServer) -> None:
        made, warnings = await api.create(JOBS, "shop", job("agent"))
        assert made["metadata"]["uid"]
        assert warnings == []
        assert await api.get(JOBS, "shop", "agent") == made
        changed = await api.patch(JOBS, "shop", "agent", {"spec": {"activeDeadlineSeconds": 60}})
        assert changed["spec"]["activeDeadlineSeconds"] == 60
        changed = await api.patch(JOBS, "shop", "agent", {"spec": {"activeDeadlineSeconds": None}})
        assert "activeDeadlineSeconds" not in changed["spec"]
        assert await api.delete(JOBS, "shop", "agent")
        assert not await api.delete(JOBS, "shop", "agent")
        with pytest.raises(ApiRefusal) as refusal:
            await api.get(JOBS, "shop", "agent")
        assert refusal.value.reason == "NotFound"
        assert api.requests == len(cluster.requests)

    asking(cluster.kubeconfig, work)
    assert [request.verb for request in cluster.requests] == [
        "create",
        "get",
        "patch",
        "patch",
        "delete",
        "delete",
        "get",
    ]
    assert all(request.headers["user-agent"].startswith("mirrord-trace/") for request in cluster.requests)


def test_lists_by_selectors_and_namespaces(cluster: Cluster) -> None:
    cluster.apply(pod("a", app="web"))
    cluster.apply(pod("b", app="db"))
    cluster.apply(pod("c", app="web") | {"metadata": {"name": "c", "namespace": "other"}})

    async def work(api: ApiServer) -> None:
        assert await names(api) == ["a", "b"]
        assert await names(api, label_selector="app=web") == ["a"]
        assert await names(api, field_selector="metadata.name=b") == ["b"]
        assert len(await api.list(PODS, None)) == 3
        assert await api.list(DEPLOYMENTS, "shop") == []

    asking(cluster.kubeconfig, work)


def test_long_lists_come_in_pages(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrord_trace.cluster.api._PAGE", 2)
    for name in "abcde":
        cluster.apply(pod(name))
    asked: list[str] = []

    async def work(api: ApiServer) -> None:
        assert await names(api) == list("abcde")

    asking(cluster.kubeconfig, work)
    asked += [request.query.get("limit", [""])[0] for request in cluster.requests]
    assert asked == ["2", "2", "2"]


def test_an_ephemeral_container_is_added(cluster: Cluster) -> None:
    cluster.apply(pod("web"))
    container = {"name": "agent", "image": "agent:1", "targetContainerName": "app"}

    async def work(api: ApiServer) -> Object:
        body = {"spec": {"ephemeralContainers": [container]}}
        kind = "application/strategic-merge-patch+json"
        return await api.patch(POD_EPHEMERAL_CONTAINERS, "shop", "web", body, content_type=kind)

    added = asking(cluster.kubeconfig, work)["spec"]["ephemeralContainers"]
    assert [one["name"] for one in added] == ["agent"]


def test_warnings_of_pod_security(cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "baseline"}
    cluster.apply(NAMESPACE | {"metadata": {"name": "shop", "labels": labels}})

    async def work(api: ApiServer) -> list[str]:
        return (await api.create(JOBS, "shop", job("agent", hostPID=True)))[1]

    (warning,) = asking(cluster.kubeconfig, work)
    assert warning == 'would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)'


async def first_events(api: ApiServer, count: int, then: Callable[[int], object] = int) -> list[tuple[str, str]]:
    events = []
    async with api.watch(PODS, "shop") as changes:
        async for kind, subject in changes:
            events.append((kind, subject["metadata"]["name"]))
            if len(events) == count:
                break
            then(len(events))
    return events


def test_a_watch_begins_with_what_is_there(cluster: Cluster) -> None:
    cluster.apply(pod("a"))

    def go_on(seen: int) -> None:
        match seen:
            case 1:
                cluster.apply(pod("b"))
            case 2:
                cluster.patch(PODS, "shop", "b", {"metadata": {"labels": {"x": "y"}}})
            case 3:
                cluster.delete(PODS, "shop", "a")

    async def work(api: ApiServer) -> None:
        assert await first_events(api, 4, go_on) == [
            ("ADDED", "a"),
            ("ADDED", "b"),
            ("MODIFIED", "b"),
            ("DELETED", "a"),
        ]
        assert api.requests == 1

    asking(cluster.kubeconfig, work)


@pytest.mark.parametrize("end", ["end_streams", "cut"])
def test_a_watch_outlives_its_connections(cluster: Cluster, end: str) -> None:
    cluster.apply(pod("a"))

    def go_on(_seen: int) -> None:
        getattr(cluster.faults, end)(Match(verb="watch"))
        cluster.apply(pod("b"))

    async def work(api: ApiServer) -> None:
        assert await first_events(api, 2, go_on) == [("ADDED", "a"), ("ADDED", "b")]

    asking(cluster.kubeconfig, work)


def test_a_watch_makes_up_for_what_it_missed(cluster: Cluster) -> None:
    cluster.apply(pod("a"))
    cluster.apply(pod("b"))

    def go_on(seen: int) -> None:
        if seen == 2:
            hold = cluster.faults.hold(Match(verb="watch"), times=1)
            cluster.faults.cut(Match(verb="watch"))
            cluster.delete(PODS, "shop", "a")
            cluster.apply(pod("c"))
            cluster.faults.forget_versions(PODS)
            hold.release()

    async def work(api: ApiServer) -> None:
        events = await first_events(api, 4, go_on)
        assert events == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("ADDED", "c")]

    asking(cluster.kubeconfig, work)


def test_a_watch_outlives_a_restart_of_the_server(cluster: Cluster) -> None:
    cluster.apply(pod("a"))

    def go_on(_seen: int) -> None:
        cluster.go_away()
        cluster.come_back()
        cluster.apply(pod("b"))

    async def work(api: ApiServer) -> None:
        assert await first_events(api, 2, go_on) == [("ADDED", "a"), ("ADDED", "b")]

    asking(cluster.kubeconfig, work)


class Talkative:
    """A machinery of one kubelet that has something to say about every container."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.asked = 0

    async def run(self, _control: ControlPlane, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await trio.sleep_forever()

    async def log(self, _pod: Object, _container: str, *, follow: bool) -> AsyncIterator[bytes]:
        self.asked += 1
        for piece in self.pieces if follow else self.pieces[:1]:
            yield piece
        if follow and self.asked == 1:
            await trio.sleep_forever()

    async def dial(self, _pod: Object, port: int) -> trio.SocketStream:
        raise ConnectionRefusedError(port)


@pytest.fixture
def talkative(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", Talkative(b"one\ntw", b"o\n")) as cluster:
        status = {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "app",
                    "state": {"running": {}},
                    "ready": True,
                    "restartCount": 0,
                    "image": "i",
                    "imageID": "i",
                }
            ],
        }
        running = pod("web")
        running["spec"]["nodeName"] = "node"
        cluster.apply(running | {"status": status})
        yield cluster


def test_a_log(talkative: Cluster) -> None:
    async def work(api: ApiServer) -> list[str]:
        async with api.log("shop", "web", "app", follow=False) as lines:
            return [line async for line in lines]

    assert asking(talkative.kubeconfig, work) == ["one", "tw"]


def test_a_log_is_followed_over_a_lost_connection(talkative: Cluster) -> None:
    async def work(api: ApiServer) -> list[str]:
        seen = []
        async with api.log("shop", "web", "app", follow=True) as lines:
            async for line in lines:
                seen.append(line)
                if len(seen) == 2:
                    talkative.faults.cut(Match(name="web"))
        return seen

    assert asking(talkative.kubeconfig, work) == ["one", "two"]


def test_a_log_of_a_container_that_is_not_there(talkative: Cluster) -> None:
    async def work(api: ApiServer) -> None:
        async with api.log("shop", "web", "db", follow=True) as lines:
            async for _ in lines:
                pass

    with pytest.raises(ApiRefusal, match="container db is not valid for pod web"):
        asking(talkative.kubeconfig, work)


ALL_AUTH: list[Auth] = ["token", "token-file", "certificate", "certificate-data", "exec", "exec-certificate", "oidc"]


@pytest.mark.parametrize("auth", ALL_AUTH)
def test_each_kind_of_credentials(cluster: Cluster, auth: Auth) -> None:
    cluster.rbac.allow("dev", "list", PODS)
    assert asking(cluster.kubeconfig_for("dev", auth), names) == []
    assert cluster.requests[-1].user == "dev"


async def twice(api: ApiServer, cluster: Cluster) -> None:
    await names(api)
    cluster.expire_tokens("dev")
    await names(api)


@pytest.mark.parametrize("auth", ["token-file", "exec"])
def test_an_expired_token_is_renewed(cluster: Cluster, auth: Auth) -> None:
    cluster.rbac.allow("dev", "list", PODS)
    kubeconfig = cluster.kubeconfig_for("dev", auth)
    asking(kubeconfig, lambda api: twice(api, cluster))
    assert [request.status for request in cluster.requests] == [200, 401, 200]
    assert cluster.plugin_runs(kubeconfig) == (2 if auth == "exec" else 0)


def test_a_token_is_renewed_once_for_all_that_it_was_refused_to(cluster: Cluster) -> None:
    cluster.rbac.allow("dev", "list", PODS)
    kubeconfig = cluster.kubeconfig_for("dev", "exec")

    async def work(api: ApiServer) -> None:
        await names(api)
        cluster.expire_tokens("dev")
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(names, api)

    asking(kubeconfig, work)
    assert cluster.plugin_runs(kubeconfig) == 2


def test_an_expired_token_that_nothing_renews(cluster: Cluster) -> None:
    cluster.rbac.allow("dev", "list", PODS)
    with pytest.raises(ApiRefusal) as refusal:
        asking(cluster.kubeconfig_for("dev"), lambda api: twice(api, cluster))
    told = failure(refusal.value, "list pods")
    assert told.message == "cannot list pods: the API server does not accept our credentials (401)"


def test_a_web_sockets_credentials_are_renewed(cluster: Cluster) -> None:
    async def work(api: ApiServer) -> None:
        before = await api.websocket(POD_PORT_FORWARD, "shop", "web", {"ports": "1"})
        cluster.expire_tokens("dev")
        await api.renew_credentials()
        after = await api.websocket(POD_PORT_FORWARD, "shop", "web", {"ports": "1"})
        assert dict(before.headers)["authorization"] != dict(after.headers)["authorization"]

    asking(cluster.kubeconfig_for("dev", "exec"), work)


def test_in_a_pod(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, environment = cluster.service_account("system:serviceaccount:shop:runner", "shop")
    monkeypatch.setattr(credentials, "SERVICE_ACCOUNT", place)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cluster.rbac.allow("system:serviceaccount:shop:runner", "list", PODS, "shop")

    async def main() -> None:
        async with open_api(ClusterConfiguration()) as api:
            assert api.namespace == "shop"
            assert await names(api) == []
            cluster.expire_tokens("system:serviceaccount:shop:runner")
            assert await names(api) == []

    trio.run(main)


@pytest.mark.parametrize("password", [None, "se:cr@et"])
def test_through_a_proxy(cluster: Cluster, password: str | None) -> None:
    url, proxy = cluster.proxy(password)
    url = url.replace(password, "se%3Acr%40et") if password else url
    assert asking(cluster.kubeconfig_for(proxy_url=url), names) == []
    assert proxy.targets == [f"127.0.0.1:{cluster.port}"]


@pytest.mark.parametrize(
    ("certificate", "settings", "more"),
    [
        ("other-name", {"tls_server_name": "kubernetes.cluster.test"}, {}),
        ("other-name", {"insecure": True}, {}),
        ("expired", {}, {"accept_invalid_certificates": True}),
        ("valid", {"trusted": False}, {"accept_invalid_certificates": True}),
    ],
)
def test_certificates_that_are_accepted_where_that_is_said(
    cluster: Cluster, certificate: Any, settings: Any, more: Any
) -> None:
    assert asking(cluster.kubeconfig_for(certificate=certificate, **settings), names, **more) == []


@pytest.mark.parametrize(
    ("certificate", "settings", "problem"),
    [
        ("other-name", {}, "is for another address"),
        ("valid", {"tls_server_name": "other.example"}, "is for another name"),
        ("expired", {}, "has expired"),
        ("valid", {"trusted": False}, "is signed by an authority that is not trusted"),
    ],
)
def test_certificates_that_are_not(cluster: Cluster, certificate: Any, settings: Any, problem: str) -> None:
    kubeconfig = cluster.kubeconfig_for(certificate=certificate, **settings)
    with pytest.raises(Failure, match=f"^the certificate of the API server https://127.0.0.1:[0-9]+ {problem}$"):
        asking(kubeconfig, names)


def drop(cluster: Cluster) -> None:
    cluster.faults.drop()


def be_busy(cluster: Cluster) -> None:
    cluster.faults.answer(429, retry_after_s=0)


def change_leader(cluster: Cluster) -> None:
    cluster.faults.answer(500, retry_after_s=0)


def start(cluster: Cluster) -> None:
    cluster.faults.answer(503, retry_after_s=None)


@pytest.mark.parametrize(("trouble", "status"), [(drop, 0), (be_busy, 429), (change_leader, 500), (start, 503)])
@pytest.mark.parametrize("work", [names, create])
def test_requests_are_repeated(
    cluster: Cluster, trouble: Callable[[Cluster], None], status: int, work: Callable[[ApiServer], Awaitable[Any]]
) -> None:
    trouble(cluster)
    asking(cluster.kubeconfig, work)
    assert [request.status for request in cluster.requests] == [status, 201 if work is create else 200]


def test_a_create_whose_answer_was_lost_is_known_to_be_ours(cluster: Cluster) -> None:
    cluster.faults.drop(Match(verb="create"), handled=True)

    async def work(api: ApiServer) -> Object:
        return (await api.create(JOBS, "shop", job("agent")))[0]

    uid = asking(cluster.kubeconfig, work)["metadata"]["uid"]
    stored = cluster.get(JOBS, "shop", "agent")
    assert stored is not None
    assert stored["metadata"]["uid"] == uid


def test_a_delete_whose_answer_was_lost(cluster: Cluster) -> None:
    cluster.apply(job("agent") | {"metadata": {"name": "agent", "namespace": "shop"}})
    cluster.faults.drop(Match(verb="delete"), handled=True)

    async def work(api: ApiServer) -> None:
        await api.delete(JOBS, "shop", "agent")

    asking(cluster.kubeconfig, work)
    assert cluster.get(JOBS, "shop", "agent") is None


def test_a_server_that_is_gone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_DELAYS_S", (0.0, 0.0, 0.0, 0.0))

    async def work(api: ApiServer) -> None:
        assert await names(api) == []
        cluster.go_away()
        await names(api)

    with pytest.raises(Failure, match=r"^cannot reach the API server .*: connection refused$"):
        asking(cluster.kubeconfig, work)


def test_what_waits_is_cancelled_at_once(cluster: Cluster) -> None:
    hold = cluster.faults.hold()

    async def work(api: ApiServer) -> bool:
        async with trio.open_nursery() as nursery:
            for wait in (names, lambda api: first_events(api, 1), lambda api: api.get(PODS, "shop", "web")):
                nursery.start_soon(wait, api)
            await trio.to_thread.run_sync(hold.reached.wait)
            nursery.cancel_scope.cancel()
        return True

    assert asking(cluster.kubeconfig, work)
    hold.release()


async def create_pod(api: ApiServer) -> None:
    await api.create(PODS, "shop", pod("agent"))


async def list_rollouts(api: ApiServer) -> None:
    await api.list(ROLLOUTS, "shop")


async def create_elsewhere(api: ApiServer) -> None:
    await api.create(JOBS, "nowhere", job("agent"))


async def create_invalid(api: ApiServer) -> None:
    await api.create(JOBS, "shop", job("agent", restartPolicy="Always"))


def secured(cluster: Cluster) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(NAMESPACE | {"metadata": {"name": "shop", "labels": labels}})


def full(cluster: Cluster) -> None:
    quota = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "few", "namespace": "shop"}}
    cluster.apply(quota | {"spec": {"hard": {"pods": "0"}}})


def guarded(cluster: Cluster) -> None:
    cluster.add_webhook(Webhook("policy.example.com", JOBS, "not here"))


def badly_guarded(cluster: Cluster) -> None:
    cluster.add_webhook(Webhook("policy.example.com", JOBS, "connect: connection refused", reachable=False))


def powerless(cluster: Cluster) -> None:
    cluster.rbac.deny("admin", "create", JOBS)


@pytest.mark.parametrize(
    ("arrange", "work", "what"),
    [
        (powerless, create, "the user admin has no right to create jobs.batch in the namespace shop"),
        (secured, create_pod, "Pod Security (restricted:latest) of the namespace shop forbids it: "),
        (full, create_pod, "a quota of the namespace shop does not allow it: exceeded quota: few, requested: pods=1, "),
        (guarded, create, "the cluster's admission webhook policy.example.com refuses it: not here"),
        (badly_guarded, create, "the cluster's admission webhook policy.example.com fails: "),
        (id, list_rollouts, "the cluster has no rollouts.argoproj.io"),
        (id, create_elsewhere, "there is no namespace nowhere"),
        (id, create_invalid, "the API server finds it invalid: spec.template.spec.restartPolicy: "),
    ],
)
def test_refusals_in_words(
    cluster: Cluster, arrange: Callable[[Cluster], object], work: Callable[[ApiServer], Awaitable[None]], what: str
) -> None:
    arrange(cluster)
    with pytest.raises(ApiRefusal) as refusal:
        asking(cluster.kubeconfig, work)
    told = failure(refusal.value, "do it").message
    assert told.startswith(f"cannot do it: {what}"), told


def test_nobody_is_told_so(cluster: Cluster) -> None:
    with pytest.raises(ApiRefusal) as refusal:
        asking(cluster.kubeconfig_for("dev", "anonymous"), names)
    told = failure(refusal.value, "list pods")
    assert told.message == "cannot list pods: the user system:anonymous has no right to list pods in the namespace shop"
    assert told.advice is not None
    assert told.advice.startswith("The server does not know who we are")


def test_an_exec_plugin_that_fails(cluster: Cluster) -> None:
    kubeconfig = cluster.kubeconfig_for("dev", "exec")
    plugin = kubeconfig.with_name("plugin")
    plugin.write_text("#!/bin/sh\necho 'your session has ended' >&2\nexit 255\n")
    with pytest.raises(Failure, match=r"ended with exit code 255:\nyour session has ended$"):
        asking(kubeconfig, names)


def test_a_body_is_json_as_it_was_given(cluster: Cluster) -> None:
    asking(cluster.kubeconfig, create)
    assert json.loads(cluster.requests[-1].body) == job("agent")
