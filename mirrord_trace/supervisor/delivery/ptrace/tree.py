"""The tasks of one tree: who lives, who is known only by a stop, and who shares what.

Kernel facts. A new task's first stop may be reported before the event of the parent that made it, which alone tells
what the two share: the task is parked until then. The event may never come, if the parent is killed first; so whoever
is still parked when another task ends, or after a moment without news, is adopted without it. And the new task may be
killed, and reported, before the event. A thread that is not the leader gets the leader's id when it makes an exec. The
end of a leader is reported after that of all its threads.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from mirrord_trace.supervisor.delivery.ptrace import cloning
from mirrord_trace.supervisor.delivery.ptrace.spaces import AddressSpace
from mirrord_trace.supervisor.delivery.ptrace.tasks import Task


@attrs.define(eq=False)
class Tree:
    """For the tracer's thread, but for what says otherwise."""

    _tasks: dict[int, Task] = attrs.field(factory=dict)
    _parked: dict[int, int] = attrs.field(factory=dict)
    """The wait status of each parked task's stop."""
    _adopted: dict[int, AddressSpace] = attrs.field(factory=dict)
    """Tasks that live and whose beginning nobody has told of, and the space that they were given for a start."""
    _ended_unborn: set[int] = attrs.field(factory=set)
    """Tasks whose end was told before their beginning."""

    def __bool__(self) -> bool:
        return bool(self._tasks or self._parked)

    def __iter__(self) -> Iterator[Task]:
        return iter(list(self._tasks.values()))

    def get(self, tid: int) -> Task | None:
        """The task, unless it is parked or unknown."""
        return self._tasks.get(tid)

    def ids(self) -> tuple[int, ...]:
        """Every task, parked ones too."""
        return (*self._tasks, *self._parked)

    def process_ids(self) -> frozenset[int]:
        """Every process (thread group id). From any thread."""
        return frozenset(task.process for task in self._tasks.copy().values())

    def plant(self, tid: int) -> None:
        """The first process."""
        self._tasks[tid] = Task(tid, tid, AddressSpace.of(tid))

    def park(self, tid: int, status: int) -> None:
        """A task that nobody has told of has stopped."""
        self._ended_unborn.discard(tid)
        self._parked[tid] = status

    @property
    def has_parked(self) -> bool:
        """Whether somebody waits for the event that tells of it."""
        return bool(self._parked)

    def born(self, tid: int, maker: Task, flags: int | None) -> tuple[Task, int | None] | None:
        """The event of `maker` tells of task `tid`, cloned with `flags` (None: unknown).

        The task, and the status of the stop that it was parked in; None when it is over already or was adopted before.
        """
        if tid in self._ended_unborn:
            self._ended_unborn.remove(tid)
            return None
        known = self._tasks.get(tid)
        if known is not None:
            given = self._adopted.pop(tid, None)
            if given is known.space and given.is_unused:  # it has made no exec since
                known.space.leave()
                known.space = _space_for(tid, maker, flags)
            return None
        process = _process_of(tid) if flags is None else maker.process if flags & cloning.CLONE_THREAD else tid
        task = self._tasks[tid] = Task(tid, process, _space_for(tid, maker, flags))
        return task, self._parked.pop(tid, None)

    def adopt_parked(self) -> list[tuple[Task, int]]:
        """Takes in all who are parked, as if they shared nothing, with the status of the stop of each."""
        adopted = []
        for tid, status in self._parked.items():
            space = self._adopted[tid] = AddressSpace.of(tid)
            task = self._tasks[tid] = Task(tid, _process_of(tid), space)
            adopted.append((task, status))
        self._parked.clear()
        return adopted

    def executed(self, task: Task, former: int) -> None:
        """`task` runs a new program, in a new space. Its id was `former` before; the task that had this id is gone."""
        caller = self._tasks.pop(former, task)
        self._tasks[task.tid] = task
        if caller is not task:
            caller.space.leave()
        task.space.leave()
        task.space = AddressSpace.of(task.tid)

    def ended(self, tid: int) -> list[Task]:
        """Who is gone: nobody whom we know, a thread, or with its leader all that we know of a process."""
        if tid not in self._tasks:
            if self._parked.pop(tid, None) is None:
                self._ended_unborn.add(tid)
            return []
        gone = [task for task in self if task.tid == tid or task.process == tid]
        for task in gone:
            del self._tasks[task.tid]
            task.space.leave()
            if self._adopted.pop(task.tid, None) is not None:
                self._ended_unborn.add(task.tid)
        return gone


def _space_for(tid: int, maker: Task, flags: int | None) -> AddressSpace:
    if flags is None:
        return AddressSpace.of(tid)
    return maker.space.share() if flags & cloning.CLONE_VM else maker.space.forked(tid)


def _process_of(tid: int) -> int:
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            return next(int(line[5:]) for line in status if line.startswith(b"Tgid:"))
    except OSError:
        return tid
