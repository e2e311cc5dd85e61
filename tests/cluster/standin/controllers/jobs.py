"""The Job controller: one pod at a time, the Job's end from its pods', and its own removal when its time has come."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime

from mirrord_trace.cluster.resources import JOBS, PODS

from ..deletion import delete_pod
from ..events import Recorder
from ..interfaces import ControlPlane
from ..pod_facts import is_being_deleted, is_finished, is_ready, phase
from ..status import Refused
from ..store import Object, now

WATCHED = (JOBS, PODS)
_USER = "system:serviceaccount:kube-system:job-controller"
_RETRY_S = 0.2
"""Before a pod that was refused is tried again; seconds that double, in reality."""
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
"""Of generated names (k8s.io/apimachinery/pkg/util/rand)."""


class JobController:
    """Makes Jobs' pods and follows them."""

    def __init__(self, control: ControlPlane) -> None:
        self._control = control
        self._store = control.store
        self._recorder = Recorder(control.store, "job-controller")

    def work(self) -> float | None:
        """Looks at all Jobs once: after so many seconds something is due."""
        due = [self._sync(job) for job in self._store.list(JOBS)]
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _sync(self, job: Object) -> float | None:
        uid = job["metadata"]["uid"]
        pods = [pod for pod in self._store.list(PODS, job["metadata"]["namespace"]) if _is_controlled_by(pod, uid)]
        if _finished(job) is not None:
            self._report(job, pods)
            return self._expire(job)
        spec, status = job["spec"], job.setdefault("status", {})
        status.setdefault("startTime", now())
        failed = [pod for pod in pods if phase(pod) == "Failed"]
        succeeded = [pod for pod in pods if phase(pod) == "Succeeded"]
        left_s = None
        if spec.get("activeDeadlineSeconds") is not None:
            left_s = spec["activeDeadlineSeconds"] - _age_s(status["startTime"])
        if len(succeeded) >= spec.get("completions", 1):
            self._finish(job, "Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        elif left_s is not None and left_s <= 0:
            self._fail(job, pods, "DeadlineExceeded", "Job was active longer than specified deadline")
        elif len(failed) > spec.get("backoffLimit", 6):
            self._fail(job, pods, "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif not _active(pods) and not spec.get("suspend") and not self._create_pod(job):
            self._report(job, pods)
            return _RETRY_S if left_s is None else min(left_s, _RETRY_S)
        self._report(job, pods)
        return self._expire(job) if _finished(job) is not None else left_s

    def _create_pod(self, job: Object) -> bool:
        metadata, template = job["metadata"], job["spec"]["template"]
        name = f"{metadata['name'][:57]}-{''.join(secrets.choice(_LETTERS) for _ in range(5))}"
        labels = {
            **template.get("metadata", {}).get("labels", {}),
            "batch.kubernetes.io/controller-uid": metadata["uid"],
            "batch.kubernetes.io/job-name": metadata["name"],
            "controller-uid": metadata["uid"],
            "job-name": metadata["name"],
        }
        owner = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": metadata["name"],
            "uid": metadata["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
        pod = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                **template.get("metadata", {}),
                "name": name,
                "generateName": f"{metadata['name']}-",
                "namespace": metadata["namespace"],
                "labels": labels,
                "ownerReferences": [owner],
            },
            "spec": template["spec"],
        }
        pod["metadata"].pop("creationTimestamp", None)
        try:
            self._control.create(PODS, metadata["namespace"], pod, user=_USER)
        except Refused as refusal:
            self._recorder.record(job, "Warning", "FailedCreate", f"Error creating: {refusal.message}")
            return False
        self._recorder.record(job, "Normal", "SuccessfulCreate", f"Created pod: {name}")
        return True

    def _fail(self, job: Object, pods: Sequence[Object], reason: str, message: str) -> None:
        for pod in _active(pods):
            delete_pod(self._store, pod)
            self._recorder.record(job, "Normal", "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
        self._recorder.record(job, "Warning", reason, message)
        self._finish(job, "Failed", reason, message)

    def _finish(self, job: Object, kind: str, reason: str, message: str) -> None:
        """Adds the condition of the end, after the one that announces it (Kubernetes 1.31)."""
        if kind == "Complete":
            job["status"]["completionTime"] = now()
            self._recorder.record(job, "Normal", "Completed", "Job completed")
        job["status"]["conditions"] = [
            {
                "type": name,
                "status": "True",
                "reason": reason,
                "message": message,
                "lastProbeTime": now(),
                "lastTransitionTime": now(),
            }
            for name in ("SuccessCriteriaMet" if kind == "Complete" else "FailureTarget", kind)
        ]

    def _report(self, job: Object, pods: Sequence[Object]) -> None:
        current = self._store.find(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])
        if current is None:
            return
        status = job["status"]
        active = _active(pods) if _finished(job) is None else []
        counts = {
            "active": len(active),
            "terminating": sum(is_being_deleted(pod) for pod in pods),
            "ready": sum(is_ready(pod) for pod in active),
            "succeeded": sum(phase(pod) == "Succeeded" for pod in pods),
            "failed": sum(phase(pod) == "Failed" for pod in pods),
        }
        for name, count in counts.items():
            if count or name in ("ready", "terminating"):
                status[name] = count
            else:
                status.pop(name, None)
        self._store.put(JOBS, {**current, "status": {**status, "uncountedTerminatedPods": {}}})

    def _expire(self, job: Object) -> float | None:
        """Deletes a finished Job when its time has come: the seconds until then."""
        ttl_s = job["spec"].get("ttlSecondsAfterFinished")
        finished = _finished(job)
        if ttl_s is None or finished is None:
            return None
        left_s: float = ttl_s - _age_s(finished["lastTransitionTime"])
        if left_s > 0:
            return left_s
        self._store.delete(JOBS, job["metadata"]["namespace"], job["metadata"]["name"])
        return None


def _finished(job: Object) -> Object | None:
    """The condition that says that the Job is over."""
    conditions: list[Object] = job.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] in ("Complete", "Failed")), None)


def _is_controlled_by(pod: Object, uid: str) -> bool:
    return any(owner["uid"] == uid and owner.get("controller") for owner in pod["metadata"].get("ownerReferences", []))


def _active(pods: Sequence[Object]) -> list[Object]:
    return [pod for pod in pods if not is_being_deleted(pod) and not is_finished(pod)]


def _age_s(time: str) -> float:
    then = datetime.strptime(time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return (datetime.now(UTC) - then).total_seconds()
