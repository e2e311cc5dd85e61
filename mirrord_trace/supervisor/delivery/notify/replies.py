"""What the kernel is told about a notified call, and the call itself as a handler and a lowering see it.

A notified call cannot be rewritten. It is answered with a result, with a descriptor that is put into the task, or it is
let go on (CONTINUE); then the kernel reads the arguments again, from memory that other threads may have changed since.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import attrs

from mirrord_trace.supervisor.delivery.base import Call, TaskGone
from mirrord_trace.supervisor.delivery.notify.memory import BRIEF, MemoryAccess


@attrs.frozen
class Continue:
    """The kernel makes the call as it stands (SECCOMP_USER_NOTIF_FLAG_CONTINUE, Linux 5.5)."""


CONTINUE = Continue()


@attrs.frozen
class Result:
    """The call is not made; the task sees this value, a negative errno on failure."""

    value: int


@attrs.frozen
class Descriptor:
    """The call returns a duplicate of our descriptor `number` in the task (SECCOMP_ADDFD_FLAG_SEND, Linux 5.14).

    Ours is closed when the answer has been given, or could not be.
    """

    number: int
    close_on_exec: bool


@attrs.frozen
class Deferred:
    """The answer is what `make` gives, which is called in a worker: it may wait, for a file of the target, say.

    It raises what `lowering.lower` raises. The reply that it gives is none of this class.
    """

    make: Callable[[], Reply]


@attrs.frozen
class Answered:
    """The task has the call's result already: it has made the call itself, see `surgery`."""


ANSWERED = Answered()
Reply = Continue | Result | Descriptor | Deferred | Answered


def _nothing_to_check() -> None:
    """For calls that no listener has brought."""


def _tell_nobody(text: str) -> None:
    """For calls that no listener has brought."""


@attrs.define(eq=False)
class NotifiedCall(Call):
    """A call that waits for its answer."""

    check: Callable[[], None] = _nothing_to_check
    """Raises TaskGone when nobody waits for the answer any more. What was read from the task before is void then."""
    is_interrupted: Callable[[], bool] | None = None
    """Whether a signal waits for this task; None: ask as `Call` does."""
    access: MemoryAccess = BRIEF
    """How memory of the tree's tasks is to be read and written."""
    rights_count: bool = True
    """Whether the task's rights count for the paths with which the call is made in its stead."""
    release: Callable[[], None] = _nothing_to_check
    """Answers the notification so that the task comes to its next stop; for surgery, which then gives the result."""
    under_surgery: set[int] = attrs.field(factory=set)
    """Tasks whose next calls are ours: see `surgery`."""
    look_first: Callable[[], None] | None = None
    """What is to be done in a worker, for it may wait, before the call goes on or is made."""
    warn: Callable[[str], None] = _tell_nobody
    """Tells the user, once for each text. From any thread."""

    def borrow(self, descriptor: int) -> int:
        """See `Call.borrow`. The task's id may have become another's: so it is checked before the duplicate is used."""
        borrowed = super().borrow(descriptor)
        try:
            self.check()
        except TaskGone:
            os.close(borrowed)
            raise
        return borrowed

    def has_pending_signal(self) -> bool:
        """See `Call.has_pending_signal`."""
        return super().has_pending_signal() if self.is_interrupted is None else self.is_interrupted()

    def is_over(self) -> bool:
        """Whether natively a wait in this call would end now: its task is gone, or a signal came for it."""
        try:
            self.check()
        except TaskGone:
            return True
        return self.has_pending_signal()
