"""The stand-in's controllers: Jobs from their creation to their removal, and what becomes of orphans."""

from __future__ import annotations

from collections.abc import Callable

from mirrord_trace.cluster.resources import DEPLOYMENTS, EVENTS, JOBS, PODS
from tests.cluster.running_pods import (
    WAIT,
    container,
    events,
    hold_process,
    pod,
    wait_for_end,
    wait_for_event,
    wait_for_pod,
    wait_until_gone,
)
from tests.cluster.standin.admission import Webhook
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import RESOURCE_QUOTAS
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.pod_facts import is_ready
from tests.cluster.standin.store import Object, Store
from tests.cluster.standin.workloads import owner, workload


def job(program: str = WAIT, **fields: object) -> Object:
    """A Job in namespace shop whose pod runs a Python program."""
    spec = {"restartPolicy": "Never", "containers": [container("web", program)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}, **fields},
    }


def wait_for_job(cluster: Cluster, check: Callable[[Object], object]) -> Object:
    def look(store: Store) -> Object | None:
        found = store.find(JOBS, "shop", "web")
        return found if found is not None and check(found) else None

    return cluster.wait_until(look)


def has_condition(kind: str) -> Callable[[Object], bool]:
    return lambda job: kind in [one["type"] for one in job.get("status", {}).get("conditions", [])]


def pods_of_job(store: Store) -> list[Object]:
    return [one for one in store.list(PODS, "shop") if one["metadata"]["labels"].get("job-name") == "web"]


def ready_pod(cluster: Cluster) -> Object:
    return cluster.wait_until(lambda store: next((one for one in pods_of_job(store) if is_ready(one)), None))


def no_pods(store: Store) -> bool | None:
    return None if pods_of_job(store) else True


def test_a_job_has_a_pod_that_names_it(cluster: Cluster) -> None:
    made = cluster.apply(job())
    found = ready_pod(cluster)
    metadata = found["metadata"]
    assert metadata["name"].startswith("web-")
    assert len(metadata["name"]) == len("web-") + 5
    assert metadata["generateName"] == "web-"
    assert metadata["labels"] == {
        "app": "web",
        "batch.kubernetes.io/controller-uid": made["metadata"]["uid"],
        "batch.kubernetes.io/job-name": "web",
        "controller-uid": made["metadata"]["uid"],
        "job-name": "web",
    }
    (reference,) = metadata["ownerReferences"]
    assert reference["kind"] == "Job"
    assert reference["uid"] == made["metadata"]["uid"]
    status = wait_for_job(cluster, lambda one: one["status"].get("ready"))["status"]
    assert status["active"] == 1
    assert events(cluster) == [("SuccessfulCreate", f"Created pod: {metadata['name']}")]


def test_a_job_ends_as_its_pod_does(cluster: Cluster) -> None:
    cluster.apply(job("pass"))
    done = wait_for_job(cluster, has_condition("Complete"))["status"]
    assert done["succeeded"] == 1
    assert "completionTime" in done
    assert "active" not in done


def test_a_failed_pod_is_replaced_up_to_the_limit(cluster: Cluster) -> None:
    cluster.apply(job("raise SystemExit(1)", backoffLimit=2))
    status = wait_for_job(cluster, has_condition("Failed"))["status"]
    assert status["failed"] == 3
    assert [one["type"] for one in status["conditions"]] == ["FailureTarget", "Failed"]
    assert status["conditions"][1]["reason"] == "BackoffLimitExceeded"


def test_a_job_that_takes_too_long_fails_and_its_pod_goes(cluster: Cluster) -> None:
    cluster.apply(job(activeDeadlineSeconds=1))
    status = wait_for_job(cluster, has_condition("Failed"))["status"]
    assert status["conditions"][1]["reason"] == "DeadlineExceeded"
    assert status["conditions"][1]["message"] == "Job was active longer than specified deadline"
    wait_for_event(cluster, "SuccessfulDelete")
    assert all("deletionTimestamp" in one["metadata"] for one in cluster.in_loop(lambda: pods_of_job(cluster.store)))


