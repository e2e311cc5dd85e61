from __future__ import annotations

from typing import Any

import pytest
import trio

from mirrord_trace.cluster.resources import (
    CRON_JOBS,
    DEPLOYMENTS,
    JOBS,
    PODS,
    ROLLOUTS,
    SERVICES,
)
from mirrord_trace.errors import Failure
from mirrord_trace.targets.workloads.finding import Found, find_pods
from mirrord_trace.targets.workloads.path import parse_path
from tests.mirrord_trace.targets.workloads.objects import pod
from tests.mirrord_trace.targets.workloads.scripted import ScriptedApi, refusal


def find(api: ScriptedApi, text: str) -> Found:
    path = parse_path(text)
    assert path is not None
    return trio.run(find_pods, api.api, path, "shop")


def fail(api: ScriptedApi, text: str) -> str:
    with pytest.raises(Failure) as caught:
        find(api, text)
    return f"{caught.value.message}\n{caught.value.advice}"


def workload(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": spec}


LABELS = {"matchLabels": {"app": "web"}}


def test_a_pod_takes_one_request() -> None:
    api = ScriptedApi()
    api.has(PODS, pod("web-1"))
    assert find(api, "pod/web-1") == Found([pod("web-1")], None)
    assert api.asked == 1


def test_a_workload_takes_two() -> None:
    api = ScriptedApi()
    api.has(DEPLOYMENTS, workload("web", selector=LABELS))
    api.has(PODS, pod("web-1"))
    found = find(api, "deploy/web")
    assert found == Found([pod("web-1")], workload("web", selector=LABELS), "app=web")
    assert (api.asked, api.selectors) == (2, ["app=web"])


def test_labels_take_one() -> None:
    api = ScriptedApi()
    find(api, "label/app=web,tier=front")
    assert (api.asked, api.selectors) == (1, ["app=web,tier=front"])


def test_a_cron_jobs_pods_are_its_jobs() -> None:
    api = ScriptedApi()
    api.has(CRON_JOBS, workload("nightly", schedule="0 0 * * *"))
    assert find(api, "cronjob/nightly").pods == [], "it has not run yet"
    api.has(JOBS, {"metadata": {"name": "nightly-1", "ownerReferences": [{"uid": "uid-nightly"}]}})
    api.has(PODS, pod("nightly-1-x"))
    assert find(api, "cronjob/nightly").pods == [pod("nightly-1-x")]
    assert api.selectors[-1] == "job-name in (nightly-1)"


def test_a_rollout_with_and_without_a_selector_of_its_own() -> None:
    api = ScriptedApi()
    api.has(ROLLOUTS, workload("own", selector={"matchLabels": {"app": "own"}}))
    api.has(ROLLOUTS, workload("lent", workloadRef={"kind": "Deployment", "name": "web"}))
    api.has(DEPLOYMENTS, workload("web", selector=LABELS))
    find(api, "rollout/own")
    find(api, "rollout/lent")
    assert api.selectors == ["app=own", "app=web"]
    api.has(ROLLOUTS, workload("strange", workloadRef={"kind": "PodTemplate", "name": "web"}))
    assert "rollout/strange in namespace shop has no selector" in fail(api, "rollout/strange")


def test_rollouts_that_are_not_installed() -> None:
    api = ScriptedApi(refuses={("get", ROLLOUTS): refusal("get", ROLLOUTS, 404, "404 page not found")})
    assert "Argo Rollouts is not installed" in fail(api, "rollout/web")


def test_a_service_without_a_selector() -> None:
    api = ScriptedApi()
    api.has(SERVICES, workload("db", type="ExternalName"))
    assert "service/db in namespace shop has no selector" in fail(api, "svc/db")


def test_what_is_not_there_and_what_may_have_been_meant() -> None:
    api = ScriptedApi()
    api.has(DEPLOYMENTS, workload("web"), workload("mail"))
    told = fail(api, "deploy/wbe")
    assert told.startswith("there is no deployment/wbe in namespace shop\nIs it deployment/web? ")
    assert "mirrord-trace ls -n shop" in told
    api.refuses["list", DEPLOYMENTS] = refusal("list", DEPLOYMENTS, 403)
    assert "Is it" not in fail(api, "deploy/wbe")


def test_a_right_that_is_missing() -> None:
    message = 'pods is forbidden: User "dev" cannot list resource "pods" in API group "" in the namespace "shop"'
    api = ScriptedApi(refuses={("list", PODS): refusal("list", PODS, 403, message)})
    assert "the user dev has no right to list pods in the namespace shop" in fail(api, "label/app=web")
    api = ScriptedApi(refuses={("get", PODS): refusal("get", PODS, 403, message)})
    assert "cannot find pod/web-1: the user dev" in fail(api, "pod/web-1")
