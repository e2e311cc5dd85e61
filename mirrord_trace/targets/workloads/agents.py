"""An agent in a cluster from before it is made until it is gone.

A request that makes something cannot be taken back half-way: the answer may be lost when the deed is done. So making is
not cancelled at once but given a moment, and removing follows whatever came of it, by the name that we chose. Where
that is not known yet, the server may carry it out after a removal that found nothing, so that one is tried again. What
cannot be removed is told, with when it will go by itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto
from typing import Final, Protocol, TypeVar

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer, Unreachable
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import JOBS, POD_EPHEMERAL_CONTAINERS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.targets.workloads import agent_pod
from mirrord_trace.targets.workloads.choice import Candidate
from mirrord_trace.targets.workloads.kinds import Object
from mirrord_trace.targets.workloads.ownership import Ownership

_UNDER_WAY_S: Final = 3.0
"""How long a request that makes something may still take when we are told to end."""
_REMOVAL_S: Final = 5.0
"""How long removing may take: whoever ends us may not wait much longer."""
_NOT_THERE_YET_S: Final = (0.5, 1.0, 2.0)
"""How long to wait before removing again what was not there, but may be made any moment; within `_REMOVAL_S`."""
_TELL_AFTER_S: Final = 1.0
"""Then the user is told what we wait for."""

_Result = TypeVar("_Result")


class _Making(Enum):
    """What came of a request that makes something."""

    IN_VAIN = auto()
    """There is nothing, and will be nothing."""
    DOUBTFUL = auto()
    """It may be there by now."""
    UNDER_WAY = auto()
    """It may be there by now, or soon."""
    DONE = auto()


class Agent(Protocol):
    """An agent as the cluster has it."""

    @property
    def namespace(self) -> str:
        """Where its pod is."""

    @property
    def name(self) -> str:
        """Ours, and no other agent's."""

    @property
    def container(self) -> str:
        """Of its pod."""

    @property
    def pod_selectors(self) -> dict[str, str]:
        """Label and field selectors that choose its pod, as `ApiServer.watch` takes them."""

    @property
    def subject(self) -> str:
        """The name of the object that has events before there is a pod."""

    def concerns(self, event: Object) -> bool:
        """Whether an event of its pod is about the agent."""

    def made(self) -> AbstractAsyncContextManager[list[str]]:
        """Makes it, and removes it when the block is left. Gives the API server's warnings. Raises `Failure`."""

    async def settle(self) -> None:
        """It has answered: from now on it lives as long as its session. Raises `Failure`."""


@attrs.define(eq=False)
class JobAgent:
    """An agent in a pod of its own, made by a job."""

    api: ApiServer
    reporter: Reporter
    config: AgentConfiguration
    namespace: str
    candidate: Candidate | None
    """What it serves; None: no target."""
    secret_hash: str
    name: str = attrs.field(factory=agent_pod.new_name)
    container: str = agent_pod.CONTAINER
    _making: _Making = _Making.IN_VAIN
    _settled: bool = False

    @property
    def pod_selectors(self) -> dict[str, str]:
        """See `Agent.pod_selectors`."""
        return {"label_selector": f"{agent_pod.JOB_NAME_LABEL}={self.name}"}

    @property
    def subject(self) -> str:
        """See `Agent.subject`."""
        return self.name

    def concerns(self, event: Object) -> bool:
        """See `Agent.concerns`."""
        return True

    @asynccontextmanager
    async def made(self) -> AsyncIterator[list[str]]:
        """See `Agent.made`."""
        try:
            try:
                warnings = await _to_its_end(self._create)
            except ApiRefusal as refusal:
                raise failure(refusal, "create the agent's job") from refusal
            yield warnings
        finally:
            if self._making is not _Making.IN_VAIN:
                await self._remove()

    async def _create(self) -> list[str]:
        body = agent_pod.job(self.name, self.config, self.candidate, self.secret_hash, Ownership.ours().annotations())
        self._making = _Making.UNDER_WAY
        try:
            _, warnings = await self.api.create(JOBS, self.namespace, body)
        except ApiRefusal as refusal:
            # An attempt whose answer was lost went the same way before this one: it is not under way any more.
            made_perhaps = refusal.status >= 500 or refusal.repeated
            self._making = _Making.DOUBTFUL if made_perhaps else _Making.IN_VAIN
            raise
        except Unreachable as unreachable:
            self._making = _Making.UNDER_WAY if unreachable.sent else _Making.IN_VAIN
            raise
        except Failure:  # somebody has answered, in whatever language
            self._making = _Making.DOUBTFUL
            raise
        self._making = _Making.DONE
        return warnings

    async def settle(self) -> None:
        """See `Agent.settle`."""
        try:
            await self.api.patch(JOBS, self.namespace, self.name, agent_pod.without_deadline())
        except ApiRefusal as refusal:
            raise failure(refusal, f"lift the deadline of the agent's job {self.name}") from refusal
        self._settled = True

    async def _remove(self) -> None:
        problem = "could not be deleted: the API server did not answer"
        with trio.move_on_after(_REMOVAL_S, shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tell_of_removal)
                try:
                    gone = await self._deleted()
                    problem = "" if gone else "may yet be made: the API server has not said what came of the request"
                except ApiRefusal as refusal:
                    problem = f"could not be deleted: {failure(refusal, 'delete it').message}"
                except Failure as unreachable:
                    problem = f"could not be deleted: {unreachable.message}"
                nursery.cancel_scope.cancel()
        if not problem:
            return
        by_itself = (
            f"its agent leaves after {self.config.communication_timeout_s:g} s without us"
            if self._settled
            else f"it ends {agent_pod.deadline_s(self.config)} s after its start"
        )
        self.reporter.warning(
            f"the agent's job {self.name} in namespace {self.namespace} {problem}\n"
            f"It goes by itself: {by_itself}, and the cluster removes it. To see to it: "
            f"mirrord-trace clean -n {self.namespace}"
        )

    async def _deleted(self) -> bool:
        """Deletes the job. False: it was not there, and may be made after this."""
        if await self.api.delete(JOBS, self.namespace, self.name) or self._making is not _Making.UNDER_WAY:
            return True
        for pause_s in _NOT_THERE_YET_S:
            await trio.sleep(pause_s)
            if await self.api.delete(JOBS, self.namespace, self.name):
                return True
        return False

    async def _tell_of_removal(self) -> None:
        await trio.sleep(_TELL_AFTER_S)
        self.reporter.note(f"waiting for the API server to delete the agent's job, for {_REMOVAL_S:g} s at most")


