from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.errors import UsageFailure
from mirrord_trace.targets.workloads.choice import (
    Candidate,
    candidates,
    containers,
    default_container,
    no_candidate,
    why_not,
)
from tests.mirrord_trace.targets.workloads.objects import ID, container_status, pod

WAITS = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
STAYS = {"name": "mesh", "restartPolicy": "Always"}
DEFAULT = "kubectl.kubernetes.io/default-container"


def names(pods: list[dict[str, Any]], container: str | None = None) -> list[tuple[str, str]]:
    return [(one.pod, one.container) for one in candidates(pods, container)]


def test_what_is_known_of_a_candidate() -> None:
    assert candidates([pod()], None) == [Candidate("shop", "web-1", "uid-web-1", "n1", "app", ID)]


def test_the_newest_first() -> None:
    pods = [pod("old", created="2030-01-01T00:00:00Z"), pod("new", created="2030-01-02T00:00:00Z")]
    assert names(pods) == names(pods[::-1]) == [("new", "app"), ("old", "app")]


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (pod(phase="Pending", ready=False, statuses=()), "Pending, not Ready"),
        (pod(phase="Succeeded", ready=False), "Succeeded, not Ready"),
        (
            pod(phase="Failed", reason="Evicted", message="low on memory", ready=False),
            "Failed (Evicted: low on memory), not Ready",
        ),
        (pod(metadata={"deletionTimestamp": "2030-01-01T00:00:01Z"}), "Running, being deleted"),
        (pod(conditions=()) | {"status": {"phase": "Running"}}, "Running"),
        (
            pod(
                phase="Pending",
                conditions=(
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"},
                ),
                statuses=(),
                node=None,
            ),
            "Pending, not PodScheduled (Unschedulable: 0/3 nodes fit)",
        ),
        (
            pod(
                conditions=(
                    {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "unready: [app]"},
                    {"type": "ContainersReady", "status": "False", "reason": "ContainersNotReady"},
                ),
                statuses=(container_status("app", WAITS, ready=False),),
            ),
            "Running, not Ready (ContainersNotReady: unready: [app]), "
            "container app waits (CrashLoopBackOff: back-off 10s)",
        ),
        (
            pod(
                ready=False,
                statuses=(container_status("app", {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}),),
            ),
            "Running, not Ready, container app ended with exit code 137 (OOMKilled)",
        ),
        (
            pod(ready=False, statuses=(container_status("app", ready=False),)),
            "Running, not Ready, container app is not ready",
        ),
        (
            pod(
                phase="Pending",
                ready=False,
                statuses=(),
                initContainerStatuses=[
                    container_status("first", {"terminated": {"exitCode": 0, "reason": "Completed"}}),
                    container_status("second", {"terminated": {"exitCode": 1, "reason": "Error"}}),
                ],
            ),
            "Pending, not Ready, container second ended with exit code 1 (Error)",
        ),
    ],
)
def test_what_is_not_ready_is_told_and_not_served(unfit: dict[str, Any], why: str) -> None:
    assert why_not(unfit) == why
    assert candidates([unfit], None) == []
    failure = no_candidate("deployment/web in namespace shop", [unfit], None)
    assert failure.message == "deployment/web in namespace shop has no ready pod"
    assert failure.advice == f"web-1: {why}"


def test_a_ready_pod_has_no_reason_not_to_be() -> None:
    assert why_not(pod()) == ""


def test_a_pod_whose_container_just_ended_is_not_served() -> None:
    ended = pod(statuses=(container_status("app", {"terminated": {"exitCode": 1}}, ready=False),))
    assert candidates([ended], None) == []
    assert no_candidate("pod/web-1", [ended], None).advice == "web-1: container app ended with exit code 1"


@pytest.mark.parametrize(
    ("of", "chosen"),
    [
        (pod(containers=("app", "side")), "app"),
        (pod(containers=("istio-proxy", "app", "side")), "app"),
        (pod(containers=("istio-proxy", "linkerd-proxy")), "istio-proxy"),
        (pod(containers=("app", "side"), annotations={DEFAULT: "side"}), "side"),
        (pod(containers=("app", "istio-proxy"), annotations={DEFAULT: "istio-proxy"}), "istio-proxy"),
        (pod(containers=("app",), annotations={DEFAULT: "gone"}), "app"),
        (pod(containers=("app",), init_containers=({"name": "setup"}, STAYS)), "app"),
    ],
)
def test_the_default_container(of: dict[str, Any], chosen: str) -> None:
    assert default_container(of) == chosen


def test_init_containers_that_stay_can_be_asked_for() -> None:
    staying = pod(init_containers=({"name": "setup"}, STAYS), initContainerStatuses=[container_status("mesh")])
    assert containers(staying) == ["app", "mesh"]
    assert names([staying], "mesh") == [("web-1", "mesh")]
    assert names([staying], "setup") == []


def test_an_unknown_container_is_a_mistake_of_the_users() -> None:
    pods = [pod("a", containers=("app", "side")), pod("b", containers=("app", "other"))]
    failure = no_candidate("deployment/web", pods, "ap")
    assert isinstance(failure, UsageFailure)
    assert (failure.message, failure.advice) == ("deployment/web has no container 'ap'", "It has app, side, other.")


def test_a_container_that_only_some_pods_have() -> None:
    pods = [pod("a", created="2030-01-02T00:00:00Z"), pod("b", containers=("app", "new"))]
    assert names(pods, "new") == [("b", "new")]
    unready = [pods[0], pod("b", containers=("app", "new"), ready=False)]
    assert no_candidate("x", unready, "new").advice == "a: has no container new\nb: Running, not Ready"


def test_no_pods_and_why() -> None:
    assert no_candidate("label/app=web", [], None).advice is None
    scaled = {"metadata": {"name": "web"}, "spec": {"replicas": 0}, "status": {}}
    assert no_candidate("deployment/web", [], None, scaled).advice == "It is scaled to 0."
    nightly = {"metadata": {"name": "nightly"}, "spec": {"schedule": "0 6 * * *"}, "status": {}}
    assert no_candidate("cronjob/nightly", [], None, nightly).advice == "It has not run yet; its schedule is 0 6 * * *."
    refused = {
        "spec": {"replicas": 1},
        "status": {
            "conditions": [
                {"type": "Progressing", "status": "True", "reason": "NewReplicaSetCreated", "message": "fine"},
                {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "none"},
                {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: q"},
            ]
        },
    }
    assert no_candidate("deployment/web", [], None, refused).advice == (
        "Available is False: MinimumReplicasUnavailable: none\nReplicaFailure is True: FailedCreate: exceeded quota: q"
    )


def test_many_pods_are_not_all_told() -> None:
    advice = no_candidate("x", [pod(f"p{number}", ready=False) for number in range(7)], None).advice
    assert advice is not None
    assert advice.splitlines()[-2:] == ["p4: Running, not Ready", "and 2 more"]
