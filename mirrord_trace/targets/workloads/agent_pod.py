"""What is asked of the cluster for an agent, as JSON: from the configuration and what is known, without any I/O.

The agent as a job (the default) is a pod of its own on the target's node. It sees the node's processes (`hostPID`),
among which it finds the container, and enters its network itself. As an ephemeral container it is within the target's
pod, in the container's pid namespace. Without a target it is a pod like any other, with no rights at all.

How nothing is left behind, whenever we are killed: the job has a deadline, which outlasts the start by little and is
lifted once the agent has answered; the agent leaves when no client comes, or when its client has been silent; and a
job that has ended, in whatever way, is removed by the cluster after its ttl.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Any, Final

from mirrord_trace.config import AgentConfiguration
from mirrord_trace.targets.owner import owner_in_words
from mirrord_trace.targets.workloads.choice import Candidate
from mirrord_trace.targets.workloads.ownership import MANAGED_BY

CAPABILITIES: Final = ("SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN", "NET_RAW")
"""To read the target's environment and root, to enter its network, to steal from it and to mirror it."""
_FOR_FILES: Final = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID")
"""To reach files as the target does: with its ids, and with the capabilities that containers have unless they are told
otherwise, of which the target may have some. Every container has these; we would drop them with the rest."""
CONTAINER: Final = "agent"
"""The container's name in a job's pod."""
JOB_NAME_LABEL: Final = "job-name"
"""Set by the job controller on a job's pods, in every version."""
ANSWER_TIMEOUT_S: Final = 10.0
"""How long an agent may take to answer that can be connected to."""
_MARGIN_S: Final = 5.0
_FIRST_CLIENT_S: Final = 30.0
"""How long an agent waits for us at most, who wait for it: from its start to our connection a few requests go by."""
_GRACE_S: Final = 2
"""What a pod gets for its end: the agent leaves at once."""
_NOBODY: Final = 65534
_NAME: Final = "mirrord-trace-agent"
_LETTERS: Final = "bcdfghjklmnpqrstvwxz2456789"
"""Those that generated names have (apimachinery's rand.String), so that no words come about."""
_NO_MESH_LABELS: Final = {"sidecar.istio.io/inject": "false", "kuma.io/sidecar-injection": "disabled"}
_NO_MESH_ANNOTATIONS: Final = {"linkerd.io/inject": "disabled"}


def new_name() -> str:
    """A name that no other agent has: who knows it before the request can remove what it may have made."""
    return f"{_NAME}-{''.join(secrets.choice(_LETTERS) for _ in range(10))}"


def deadline_s(config: AgentConfiguration) -> int:
    """How long after its start a job is ended whose agent nobody has reached."""
    return math.ceil(config.startup_timeout_s + ANSWER_TIMEOUT_S + _MARGIN_S)


def job(
    name: str, config: AgentConfiguration, candidate: Candidate | None, secret_hash: str, annotations: Mapping[str, str]
) -> dict[str, Any]:
    """The job of an agent for a pod's container, or for no target. `annotations` tell whose it is."""
    labels, pod_annotations = dict(config.labels), dict(config.annotations)
    if config.disable_mesh_sidecar_injection:
        labels = _NO_MESH_LABELS | labels
        pod_annotations = _NO_MESH_ANNOTATIONS | pod_annotations
    labels |= {"app.kubernetes.io/name": _NAME} | MANAGED_BY
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": pod_annotations | dict(annotations)},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_s(config),
            "ttlSecondsAfterFinished": config.ttl_s,
            "template": {
                "metadata": {"labels": labels, "annotations": pod_annotations},
                "spec": _pod(config, candidate, secret_hash),
            },
        },
    }


def _pod(config: AgentConfiguration, candidate: Candidate | None, secret_hash: str) -> dict[str, Any]:
    container = {
        "name": CONTAINER,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "command": ["mirrord-agent"],
        "args": _arguments(config, candidate, secret_hash),
        "resources": {kind: dict(amounts) for kind, amounts in config.resources.items()},
        "securityContext": _security(config) if candidate is not None else _no_rights(),
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [dict(toleration) for toleration in config.tolerations],
        "containers": [container],
    }
    if candidate is not None:
        pod |= {"nodeName": candidate.node, "hostPID": True}
    elif config.node_selector:
        pod["nodeSelector"] = dict(config.node_selector)
    if config.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    if config.service_account is not None:
        pod["serviceAccountName"] = config.service_account
    if config.priority_class is not None:
        pod["priorityClassName"] = config.priority_class
    return pod


def without_deadline() -> dict[str, Any]:
    """The merge patch that lets a job live as long as its agent does."""
    return {"spec": {"activeDeadlineSeconds": None}}


def ephemeral_container(
    name: str, config: AgentConfiguration, candidate: Candidate, secret_hash: str
) -> dict[str, Any]:
    """The strategic merge patch of `pods/ephemeralcontainers` that adds an agent to a pod.

    Ephemeral containers have no resources, and a pod's labels and pull secrets are what they are.
    """
    container = {
        "name": name,
        "image": config.image,
        "imagePullPolicy": config.image_pull_policy,
        "command": ["mirrord-agent"],
        # Within the container's pid namespace its first process is process 1, whatever a cgroup namespace hides.
        "args": [*_arguments(config, candidate, secret_hash), "--or-pid", "1"],
        "securityContext": _security(config),
        "targetContainerName": candidate.container,
    }
    return {"spec": {"ephemeralContainers": [container]}}


def _arguments(config: AgentConfiguration, candidate: Candidate | None, secret_hash: str) -> list[str]:
    target = ["--targetless"] if candidate is None else ["--container-id", candidate.container_id]
    return [
        *target,
        *("--listen", "127.0.0.1:0"),
        *("--secret-hash", secret_hash),
        *("--owner", owner_in_words()),
        *("--communication-timeout", f"{config.communication_timeout_s:g}"),
        *("--first-client-timeout", f"{min(_FIRST_CLIENT_S, config.startup_timeout_s + _MARGIN_S):g}"),
    ]


def _security(config: AgentConfiguration) -> dict[str, Any]:
    """Root, with just the capabilities that it needs, even in a pod that asks for `runAsNonRoot`.

    AppArmor's usual profile for containers lets nobody look at a process of another profile, or of none; an agent
    without one may look at all (aa_may_ptrace in the kernel).
    """
    if config.privileged:
        return {"privileged": True, "runAsUser": 0, "runAsNonRoot": False}
    wanted = [name for name in CAPABILITIES if name not in config.disabled_capabilities]
    return {
        "runAsUser": 0,
        "runAsNonRoot": False,
        "capabilities": {"drop": ["ALL"], "add": [*_FOR_FILES, *wanted]},
        "appArmorProfile": {"type": "Unconfined"},
    }


def _no_rights() -> dict[str, Any]:
    """What even the `restricted` Pod Security Standard admits."""
    return {
        "runAsUser": _NOBODY,
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
