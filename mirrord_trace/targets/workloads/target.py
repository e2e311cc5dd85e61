"""`WorkloadTarget`: an agent beside a pod of a cluster, or one beside each pod of a workload.

The workload's pods are found and the newest ready one is chosen: it is what the command gets its environment and files
from, and where its connections leave. All pods can be served only together: what comes to a workload comes to any.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs

from mirrord_trace.cluster.api import ApiServer, open_api
from mirrord_trace.config import AgentConfiguration, ClusterConfiguration
from mirrord_trace.reporting import Reporter
from mirrord_trace.targets.base import AgentLink
from mirrord_trace.targets.workloads.beside import agent_beside
from mirrord_trace.targets.workloads.choice import Candidate, candidates, no_candidate
from mirrord_trace.targets.workloads.finding import Found, find_pods
from mirrord_trace.targets.workloads.other_pods import other_pods
from mirrord_trace.targets.workloads.path import WorkloadPath


@attrs.frozen
class WorkloadTarget:
    """A workload of a cluster, or the cluster without any."""

    path: WorkloadPath | None
    """None: targetless, next to no pod."""
    cluster: ClusterConfiguration
    agent: AgentConfiguration
    all_pods: bool = False
    """Whether the workload's other pods are served as well."""

    @asynccontextmanager
    async def open(self, reporter: Reporter) -> AsyncIterator[AgentLink]:
        """See `Target.open`."""
        async with open_api(self.cluster) as api, AsyncExitStack() as owned:
            reporter.explain(f"kubeconfig context {api.context or '(none: in a pod)'}, namespace {api.namespace}")
            candidate = others = None
            if self.path is not None:
                found, candidate = await _choose(api, self.path, reporter, is_one_of_all=self.all_pods)
                if self.all_pods:
                    others = await owned.enter_async_context(
                        other_pods(api, reporter, self.agent, self.path, found, candidate)
                    )
            name = _name(self.path, candidate, self.agent.namespace or api.namespace)
            link = await owned.enter_async_context(
                agent_beside(api, reporter, self.agent, candidate, name, others=others)
            )
            if others is not None:
                owned.callback(others.end)  # before the first agent is removed: all of them go at the same time
            yield link


async def _choose(
    api: ApiServer, path: WorkloadPath, reporter: Reporter, *, is_one_of_all: bool
) -> tuple[Found, Candidate]:
    """The pods, and the one that is served, the newest of those that could be."""
    with reporter.step("finding the target") as step:
        found = await find_pods(api, path, api.namespace)
        ready = candidates(found.pods, path.container)
        if not ready:
            what = f"{path.workload} in namespace {api.namespace}"
            raise no_candidate(what, found.pods, path.container, found.workload)
        chosen = ready[0]
        step.detail(f"pod {chosen.pod}, container {chosen.container}, node {chosen.node}")
        if len(ready) > 1:
            others = ", which are all served" if is_one_of_all else ""
            step.detail(f"the newest of {len(ready)} ready pods{others}")
    return found, chosen


def _name(path: WorkloadPath | None, candidate: Candidate | None, namespace: str) -> str:
    if path is None or candidate is None:
        return f"no target in namespace {namespace}"
    return f"{path.workload} in namespace {candidate.namespace} (pod {candidate.pod}, container {candidate.container})"
