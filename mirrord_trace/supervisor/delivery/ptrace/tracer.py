"""The tracer: one thread that owns every ptrace request and every wait for the tree.

Kernel facts. Only the thread that seized a task may make requests for it, and PTRACE_O_EXITKILL fires when that
thread ends. `waitpid` cannot wait for a stop and for a message from another thread at once; but every stop also raises
SIGCHLD.
So SIGCHLD and a real-time signal, the doorbell, are blocked in all threads, and the tracer alternates between
`waitpid(WNOHANG)` until nothing is left and `sigwait` for either: no wake-up can fall between the two.
`__WNOTHREAD` leaves the children of other threads (the agent, say) alone.

A new task's first stop may be reported before the event of the parent that made it: it is parked until that event, or
until the parent is seen to die. A thread that is not the leader changes its id to the leader's when it makes an exec.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import attrs
import trio

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.supervisor.delivery.base import (
    PASS,
    Call,
    Fail,
    Handlers,
    Launched,
    MemoryFault,
    ProcessEvents,
    TaskGone,
    Verdict,
)
from mirrord_trace.supervisor.delivery.ptrace import cloning, requests
from mirrord_trace.supervisor.delivery.ptrace.carrier import SUBSTITUTED_CALLS, Carrier
from mirrord_trace.supervisor.delivery.ptrace.spaces import AddressSpace, MemoryHidden
from mirrord_trace.supervisor.delivery.ptrace.tasks import FREE, Held, InCall, Mapping, Task
from mirrord_trace.supervisor.executables import complaint_about

DOORBELL = signal.SIGRTMIN
BLOCKED_SIGNALS = frozenset({signal.SIGCHLD, DOORBELL})
"""Signals that must be blocked in every thread of the supervisor before the first thread starts."""

_WALL = 0x4000_0000
_WNOTHREAD = 0x2000_0000
_WAIT_FLAGS = _WALL | _WNOTHREAD | os.WNOHANG

_OPTIONS = (
    requests.PTRACE_O_TRACESYSGOOD
    | requests.PTRACE_O_TRACEFORK
    | requests.PTRACE_O_TRACEVFORK
    | requests.PTRACE_O_TRACECLONE
    | requests.PTRACE_O_TRACEEXEC
    | requests.PTRACE_O_TRACESECCOMP
    | requests.PTRACE_O_EXITKILL
)
_NEW_TASK_EVENTS = (requests.PTRACE_EVENT_FORK, requests.PTRACE_EVENT_VFORK, requests.PTRACE_EVENT_CLONE)
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


@attrs.define(eq=False)
class PtraceDelivery:
    """Follows one process tree with ptrace and brings its calls to the handlers. See `base.Delivery`."""

    handlers: Handlers
    abi: Abi
    _events: ProcessEvents = attrs.field(init=False)
    _root: int = attrs.field(init=False, default=0)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _tasks: dict[int, Task] = attrs.field(init=False, factory=dict)
    _parked: dict[int, int] = attrs.field(init=False, factory=dict)
    _inbox: deque[Callable[[], None]] = attrs.field(init=False, factory=deque)
    _bell_lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _thread: int | None = attrs.field(init=False, default=None)
    _carrier: Carrier = attrs.field(init=False)
    _ending: bool = attrs.field(init=False, default=False)
    _told_hidden: bool = attrs.field(init=False, default=False)

    @property
    def subscription(self) -> Subscription:
        """What the seccomp program must stop for: the handlers' calls, and those that could leave the tracer behind."""
        return self.handlers.subscription.union(cloning.SUBSCRIPTION)

    # -- Trio's thread ------------------------------------------------------------------------------------------------

    async def run(self, child: Launched, events: ProcessEvents) -> None:
        """See `Delivery.run`. Raises PermissionError when the kernel does not let us trace."""
        self._events = events
        self._root = child.pid
        self._token = trio.lowlevel.current_trio_token()
        self._carrier = Carrier(self.abi)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._end_when_cancelled)
            await trio.to_thread.run_sync(self._trace, child)
            nursery.cancel_scope.cancel()

    async def _end_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.end()

    def end(self) -> None:
        """Kills what is left of the tree; `run` returns when it is gone. From any thread."""
        self._post(self._kill_all)

    def process_ids(self) -> frozenset[int]:
        """A task of every address space of the tree: one of each process. From any thread."""
        return frozenset({task.space: task.tid for task in self._tasks.copy().values()}.values())

    async def _answer(self, task: Task, held: Held, answer: Coroutine[Any, Any, Verdict]) -> None:
        with held.scope:
            try:
                verdict = await answer
            except MemoryFault:
                verdict = Fail(errno.EFAULT)
            except TaskGone:
                return
            self._post(lambda: self._decide_held(task, held, verdict))

    def _post(self, action: Callable[[], None]) -> None:
        self._inbox.append(action)
        with self._bell_lock:
            if self._thread is not None:
                signal.pthread_kill(self._thread, DOORBELL)

    # -- the tracer's thread ------------------------------------------------------------------------------------------

    def _trace(self, child: Launched) -> None:
        requests.seize(child.pid, _OPTIONS)
        self._tasks[child.pid] = Task(child.pid, AddressSpace.of(child.pid))
        with self._bell_lock:
            self._thread = threading.get_ident()
        try:
            child.release()
            while self._tasks or self._parked:
                self._drain_inbox()
                if not self._take_stop():
                    signal.sigwait(BLOCKED_SIGNALS)
        finally:
            with self._bell_lock:
                self._thread = None

    def _drain_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _take_stop(self) -> bool:
        try:
            tid, status = os.waitpid(-1, _WAIT_FLAGS)
        except ChildProcessError:
            for task in list(self._tasks.values()):
                self._drop(task)
            self._parked.clear()
            return True
        if tid == 0:
            return False
        if os.WIFSTOPPED(status):
            stopped = self._tasks.get(tid)
            if stopped is None:
                self._parked[tid] = status
            else:
                with contextlib.suppress(TaskGone):
                    self._stopped(stopped, status)
        else:
            self._ended(tid, status)
        return True

    def _stopped(self, task: Task, status: int) -> None:
        event, stop_signal = status >> 16, os.WSTOPSIG(status)
        if event == requests.PTRACE_EVENT_SECCOMP:
            self._intercepted(task)
        elif event == 0 and stop_signal == _SYSCALL_STOP:
            self._call_returned(task)
        elif event == 0:
            self._resume(task, stop_signal)
        elif event in _NEW_TASK_EVENTS:
            self._made_task(task)
            self._resume(task)
        elif event == requests.PTRACE_EVENT_EXEC:
            self._executed(task)
        elif event == requests.PTRACE_EVENT_STOP and stop_signal in _GROUP_STOPS:
            requests.listen(task.tid)
            if task.tid == self._root:
                self._tell(self._events.root_stopped, stop_signal)
        else:
            self._resume(task)

    def _resume(self, task: Task, deliver: int = 0) -> None:
        if isinstance(task.phase, InCall | Mapping):
            requests.resume_to_exit(task.tid, deliver)
        else:
            requests.resume(task.tid, deliver)

    # calls

    def _intercepted(self, task: Task) -> None:
        stop = requests.seccomp_stop(task.tid)
        name = self.abi.names[stop.number]
        task.space.memory.tid = task.tid  # the thread that opened the space may be gone
        call = Call(task.tid, name, stop.arguments, task.space.memory, self.abi)
        if name in cloning.CALLS and cloning.escapes(call):
            self._carrier.keep_traced(task, call)
            return
        handler = self.handlers.by_name.get(name)
        if handler is None:
            requests.resume(task.tid)
            return
        slot = None
        if name in SUBSTITUTED_CALLS:
            slot = task.space.take_slot()
            if slot is None:
                self._carrier.map_region(task)
                return
        try:
            answer = handler(call)
        except MemoryFault:
            answer = PASS  # the kernel will find the same fault, or not read there at all
        except MemoryHidden:
            self._tell_hidden(task)
            answer = PASS
        if isinstance(answer, Coroutine):
            task.phase = held = Held(call, slot, trio.CancelScope())
            self._tell(self._nursery.start_soon, self._answer, task, held, answer)
            return
        if answer is not PASS:
            self._carrier.carry_out(task, call, slot, answer)
            return
        if slot is not None:
            task.space.give_back(slot)
        requests.resume(task.tid)

    def _decide_held(self, task: Task, held: Held, verdict: Verdict) -> None:
        if task.phase is held:
            task.phase = FREE
            with contextlib.suppress(TaskGone):
                self._carrier.carry_out(task, held.call, held.slot, verdict)

    def _call_returned(self, task: Task) -> None:
        match task.phase:
            case InCall() as phase:
                self._carrier.finish(task, phase)
            case Mapping(saved):
                self._carrier.make_again(task, saved)
            case _:
                requests.resume(task.tid)

    # tasks

    def _made_task(self, parent: Task) -> None:
        tid = requests.event_message(parent.tid)
        if tid in self._tasks:
            return
        shares = cloning.shares_memory(parent, self.abi)
        space = parent.space.share() if shares else parent.space.forked(tid)
        self._adopt(Task(tid, space))

    def _adopt(self, task: Task) -> None:
        self._tasks[task.tid] = task
        parked = self._parked.pop(task.tid, None)
        if self._ending:
            _kill(task.tid)
        if parked is not None:
            with contextlib.suppress(TaskGone):
                self._stopped(task, parked)

    def _executed(self, task: Task) -> None:
        caller = self._tasks.pop(requests.event_message(task.tid), task)
        if caller is not task:  # a thread that was not the leader; it has the leader's id now
            self._drop(caller)
        self._forget_call(task)
        self._tasks[task.tid] = task
        task.space.leave()
        task.space = AddressSpace.of(task.tid)
        complaint = complaint_about(task.tid, requests.architecture(task.tid), self.abi)
        if complaint is not None:
            self._tell(self._events.warn, complaint)
        requests.resume(task.tid)

    def _ended(self, tid: int, status: int) -> None:
        self._parked.pop(tid, None)
        task = self._tasks.pop(tid, None)
        if task is not None:
            self._drop(task)
        if tid == self._root:
            self._tell(self._events.root_exited, status)
        for orphan in list(self._parked):  # whoever made it may have died before it could be told
            self._adopt(Task(orphan, AddressSpace.of(orphan)))

    def _drop(self, task: Task) -> None:
        self._tasks.pop(task.tid, None)
        self._forget_call(task)
        task.space.leave()

    def _forget_call(self, task: Task) -> None:
        if isinstance(task.phase, Held):
            self._tell(task.phase.scope.cancel)
        task.leave_call()

    def _kill_all(self) -> None:
        self._ending = True
        for tid in (*self._tasks, *self._parked):
            _kill(tid)

    # the user

    def _tell_hidden(self, task: Task) -> None:
        if not self._told_hidden:
            self._told_hidden = True
            self._tell(
                self._events.warn,
                f"process {task.tid} hides its memory (PR_SET_DUMPABLE): its calls are left as they are; run as root",
            )

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)


def _kill(tid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(tid, signal.SIGKILL)
