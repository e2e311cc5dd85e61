"""Waiting in a task's stead, no longer than the task itself would have waited.

Only SIGKILL reaches a task whose call we hold; so we look whether a signal waits that natively would end the wait, and
let the call go then. A signal of a whole process may be there for a moment only, until another thread takes it: it
must be seen twice.

A descriptor may be called ready by epoll(7), for an entry in its error queue, and a call would block nevertheless. It
is tried again a moment later then.

What an attempt needs of the task, its memory or a socket's lock, may be had only when a page of a file of ours has been
read, by Trio's thread (see `memory`). So from the moment when that is possible another thread makes the attempt.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall

RETRY_S: Final = 0.005
_FIRST_LOOK_S: Final = 0.005
_LAST_LOOK_S: Final = 0.05
_SECOND_LOOK_S: Final = 0.001

Argument = TypeVar("Argument")
Outcome = TypeVar("Outcome")


_threads: Final = trio.CapacityLimiter(1000)
"""Nobody else waits for these threads, least of all who reads the page."""


class Ended(enum.Enum):
    """Why nothing is waited for any more."""

    SIGNAL = enum.auto()
    TIMEOUT = enum.auto()


async def patiently(
    attempt: Callable[[], Outcome | None],
    call: NotifiedCall,
    deadline: float,
    event: Callable[[Argument], Awaitable[None]],
    argument: Argument,
) -> Outcome | Ended:
    """What `attempt` gives, made after each `event(argument)` until it is not None.

    Or why the wait ended: at `deadline` (on Trio's clock), or for a signal; after a last attempt. Raises TaskGone.
    """
    while True:
        ended = await _wait_for(call, deadline, event, argument)
        call.check()
        outcome = await touching_task(call, attempt)
        if outcome is not None:
            return outcome
        ended = ended or await _wait_for(call, deadline, trio.sleep, RETRY_S)
        if ended is not None:
            return ended


async def touching_task(call: NotifiedCall, function: Callable[[], Outcome]) -> Outcome:
    """What a function gives, or raises, that reads or writes the task's memory, say. For Trio's thread.

    Where that may take the time until a page has been read, another thread calls it; it is waited for in any case.
    """
    if not call.access.patient:
        return function()
    # In a tuple, for what it gives may be a coroutine, which Trio would take for a mistake.
    (outcome,) = await trio.to_thread.run_sync(lambda: (function(),), limiter=_threads)
    return outcome


async def _wait_for(
    call: NotifiedCall, deadline: float, event: Callable[[Argument], Awaitable[None]], argument: Argument
) -> Ended | None:
    pause = _FIRST_LOOK_S
    was_pending = False
    while True:
        look_at = trio.current_time() + pause
        with trio.move_on_at(min(look_at, deadline)):
            await event(argument)
            return None
        if look_at >= deadline:
            return Ended.TIMEOUT
        is_pending = call.has_pending_signal()
        if is_pending and was_pending:
            return Ended.SIGNAL
        was_pending = is_pending
        pause = _SECOND_LOOK_S if is_pending else min(2 * max(pause, _FIRST_LOOK_S), _LAST_LOOK_S)
