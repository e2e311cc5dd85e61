"""The tracer: one thread that owns every ptrace request and every wait for the tree.

Kernel facts. Only the thread that seized a task may make requests for it, and PTRACE_O_EXITKILL fires when that
thread ends. `waitpid` cannot wait for a stop and for a message from another thread at once; but every stop also raises
SIGCHLD, unless that is ignored.
So SIGCHLD and a real-time signal, the doorbell, are blocked in all threads, and the tracer alternates between
`waitpid(WNOHANG)` until nothing is left and `sigwait` for either: no wake-up can fall between the two.
`__WNOTHREAD` leaves the children of other threads (the agent, say) alone.

Whatever fails in this thread ends the tree before it is passed on: a stopped task must not stay behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final

import attrs
import trio

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.bpf import RET_TRACE, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace import borrow
from mirrord_trace.supervisor.delivery.base import (
    PASS,
    SENDING_CALLS,
    Call,
    Fail,
    Handlers,
    Launched,
    MemoryFault,
    MemoryHidden,
    ProcessEvents,
    TaskGone,
    Verdict,
    hidden_warning,
    verdict_for,
    verdict_for_hidden,
)
from mirrord_trace.supervisor.delivery.path_tests import PathTests, path_tests
from mirrord_trace.supervisor.delivery.ptrace import cloning, nesting, requests
from mirrord_trace.supervisor.delivery.ptrace.carrier import Carrier
from mirrord_trace.supervisor.delivery.ptrace.lending import Lender
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.stops import Stops
from mirrord_trace.supervisor.delivery.ptrace.tasks import FREE, Held, InCall, Mapping, Task
from mirrord_trace.supervisor.delivery.ptrace.tree import Tree
from mirrord_trace.supervisor.descent import living_task_of
from mirrord_trace.supervisor.executables import complaint_about
from mirrord_trace.supervisor.launch import Child, ProcessState, Program, fork
from mirrord_trace.supervisor.signals import CHILD_AND_DOORBELL, DOORBELL
from mirrord_trace.tree.creations import Maker

_PARKED_AT_MOST_S: Final = 0.1

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
_GROUP_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


@attrs.define(eq=False)
class PtraceDelivery:
    """Follows one process tree with ptrace and brings its calls to the handlers. See `base.Delivery`."""

    handlers: Handlers
    abi: Abi
    notify_is_missing: str | None = None
    """Why the notify delivery cannot be had here, in words for the user; None: it can."""
    _events: ProcessEvents = attrs.field(init=False)
    _root: int = attrs.field(init=False, default=0)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _tree: Tree = attrs.field(init=False, factory=Tree)
    _stops: Stops = attrs.field(init=False, factory=Stops)
    _inbox: deque[Callable[[], object]] = attrs.field(init=False, factory=deque)
    _bell_lock: threading.Lock = attrs.field(init=False, factory=threading.Lock)
    _thread: int | None = attrs.field(init=False, default=None)
    _is_over: bool = attrs.field(init=False, default=False)
    _carrier: Carrier = attrs.field(init=False)
    _lend: Callable[[int, int], int] = attrs.field(init=False, default=borrow.borrow_descriptor)
    _ending: bool = attrs.field(init=False, default=False)
    _told_hidden: bool = attrs.field(init=False, default=False)
    _told_nested: bool = attrs.field(init=False, default=False)
    _path_tests: PathTests = attrs.field(init=False)

    @_path_tests.default
    def _tests_of_handlers(self) -> PathTests:
        return path_tests(self.handlers, self.abi)

    @property
    def subscription(self) -> Subscription:
        """What the seccomp program must stop for: the handlers' calls, and those that concern the tracer itself."""
        return self.handlers.subscription | cloning.SUBSCRIPTION | nesting.SUBSCRIPTION

    def launch(self, program: Program, inherited: ProcessState) -> Child:
        """See `Delivery.launch`."""
        return fork(program, compile_filter(self.subscription, self.abi, RET_TRACE), inherited)

    # -- Trio's thread ------------------------------------------------------------------------------------------------

    async def run(self, child: Launched, events: ProcessEvents) -> None:
        """See `Delivery.run`."""
        self._events = events
        self._root = child.pid
        self._token = trio.lowlevel.current_trio_token()
        machine = Machine(self.abi)
        self._carrier = Carrier(machine)
        with contextlib.ExitStack() as resources:
            if borrow.is_permitted():
                events.explain("descriptors of the process are duplicated with pidfd_getfd(2)")
            else:
                events.explain("pidfd_getfd(2) is denied here: the process is made to send its descriptors")
                lender = Lender(machine, self._stops, self._tree, self._ask, self._forget_call)
                self._lend = resources.enter_context(contextlib.closing(lender)).lend
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._end_when_cancelled)
                refused = await trio.to_thread.run_sync(self._trace, child)
                nursery.cancel_scope.cancel()
        if refused is not None:
            raise refused

    async def _end_when_cancelled(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.end()

    def end(self) -> None:
        """Kills what is left of the tree; `run` returns when it is gone. From any thread."""
        self._post(self._kill_all)

    def process_ids(self) -> frozenset[int]:
        """See `Delivery.process_ids`."""
        return self._tree.process_ids()

    def living_tasks(self) -> frozenset[int]:
        """See `Delivery.living_tasks`."""
        return frozenset(map(living_task_of, self._tree.process_ids()))

    def maker(self, thread: int) -> Maker:
        """See `Delivery.maker`. Tasks make all their calls themselves."""
        return Maker(thread)

    def expect_mapped_files(self) -> None:
        """See `Delivery.expect_mapped_files`. The tracer's thread may always wait: nobody waits for it."""

    async def _answer(self, task: Task, held: Held, answer: Coroutine[Any, Any, Verdict]) -> None:
        verdict: Verdict
        with held.scope:
            try:
                verdict = await answer
            except MemoryFault:
                verdict = Fail(errno.EFAULT)
            except (TaskGone, MemoryHidden):
                verdict = PASS
            except OSError as error:
                verdict = verdict_for(error)
            self._post(lambda: self._decide_held(task, held, verdict))

    def _post(self, action: Callable[[], object]) -> bool:
        """Has the tracer do something. False: it has ended."""
        with self._bell_lock:
            if self._is_over:
                return False
            self._inbox.append(action)
            if self._thread is not None:
                signal.pthread_kill(self._thread, DOORBELL)
            return True

    def _ask(self, question: Callable[[], int]) -> int:
        """What a function gives or raises in the tracer's thread. From any thread: the tracer never waits for others.

        Raises TaskGone when the tracer has ended.
        """
        if self._thread == threading.get_ident():
            return question()
        answer: Future[int] = Future()

        def put() -> None:
            try:
                answer.set_result(question())
            except Exception as error:
                answer.set_exception(error)

        if not self._post(put):
            raise TaskGone("the whole tree has ended")
        return answer.result()

    # -- the tracer's thread ------------------------------------------------------------------------------------------

    def _trace(self, child: Launched) -> PermissionError | None:
        with self._bell_lock:
            self._thread = threading.get_ident()
        try:
            requests.seize(child.pid, _OPTIONS)
            self._tree.plant(child.pid)
            child.release()
            self._follow()
        except (TaskGone, PermissionError) as error:
            if not self._tree:
                return self._not_seized(error)
            self._put_down()
            raise
        except BaseException:
            self._put_down()
            raise
        finally:
            with self._bell_lock:
                self._is_over, self._thread = True, None
            self._drain_inbox()
        return None

    def _not_seized(self, error: TaskGone | PermissionError) -> PermissionError | None:
        """The kernel says EPERM as well when the child is dead already."""
        state = os.waitid(os.P_PID, self._root, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if state is None and isinstance(error, PermissionError):
            return error
        self._bury(*os.waitpid(self._root, 0))
        return None

    def _follow(self) -> None:
        while self._tree:
            self._drain_inbox()
            try:
                news = self._stops.next()
            except ChildProcessError as error:
                raise RuntimeError(f"tasks {self._tree.ids()} ended and we were not told") from error
            if news is not None:
                self._take(*news)
            elif not self._tree.has_parked:
                signal.sigwait(CHILD_AND_DOORBELL)
            elif signal.sigtimedwait(CHILD_AND_DOORBELL, _PARKED_AT_MOST_S) is None:
                self._adopt_parked()

    def _drain_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _take(self, tid: int, status: int) -> None:
        if not os.WIFSTOPPED(status):
            self._ended(tid, status)
            return
        task = self._tree.get(tid)
        if task is not None:
            self._stopped(task, status)
            return
        self._tree.park(tid, status)
        if self._ending:
            _kill(tid)

    def _stopped(self, task: Task, status: int) -> None:
        with contextlib.suppress(TaskGone):  # its end will be told
            self._act_on_stop(task, status >> 16, os.WSTOPSIG(status))

    def _act_on_stop(self, task: Task, event: int, stop_signal: int) -> None:
        if event == requests.PTRACE_EVENT_SECCOMP:
            self._intercepted(task)
        elif event == 0 and stop_signal == requests.SYSCALL_STOP:
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
            self._interrupt_calls(task.process)
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
        name = self.abi.names.get(stop.number, "")
        task.space.memory.tid = task.tid  # the thread that opened the space may be gone
        test = self._path_tests.get(stop.number)
        if test is not None and not test.may_concern_somebody(task.tid, stop.arguments, task.space.memory):
            requests.resume(task.tid)
            return
        call = Call(task.tid, name, stop.arguments, task.space.memory, self.abi, self._lend)
        if name in cloning.CALLS:
            if cloning.escapes(call):
                self._carrier.keep_traced(task, call)
            else:
                requests.resume(task.tid)
            return
        if name in nesting.CALLS:
            self._tell_nested(call)
            requests.resume(task.tid)
            return
        handler = self.handlers.by_name.get(name)
        if handler is None:  # the program's own filter asks for a tracer, and the program has none (seccomp(2))
            self._carrier.carry_out(task, call, None, Fail(errno.ENOSYS))
            return
        slot = None
        if name in SENDING_CALLS:
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
            answer = verdict_for_hidden(name)
        except TaskGone:
            if slot is not None:
                task.space.give_back(slot)
            raise
        except OSError as error:
            answer = verdict_for(error)
        if isinstance(answer, Coroutine):
            task.phase = held = Held(call, slot, trio.CancelScope())
            self._tell(self._nursery.start_soon, self._answer, task, held, answer)
            return
        self._carry_out(task, call, slot, answer)

    def _carry_out(self, task: Task, call: Call, slot: int | None, verdict: Verdict) -> None:
        try:
            self._carrier.carry_out(task, call, slot, verdict)
        except MemoryHidden:
            self._tell_hidden(task)
            requests.resume(task.tid)

    def _decide_held(self, task: Task, held: Held, verdict: Verdict) -> None:
        if task.phase is held:
            task.phase = FREE
            with contextlib.suppress(TaskGone):
                self._carry_out(task, held.call, held.slot, verdict)

    def _call_returned(self, task: Task) -> None:
        match task.phase:
            case InCall() as phase:
                self._carrier.finish(task, phase)
            case Mapping(saved):
                self._carrier.make_again(task, saved)
            case _:
                requests.resume(task.tid)

    def _interrupt_calls(self, process: int) -> None:
        for task in self._tree:
            if task.process == process and isinstance(task.phase, Held):
                task.phase.call.interrupted = True

    # tasks

    def _made_task(self, maker: Task) -> None:
        tid = requests.event_message(maker.tid)
        born = self._tree.born(tid, maker, cloning.flags_of_maker(maker, self.abi))
        if born is not None:
            self._joined(*born)

    def _adopt_parked(self) -> None:
        for task, status in self._tree.adopt_parked():
            self._joined(task, status)

    def _joined(self, task: Task, status: int | None) -> None:
        if self._ending:
            _kill(task.tid)
        if status is not None:
            self._stopped(task, status)

    def _executed(self, task: Task) -> None:
        former = requests.event_message(task.tid)
        for caller in (self._tree.get(former), task):
            if caller is not None:
                self._forget_call(caller)
        self._tree.executed(task, former)
        complaint = complaint_about(task.tid, requests.architecture(task.tid), self.abi)
        if complaint is not None:
            self._tell(self._events.warn, complaint)
        requests.resume(task.tid)

    def _ended(self, tid: int, status: int) -> None:
        self._bury(tid, status)
        self._adopt_parked()  # whoever made them may have died before it could be told

    def _bury(self, tid: int, status: int) -> None:
        for task in self._tree.ended(tid):
            self._forget_call(task)
        if tid == self._root:
            self._root = 0
            self._tell(self._events.root_exited, status)

    def _forget_call(self, task: Task) -> None:
        if isinstance(task.phase, Held):
            self._tell(task.phase.scope.cancel)
        task.leave_call()

    def _kill_all(self) -> None:
        self._ending = True
        for tid in self._tree.ids():
            _kill(tid)

    def _put_down(self) -> None:
        """Something is wrong here: ends the tree without asking anybody."""
        self._kill_all()
        while True:
            try:
                tid, status = self._stops.wait()
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                _kill(tid)
            else:
                self._bury(tid, status)

    # the user

    def _tell_hidden(self, task: Task) -> None:
        if not self._told_hidden:
            self._told_hidden = True
            self._tell(self._events.warn, hidden_warning(task.process))

    def _tell_nested(self, call: Call) -> None:
        if not self._told_nested and nesting.is_refused(call, self._tree.ids()):
            self._told_nested = True
            self._tell(self._events.warn, nesting.warning(call, self.notify_is_missing))

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)


def _kill(tid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(tid, signal.SIGKILL)
