"""Threads that make path calls in tasks' stead: such a call may wait, for a file system that we serve, or for a FIFO.

Neither the listener's thread nor Trio's may wait so. There is a thread for every call that is being made, for their
number has no good limit: who opens a FIFO waits for somebody else's open, and that must find a thread too. A few are
kept for later calls.

Kernel facts. The file mode creation mask belongs to what CLONE_FS shares (clone(2)); a thread that has unshared that
has a mask of its own, and can take a task's (`with_umask`). A container may forbid unshare(2): then there is none.
A thread is called out of a wait by a signal; one that comes a moment too early is lost, so it is sent again until the
call has returned. Not every wait ends by that (a file system's answer is waited for, fuse(4)), and a real-time signal
is queued as often as it is sent (signal(7)): so it is sent more and more seldom.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from mirrord_agent.job_queue import JobQueue
from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.notify.together import Together
from mirrord_trace.supervisor.signals import DOORBELL
from mirrord_trace.tree.creations import Maker

MOST: Final = 2048
"""So many calls are made at once; more wait for a thread."""
_KEPT: Final = 32
"""So many threads wait for calls to come."""
_CLONE_FS: Final = 0x200  # linux/sched.h
_LOOK_EVERY_S: Final = 0.02
"""How often is looked after calls that wait; longer when they are many."""
_LOOK_EACH_S: Final = 0.0005
_IDLE_LOOKS: Final = 5
"""After so many looks without a new call there are, for now, no calls."""
_SELDOM_LOOKS: Final = 512
"""At so many looks a signal is sent that has had no effect so far."""

_libc = ctypes.CDLL(None, use_errno=True)
_own = threading.local()
_makers: Final[dict[int, Maker]] = {}
"""In whose stead each worker made a file last."""


def take_umask(task: int, mask: int) -> bool:
    """This thread makes a file in the stead of a task, with whose file mode creation mask.

    False: the thread has no mask of its own, and keeps that of the others.
    """
    _makers[threading.get_native_id()] = Maker(task, mask)
    if not getattr(_own, "mask", False):
        return False
    os.umask(mask)
    return True


def maker(thread: int) -> Maker:
    """In whose stead a thread makes a file, if it is a worker; else it makes its own."""
    return _makers.get(thread) or Maker(thread)


def _never() -> bool:
    return False


@attrs.define(eq=False)
class _Job:
    make: Callable[[], None]
    is_over: Callable[[], bool]
    thread: int = 0
    """Who does it; 0: nobody yet, or not any more."""
    was_seen: bool = False
    was_over: bool = False
    pause: int = 0
    """How many looks lie between the last signal and the next."""
    looks_left: int = 0


@attrs.define(eq=False)
class Workers:
    """Does jobs in threads of its own. The main thread must have a handler for DOORBELL before the first job."""

    failed: Callable[[BaseException], None]
    """Called in a worker with what a job raised, which is a fault of ours."""
    together: Together = attrs.field(factory=lambda: Together(threading.get_native_id()))
    """The workers, and whom their calls wait for: who makes this object, if nobody else is said."""
    _queue: JobQueue[_Job | None] = attrs.field(init=False, factory=JobQueue)
    _lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _threads: int = attrs.field(init=False, default=0)
    _unfinished: int = attrs.field(init=False, default=0)
    _submitted: int = attrs.field(init=False, default=0)
    _running: dict[int, _Job] = attrs.field(init=False, factory=dict)
    _has_work: threading.Event = attrs.field(init=False, factory=threading.Event)
    _is_watched: bool = attrs.field(init=False, default=False)
    _is_closed: bool = attrs.field(init=False, default=False)

    def submit(self, job: Callable[[], None], is_over: Callable[[], bool] = _never) -> None:
        """A worker does `job`, soon. From any thread, without waiting.

        While the job lasts, `is_over` is asked now and then, in another thread; once it has said yes twice, the
        system call that the job waits in ends with EINTR. After `close` nothing is done. Raises OSError (EAGAIN) when
        there is not a single thread to be had.
        """
        with self._lock:
            if self._is_closed:
                return
            self._start_threads()
            if self.together.may_gather:
                self.together.gather()
            self._unfinished += 1
            self._submitted += 1
            self._queue.put(_Job(job, is_over))
        if not self._has_work.is_set():
            self._has_work.set()

    def close(self) -> None:
        """No job begins any more. Those that have begun are called out of what they wait in, and not waited for."""
        with self._lock:
            self._is_closed = True
            for _ in range(self._threads):
                self._queue.put(None)
        self.together.end()
        self._has_work.set()

    def _start_threads(self) -> None:
        try:
            if not self._is_watched:
                threading.Thread(target=self._watch, name="path calls", daemon=True).start()
                self._is_watched = True
            if self._unfinished >= self._threads and self._threads < MOST:
                threading.Thread(target=self._work, name="path call", daemon=True).start()
                self._threads += 1
        except RuntimeError as error:  # the job waits for one of the threads that there are
            if not self._threads:
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), "a thread for a path call") from error

    # -- a worker -----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {DOORBELL})
        self.together.join()
        _own.mask = _libc.syscall(native_abi().numbers["unshare"], ctypes.c_long(_CLONE_FS)) == 0
        while (job := self._queue.get()) is not None:
            self._do(job)
            with self._lock:
                self._unfinished -= 1
                if self._threads > _KEPT and self._threads > self._unfinished:
                    self._threads -= 1
                    self.together.leave()
                    break
        _makers.pop(threading.get_native_id(), None)

    def _do(self, job: _Job) -> None:
        if self._is_closed:
            return
        here = threading.get_ident()
        with self._lock:
            job.thread = here
            self._running[here] = job
        try:
            job.make()
        except BaseException as error:
            self.failed(error)
        finally:
            with self._lock:
                del self._running[here]
                job.thread = 0

    # -- the thread that looks after them -----------------------------------------------------------------------------

    def _watch(self) -> None:
        seen = 0
        while True:
            self._has_work.wait()
            self._has_work.clear()
            pause, idle_looks = _LOOK_EVERY_S, 0
            while self._unfinished or idle_looks < _IDLE_LOOKS:
                time.sleep(pause)
                with self._lock:
                    running = list(self._running.values())
                    idle_looks = idle_looks + 1 if self._submitted == seen else 0
                    seen = self._submitted
                self.together.look(is_idle=idle_looks >= _IDLE_LOOKS)
                for job in running:
                    self._look_after(job)
                pause = max(_LOOK_EVERY_S, _LOOK_EACH_S * len(running))
                if self._is_closed and not running:
                    return
            if self._is_closed:
                return

    def _look_after(self, job: _Job) -> None:
        if not job.was_seen:
            job.was_seen = True
            return
        is_over = self._is_closed or job.is_over()
        if not is_over or not job.was_over:
            job.pause = job.looks_left = 0
        elif job.looks_left:
            job.looks_left -= 1
        else:
            job.looks_left = job.pause = min(2 * job.pause + 1, _SELDOM_LOOKS)
            with self._lock:
                if job.thread:
                    signal.pthread_kill(job.thread, DOORBELL)
        job.was_over = is_over
