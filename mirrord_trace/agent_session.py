"""A session with the agent of a target that is open, and what commands do that serve one without running a process.

Signals that end such a command end what it serves first, so that the session is closed in good order; a second one, or
the time that this may take, ends the rest.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.session import Session, open_session
from mirrord_trace.targets.base import AgentLink, Target

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_FAREWELL_S: Final = 3.0
"""How long the end may take after a signal. What is then left undone the agent does, when it sees our stream end."""


@asynccontextmanager
async def agent_session(link: AgentLink, reporter: Reporter) -> AsyncIterator[Session]:
    """The session over a link; ended with the block. Raises as `open_session` does."""
    async with AsyncExitStack() as resources:
        with reporter.step("connecting to the agent"):
            session = await resources.enter_async_context(open_session(link.stream, link.secret))
            link.answered.set()
        yield session


@attrs.define(eq=False)
class _Attendance:
    """A command that serves a session until it is told to end."""

    everything: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    serving: trio.CancelScope | None = None
    """What is served, once it is."""
    exit_code: int = 0

    async def watch(self, arriving: AsyncIterator[int]) -> None:
        """Acts on signals."""
        async for number in arriving:
            if self.serving is None or self.exit_code:
                self.everything.cancel()
            else:
                self.serving.cancel()
                self.everything.deadline = trio.current_time() + _FAREWELL_S
            self.exit_code = 128 + number


def attend(target: Target, reporter: Reporter, serve: Callable[[AgentLink, Session], Awaitable[None]]) -> int:
    """Serves a session with a target's agent until `serve` returns or a signal comes, which gives 128 + its number.

    Raises Failure, perhaps in an exception group: also when the agent is lost.
    """

    async def main() -> int:
        attendance = _Attendance()
        heeded = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]  # nohup(1)
        with trio.open_signal_receiver(*heeded) as arriving, attendance.everything:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(attendance.watch, arriving)
                async with target.open(reporter) as link, agent_session(link, reporter) as session:
                    await link.settled.wait()
                    with trio.CancelScope() as attendance.serving:
                        await _serve_until_loss(link, session, serve)
                nursery.cancel_scope.cancel()
        return attendance.exit_code

    return trio.run(main)


async def _serve_until_loss(
    link: AgentLink, session: Session, serve: Callable[[AgentLink, Session], Awaitable[None]]
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail_at_loss, link, session)
        await serve(link, session)
        nursery.cancel_scope.cancel()


async def _fail_at_loss(link: AgentLink, session: Session) -> None:
    await session.lost.wait()
    words = await link.last_words()
    raise Failure(f"the agent is gone: {session.loss_reason}", f"The agent's last words: {words}" if words else None)
