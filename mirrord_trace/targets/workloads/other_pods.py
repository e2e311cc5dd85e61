"""The pods of a workload other than the one that was chosen: an agent and a session for each, as they come and go.

A pod is taken up when it is ready, and kept as long as its container runs: while it is being deleted its connections
are still under way, and whether it is ready may be for the command to say, which answers its probes. A container that
is started anew counts as another pod.

What fails here ends nothing: the user is told, and it is tried again, after pauses that grow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter, Step
from mirrord_trace.session import Session, open_session
from mirrord_trace.targets.base import Following
from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.beside import agent_beside, background
from mirrord_trace.targets.workloads.choice import Candidate, candidates, still_runs
from mirrord_trace.targets.workloads.finding import Found, find_selector, list_pods
from mirrord_trace.targets.workloads.kinds import Object
from mirrord_trace.targets.workloads.only_trouble import OnlyTrouble
from mirrord_trace.targets.workloads.path import WorkloadPath

_STARTED_AT_ONCE: Final = 4
_FIRST_PAUSE_S: Final = 2.0
_LONGEST_PAUSE_S: Final = 300.0
_SELECTOR_AGAIN_S: Final = 30.0
_CHANGES_PODS: Final = (kinds.SERVICE, kinds.CRON_JOB, kinds.ROLLOUT)
"""Kinds whose selector does not stay: it can be changed, or follows from the jobs that there are."""


@asynccontextmanager
async def other_pods(
    api: ApiServer,
    reporter: Reporter,
    config: AgentConfiguration,
    path: WorkloadPath,
    found: Found,
    first: Candidate,
) -> AsyncIterator[OtherPods]:
    """Serves the pods of a workload but the first, from now on until the block is left."""
    async with background() as nursery:
        others = OtherPods(api, reporter, config, path, found.selector, first, nursery)
        others.begin(found.pods)
        yield others
        others.end()
        await others.ended()


@attrs.define(eq=False)
class _Pod:
    """A pod that is served, or shall be."""

    candidate: Candidate
    is_retried: bool = False
    """Whether the next attempt is not the first."""
    session: Session | None = None
    """While it is served."""
    was_served: bool = False
    tried: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is served, or was not for the first time."""
    over: trio.Event = attrs.field(factory=trio.Event)
    """Set when it is not to be served any more."""
    starting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    gone: trio.Event = attrs.field(factory=trio.Event)
    """Set when its agent is removed, too."""

    def __str__(self) -> str:
        return f"pod {self.candidate.pod}"

    def end(self) -> None:
        """A session that stands ends in good order, a start at once."""
        if not self.over.is_set():
            self.over.set()
            if self.session is None:
                self.starting.cancel()