def test_a_deadline_can_be_taken_away(cluster: Cluster) -> None:
    cluster.apply(job(activeDeadlineSeconds=2))
    cluster.patch(JOBS, "shop", "web", {"spec": {"activeDeadlineSeconds": None}})
    # One that began later fails at the same deadline.
    other = job(activeDeadlineSeconds=2)
    other["metadata"]["name"] = "other"
    cluster.apply(other)
    cluster.wait_until(lambda store: True if has_condition("Failed")(store.get(JOBS, "shop", "other")) else None)
    assert is_ready(ready_pod(cluster))


def test_a_finished_job_is_removed_after_its_time(cluster: Cluster) -> None:
    cluster.apply(job("pass", ttlSecondsAfterFinished=1))
    wait_for_job(cluster, has_condition("Complete"))
    cluster.wait_until(lambda store: True if store.find(JOBS, "shop", "web") is None else None)
    cluster.wait_until(no_pods)


def test_a_deleted_job_takes_its_pod_with_it(cluster: Cluster, nodes: Nodes) -> None:
    made = job()
    made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    cluster.apply(made)
    process = hold_process(cluster, nodes, ready_pod(cluster)["metadata"]["name"])
    cluster.delete(JOBS, "shop", "web")
    wait_for_end(process)
    cluster.wait_until(no_pods)


def test_a_refused_pod_is_told_in_events_and_tried_again(cluster: Cluster) -> None:
    cluster.add_webhook(Webhook("policy.example.com", PODS, "no pods on Fridays"))
    cluster.apply(job())

    def refused_twice(store: Store) -> str | None:
        return next((one["message"] for one in store.list(EVENTS, "shop") if one["count"] == 2), None)

    told = 'Error creating: admission webhook "policy.example.com" denied the request: no pods on Fridays'
    assert cluster.wait_until(refused_twice) == told
    assert cluster.wait_until(no_pods)


def test_pod_security_keeps_a_jobs_pod_away(cluster: Cluster) -> None:
    made = job()
    made["spec"]["template"]["spec"]["hostPID"] = True
    namespace = {"name": "shop", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": namespace})
    cluster.apply(made)
    wait_for_event(cluster, "FailedCreate")
    told = events(cluster)[0][1]
    assert told.startswith('Error creating: pods "web-')
    assert told.endswith('is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)')


def test_a_quota_keeps_a_jobs_pod_away_until_there_is_room(cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small", "namespace": "shop"}}
    cluster.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    cluster.apply(job())
    wait_for_event(cluster, "FailedCreate")
    told = events(cluster)[0][1]
    assert told.endswith("is forbidden: exceeded quota: small, requested: pods=1, used: pods=0, limited: pods=0")
    cluster.patch(RESOURCE_QUOTAS, "shop", "small", {"spec": {"hard": {"pods": "1"}}, "status": None})
    ready_pod(cluster)


def test_orphans_go_with_their_owners(cluster: Cluster) -> None:
    selector = {"selector": {"matchLabels": {"app": "web"}}}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container("web")]}}
    deployment = workload("Deployment", "web", "shop", {**selector, "template": template})
    replicas = workload(
        "ReplicaSet", "web-1", "shop", {**selector, "template": template}, owned_by=owner("Deployment", "web", "shop")
    )
    cluster.apply(deployment)
    cluster.apply(replicas)
    orphan = pod(terminationGracePeriodSeconds=1)
    orphan["metadata"]["ownerReferences"] = [owner("ReplicaSet", "web-1", "shop")]
    cluster.apply(orphan)
    wait_for_pod(cluster, is_ready)
    cluster.delete(DEPLOYMENTS, "shop", "web")
    wait_until_gone(cluster)
