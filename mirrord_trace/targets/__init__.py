"""What a process can be run in, one module per kind of target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirrord_trace.config import AgentConfiguration, ClusterConfiguration
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    from mirrord_trace.targets.base import Target

_ACCEPTED = (
    "In a cluster a target is KIND/NAME, such as deploy/web or pod/web-0, with or without /container/NAME; "
    "label/KEY=VALUE; or `targetless`. On this machine it is `demo`, a small pod made for the occasion, or `pid/PID`, "
    "a process."
)

_ALL_PODS_ADVICE = (
    "--all-pods (feature.network.incoming.all_pods in a configuration file) is for what has several, such as "
    "deploy/web or label/app=web; --no-all-pods takes it back."
)


def parse_target(
    text: str,
    *,
    sudo: bool = False,
    cluster: ClusterConfiguration | None = None,
    agent: AgentConfiguration | None = None,
    all_pods: bool = False,
) -> Target:
    """The target that a user names, such as "demo", "pid/4711" or "deploy/web".

    With `sudo` the agent is started through sudo where it is started on this machine. `cluster` and `agent` are for
    targets in a cluster. With `all_pods` a workload's other pods are served besides the one that is chosen. Raises
    `UsageFailure`.
    """
    kind, _, rest = text.partition("/")
    if all_pods and (kind == "pid" or text in ("demo", "targetless")):
        why = "there is no pod at all" if text == "targetless" else "it is on this machine"
        raise UsageFailure(f"all pods of the target {text!r} cannot be served: {why}", _ALL_PODS_ADVICE)
    if kind == "pid":
        # Not str.isdecimal alone, which is true for digits of all scripts.
        if not (rest.isascii() and rest.isdecimal() and int(rest) > 0):
            raise UsageFailure(f"target {text!r}: {rest!r} is no process id", _ACCEPTED)
        from mirrord_trace.targets.pid import ProcessTarget

        return ProcessTarget(int(rest), sudo=sudo)
    if text == "demo":
        from mirrord_trace.targets.demo import DemoTarget

        return DemoTarget()
    return _workload(text, cluster or ClusterConfiguration(), agent or AgentConfiguration(), all_pods)


def _workload(text: str, cluster: ClusterConfiguration, agent: AgentConfiguration, all_pods: bool) -> Target:
    from mirrord_trace.targets.workloads.kinds import POD
    from mirrord_trace.targets.workloads.path import nearest, parse_path

    path = parse_path(text)
    if path is None and text != "targetless":
        known = nearest(text)
        meant = "" if known is None else f"Is {known!r} meant? "
        raise UsageFailure(f"unknown target {text!r}", meant + _ACCEPTED)
    if path is None and agent.mode == "ephemeral":
        raise UsageFailure(
            "without a target there is no pod to which the agent could be added as an ephemeral container",
            "Name a target (-t), or leave the agent a pod of its own (--agent-mode job).",
        )
    if all_pods and path is not None and path.kind is POD:
        raise UsageFailure(f"all pods of the target {text!r} cannot be served: it is a single one", _ALL_PODS_ADVICE)
    from mirrord_trace.targets.workloads.target import WorkloadTarget

    return WorkloadTarget(path, cluster, agent, all_pods)
