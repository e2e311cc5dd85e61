"""The delivery: one thread that receives, handles and answers; Trio's for what takes longer.

The thread does what can be decided at once from beginning to end: one wake-up, the handler, the answer. A handler's
coroutine runs in Trio's thread and answers from there, so the listener's thread waits for nothing but the kernel. A
call that waits so is *held*: its task may be killed meanwhile, which only asking the listener tells.

Nobody traces. The tree belongs to the guardian, which tells of its end; when we die it ends the tree (see `guardian`).
Whatever fails in the thread ends the tree before it is passed on: a call without an answer would wait for ever.
"""

from __future__ import annotations

import contextlib
import errno
import select
import signal
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import attrs
import trio

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.bpf import RET_USER_NOTIF, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor import guardian
from mirrord_trace.supervisor.delivery.base import (
    PASS,
    Call,
    Fail,
    Handler,
    Handlers,
    Launched,
    MemoryFault,
    MemoryHidden,
    Pass,
    ProcessEvents,
    Return,
    TaskGone,
    UsePath,
    UsePaths,
    Verdict,
    hidden_warning,
    verdict_for,
    verdict_for_hidden,
)
from mirrord_trace.supervisor.delivery.notify.executions import EXECUTING_CALLS, Execution, Executions
from mirrord_trace.supervisor.delivery.notify.held import Held, interruption
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.loop import Receive, receiver
from mirrord_trace.supervisor.delivery.notify.lowering import lower
from mirrord_trace.supervisor.delivery.notify.lowering.paths import lowers_later
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import touching_task
from mirrord_trace.supervisor.delivery.notify.memory import MemoryAccess, TaskMemory
from mirrord_trace.supervisor.delivery.notify.replies import (
    CONTINUE,
    Answered,
    Continue,
    Deferred,
    Descriptor,
    NotifiedCall,
    Reply,
    Result,
)
from mirrord_trace.supervisor.delivery.notify.workers import Workers, maker
from mirrord_trace.supervisor.delivery.path_tests import path_tests
from mirrord_trace.supervisor.descent import descendants_of, living_task_of
from mirrord_trace.supervisor.launch import ProcessState, Program
from mirrord_trace.supervisor.signals import DOORBELL
from mirrord_trace.tree.creations import Maker

_LIFE_CHECK_S: Final = 0.02
"""How often held calls are looked after; longer when they are many."""
_LIFE_CHECK_EACH_S: Final = 0.00005
_DOORBELL_EVERY_S: Final = 0.01
_IDENTITY: Final = 0
_TID: Final = 1
_NUMBER: Final = 3
_ARGUMENTS: Final = 6
"""Fields of `notification.NOTIFICATION`."""


