"""Threads that work in turns, kept on one CPU while they do.

A path call goes from thread to thread: a worker makes it, the kernel asks Trio's thread for what it needs, the worker
goes on. The interpreter lets only one of them run at a time, so a CPU for each is of no use, and costs: the scheduler
wakes a thread on an idle CPU, which takes ten times as long as on the one that the waker is about to leave, and a
thread that is to have the interpreter next, but waits behind somebody else on its CPU, has all others wait (measured:
the first look at a file takes half the time on one CPU).

So while such calls come they share the CPU on which Trio's thread is. The scheduler chooses anew twice a second, and
has its way where no such call comes: a CPU that has more to do than ours is left. The thread that receives the calls
is not kept: the kernel wakes it where the calling task is (see `listener`). Nor is any process of the tree, for its
guardian was there before; a program that we start ourselves meanwhile, a cluster's credential plugin say, is.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs

_LOOKS_TOGETHER: Final = 25
"""After so many looks the scheduler may choose, for as long as one lasts."""
_STATE: Final = 2
"""First field of /proc/PID/stat behind the command's name, counted from 0 (proc_pid_stat(5) counts from 1)."""
_PROCESSOR: Final = 38


@attrs.define(eq=False)
class Together:
    """The threads. For any thread; what is not allowed here is not done."""

    leader: int
    """The one whose CPU they share, by its thread id."""
    _others: set[int] = attrs.field(init=False, factory=set)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _before: set[int] = attrs.field(init=False, factory=set)
    """The CPUs that they may use when they are not kept together."""
    _cpu: int | None = attrs.field(init=False, default=None)
    _looks: int = attrs.field(init=False, default=0)
    may_gather: bool = attrs.field(init=False, default=True)
    """Whether they are scattered and may be gathered now."""

    def join(self) -> None:
        """The calling thread is one of them, from now on."""
        here = threading.get_native_id()
        with self._lock:
            self._others.add(here)
            if self._cpu is not None:
                self._keep(here, {self._cpu})

    def leave(self) -> None:
        """The calling thread is about to end."""
        with self._lock:
            self._others.discard(threading.get_native_id())

    def gather(self) -> None:
        """Keeps them together, if they may be gathered."""
        with self._lock:
            if not self.may_gather:
                return
            self.may_gather = False
            self._looks = 0
            with suppress(OSError):
                cpus = os.sched_getaffinity(self.leader)
                cpu = _cpu_of(self.leader)
                if len(cpus) < 2 or cpu not in cpus:
                    return
                self._before, self._cpu = cpus, cpu
                for thread in (self.leader, *self._others):
                    self._keep(thread, {cpu})

    def look(self, *, is_idle: bool) -> None:
        """To be called now and then; `is_idle` when nobody of them had anything to do since the last time."""
        with self._lock:
            self._looks += 1
            if self._cpu is None:
                self.may_gather = True
            elif is_idle or self._looks >= _LOOKS_TOGETHER:
                self._scatter()
                self.may_gather = is_idle

    def end(self) -> None:
        """They are not kept together any more."""
        with self._lock:
            self._scatter()
            self.may_gather = False

    def _scatter(self) -> None:
        """Whoever was started by one of them was kept, too. Who was told otherwise meanwhile is left alone."""
        if self._cpu is None:
            return
        for thread in map(int, os.listdir("/proc/self/task")):
            with suppress(OSError):
                if os.sched_getaffinity(thread) == {self._cpu}:
                    os.sched_setaffinity(thread, self._before)
        self._cpu = None

    @staticmethod
    def _keep(thread: int, cpus: set[int]) -> None:
        with suppress(OSError):  # it has ended, or this is not allowed
            os.sched_setaffinity(thread, cpus)


def _cpu_of(thread: int) -> int:
    """The CPU on which a thread of ours runs, or ran last. Raises OSError."""
    _, _, fields = Path(f"/proc/self/task/{thread}/stat").read_text(errors="replace").rpartition(") ")
    return int(fields.split()[_PROCESSOR - _STATE])
