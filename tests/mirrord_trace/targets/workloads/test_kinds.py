from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.kinds import (
    KINDS,
    kind_of,
    label_selector,
    selector_of,
    selector_of_jobs,
    workload_of_rollout,
)


def test_every_spelling_means_one_kind() -> None:
    for kind in KINDS:
        assert {kind_of(spelling) for spelling in kind.spellings} == {kind}


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ({}, ""),
        ({"matchLabels": {"app": "web", "tier": "front"}}, "app=web,tier=front"),
        ({"matchLabels": None, "matchExpressions": None}, ""),
        (
            {
                "matchLabels": {"app": "web"},
                "matchExpressions": [
                    {"key": "track", "operator": "In", "values": ["stable", "canary"]},
                    {"key": "zone", "operator": "NotIn", "values": ["a"]},
                    {"key": "live", "operator": "Exists"},
                    {"key": "old", "operator": "DoesNotExist"},
                ],
            },
            "app=web,track in (stable,canary),zone notin (a),live,!old",
        ),
    ],
)
def test_a_selector_as_text(selector: dict[str, Any], text: str) -> None:
    assert label_selector(selector) == text


@pytest.mark.parametrize(
    ("kind", "spec", "text"),
    [
        (kinds.DEPLOYMENT, {"selector": {"matchLabels": {"app": "web"}}}, "app=web"),
        (kinds.SERVICE, {"selector": {"app": "web", "tier": "front"}}, "app=web,tier=front"),
        (kinds.SERVICE, {"type": "ExternalName"}, ""),
        (kinds.ROLLOUT, {"workloadRef": {"kind": "Deployment", "name": "web"}}, ""),
    ],
)
def test_a_workloads_selector(kind: kinds.Kind, spec: dict[str, Any], text: str) -> None:
    assert selector_of(kind, {"metadata": {}, "spec": spec}) == text


@pytest.mark.parametrize(
    ("reference", "workload"),
    [
        ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, (kinds.DEPLOYMENT, "web")),
        ({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1"}, (kinds.REPLICA_SET, "web-1")),
        ({"apiVersion": "v1", "kind": "PodTemplate", "name": "web"}, None),
        ({"kind": "Deployment"}, None),
        (None, None),
    ],
)
def test_what_a_rollout_refers_to(reference: object, workload: object) -> None:
    assert workload_of_rollout({"spec": {"workloadRef": reference}}) == workload


def owned(name: str, *owners: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "ownerReferences": [{"uid": uid} for uid in owners]}}


def test_a_cron_job_has_its_own_jobs_only() -> None:
    jobs = [owned("n-2", "u1"), owned("n-1", "u1"), owned("other", "u2"), {"metadata": {"name": "alone"}}]
    assert selector_of_jobs({"metadata": {"uid": "u1"}}, jobs) == "job-name in (n-1,n-2)"
    assert selector_of_jobs({"metadata": {"uid": "u3"}}, jobs) == ""
