"""Waiting until an agent listens: its pod is watched, its log followed, and events are asked for now and then.

Watch and log are one request each. Events tell what the two do not (an image being pulled, a pod that may not be made),
but have no end, so they are listed at growing intervals, the sooner the less a person waits in the dark.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.refusals import failure
from mirrord_trace.cluster.resources import EVENTS, PODS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Step
from mirrord_trace.targets.workloads.agents import Agent
from mirrord_trace.targets.workloads.choice import Candidate, why_not
from mirrord_trace.targets.workloads.kinds import Object
from mirrord_trace.targets.workloads.starting import Ended, Running, State, Waiting, port_in, state_of, timed_out

_EVENTS_AFTER_S: Final = (0.7, 1.3, 3.0, 7.0, 15.0, 30.0)
"""Each after the one before. A session has 15 requests, and these are the most that a start can do without."""
_LAST_WORDS_S: Final = 2.0
"""How long the log of a container that has ended, or the end of one whose log has, may take to reach us."""
_LAST_LINES: Final = 10


@attrs.define(eq=False)
class AgentLog:
    """What an agent writes: the port on which it listens, and the end of it."""

    _changed: Callable[[], None]
    port: int | None = None
    ended: trio.Event = attrs.field(factory=trio.Event)
    """Set when there is nothing more to come."""
    trouble: ApiRefusal | Failure | None = None
    """Why there is nothing more, where the API server and not the agent made an end."""
    _lines: deque[str] = attrs.field(factory=lambda: deque(maxlen=_LAST_LINES))

    async def follow(self, api: ApiServer, namespace: str, pod: str, container: str) -> None:
        """Reads until the agent's end."""
        try:
            async with api.log(namespace, pod, container, follow=True) as lines:
                async for line in lines:
                    if self.port is None:
                        self.port = port_in(line)
                        if self.port is not None:
                            self._changed()
                            continue
                    self._lines.append(line)
        except (ApiRefusal, Failure) as error:
            self.trouble = error
        finally:
            self.ended.set()
            self._changed()

    async def last_lines(self) -> list[str]:
        """Its end, after a moment in which the end may come."""
        with trio.move_on_after(_LAST_WORDS_S):
            await self.ended.wait()
        return list(self._lines)


@attrs.define(eq=False)
class Arrival:
    """The start of an agent, as it is observed."""

    _api: ApiServer
    _agent: Agent
    _config: AgentConfiguration
    _target: Candidate | None
    _step: Step
    log: AgentLog = attrs.field(init=False)
    _pod: Object | None = None
    _events: Sequence[Object] = ()
    _state: State = attrs.field(factory=lambda: Waiting(""))
    _news: trio.Event = attrs.field(factory=trio.Event)
    _follows: bool = False

    def __attrs_post_init__(self) -> None:
        self.log = AgentLog(self._tell)

    async def listening(self, session: trio.Nursery) -> tuple[str, int]:
        """Waits until the agent listens: in which pod, on which port of it. The log is followed on in `session`.

        Raises `Failure`.
        """
        problem: Failure | None = None
        with trio.move_on_after(self._config.startup_timeout_s) as limit:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_pod)
                nursery.start_soon(self._list_events)
                problem = await self._outcome(session)
                nursery.cancel_scope.cancel()
        if limit.cancelled_caught:
            problem = await self._too_late()
        if problem is not None:
            raise problem
        assert self._pod is not None
        assert self.log.port is not None
        return self._pod["metadata"]["name"], self.log.port

    async def _outcome(self, session: trio.Nursery) -> Failure | None:
        """None when it listens."""
        await self._until(lambda: not isinstance(self._state, Waiting))
        if isinstance(self._state, Running):
            self._follow(session)
            self._step.waiting("for it to listen")
            await self._until(
                lambda: self.log.port is not None or self.log.ended.is_set() or not isinstance(self._state, Running)
            )
            if self.log.port is not None:
                return None
            with trio.move_on_after(_LAST_WORDS_S):
                await self._until(lambda: not isinstance(self._state, Running))
        match self._state:
            case Failure():
                return await self._with_events(self._state)
            case Ended(how):
                self._follow(session)
                words = await self.log.last_lines()
                return Failure(
                    f"the agent ended as it started: {how}", "\n".join(["Its last words:", *words]) if words else None
                )
        return self._log_trouble()

    def _log_trouble(self) -> Failure:
        if isinstance(self.log.trouble, ApiRefusal):
            return failure(self.log.trouble, "read the agent's log")
        return self.log.trouble or Failure("the agent's log ended before it said that it listens, and it still runs")

    async def _with_events(self, problem: Failure) -> Failure:
        """The same failure, told better where events know more."""
        if not self._events:
            with trio.move_on_after(_LAST_WORDS_S):
                await self._fetch_events()
        better = state_of(self._pod, self._agent.container, self._config.image, self._events)
        return better if isinstance(better, Failure) else problem

    async def _too_late(self) -> Failure:
        with trio.move_on_after(_LAST_WORDS_S):
            await self._fetch_events()
        lines = await self.log.last_lines() if self._follows else []
        trouble = "" if self._target is None else await self._target_trouble(self._target)
        return timed_out(self._config.startup_timeout_s, self._state, self._pod, self._events, lines, trouble)

    async def _target_trouble(self, target: Candidate) -> str:
        """What has happened to the target meanwhile, such as the loss of its node; "" when it is as it was."""
        with trio.move_on_after(_LAST_WORDS_S):
            try:
                trouble = why_not(await self._api.get(PODS, target.namespace, target.pod))
            except ApiRefusal as refusal:
                trouble = "gone" if refusal.status == 404 else ""
            except Failure:
                trouble = ""
            return f"The target's pod {target.pod}: {trouble}." if trouble else ""
        return ""

    def _follow(self, session: trio.Nursery) -> None:
        if self._pod is not None and not self._follows:
            self._follows = True
            name = self._pod["metadata"]["name"]
            session.start_soon(self.log.follow, self._api, self._agent.namespace, name, self._agent.container)

    async def _watch_pod(self) -> None:
        try:
            async with self._api.watch(PODS, self._agent.namespace, **self._agent.pod_selectors) as changes:
                async for kind, pod in changes:
                    self._pod = pod
                    self._consider()
                    if kind == "DELETED":
                        self._turn(Failure(f"pod {pod['metadata']['name']} was deleted while the agent started"))
        except ApiRefusal as refusal:
            self._turn(failure(refusal, "watch the agent's pod"))
        except Failure as unreachable:
            self._turn(unreachable)

    async def _list_events(self) -> None:
        for pause_s in _EVENTS_AFTER_S:
            await trio.sleep(pause_s)
            await self._fetch_events()
            self._consider()

    async def _fetch_events(self) -> None:
        """They are of help, no more: who may not list them, or cannot, goes on without."""
        name = self._agent.subject if self._pod is None else self._pod["metadata"]["name"]
        try:
            events = await self._api.list(EVENTS, self._agent.namespace, field_selector=f"involvedObject.name={name}")
        except (ApiRefusal, Failure):
            return
        self._events = [event for event in events if self._agent.concerns(event)]

    def _consider(self) -> None:
        self._turn(state_of(self._pod, self._agent.container, self._config.image, self._events))

    def _turn(self, state: State) -> None:
        """A failure or an end is for good: what comes after it is only the clearing up."""
        if isinstance(self._state, Failure | Ended):
            return
        self._state = state
        if isinstance(state, Waiting):
            self._step.waiting(state.reason)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()
