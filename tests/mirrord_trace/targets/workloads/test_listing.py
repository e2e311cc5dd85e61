from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.kinds import Kind
from mirrord_trace.targets.workloads.listing import Listed, matches, targets
from tests.mirrord_trace.targets.workloads.objects import pod

CREATED = "2030-01-01T00:00:00Z"


def thing(name: str, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "creationTimestamp": CREATED,
            **metadata,
        },
        "spec": spec or {},
    }


def web(name: str, **arguments: Any) -> dict[str, Any]:
    return pod(name, metadata={"labels": {"app": "web"}}, **arguments)


SELECTING_WEB = {"selector": {"matchLabels": {"app": "web"}}}


def owned_by(kind: str, name: str) -> dict[str, Any]:
    return {"ownerReferences": [{"kind": kind, "name": name, "uid": f"uid-{name}"}]}


def listed(objects: dict[Kind, list[Any]], target: str) -> Listed:
    [one] = [one for one in targets(objects) if one.target == target]
    return one


def names(objects: dict[Kind, list[Any]]) -> list[str]:
    return [one.target for one in targets(objects)]


def test_workload_has_the_pods_that_its_selector_matches() -> None:
    objects = {
        kinds.DEPLOYMENT: [thing("web", SELECTING_WEB)],
        kinds.POD: [web("web-1"), web("web-2", ready=False), pod("other")],
    }
    found = listed(objects, "deployment/web")
    assert (found.ready, found.pods) == (1, 2)
    assert found.containers == ("app",)


def test_pods_of_other_namespaces_do_not_count() -> None:
    elsewhere = pod("web-1", metadata={"labels": {"app": "web"}, "namespace": "test"})
    assert listed({kinds.DEPLOYMENT: [thing("web", SELECTING_WEB)], kinds.POD: [elsewhere]}, "deployment/web").pods == 0


def test_service_selects_by_plain_labels() -> None:
    objects = {kinds.SERVICE: [thing("web", {"selector": {"app": "web"}}), thing("db")], kinds.POD: [web("web-1")]}
    assert listed(objects, "service/web").ready == 1
    assert listed(objects, "service/db").pods == 0


def test_cron_job_has_the_pods_of_its_jobs() -> None:
    run = pod("report-1-x", metadata={"labels": {"job-name": "report-1"}})
    objects = {
        kinds.CRON_JOB: [thing("report")],
        kinds.JOB: [thing("report-1", **owned_by("CronJob", "report")), thing("once", SELECTING_WEB)],
        kinds.POD: [run, web("web-1")],
    }
    assert listed(objects, "cronjob/report").ready == 1
    assert names(objects) == ["cronjob/report", "job/once", "pod/report-1-x", "pod/web-1"]


def test_rollout_may_leave_its_pods_to_a_deployment() -> None:
    reference = {"workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}
    objects = {
        kinds.ROLLOUT: [thing("web", reference), thing("own", SELECTING_WEB), thing("lost", {"workloadRef": {}})],
        kinds.DEPLOYMENT: [thing("web", SELECTING_WEB)],
        kinds.POD: [web("web-1")],
    }
    assert listed(objects, "rollout/web").ready == 1
    assert listed(objects, "rollout/own").ready == 1
    assert listed(objects, "rollout/lost").pods == 0


@pytest.mark.parametrize(
    ("owner", "expected"),
    [("Deployment", []), ("Rollout", []), ("Postgres", ["replicaset/web-5d"])],
)
def test_what_a_listed_kind_has_made_is_left_out(owner: str, expected: list[str]) -> None:
    assert names({kinds.REPLICA_SET: [thing("web-5d", SELECTING_WEB, **owned_by(owner, "web"))]}) == expected


def test_our_own_agents_are_left_out() -> None:
    labels = {"app.kubernetes.io/managed-by": "mirrord-trace"}
    objects = {kinds.JOB: [thing("agent", labels=labels)], kinds.POD: [pod("agent-x", metadata={"labels": labels})]}
    assert names(objects) == []


def test_containers_are_those_of_the_pod_that_would_be_served() -> None:
    objects = {
        kinds.DEPLOYMENT: [thing("web", SELECTING_WEB)],
        kinds.POD: [
            web("web-1", containers=("app",)),
            web("web-2", containers=("istio-proxy", "app", "helper"), created="2030-01-02T00:00:00Z"),
        ],
    }
    assert listed(objects, "deployment/web").containers == ("app", "istio-proxy", "helper")


def test_of_a_pod_with_several_containers_each_is_a_target() -> None:
    objects = {kinds.POD: [pod("a", containers=("app", "helper")), pod("b")]}
    assert [target for one in targets(objects) for target in one.targets] == [
        "pod/a/container/app",
        "pod/a/container/helper",
        "pod/b",
    ]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchLabels": {"app": "web", "tier": "front"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_selector_matches_as_the_api_has_it(selector: dict[str, Any], expected: bool) -> None:
    assert matches(selector, {"app": "web"}) is expected
