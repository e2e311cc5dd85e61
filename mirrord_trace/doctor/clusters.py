"""Which cluster is meant, whether it answers, and what one may do there. It is only asked; nothing in it changes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import trio

from mirrord_trace.cluster import kubeconfig, rights
from mirrord_trace.cluster.api import ApiRefusal, ApiServer, open_api
from mirrord_trace.cluster.credentials import find_credentials
from mirrord_trace.cluster.refusals import failure as failure_of
from mirrord_trace.cluster.resources import ROLLOUTS
from mirrord_trace.config import AgentConfiguration, ClusterConfiguration
from mirrord_trace.doctor.findings import Ability, Finding, Verdict
from mirrord_trace.errors import Failure, UsageFailure
from mirrord_trace.targets.workloads.agent_pod import CAPABILITIES

_GROUP = "Cluster"
_TIMEOUT_S = 15.0


def cluster(configuration: ClusterConfiguration, agent: AgentConfiguration) -> Iterator[Finding]:
    """What a run with a target in a cluster would meet."""
    verdict = Verdict.FAILS
    try:
        if kubeconfig.find(configuration.kubeconfig, configuration.context, os.environ) is None:
            verdict = Verdict.LIMITED  # targets on this machine need no cluster
        credentials = find_credentials(configuration)
    except UsageFailure:
        raise
    except Failure as failure:
        yield Finding(_GROUP, "kubeconfig", verdict, failure.message, failure.advice)
        return
    who = f"context {credentials.context}" if credentials.context else "the pod's service account"
    yield Finding(_GROUP, "kubeconfig", Verdict.WORKS, f"{who}, namespace {credentials.namespace}")
    credentials.close()
    yield from _asked(configuration, agent)
    yield from _agent(agent)


def _asked(configuration: ClusterConfiguration, agent: AgentConfiguration) -> list[Finding]:
    try:
        return trio.run(_ask, configuration, agent)
    except Failure as failure:
        return [_unreachable(failure)]
    except BaseExceptionGroup as group:
        failures, others = group.split(Failure)
        if others is not None or failures is None:
            raise
        return [_unreachable(_first(failures))]


def _unreachable(failure: Failure) -> Finding:
    return Finding(_GROUP, "API server", Verdict.FAILS, failure.message, failure.advice)


def _first(group: BaseExceptionGroup[Failure]) -> Failure:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _ask(configuration: ClusterConfiguration, agent: AgentConfiguration) -> list[Finding]:
    async with open_api(configuration) as api:
        with trio.move_on_after(_TIMEOUT_S):
            return [Finding(_GROUP, "API server", Verdict.WORKS, "it answers"), await _rights(api, agent)]
    return [
        Finding(
            _GROUP,
            "API server",
            Verdict.FAILS,
            f"it did not answer within {_TIMEOUT_S:g} s",
            "is the VPN up, and the cluster? `kubectl version` asks the same server",
        )
    ]


async def _rights(api: ApiServer, agent: AgentConfiguration) -> Finding:
    namespaces = {rights.Place.TARGET: api.namespace, rights.Place.AGENT: agent.namespace or api.namespace}
    asked = rights.questions((rights.TARGET, rights.JOB, rights.EPHEMERAL), namespaces)
    try:
        answers = await rights.answers(api, asked)
    except ApiRefusal as refusal:
        raise failure_of(refusal, "ask which rights you have") from refusal

    def lacking(*purposes: rights.Purpose) -> list[str]:
        return [
            str(question)
            for question, allowed in answers.items()
            # Who has no rollouts is rarely given the right to them.
            if not allowed
            and question.right.resource != ROLLOUTS
            and any(purpose in purposes for purpose in asked[question])
        ]

    chosen, other = rights.JOB, rights.EPHEMERAL
    if agent.mode == "ephemeral":
        chosen, other = other, chosen
    advice = "`mirrord-trace verify-access` tells more; agent/rbac.yaml has roles that grant the rights"
    lacks = lacking(rights.TARGET, chosen)
    if not lacks:
        return Finding(
            _GROUP, "rights", Verdict.WORKS, f"you may find targets, and {chosen.doing}", gives=Ability.CLUSTER
        )
    what = f"you lack what it takes to {chosen.doing}: {', '.join(lacks)}"
    if not lacking(rights.TARGET, other):
        mode = "job" if other is rights.JOB else "ephemeral"
        return Finding(
            _GROUP, "rights", Verdict.LIMITED, what, f"--agent-mode {mode} is allowed; {advice}", gives=Ability.CLUSTER
        )
    if not lacking(chosen):
        what += f"; you may {chosen.doing}, so kinds of targets that need no more can be had"
        return Finding(_GROUP, "rights", Verdict.LIMITED, what, advice, gives=Ability.CLUSTER)
    return Finding(_GROUP, "rights", Verdict.FAILS, what, advice)


def _agent(agent: AgentConfiguration) -> Iterator[Finding]:
    what = f"{agent.image}, pulled as {agent.image_pull_policy} says; whether nodes can pull it shows when one does"
    if "/" in agent.image:
        yield Finding(_GROUP, "agent's image", Verdict.KNOWN, what)
    else:
        what += "; it names no registry of yours, so nodes must have it already"
        yield Finding(_GROUP, "agent's image", Verdict.LIMITED, what, "push it, and name it with -i/--agent-image")
    if agent.privileged:
        yield Finding(_GROUP, "agent's capabilities", Verdict.KNOWN, "all: the agent is privileged")
        return
    missing = [name for name in CAPABILITIES if name in agent.disabled_capabilities]
    if missing:
        what = f"without {', '.join(missing)}, by the configuration: what needs them fails"
        yield Finding(_GROUP, "agent's capabilities", Verdict.LIMITED, what)
    else:
        what = f"it asks for {', '.join(CAPABILITIES)}; whether the namespace admits that shows when it is made"
        yield Finding(_GROUP, "agent's capabilities", Verdict.KNOWN, what)
