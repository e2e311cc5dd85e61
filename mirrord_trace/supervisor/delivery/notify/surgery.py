"""What only the task itself can do (chdir, execve, an open with O_PATH), done by a task that waits for our answer.

A notified call cannot be rewritten, so the task is traced for a moment: it is seized, told to stop, and released from
its wait. It stops before it returns to its program, and there it makes calls of ours: room for the paths, the call, the
room's end. Then its registers are as they were, with that call's result, and it is traced no more.

Kernel facts (ptrace(2), kernel/signal.c, kernel/seccomp.c).
- Only the thread that seized a task may make requests for it and hear of its stops. An exec by a thread that is not
  the first gives it another id, so we wait for whomever we trace.
- From the seizure on every signal stops the task before a handler runs. So what waited for our answer when it was
  seized returns to its program only through a stop that we see.
- At that first stop the call is over: with the EINTR that it was released with, or, where the listener was installed
  without WAIT_KILLABLE_RECV, with -ERESTARTSYS, for the order to stop itself ended its wait. As long as nothing else
  was done, -ERESTARTSYS undoes everything: the call is made again, or fails with EINTR, by the kernel's own rules. So
  where the first stop is any other (a signal's, job control's), we put that there and let the task have it.
- Later all signals are blocked and stay pending. SIGSTOP cannot be: it is delivered at once, the stopped process's task
  works on for us, and joins its process when it is let go.
- Calls of ours come to the listener too. The task is in `under_surgery` for just as long as any call that it makes is
  ours: they are to be let go.

The program's own seccomp filters see our calls; one that forbids mmap(2) makes the call fail.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.delivery.base import TaskGone
from mirrord_trace.supervisor.delivery.notify.memory import TaskMemory
from mirrord_trace.supervisor.delivery.ptrace import requests
from mirrord_trace.supervisor.delivery.ptrace.machine import Machine
from mirrord_trace.supervisor.delivery.ptrace.requests import Registers

_OPTIONS: Final = requests.PTRACE_O_TRACESYSGOOD | requests.PTRACE_O_TRACEEXEC | requests.PTRACE_O_EXITKILL
_ALL_SIGNALS: Final = 0xFFFF_FFFF_FFFF_FFFF
_WALL: Final = 0x4000_0000
_WNOTHREAD: Final = 0x2000_0000
_ERESTARTSYS: Final = 512
_RESTARTING: Final = range(-516, -511)
"""Results that mean that the kernel will make the call again (linux/errno.h)."""
_SIGN: Final = 1 << 63


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
    OSError when the task cannot be traced (`why_not_traced`): then nothing was done, and it still waits for an answer.
    """
    requests.seize(tid, _OPTIONS)
    patient = _Patient(tid, Machine(abi))
    try:
        if not _is_stopped_for_us(patient, check, release):
            return
        blocked = requests.signal_mask(tid)
        requests.set_signal_mask(tid, _ALL_SIGNALS)
        under_surgery.add(tid)
        try:
            result = patient.make(name, arguments, paths)
        finally:
            under_surgery.discard(tid)
        if result is not None:
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


def _is_stopped_for_us(patient: _Patient, check: Callable[[], None], release: Callable[[], None]) -> bool:
    """Brings the task from its wait to its first stop. False: it was let go as if nothing had been."""
    gone: TaskGone | None = None
    try:
        check()
    except TaskGone as error:  # a signal has ended its wait before it was seized: it may be anywhere now
        gone = error
    requests.interrupt(patient.tid)
    if gone is None:
        release()
    event, number = patient.next_stop()
    if gone is None and (event, number) == (requests.PTRACE_EVENT_STOP, signal.SIGTRAP) and patient.was_released():
        return True
    if gone is None and patient.was_released():
        patient.return_to_program(-_ERESTARTSYS)
    requests.detach(patient.tid, number if event == 0 else 0)
    if gone is not None:
        raise gone
    return False


@attrs.define(eq=False)
class _Patient:
    """A task that we trace. Everything raises TaskGone."""

    tid: int
    _machine: Machine
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

    def make(self, name: str, arguments: Sequence[int], paths: Mapping[int, bytes]) -> int | None:
        """Makes the call; its result, a negative errno on failure. None: it has become another program."""
        places, content = _laid_out(paths)
        room = self._call("mmap", 0, len(content), mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE, -1, 0)
        if room is None or room < 0:
            return room
        TaskMemory(self.tid).write(room, content)
        placed = [room + places[index] if index in places else value for index, value in enumerate(arguments)]
        result = self._call(name, *placed)
        if result is not None:
            self._call("munmap", room, len(content))
        return result

    def return_to_program(self, result: int) -> None:
        """The call that waited for our answer returns this, when the task runs on."""
        registers = requests.copy_registers(self._saved)
        self._machine.set_result(registers, result)
        requests.set_registers(self.tid, registers)

    def _call(self, name: str, *arguments: int) -> int | None:
        registers = requests.copy_registers(self._saved)
        self._machine.set_call(registers, name, arguments)
        self._machine.rewind(registers)
        requests.set_registers(self.tid, registers)
        for _ in ("its beginning", "its end"):
            if not self._reaches_call_stop():
                return None
        return self._result_in(requests.get_registers(self.tid))

    def _reaches_call_stop(self) -> bool:
        """Lets it run to the next beginning or end of a call. False: it has become another program."""
        deliver = 0
        while True:
            requests.resume_to_exit(self.tid, deliver)
            event, number = self.next_stop()
            if event == requests.PTRACE_EVENT_EXEC:
                return False
            if event == 0 and number == requests.SYSCALL_STOP:
                return True
            deliver = number if event == 0 else 0

    def _result_in(self, registers: Registers) -> int:
        value: int = getattr(registers, self._machine.abi.result_register)
        return value - 2 * _SIGN if value & _SIGN else value


_PRIVATE: Final = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


def _laid_out(paths: Mapping[int, bytes]) -> tuple[dict[int, int], bytes]:
    """Strings in a row: where each begins, and all of them."""
    places = {}
    content = b""
    for index, path in paths.items():
        places[index] = len(content)
        content += path + b"\0"
    return places, content
