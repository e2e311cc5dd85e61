"""What only the task itself can do (chdir, execve, an open with O_PATH), done by a task that waits for our answer.

A notified call cannot be rewritten, so the task is traced for a moment: it is seized, told to stop, and released from
its wait. It stops before it returns to its program, and there it makes the call that we want, with a path that we put
into its memory. Then its registers are as they were, with that call's result, and it is traced no more.

Kernel facts (ptrace(2), kernel/signal.c, kernel/seccomp.c).
- Only the thread that seized a task may make requests for it and hear of its stops. An exec by a thread that is not
  the first gives it another id, so we wait for whomever we trace.
- From the seizure on every signal stops the task before a handler runs. So what waited for our answer when it was
  seized returns to its program only through a stop that we see.
- At that first stop the call is over: with the EINTR that it was released with, or, where the listener was installed
  without WAIT_KILLABLE_RECV, with ERESTARTSYS, for the order to stop itself ended its wait. As long as nothing else was
  done, ERESTARTNOINTR undoes everything: the kernel has the task make the call again, after a handler if there is one.
  So where the first stop is any other (a signal's, job control's), we put that there and let the task have it.
- Later all signals are blocked and stay pending. SIGSTOP cannot be: it is delivered at once, the stopped process's task
  works on for us, and joins its process when it is let go.
- Calls of ours come to the listener too. The task is in `under_surgery` for just as long as any call that it makes is
  ours: they are to be let go.

The room for the path stays mapped, to be used again: a task that is another's vfork(2) child could not give it back
after an exec, for it is in its parent's memory then. It is at a place of its own for each of our threads that operate
at the same time, and it is ours if it begins with our mark. The place is one where usually nothing is; where something
is, room is mapped for the one call.

The program's own seccomp filters see our calls; one that forbids mmap(2) makes the call fail.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, TaskGone
from mirrord_trace.supervisor.delivery.notify.held import Status
from mirrord_trace.supervisor.delivery.notify.memory import MemoryAccess, TaskMemory
from mirrord_trace.supervisor.delivery.notify.probe import advice_on_tracing
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers

_OPTIONS: Final = requests.PTRACE_O_TRACESYSGOOD | requests.PTRACE_O_TRACEEXEC | requests.PTRACE_O_EXITKILL
_ALL_SIGNALS: Final = 0xFFFF_FFFF_FFFF_FFFF
_WALL: Final = 0x4000_0000
_WNOTHREAD: Final = 0x2000_0000
_ERESTARTNOINTR: Final = 513  # linux/errno.h, as the next
_RESTARTING: Final = range(-516, -511)
_SIGN: Final = 1 << 63

_ROOM_BYTES: Final = 16384
_ROOMS: Final = 0x6D69_0000_0000
"""Where rooms begin: between programs and what they map, on x86-64 (Documentation/arch/x86/x86_64/mm.rst)."""
_MARK: Final = secrets.token_bytes(16)
_PROTECTION: Final = mmap.PROT_READ | mmap.PROT_WRITE
_MAPPING: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_MAP_FIXED_NOREPLACE: Final = 0x10_0000
"""Linux 4.17; asm-generic/mman-common.h. Older kernels map elsewhere where something is."""
_PATIENT: Final = MemoryAccess(patient=True)

_rooms_in_use: set[int] = set()
_rooms_lock = threading.Lock()


def make_in_task(
    tid: int,
    abi: Abi,
    name: str,
    arguments: Sequence[int],
    paths: Mapping[int, bytes],
    release: Callable[[], None],
    *,
    check: Callable[[], None],
    under_surgery: set[int],
) -> None:
    """Has a task whose call waits for our answer make the call `name`, whose result becomes that of its own call.

    `arguments` are registers; those that `paths` names are addresses of these strings (no NUL in them) instead.
    `check` raises TaskGone when nobody waits for the answer any more. `release` answers the notification with -EINTR,
    or finds that it is void already. Where a signal or a stop of the process comes first, nothing is done, and the
    call comes again as a new one.

    While the task is in `under_surgery` its calls are ours, to be let go. It is in there only between the first and the
    last stop, so never when it makes a call of its own.

    Call it in a thread that traces nobody and has no children; it takes as long as the call does. Raises TaskGone, and
    OSError when the task cannot be traced (`why_not_traced`) or a path is much too long: then nothing was done, and it
    still waits for an answer.
    """
    places, content = _laid_out(paths)
    _seize(tid)
    patient = _Patient(tid, Machine(abi))
    try:
        if not _stops_for_us(patient, check, release):
            return
        blocked = requests.signal_mask(tid)
        requests.set_signal_mask(tid, _ALL_SIGNALS)
        under_surgery.add(tid)
        try:
            with _room_of_this_thread() as room:
                result = patient.make(name, arguments, places, content, room)
        finally:
            under_surgery.discard(tid)
        if not patient.has_executed:
            patient.return_to_program(result)
        requests.set_signal_mask(patient.tid, blocked)
        requests.detach(patient.tid)
    except TaskGone:
        patient.await_end()
        raise
    except BaseException:
        with suppress(ProcessLookupError):
            os.kill(patient.tid, signal.SIGKILL)
        patient.await_end()
        raise


def why_not_traced(tid: int) -> str:
    """Why a task of the tree cannot be traced, in words for the user."""
    task = Status.of(tid)
    if task is not None and task.tracer:
        return f"process {tid} is traced already (by process {task.tracer}, a debugger perhaps)"
    return f"process {tid} cannot be traced (ptrace(2)){advice_on_tracing()}"


def _seize(tid: int) -> None:
    """Raises TaskGone, and OSError.

    Where a signal ended the task's wait it may wait anew, for our answer to a second notification, while the thread
    that saw to the first has it still. That thread's order to stop ends the second wait too.
    """
    for is_last in (False, True):
        try:
            requests.seize(tid, _OPTIONS)
        except PermissionError:
            task = Status.of(tid)
            if task is not None and task.tracer and os.path.exists(f"/proc/self/task/{task.tracer}"):
                raise TaskGone(f"task {tid} is told to stop in another thread") from None
            if is_last or (task is not None and task.tracer):
                raise
        else:
            return


def _stops_for_us(patient: _Patient, check: Callable[[], None], release: Callable[[], None]) -> bool:
    """Brings the task from its wait to its first stop. False: it was let go as if nothing had been. Raises TaskGone."""
    try:
        check()
    except TaskGone:  # a signal had ended its wait before it was seized: it may be anywhere
        requests.interrupt(patient.tid)
        patient.let_go_at(*patient.next_stop())
        raise
    requests.interrupt(patient.tid)
    release()
    event, number = patient.next_stop()
    if not patient.was_released():
        patient.let_go_at(event, number)
        return False
    if (event, number) != (requests.PTRACE_EVENT_STOP, signal.SIGTRAP):
        patient.return_to_program(-_ERESTARTNOINTR)
        patient.let_go_at(event, number)
        return False
    return True


@attrs.define(eq=False)
class _Patient:
    """A task that we trace. Everything raises TaskGone."""

    tid: int
    _machine: Machine
    has_executed: bool = False
    """It runs another program: there is nothing to put back into its registers."""
    _saved: Registers = None
    """As they were at the first stop."""

    def next_stop(self) -> tuple[int, int]:
        """Waits until it stops: the event, and the signal."""
        try:
            tid, status = os.waitpid(-1, _WALL | _WNOTHREAD)
        except ChildProcessError:  # another thread's exec took its place
            raise TaskGone(f"task {self.tid} is gone") from None
        if not os.WIFSTOPPED(status):
            raise TaskGone(f"task {self.tid} ended")
        self.tid = tid
        return status >> 16, os.WSTOPSIG(status)

    def let_go_at(self, event: int, number: int) -> None:
        """From this stop on it runs untraced, with the signal that it stopped for."""
        requests.detach(self.tid, number if event == 0 else 0)

    def await_end(self) -> None:
        """It dies: takes its end from the kernel, so that its parent is told of it."""
        with suppress(ChildProcessError):
            while os.WIFSTOPPED(os.waitpid(-1, _WALL | _WNOTHREAD)[1]):
                pass

    def was_released(self) -> bool:
        """At the first stop: whether it comes from the call that waited for our answer, which had no effect."""
        self._saved = requests.get_registers(self.tid)
        result = self._result_in(self._saved)
        return result == -errno.EINTR or result in _RESTARTING

    def make(
        self, name: str, arguments: Sequence[int], places: Mapping[int, int], content: bytes, wanted_room: int
    ) -> int:
        """Makes the call; its result, a negative errno on failure."""
        room = self._filled(wanted_room, content)
        if room < 0:
            return room
        placed = (room + places[index] if index in places else value for index, value in enumerate(arguments))
        result = self._call(name, *placed)
        if room != wanted_room and not self.has_executed:
            self._call("munmap", room, _ROOM_BYTES)
        return result

    def return_to_program(self, result: int) -> None:
        """The call that waited for our answer returns this, when the task runs on."""
        registers = requests.copy_registers(self._saved)
        self._machine.set_result(registers, result)
        requests.set_registers(self.tid, registers)

    def _filled(self, wanted: int, content: bytes) -> int:
        """The address of room with this content, at `wanted` if possible; a negative errno when there is none."""
        memory = TaskMemory(self.tid, _PATIENT)
        with suppress(MemoryFault, MemoryHidden):
            if memory.read(wanted, len(_MARK)) == _MARK:
                memory.write(wanted, content)
                return wanted
        room = self._call("mmap", wanted, _ROOM_BYTES, _PROTECTION, _MAPPING | _MAP_FIXED_NOREPLACE, -1, 0)
        if room < 0:
            room = self._call("mmap", 0, _ROOM_BYTES, _PROTECTION, _MAPPING, -1, 0)
        if room >= 0:
            try:
                memory.write(room, content)
            except (MemoryFault, MemoryHidden):
                return -errno.EFAULT
        return room

    def _call(self, name: str, *arguments: int) -> int:
        registers = requests.copy_registers(self._saved)
        self._machine.set_call(registers, name, arguments)
        self._machine.rewind(registers)
        requests.set_registers(self.tid, registers)
        self._run_to_call_stop()  # its beginning
        self._run_to_call_stop()
        return 0 if self.has_executed else self._result_in(requests.get_registers(self.tid))

    def _run_to_call_stop(self) -> None:
        """Lets it run to the next beginning or end of a call, or to another program's."""
        deliver = 0
        while not self.has_executed:
            requests.resume_to_exit(self.tid, deliver)
            event, number = self.next_stop()
            if (event, number) == (0, requests.SYSCALL_STOP):
                return
            self.has_executed = event == requests.PTRACE_EVENT_EXEC
            deliver = number if event == 0 else 0

    def _result_in(self, registers: Registers) -> int:
        value: int = getattr(registers, self._machine.abi.result_register)
        return value - 2 * _SIGN if value & _SIGN else value


def _laid_out(paths: Mapping[int, bytes]) -> tuple[dict[int, int], bytes]:
    """Where in a room each of these strings is, and the room's content. Raises OSError when they do not fit in."""
    places = {}
    content = _MARK
    for index, path in paths.items():
        places[index] = len(content)
        content += path + b"\0"
    if len(content) > _ROOM_BYTES:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    return places, content


@contextmanager
def _room_of_this_thread() -> Iterator[int]:
    """A place that nobody else uses meanwhile, in whatever address space."""
    with _rooms_lock:
        room = next(place for place in itertools.count(_ROOMS, _ROOM_BYTES) if place not in _rooms_in_use)
        _rooms_in_use.add(room)
    try:
        yield room
    finally:
        with _rooms_lock:
            _rooms_in_use.discard(room)