@attrs.define(eq=False)
class NotifyDelivery:
    """Brings the calls of one process tree to the handlers through a seccomp listener. See `base.Delivery`."""

    handlers: Handlers
    abi: Abi
    _handlers: dict[str, Handler] = attrs.field(init=False)
    _receive_call: Receive = attrs.field(init=False)
    _events: ProcessEvents = attrs.field(init=False)
    _child: guardian.GuardedChild | None = attrs.field(init=False, default=None)
    _listener: Listener = attrs.field(init=False)
    _token: trio.lowlevel.TrioToken = attrs.field(init=False)
    _nursery: trio.Nursery = attrs.field(init=False)
    _held: dict[int, Held] = attrs.field(init=False, factory=dict)
    _looked_after: bool = attrs.field(init=False, default=False)
    _is_over: bool = attrs.field(init=False, default=False)
    _thread: int | None = attrs.field(init=False, default=None)
    _thread_ended: trio.Event = attrs.field(init=False, factory=trio.Event)
    _told_hidden: bool = attrs.field(init=False, default=False)
    _told: set[str] = attrs.field(init=False, factory=set)
    _workers: Workers = attrs.field(init=False)
    _executions: Executions = attrs.field(init=False)
    _access: MemoryAccess = attrs.field(init=False, factory=MemoryAccess)
    _under_surgery: set[int] = attrs.field(init=False, factory=set)
    """Tasks whose next calls are ours: see `surgery`."""

    @_workers.default
    def _for_path_calls(self) -> Workers:
        return Workers(self._worker_failed)

    @_executions.default
    def _none_seen(self) -> Executions:
        return Executions(self.abi)

    @_handlers.default
    def _all(self) -> dict[str, Handler]:
        return {**self.handlers.by_name, **dict.fromkeys(EXECUTING_CALLS, self._executes)}

    @property
    def subscription(self) -> Subscription:
        """What the seccomp program must ask about: the handlers' calls, and what starts programs."""
        return self.handlers.subscription.union(Subscription.of(EXECUTING_CALLS))

    def launch(self, program: Program, inherited: ProcessState) -> guardian.GuardedChild:
        """See `Delivery.launch`."""
        signal.signal(DOORBELL, _ring)
        filter_program = compile_filter(self.subscription, self.abi, RET_USER_NOTIF)
        self._child = guardian.start(program, filter_program, inherited)
        self._listener = Listener(self._child.listener)
        return self._child

    # -- Trio's thread ------------------------------------------------------------------------------------------------

    async def run(self, child: Launched, events: ProcessEvents) -> None:
        """See `Delivery.run`."""
        assert self._child is child
        self._events = events
        self._token = trio.lowlevel.current_trio_token()
        woken = "synchronous" if self._listener.wake_synchronously() else "plain"
        self._receive_call, made = receiver(self._listener, path_tests(self.handlers, self.abi), self._access)
        events.explain(f"system calls are notified through a seccomp listener; wake-ups: {woken}; loop: {made}")
        guard = self._child.guardian
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._receive_in_thread)
            try:
                child.release()
                await self._follow(guard)
            finally:
                with trio.CancelScope(shield=True):
                    await self._end(guard)
            nursery.cancel_scope.cancel()

    async def _follow(self, guard: guardian.Guardian) -> None:
        """Passes on what the guardian tells, until all is gone."""
        while True:
            match await guard.news():
                case guardian.Empty():
                    return
                case guardian.Exited(status):
                    self._events.root_exited(status)
                case guardian.Stopped(number):
                    self._events.root_stopped(number)

    async def _end(self, guard: guardian.Guardian) -> None:
        """Nothing of the tree, the guardian and the thread is left after this."""
        guard.end()
        with contextlib.suppress(Failure):  # the guardian was killed: then the tree is ours to end
            while not isinstance(news := await guard.news(), guardian.Empty):
                if isinstance(news, guardian.Exited):
                    self._events.root_exited(news.status)
        guard.bury()
        self._is_over = True
        self._workers.close()
        while not self._thread_ended.is_set():
            if self._thread is not None:
                signal.pthread_kill(self._thread, DOORBELL)
            with trio.move_on_after(_DOORBELL_EVERY_S):
                await self._thread_ended.wait()
        self._listener.close()

    async def _receive_in_thread(self) -> None:
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._receive)
            finally:
                self._thread_ended.set()

    def process_ids(self) -> frozenset[int]:
        """See `Delivery.process_ids`."""
        return frozenset() if self._child is None else frozenset(descendants_of(self._child.guardian.pid))

    def living_tasks(self) -> frozenset[int]:
        """See `Delivery.living_tasks`."""
        return frozenset(map(living_task_of, self.process_ids()))

    def maker(self, thread: int) -> Maker:
        """See `Delivery.maker`."""
        return maker(thread)

    def expect_mapped_files(self) -> None:
        """See `Delivery.expect_mapped_files`."""
        self._access.patient = True

    def _hold(self, held: Held) -> None:
        if self._is_over:
            held.drop()
            return
        self._held[held.identity] = held
        self._nursery.start_soon(self._find_answer, held)
        if not self._looked_after:
            self._looked_after = True
            self._nursery.start_soon(self._look_after_held)

    def _fail(self, error: BaseException) -> None:
        """What failed in a worker ends everything. After the end nobody waits for its answer."""
        if not self._is_over:
            self._nursery.start_soon(_raise, error)

    async def _find_answer(self, held: Held) -> None:
        try:
            with held.scope:
                self._reply(held.call, held.identity, await self._awaited_reply(held))
        finally:
            del self._held[held.identity]

    async def _awaited_reply(self, held: Held) -> Reply:
        lowered = held.lower
        if held.decide is not None:
            try:
                verdict = await held.decide
            except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
                verdict = self._verdict_for(held.call, error, is_held=True)
            if isinstance(verdict, UsePath | UsePaths) and lowers_later(verdict):
                reply = self._carry_out(held.call, verdict)
            else:
                reply = await touching_task(held.call, partial(self._carry_out, held.call, verdict))
            if not isinstance(reply, Coroutine):
                return reply
            lowered = reply
        assert lowered is not None
        try:
            return await lowered
        except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
            return self._reply_for(held.call, error)

    async def _look_after_held(self) -> None:
        """Cancels those whose task was killed."""
        while self._held:
            await trio.sleep(max(_LIFE_CHECK_S, _LIFE_CHECK_EACH_S * len(self._held)))
            for held in list(self._held.values()):
                if not self._listener.is_valid(held.identity):
                    held.scope.cancel()
        self._looked_after = False

    # -- the listener's thread ----------------------------------------------------------------------------------------

    def _receive(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {DOORBELL})
        self._thread = threading.get_ident()
        try:
            has_hung_up = select.poll()
            has_hung_up.register(self._listener.descriptor, 0)
            receive = self._receive_call
            while True:
                notified = receive()
                if notified is not None:
                    self._take(notified)
                elif self._is_over:
                    return
                elif has_hung_up.poll(0):  # all tasks are gone: on newer kernels nothing is waited for any more
                    time.sleep(_DOORBELL_EVERY_S)
        finally:
            self._thread = None
            signal.pthread_sigmask(signal.SIG_BLOCK, {DOORBELL})

    def _take(self, notified: tuple[int, ...]) -> None:
        identity, tid, name = notified[_IDENTITY], notified[_TID], self.abi.names[notified[_NUMBER]]
        if tid in self._under_surgery:
            self._listener.let_go(identity)
            return
        call = NotifiedCall(
            tid,
            name,
            notified[_ARGUMENTS:],
            TaskMemory(tid, self._access),
            self.abi,
            borrow_descriptor,
            check=partial(self._check, identity),
            access=self._access,
            release=partial(self._listener.answer, identity, -errno.EINTR),
            under_surgery=self._under_surgery,
            warn=self._warn_once,
        )
        try:
            answer = self._handlers[name](call)
        except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
            answer = self._verdict_for(call, error, is_held=False)
        if answer is PASS and call.look_first is None:
            self._listener.let_go(identity)
        elif isinstance(answer, Coroutine):
            self._start_holding(Held(identity, call, answer, None))
        else:
            reply = self._carry_out(call, answer)
            if isinstance(reply, Coroutine):
                self._start_holding(Held(identity, call, None, reply))
            else:
                self._reply(call, identity, reply)

    def _start_holding(self, held: Held) -> None:
        held.call.is_interrupted = interruption(held.call.tid)
        self._tell(self._hold, held)

    def _executes(self, call: Call) -> Verdict | Coroutine[Any, Any, Verdict]:
        assert isinstance(call, NotifiedCall)
        execution = self._executions.to_be_seen(call)
        if execution is not None:
            call.look_first = partial(self._complain, execution)
        handler = self.handlers.by_name.get(call.name)
        return PASS if handler is None else handler(call)

    # -- either thread ------------------------------------------------------------------------------------------------

    def _check(self, identity: int) -> None:
        if not self._listener.is_valid(identity):
            raise TaskGone("nobody waits for the call's answer any more")

    def _carry_out(self, call: NotifiedCall, verdict: Verdict) -> Reply | Coroutine[Any, Any, Reply]:
        try:
            match verdict:
                case Pass():
                    return CONTINUE
                case Fail(number):
                    return Result(-number)
                case Return(value, writes):
                    for address, data in writes:
                        call.check()
                        call.memory.write(address, data)
                    return Result(value)
                case _:
                    return lower(call, verdict)
        except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
            return self._reply_for(call, error)

    def _reply(self, call: NotifiedCall, identity: int, reply: Reply) -> None:
        look, call.look_first = call.look_first, None
        if look is not None and isinstance(reply, Continue | Deferred):
            with contextlib.suppress(OSError):  # no thread is to be had: it goes on all the same
                self._submit(call, identity, Deferred(partial(_made_after, look, reply)))
                return
        match reply:
            case Continue():
                self._listener.let_go(identity)
            case Result(value):
                self._listener.answer(identity, value)
            case Descriptor(number, close_on_exec):
                self._listener.give(identity, number, close_on_exec=close_on_exec)
            case Deferred():
                try:
                    self._submit(call, identity, reply)
                except OSError as error:
                    self._listener.answer(identity, -(error.errno or errno.EAGAIN))
            case Answered():
                pass

    def _submit(self, call: NotifiedCall, identity: int, deferred: Deferred) -> None:
        """Raises OSError when no worker is to be had."""
        call.is_interrupted = interruption(call.tid)
        self._workers.submit(partial(self._reply_later, call, identity, deferred), call.is_over)

    def _reply_later(self, call: NotifiedCall, identity: int, deferred: Deferred) -> None:
        """In a worker."""
        try:
            reply = deferred.make()
        except (MemoryFault, MemoryHidden, TaskGone, OSError) as error:
            reply = self._reply_for(call, error)
        self._reply(call, identity, reply)

    def _complain(self, execution: Execution) -> None:
        complaint = self._executions.complaint_about(execution)
        if complaint is not None:
            self._tell(self._events.warn, complaint)

    def _worker_failed(self, error: BaseException) -> None:
        self._tell(self._fail, error)

    def _verdict_for(self, call: NotifiedCall, error: Exception, *, is_held: bool) -> Verdict:
        """What `Handler` says of exceptions. A call that was held has had its arguments read: a fault is a fault."""
        match error:
            case MemoryFault():
                return Fail(errno.EFAULT) if is_held else PASS
            case MemoryHidden():
                self._tell_hidden(call.tid)
                return verdict_for_hidden(call.name)
            case OSError():
                return verdict_for(error)
        return PASS

    def _reply_for(self, call: NotifiedCall, error: Exception) -> Reply:
        match error:
            case MemoryFault():
                return Result(-errno.EFAULT)
            case MemoryHidden():
                self._tell_hidden(call.tid)
                return Result(-errno.EPERM)
            case OSError():
                return Result(-(error.errno or errno.EIO))
        return CONTINUE  # nobody waits for it

    def _tell_hidden(self, tid: int) -> None:
        if not self._told_hidden:
            self._told_hidden = True
            self._warn_once(hidden_warning(tid))

    def _warn_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(self._events.warn, text)

    def _tell(self, function: Callable[..., object], *arguments: object) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(function, *arguments)


def _made_after(look: Callable[[], None], reply: Continue | Deferred) -> Reply:
    """In a worker."""
    look()
    return reply.make() if isinstance(reply, Deferred) else reply


async def _raise(error: BaseException) -> None:
    """Ends everything, as a task of a nursery."""
    raise error


def _ring(number: int, frame: object) -> None:
    """That the signal is delivered ends the wait for a notification; that is all."""
