"""What an agent that is starting waits for, or why it will not start: read from its pod and from events, in words.

The API tells of trouble in three places: the container's state (pulling, creating, running), the pod's status (the
scheduler, the node, an eviction) and events (all else, such as pods that the job controller may not make). What the
cluster would go on trying for ever, such as an image that cannot be pulled, is a failure at once: a person waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from mirrord_trace.cluster.refusals import ApiRefusal, Request, failure
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.errors import Failure
from mirrord_trace.targets.workloads.kinds import Object

_LISTENING: Final = re.compile(r"listening on 127\.0\.0\.1:([0-9]{1,5})")
_PULL_REASONS: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
"""Of the kubelet (pkg/kubelet/images/types.go): the container waits for an image that it will not get."""
_PATIENT_REASONS: Final = frozenset({"", "ContainerCreating", "PodInitializing"})
_IMAGE_ADVICE: Final = (
    "The agent's image is built by `docker build -f agent/Dockerfile .`; push it to where the cluster's nodes can pull "
    "it from, and name it with -i/--agent-image. For a private registry the configuration file has "
    "agent.image_pull_secrets."
)
_EPHEMERAL_ADVICE: Final = "As an ephemeral container (--agent-mode ephemeral) the agent needs no pod of its own."
_MOST_EVENTS: Final = 8


@attrs.frozen
class Waiting:
    """It is not there yet."""

    reason: str


@attrs.frozen
class Running:
    """Its container runs: its log tells more."""


@attrs.frozen
class Ended:
    """Its container has run and ended."""

    how: str


State = Waiting | Running | Ended | Failure


def port_in(line: str) -> int | None:
    """The port that an agent says it listens on, in the first line of its log."""
    found = _LISTENING.fullmatch(line.strip())
    return int(found[1]) if found else None


def state_of(pod: Object | None, container: str, image: str, events: Sequence[Object] = ()) -> State:
    """How far the agent is whose container is `container` of `pod`; None when there is no pod yet.

    `events` are the pod's, or the job's as long as it has no pod; they are of help, but may be missing.
    """
    if pod is None:
        return _refused_creation(events) or Waiting("for its pod to be made")
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        return Failure(f"pod {name} was deleted while the agent started{_disruption(status)}")
    container_state = _state_of_container(status, container)
    if "running" in container_state:
        return Running()
    if "terminated" in container_state:
        return _ended(container_state["terminated"], image)
    if status.get("phase") == "Failed":
        return Failure(
            f"node {pod['spec'].get('nodeName', '?')} does not run the agent's pod: {_reason(status) or 'it failed'}",
            _EPHEMERAL_ADVICE,
        )
    waiting = container_state.get("waiting", {})
    if waiting.get("reason", "") in _PULL_REASONS:
        return Failure(f"the image {image} cannot be pulled: {_why_not_pulled(waiting, events)}", _IMAGE_ADVICE)
    if waiting.get("reason", "") not in _PATIENT_REASONS:
        return Failure(f"the agent's container cannot be started: {_reason(waiting)}")
    return Waiting(_what_for(pod, image, events))


def _state_of_container(status: Object, container: str) -> Object:
    for one in (*(status.get("containerStatuses") or ()), *(status.get("ephemeralContainerStatuses") or ())):
        if one["name"] == container:
            state: Object = one.get("state") or {}
            return state
    return {}


def _ended(terminated: Object, image: str) -> State:
    if terminated.get("reason") in ("StartError", "ContainerCannotRun"):
        return Failure(
            f"the agent's container cannot be started: {_reason(terminated)}", f"Is {image} an agent's image?"
        )
    how = f"exit code {terminated.get('exitCode')}"
    if terminated.get("signal"):
        how = f"signal {terminated['signal']}"
    reason = terminated.get("reason", "")
    return Ended(f"{how}, {reason}" if reason not in ("", "Error", "Completed") else how)


def _what_for(pod: Object, image: str, events: Sequence[Object]) -> str:
    node = pod["spec"].get("nodeName")
    if not node:
        conditions = pod.get("status", {}).get("conditions") or ()
        told = next((_reason(one) for one in conditions if one["type"] == "PodScheduled" and _reason(one)), "")
        return f"for a node ({told})" if told else "for a node"
    last = latest(events)
    if last is not None and last.get("type") == "Warning":
        return f"for node {node} ({_reason(last)})"
    if last is not None and last.get("reason") == "Pulling":
        return f"for node {node} to pull {image}"
    if last is not None and last.get("reason") in ("Pulled", "Created", "Started"):
        return f"for node {node} to start the container"
    return f"for node {node} to make the container"


def _why_not_pulled(waiting: Object, events: Sequence[Object]) -> str:
    # A node that waits before it tries again may have forgotten why, and events have not.
    tried = [
        event for event in in_order(events) if event.get("reason") == "Failed" and "pull" in event.get("message", "")
    ]
    told = waiting.get("message", "")
    if waiting["reason"] == "ImagePullBackOff" and tried and tried[-1]["message"] not in told:
        told = tried[-1]["message"]
    return f"{waiting['reason']}: {told}" if told else str(waiting["reason"])


def _refused_creation(events: Sequence[Object]) -> Failure | None:
    """Why the job controller may not make the pod: what admission says to it, it can tell by events only."""
    refusals = [
        event
        for event in in_order(events)
        # Whoever counts quotas does it by optimistic locking, and the controller tries again at once.
        if event.get("reason") == "FailedCreate" and "the object has been modified" not in event.get("message", "")
    ]
    if not refusals:
        return None
    message = refusals[-1].get("message", "").removeprefix("Error creating: ")
    if "security context constraint" in message:  # OpenShift's
        return Failure(
            f"cannot make the agent's pod: {message}",
            "agent.service_account must name one that may use the `privileged` security context constraint.",
        )
    asked = Request("create", PODS, refusals[-1]["metadata"].get("namespace"))
    return failure(ApiRefusal(asked, 403, "Forbidden", message), "make the agent's pod")


def timed_out(
    timeout_s: float,
    state: State,
    pod: Object | None,
    events: Sequence[Object],
    agent_said: Iterable[str] = (),
    target_trouble: str = "",
) -> Failure:
    """The agent has not started in time: what it waited for, and all that the cluster tells about it."""
    waited = f": it waits {state.reason}" if isinstance(state, Waiting) else ""
    told = [f"{event.get('reason', '')}: {event.get('message', '')}" for event in in_order(events)][-_MOST_EVENTS:]
    lines = ["Events of the agent's pod:", *(f"  {line}" for line in told)] if told else []
    if isinstance(state, Running):
        said = [f"  {line}" for line in agent_said]
        lines += ["Its container runs and has not said that it listens. Its log:", *(said or ["  (nothing)"])]
    elif pod is not None and pod["spec"].get("nodeName") and not pod.get("status", {}).get("startTime"):
        lines.append(f"Node {pod['spec']['nodeName']} has taken no notice of the pod: it may be down, or gone.")
    lines += [target_trouble] if target_trouble else []
    lines.append("More time is given by --agent-startup-timeout.")
    return Failure(f"the agent has not started within {timeout_s:g} s{waited}", "\n".join(lines))


def end_of(pod: Object | None, container: str) -> str:
    """How an agent that has run came to its end, as far as its pod tells; "" when it tells nothing."""
    if pod is None:
        return "its pod is gone"
    status = pod.get("status", {})
    if status.get("phase") == "Failed" and status.get("reason"):
        return f"its pod failed: {_reason(status)}"
    terminated = _state_of_container(status, container).get("terminated")
    if terminated is not None:
        ended = _ended(terminated, "")
        return f"it ended: {ended.how}" if isinstance(ended, Ended) else ""
    if pod["metadata"].get("deletionTimestamp"):
        return f"its pod is being deleted{_disruption(status)}"
    return ""


def _disruption(status: Object) -> str:
    """Who did it, where the cluster itself did (the condition DisruptionTarget)."""
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f" ({_reason(condition)})"
    return ""


def latest(events: Sequence[Object]) -> Object | None:
    """The event that came last."""
    return max(events, key=_time_of, default=None)


def in_order(events: Sequence[Object]) -> list[Object]:
    """Events as they came."""
    return sorted(events, key=_time_of)


def _time_of(event: Object) -> tuple[str, str]:
    """RFC 3339 in UTC, so the order of texts is that of times, to a second; within it names tell the order."""
    metadata = event["metadata"]
    time = event.get("lastTimestamp") or event.get("eventTime") or metadata.get("creationTimestamp") or ""
    return time, metadata["name"]


def _reason(of: Object) -> str:
    return ": ".join(filter(None, (of.get("reason", ""), of.get("message", ""))))
