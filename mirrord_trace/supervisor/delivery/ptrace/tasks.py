"""What the tracer knows of one task. The phases are types: what may happen next to a task depends on nothing else."""

from __future__ import annotations

from typing import Final

import attrs
import trio

from mirrord_trace.supervisor.delivery.base import Call
from mirrord_trace.supervisor.delivery.ptrace.lowering import AtExit
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers
from mirrord_trace.supervisor.delivery.ptrace.spaces import AddressSpace


@attrs.frozen
class Free:
    """Runs, or is stopped for something that is no call of ours."""


@attrs.frozen(eq=False)
class Held:
    """Stopped before a call whose handler still waits for something."""

    call: Call
    slot: int | None
    scope: trio.CancelScope


@attrs.frozen(eq=False)
class InCall:
    """Runs a call that we changed, or whose results we change; it will stop at the call's end."""

    at_exit: AtExit
    saved: Registers | None
    """The registers before the change; None when none was changed."""
    slot: int | None


@attrs.frozen(eq=False)
class Mapping:
    """Runs an mmap of ours in place of its call, which it will then make again."""

    saved: Registers


FREE: Final = Free()
Phase = Free | Held | InCall | Mapping


@attrs.define(eq=False)
class Task:
    """A traced thread."""

    tid: int
    process: int
    """Its thread group."""
    space: AddressSpace
    phase: Phase = FREE

    def leave_call(self) -> None:
        """Forgets the call that the task was in: it is over, or will never return."""
        match self.phase:
            case InCall(slot=int(slot)) | Held(slot=int(slot)):
                self.space.give_back(slot)
        self.phase = FREE
