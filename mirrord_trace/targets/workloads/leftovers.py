"""Agents' jobs that are in a cluster, and which of them an interrupted run has left.

What a run leaves goes by itself after a while: the agent leaves when its client is silent, and the cluster removes the
job after its ttl. This is for who doesn't want to wait, and for clusters in which something keeps that from happening.
"""

from __future__ import annotations

from datetime import datetime

import attrs

from mirrord_trace.cluster.api import ApiServer, Object
from mirrord_trace.cluster.resources import JOBS
from mirrord_trace.targets.workloads.ownership import MANAGED_BY, Ownership, RunState

_SELECTOR = ",".join(f"{name}={value}" for name, value in MANAGED_BY.items())


@attrs.frozen
class AgentJob:
    """The job of an agent, and whose it is."""

    namespace: str
    name: str
    owner: str
    """user@host; "" if nobody knows."""
    state: RunState
    created: datetime

    @property
    def is_left(self) -> bool:
        """Nobody can be disturbed by its removal."""
        return self.state is RunState.OVER


async def agent_jobs(api: ApiServer, namespace: str | None) -> list[AgentJob]:
    """The jobs of agents in a namespace, or in all (None). Raises ApiRefusal."""
    here = Ownership.ours()
    return [_agent_job(job, here) for job in await api.list(JOBS, namespace, label_selector=_SELECTOR)]


def _agent_job(job: Object, here: Ownership) -> AgentJob:
    metadata = job["metadata"]
    ownership = Ownership.read(metadata.get("annotations") or {})
    return AgentJob(
        metadata["namespace"],
        metadata["name"],
        ownership.owner,
        ownership.state(here),
        datetime.fromisoformat(metadata["creationTimestamp"]),
    )
