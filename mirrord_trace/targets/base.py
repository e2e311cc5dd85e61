"""What every kind of target has in common: it yields a byte stream to an agent that runs next to the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from mirrord_trace.reporting import Reporter, Step
    from mirrord_trace.session import Session


class Following(Protocol):
    """Who is handed the sessions with agents beside a workload's other pods."""

    def join(self, session: Session, name: str) -> Sequence[trio.Event]:
        """There is one more. `name` is what the user knows its pod by, such as "pod web-2".

        Returns events that are all set when it gets what it wants of the session, or never will.
        """

    def leave(self, session: Session) -> None:
        """One of those is over, or about to be."""


class OtherPods(Protocol):
    """The other pods of a workload, as they come and go; served as long as the target is open.

    For environment, files and outgoing traffic one pod is the target, but something may come to any of them.
    """

    async def reached(self, step: Step) -> None:
        """Returns when those that were there at first are served, or have not let themselves be served in due time."""

    def hand_to(self, following: Following) -> None:
        """Hands over the sessions that there are, and those to come."""

    def take_over_first(self) -> None:
        """The agent that was opened first is lost: if its pod is still there, it is from now on one of the others."""

    def end(self) -> None:
        """The sessions end in good order, and the agents go; when the target is closed, that has been waited for."""


@attrs.frozen
class AgentLink:
    """The way to an agent that is starting or runs."""

    stream: trio.SocketStream
    """Carries the session. The agent, or the end of the stream if it cannot start, is at the other end."""
    secret: bytes
    """What the client proves to know; the agent was given only its hash."""
    target_name: str
    """For people, such as "pid/4711 (python3)"."""
    agent_pids: frozenset[int]
    """Processes on this machine that belong to the agent, for those who must leave them alone."""
    last_words: Callable[[], Awaitable[str]]
    """The end of what a dying agent has written for people, shortly after its end; "" when there is nothing."""
    others: OtherPods | None = None
    """The pods that are served besides this one; None: no others shall be."""
    told_when_stolen: Mapping[int, str] = attrs.field(factory=dict)
    """What the user should know when one of these TCP ports is stolen without a filter, as the rest of a sentence."""
    answered: trio.Event = attrs.field(factory=trio.Event, init=False, eq=False)
    """To be set by whoever opens a session over the stream, once there is one."""
    settled: trio.Event = attrs.field(factory=trio.Event, init=False, eq=False)
    """Set by the target, which may wait for `answered`: the agent lives as long as the session. Commands start then."""


class Target(Protocol):
    """Where a process can be run in."""

    def open(self, reporter: Reporter) -> AbstractAsyncContextManager[AgentLink]:
        """Find or start an agent; on exit, remove what was started.

        Returns as early as there is a stream, which may be before the agent can answer. Raises `Failure`; also in
        place of a session's failure to start that leaves the block, with what the target knows about its cause.
        """
