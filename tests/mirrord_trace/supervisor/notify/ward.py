"""A program of the tests under a filter of its own, on whose calls with a path below /remote is operated."""

from __future__ import annotations

import errno
import os
import queue
import select
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import attrs

from mirrord_syscalls.abi import ArgumentKind, native_abi
from mirrord_syscalls.bpf import RET_USER_NOTIF, compile_filter
from mirrord_syscalls.structs.notification import FILTER_NEW_LISTENER, FILTER_WAIT_KILLABLE
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, MemoryFault, MemoryHidden, TaskGone
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.memory import TaskMemory
from mirrord_trace.supervisor.delivery.notify.surgery import make_in_task
from mirrord_trace.supervisor.launch import Filtering
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S, program

ABI = native_abi()
CALLS = [name for name in ("chdir", "execve", "execveat", "open", "openat", "openat2") if name in ABI.numbers]
REMOTE = b"/remote"
_number = struct.Struct("=i")
_report = struct.Struct("=ii")


@attrs.frozen
class Notified:
    """A call that waits for its answer."""

    identity: int
    tid: int
    name: str
    arguments: tuple[int, ...]


@attrs.define(eq=False)
class Ward:
    """Serves one program."""

    pid: int
    listener: Listener
    stdin: int
    _output: int
    _statuses: int
    _pidfd: int
    root: bytes = b""
    """What takes the place of /remote."""
    before: Callable[[Notified], None] | None = None
    """Done in the operating thread, before anything else."""
    holds_ours: bool = False
    """Whether calls that are made for us wait in `ours` for their answer."""
    ours: queue.Queue[Notified] = attrs.field(factory=queue.Queue)
    refused: list[OSError] = attrs.field(factory=list)
    gone: int = 0
    """Operations whose task was gone."""
    under_surgery: set[int] = attrs.field(factory=set)
    faults: list[BaseException] = attrs.field(factory=list)
    _operations: list[threading.Thread] = attrs.field(factory=list)

    def serve(self) -> None:
        """Until the last task is gone."""
        poll = select.poll()
        poll.register(self.listener.descriptor, select.POLLIN)
        while not any(events & select.POLLHUP for _, events in poll.poll()):
            received = self.listener.receive()
            if received is not None:
                self._take(Notified(received[0], received[1], ABI.names[received[3]], received[6:]))
        for operation in self._operations:
            operation.join(TIMEOUT_S)

    def _take(self, call: Notified) -> None:
        if call.tid in self.under_surgery:
            if self.holds_ours and call.name != "mmap":
                self.ours.put(call)
            else:
                self.listener.let_go(call.identity)
            return
        index = ABI.arguments[call.name].index(ArgumentKind.PATH)
        try:
            path = TaskMemory(call.tid).read_string(call.arguments[index])
        except (MemoryFault, MemoryHidden, TaskGone):
            path = b""
        if path.startswith(REMOTE):
            operation = threading.Thread(target=self._operate, args=(call, index, path.removeprefix(REMOTE)))
            self._operations.append(operation)
            operation.start()
        else:
            self.listener.let_go(call.identity)

    def _operate(self, call: Notified, index: int, path: bytes) -> None:
        arguments = list(call.arguments)
        if index:
            arguments[index - 1] = AT_FDCWD
        try:
            if self.before is not None:
                self.before(call)
            make_in_task(
                call.tid,
                ABI,
                call.name,
                arguments,
                {index: self.root + path},
                lambda: self.listener.answer(call.identity, -errno.EINTR),
                check=lambda: self._check(call.identity),
                under_surgery=self.under_surgery,
            )
        except TaskGone:
            self.gone += 1
        except OSError as error:
            self.refused.append(error)
            self.listener.answer(call.identity, -errno.EIO)
        except BaseException as error:
            self.faults.append(error)
            self.listener.answer(call.identity, -errno.EIO)

    def _check(self, identity: int) -> None:
        if not self.listener.is_valid(identity):
            raise TaskGone(f"notification {identity} is void")

    def next_of_ours(self) -> Notified:
        """The next call that was made for us and waits; `holds_ours` must be set."""
        return self.ours.get(timeout=TIMEOUT_S)

    def signal(self, number: int) -> None:
        """To the program, if it lives."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def output(self) -> str:
        """All that the program says, to its end."""
        text = b""
        while select.select([self._output], [], [], TIMEOUT_S)[0]:
            data = os.read(self._output, 65536)
            if not data:
                return text.decode()
            text += data
        raise AssertionError(f"never ended, but said: {text!r}")

    def wait(self) -> int:
        """The next wait status that the program's parent is told: a stop's, or its end's."""
        assert select.select([self._statuses], [], [], TIMEOUT_S)[0], "its parent is told nothing"
        return int(_number.unpack(os.read(self._statuses, _number.size))[0])


def _keep(pid: int, statuses: int) -> None:
    """Is a parent from another process than ours, as the guardian is: the kernel tells a tracer's own less."""
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        os.write(statuses, _number.pack(status))
        if not os.WIFSTOPPED(status):
            return


@contextmanager
def ward(name: str, *arguments: str, killable: bool) -> Iterator[Ward]:
    """Starts programs/NAME.c; nothing of it may be left in the end, and no operation may have failed strangely."""
    path = program(name)
    filtering = Filtering.of(compile_filter(Subscription.of(CALLS), ABI, RET_USER_NOTIF))
    flags = FILTER_NEW_LISTENER | (FILTER_WAIT_KILLABLE if killable else 0)
    report, gate, stdin, output, statuses = pipes = [os.pipe() for _ in range(5)]
    keeper = os.fork()
    if keeper == 0:
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(stdin[0], 0)
                os.dup2(output[1], 1)
                listener_number = filtering.install(flags)
                os.write(report[1], _report.pack(os.getpid(), listener_number))
                os.read(gate[0], 1)
                os.execv(path, [name, *arguments])
            finally:
                os._exit(127)
        try:
            os.dup2(statuses[1], 0)
            os.closerange(1, max(max(pipe) for pipe in pipes) + 1)
            _keep(pid, 0)
        finally:
            os._exit(0)
    for pipe, end in zip(pipes, (1, 0, 0, 1, 1), strict=True):
        os.close(pipe[end])
    pid, listener_number = _report.unpack(os.read(report[0], _report.size))
    listener, pidfd = Listener(borrow_descriptor(pid, listener_number)), os.pidfd_open(pid)
    patient = Ward(pid, listener, stdin[1], output[0], statuses[0], pidfd)
    served = threading.Thread(target=patient.serve)
    served.start()
    os.write(gate[1], b"g")
    try:
        yield patient
    finally:
        patient.signal(signal.SIGKILL)
        os.waitpid(keeper, 0)
        served.join(TIMEOUT_S)
        assert not served.is_alive()
        listener.close()
        os.close(pidfd)
        for pipe, end in zip(pipes, (0, 1, 1, 0, 0), strict=True):
            os.close(pipe[end])
    assert not patient.faults, patient.faults
    assert not patient.under_surgery