@attrs.define(eq=False)
class OtherPods:
    """See `mirrord_trace.targets.base.OtherPods`. Made by `other_pods`."""

    _api: ApiServer
    _reporter: Reporter
    _config: AgentConfiguration
    _path: WorkloadPath
    _selector: str
    _first: Candidate | None
    """The one that is not ours; None since it is."""
    _nursery: trio.Nursery
    _first_is_served: bool = True
    _first_pod: Object | None = None
    _following: Following | None = None
    _pods: dict[str, _Pod] = attrs.field(init=False, factory=dict)
    """By uid."""
    _kept: set[_Pod] = attrs.field(init=False, factory=set)
    _seats: trio.CapacityLimiter = attrs.field(init=False, factory=lambda: trio.CapacityLimiter(_STARTED_AT_ONCE))
    _watching: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _is_over: bool = False
    _is_told_of: bool = False
    """Whether the user has been told how many are served."""

    # What the target's user asks for.

    async def reached(self, step: Step) -> None:
        """See `OtherPods.reached`."""
        waited_for = list(self._pods.values())
        if not all(pod.tried.is_set() for pod in waited_for):
            step.waiting(f"for {len(waited_for)} more" if len(waited_for) > 1 else f"for {waited_for[0]}")
        with trio.move_on_after(self._config.startup_timeout_s):  # they start a few at a time
            for pod in waited_for:
                await pod.tried.wait()
        self._is_told_of = True
        step.detail(f"{self._served} of {len(self._pods) + self._first_is_served} pods are served")

    def hand_to(self, following: Following) -> None:
        """See `OtherPods.hand_to`."""
        self._following = following
        for pod in self._pods.values():
            if pod.session is not None:
                following.join(pod.session, str(pod))

    def take_over_first(self) -> None:
        """See `OtherPods.take_over_first`."""
        first, pod = self._first, self._first_pod
        self._first, self._first_is_served = None, False
        if not self._is_over and first is not None and pod is not None and still_runs(pod, first):
            self._start(_Pod(first, is_retried=True))

    def end(self) -> None:
        """See `OtherPods.end`."""
        self._is_over = True
        self._watching.cancel()
        for pod in self._pods.values():
            pod.end()
        self._pods.clear()

    async def ended(self) -> None:
        """Returns when all agents are gone."""
        for pod in list(self._kept):
            await pod.gone.wait()

    @property
    def _served(self) -> int:
        return sum(pod.session is not None for pod in self._pods.values()) + self._first_is_served

    # Which pods there are.

    def begin(self, pods: Sequence[Object]) -> None:
        """Takes up the pods that there are, and watches for others."""
        self._compare(pods)
        self._nursery.start_soon(self._follow)
        if self._path.kind in _CHANGES_PODS:
            self._nursery.start_soon(self._follow_selector)

    async def _follow(self) -> None:
        pause_s, told = _FIRST_PAUSE_S, ""
        is_known = True
        while not self._is_over:
            begun = trio.current_time()
            with trio.CancelScope() as self._watching:
                if not is_known:
                    await self._look_once()
                is_known = False
                problem = await self._watch()
                if trio.current_time() - begun > _LONGEST_PAUSE_S:
                    pause_s, told = _FIRST_PAUSE_S, ""
                if problem.message != told:
                    told = problem.message
                    self._warn("pods that come from now on may not be served", problem)
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _watch(self) -> Failure:
        """Until that fails."""
        if not self._selector:  # which would choose all
            await trio.sleep_forever()
        try:
            async with self._api.watch(PODS, self._api.namespace, label_selector=self._selector) as changes:
                async for kind, pod in changes:
                    self._take(pod, is_there=kind != "DELETED")
        except ApiRefusal as refusal:
            return failure(refusal, f"watch the pods of {self._path.workload}")
        except Failure as unreachable:
            return unreachable
        raise AssertionError("a watch ended without a word")

    async def _look_once(self) -> None:
        """What a watch does not tell: the pods that were gone before it began."""
        try:
            pods = await list_pods(self._api, self._api.namespace, self._selector)
        except Failure:  # then the watch fails as well, and that is told
            return
        self._compare(pods)

    async def _follow_selector(self) -> None:
        while not self._is_over:
            await trio.sleep(_SELECTOR_AGAIN_S)
            try:
                selector = await find_selector(self._api, self._path, self._api.namespace)
            except Failure:  # as it was, then
                continue
            if selector != self._selector:
                self._selector = selector
                self._watching.cancel()

    def _compare(self, pods: Sequence[Object]) -> None:
        """These are all."""
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid, pod in list(self._pods.items()):
            if uid not in there:
                self._drop(uid, pod)
        for each in pods:
            self._take(each)

    def _take(self, pod: Object, *, is_there: bool = True) -> None:
        """What a pod is now, or was last."""
        uid = pod["metadata"]["uid"]
        if self._is_over:
            return
        if self._first is not None and uid == self._first.pod_uid:
            self._first_pod = pod if is_there else None
            self._first_is_served = is_there and still_runs(pod, self._first)
        known = self._pods.get(uid)
        if known is not None and not (is_there and still_runs(pod, known.candidate)):
            self._drop(uid, known)
            known = None
        if known is None and is_there:
            for candidate in candidates([pod], self._path.container):
                if candidate != self._first:
                    self._start(_Pod(candidate))

    def _start(self, pod: _Pod) -> None:
        self._pods[pod.candidate.pod_uid] = pod
        self._kept.add(pod)
        self._nursery.start_soon(self._keep, pod)

    def _drop(self, uid: str, pod: _Pod) -> None:
        if self._pods.get(uid) is pod:
            del self._pods[uid]
            pod.end()
            if pod.was_served:
                self._reporter.note(f"{pod} is gone: {self._number_served()}")

    def _number_served(self) -> str:
        return "1 pod is served now" if self._served == 1 else f"{self._served} pods are served now"

    # One pod.

    async def _keep(self, pod: _Pod) -> None:
        """Until it is over."""
        try:
            with pod.starting:
                await self._try_again_and_again(pod)
        finally:
            self._kept.discard(pod)
            pod.tried.set()
            pod.gone.set()

    async def _try_again_and_again(self, pod: _Pod) -> None:
        pause_s, told = _FIRST_PAUSE_S, ""
        while not pod.over.is_set():
            if pod.is_retried:
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            pod.is_retried, pod.was_served = True, False
            problem = await self._attempt(pod)
            if problem is None or not await self._is_still_there(pod):
                return
            if pod.was_served:
                pause_s, told = _FIRST_PAUSE_S, ""
            if problem.message != told:
                told = problem.message
                self._warn(f"{pod} is not served for the time being", problem)

    async def _attempt(self, pod: _Pod) -> Failure | None:
        """Serves a pod until it is over. What keeps us from that, if anything does."""
        problem: Failure | None = None
        try:
            problem = await self._serve(pod)
        except* Failure as failures:
            problem = _first_of(failures)
        finally:
            pod.tried.set()
        return problem

    async def _serve(self, pod: _Pod) -> Failure | None:
        candidate = pod.candidate
        name = f"pod {candidate.pod} in namespace {candidate.namespace} (container {candidate.container})"
        async with AsyncExitStack() as owned:
            async with self._seats:
                link = await owned.enter_async_context(
                    agent_beside(self._api, OnlyTrouble(self._reporter), self._config, candidate, name)
                )
                session = await owned.enter_async_context(open_session(link.stream, link.secret))
                link.answered.set()
                await link.settled.wait()
            is_news = self._is_told_of
            with self._handed_over(pod, session) as joined:
                async with trio.open_nursery() as nursery:
                    if is_news:
                        nursery.start_soon(self._tell_when, joined, pod)
                    await _any_of(session.lost, pod.over)
                    nursery.cancel_scope.cancel()
            if pod.over.is_set() or not await self._is_still_there(pod):
                return None
            return Failure(f"the agent is gone: {session.loss_reason}", await link.last_words() or None)

    @contextmanager
    def _handed_over(self, pod: _Pod, session: Session) -> Iterator[Sequence[trio.Event]]:
        pod.session, pod.was_served = session, True
        pod.tried.set()
        joined = () if self._following is None else self._following.join(session, str(pod))
        try:
            yield joined
        finally:
            pod.session = None
            if self._following is not None:
                self._following.leave(session)

    async def _tell_when(self, joined: Sequence[trio.Event], pod: _Pod) -> None:
        for event in joined:
            await event.wait()
        self._reporter.note(f"{pod} is served as well: {self._number_served()}")

    async def _is_still_there(self, pod: _Pod) -> bool:
        """Whether it is worth another try; a pod that is gone is dropped."""
        candidate = pod.candidate
        try:
            runs = still_runs(await self._api.get(PODS, candidate.namespace, candidate.pod), candidate)
        except ApiRefusal as refusal:
            runs = refusal.status != 404
        except Failure:
            runs = True
        if not runs:
            self._drop(candidate.pod_uid, pod)
        return runs

    def _warn(self, what: str, problem: Failure) -> None:
        advice = f"\n{problem.advice}" if problem.advice else ""
        self._reporter.warning(f"{what}: {problem.message}{advice}\nIt is tried again, and again.")


def _first_of(failures: BaseExceptionGroup[Failure]) -> Failure:
    first = failures.exceptions[0]
    return _first_of(first) if isinstance(first, BaseExceptionGroup) else first


async def _any_of(*events: trio.Event) -> None:
    async with trio.open_nursery() as nursery:

        async def wait(event: trio.Event) -> None:
            await event.wait()
            nursery.cancel_scope.cancel()

        for event in events:
            nursery.start_soon(wait, event)
