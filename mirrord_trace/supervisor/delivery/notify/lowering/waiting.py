"""Waiting in a task's stead, no longer than the task itself would have waited.

Only SIGKILL reaches a task whose call we hold; so we look whether a signal waits that natively would end the wait, and
let the call go then. A signal of a whole process may be there for a moment only, until another thread takes it: it
must be seen twice.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from mirrord_trace.supervisor.delivery.base import Call

_FIRST_LOOK_S: Final = 0.005
_LAST_LOOK_S: Final = 0.05
_SECOND_LOOK_S: Final = 0.001

Argument = TypeVar("Argument")


class Outcome(enum.Enum):
    """What ended a wait."""

    READY = enum.auto()
    SIGNAL = enum.auto()
    TIMEOUT = enum.auto()


async def wait_for(
    call: Call, deadline: float, event: Callable[[Argument], Awaitable[None]], argument: Argument
) -> Outcome:
    """Waits until `event(argument)` is over, a signal waits for the task, or Trio's clock says `deadline` (seconds)."""
    pause = _FIRST_LOOK_S
    was_pending = False
    while True:
        look_at = trio.current_time() + pause
        with trio.move_on_at(min(look_at, deadline)):
            await event(argument)
            return Outcome.READY
        if look_at >= deadline:
            return Outcome.TIMEOUT
        is_pending = call.has_pending_signal()
        if is_pending and was_pending:
            return Outcome.SIGNAL
        was_pending = is_pending
        pause = _SECOND_LOOK_S if is_pending else min(2 * max(pause, _FIRST_LOOK_S), _LAST_LOOK_S)