@attrs.define(eq=False)
class EphemeralAgent:
    """An agent in a container that is added to the target's pod. Such containers end, but are never removed."""

    api: ApiServer
    reporter: Reporter
    config: AgentConfiguration
    candidate: Candidate
    secret_hash: str
    name: str = attrs.field(factory=agent_pod.new_name)
    _settled: bool = False

    @property
    def namespace(self) -> str:
        """See `Agent.namespace`."""
        return self.candidate.namespace

    @property
    def container(self) -> str:
        """See `Agent.container`."""
        return self.name

    @property
    def pod_selectors(self) -> dict[str, str]:
        """See `Agent.pod_selectors`."""
        return {"field_selector": f"metadata.name={self.candidate.pod}"}

    @property
    def subject(self) -> str:
        """See `Agent.subject`."""
        return self.candidate.pod

    def concerns(self, event: Object) -> bool:
        """See `Agent.concerns`: the pod has a life of its own."""
        return self.name in event.get("involvedObject", {}).get("fieldPath", "")

    @asynccontextmanager
    async def made(self) -> AsyncIterator[list[str]]:
        """See `Agent.made`. What is left is an entry in the pod's list; the agent itself leaves with its session."""
        body = agent_pod.ephemeral_container(self.name, self.config, self.candidate, self.secret_hash)
        try:
            await _to_its_end(
                lambda: self.api.patch(
                    POD_EPHEMERAL_CONTAINERS,
                    self.namespace,
                    self.candidate.pod,
                    body,
                    content_type="application/strategic-merge-patch+json",
                )
            )
        except ApiRefusal as refusal:
            raise self._refused(refusal) from refusal
        try:
            yield []
        finally:
            if not self._settled:
                self.reporter.note(
                    f"pod {self.candidate.pod} keeps the ephemeral container {self.name} in its list: the API does not "
                    "let one remove it; it goes with the pod"
                )

    def _refused(self, refusal: ApiRefusal) -> Failure:
        problem = failure(refusal, f"add an ephemeral container to pod {self.candidate.pod}")
        if "Pod Security" in problem.message:
            problem = Failure(
                problem.message,
                "The pod cannot be served from within. An agent with a pod of its own may be in another namespace: "
                "--agent-mode job, with --agent-namespace.",
            )
        return problem

    async def settle(self) -> None:
        """See `Agent.settle`: nothing bounds it but its session."""
        self._settled = True


async def _to_its_end(action: Callable[[], Awaitable[_Result]]) -> _Result:
    """The result of an action that is given `_UNDER_WAY_S` to come to its end when it is cancelled.

    Raises what the action raises.
    """
    results: list[_Result] = []
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as patient:
            nursery.start_soon(_hurry, patient)
            try:
                results.append(await action())
            except Exception as error:
                errors.append(error)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]
    return results[0]


async def _hurry(patient: trio.CancelScope) -> None:
    """When this is cancelled, what is patient has a moment left."""
    try:
        await trio.sleep_forever()
    finally:
        patient.deadline = trio.current_time() + _UNDER_WAY_S
