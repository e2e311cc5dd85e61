"""Whether a signal would end a call that is held: decided from what /proc says of the task and its first thread."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess

import attrs
import pytest

from mirrord_trace.supervisor.delivery.notify.held import Status, acts_on_signal, interruption

PTRACE_SEIZE = 0x4206  # linux/ptrace.h
USR1 = 1 << (signal.SIGUSR1 - 1)
STOP = 1 << (signal.SIGSTOP - 1)
QUIET = Status(tid=11, process=10, state="S", tracer=0, pending=0, shared_pending=0, blocked=0, ignored=0)
LEADER = attrs.evolve(QUIET, tid=10)


@pytest.mark.parametrize(
    ("task", "leader", "expected"),
    [
        (QUIET, LEADER, False),
        (attrs.evolve(QUIET, pending=USR1), LEADER, True),
        (attrs.evolve(QUIET, pending=USR1, blocked=USR1), LEADER, False),
        (attrs.evolve(QUIET, pending=USR1, ignored=USR1), LEADER, False),
        (attrs.evolve(QUIET, pending=STOP), LEADER, True),
        # for the whole process: the first thread's, unless that blocks it or has ended
        (attrs.evolve(LEADER, shared_pending=USR1), None, True),
        (attrs.evolve(LEADER, shared_pending=USR1, blocked=USR1), None, False),
        (attrs.evolve(QUIET, shared_pending=USR1), attrs.evolve(LEADER, shared_pending=USR1), False),
        (attrs.evolve(QUIET, shared_pending=USR1), attrs.evolve(LEADER, shared_pending=USR1, blocked=USR1), True),
        (attrs.evolve(QUIET, shared_pending=USR1), attrs.evolve(LEADER, state="Z"), True),
        # the process stops, and waits for this thread
        (QUIET, attrs.evolve(LEADER, state="T"), True),
    ],
)
def test_whose_signal_it_is(task: Status, leader: Status | None, expected: bool) -> None:
    assert acts_on_signal(task, leader) is expected


def test_status_is_read_from_proc() -> None:
    ready_read, ready_write = os.pipe()
    pid = os.fork()  # a process with one thread, and a signal that nobody takes
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(ready_write, b"r")
        signal.pause()
    try:
        os.read(ready_read, 1)
        status = Status.of(pid)
        assert status is not None
        assert (status.tid, status.process, status.tracer) == (pid, pid, 0)
        assert status.state in "RS"
        assert status.shared_pending & USR1
        assert status.blocked & USR1
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready_read)
        os.close(ready_write)


def test_a_task_that_is_gone_has_no_status() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert Status.of(pid) is None


def test_a_tracer_interrupts_if_it_comes_later() -> None:
    with subprocess.Popen(["sleep", "infinity"]) as process:
        try:
            asked_before = interruption(process.pid)
            assert not asked_before()
            libc = ctypes.CDLL(None, use_errno=True)
            assert libc.ptrace(PTRACE_SEIZE, process.pid, None, None) == 0, os.strerror(ctypes.get_errno())
            assert asked_before()
            assert not interruption(process.pid)()
        finally:
            process.kill()
    assert not asked_before(), "it is gone"
