"""Calls that are held, interrupted or killed, and handlers that fail, with real processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest

from tests.mirrord_trace.supervisor.harness import driver, program, run, wait_until_gone

pytestmark = pytest.mark.usefixtures("delivery")


def test_signal_interrupts_a_held_call() -> None:
    with driver("hold_reads", program("calls"), "interrupt", stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds")
        os.kill(pid, signal.SIGUSR1)
        assert running.wait() == 0
        assert running.stdout == "read: Interrupted system call, 1 signals\n"


def test_held_call_is_restarted_after_a_signal() -> None:
    with driver("hold_reads", program("calls"), "restart", stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds")
        os.kill(pid, signal.SIGUSR1)
        running.until("driver: holds")
        assert running.process.stdin is not None
        running.process.stdin.write(b"data")
        running.process.stdin.flush()
        os.kill(pid, signal.SIGUSR1)
        assert running.wait() == 0
        assert running.stdout == "read: data, 2 signals\n"


def test_held_call_of_a_killed_process_is_cancelled() -> None:
    with driver("hold_reads", program("calls"), "held") as running:
        pid = int(running.until("pid "))
        running.until("driver: holds for good")
        os.kill(pid, signal.SIGKILL)
        running.until("driver: held no more")
        assert running.wait() == 128 + signal.SIGKILL


def test_held_call_of_a_thread_is_cancelled_when_another_executes() -> None:
    with driver("hold_reads", program("calls"), "held_thread", stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        assert {running.until("driver: holds"), running.until("driver: holds")} == {"", " for good"}  # both threads
        assert running.process.stdin is not None
        running.process.stdin.write(b"go")
        running.process.stdin.close()
        running.process.stdin = None
        os.kill(pid, signal.SIGUSR2)
        assert running.wait() == 0
        assert "driver: held no more" in running.said
        assert running.stdout == "executed\n"


def test_process_stops_although_a_call_of_it_is_held() -> None:
    with driver("hold_reads", program("calls"), "stop_thread") as running:
        child = int(running.until("child "))
        running.until("driver: holds for good")
        os.kill(child, signal.SIGSTOP)
        assert running.wait() == 0
        assert "driver: held no more" in running.said
        assert running.stdout.splitlines() == ["stopped: 19", "continued: 1", "killed: 9"]


def test_errors_of_handlers_are_the_calls_errno() -> None:
    """But those that say that there is nothing to look at leave the call to the kernel."""
    raised = [errno.EMFILE, errno.EDOM, errno.EBADF, errno.ESRCH]
    arguments = [str(number * sign) for number in raised for sign in (1, -1)]
    ended = run("errors", program("calls"), "errors", *arguments)
    native = subprocess.run([program("calls"), "errors", *arguments], capture_output=True, text=True, check=True)
    expected = [f"{sign}{number}: {os.strerror(number)}" for number in raised[:2] for sign in ("", "-")]
    assert ended.stdout.splitlines() == expected + native.stdout.splitlines()[4:]
    assert ended.exit_code == 0


@pytest.mark.parametrize("scenario", ["bug", "bug_later"])
def test_bug_in_a_handler_ends_the_tree(scenario: str) -> None:
    script = 'import os, sys; print("pid", os.getpid(), file=sys.stderr, flush=True); os.fork(); os.getppid()'
    with driver(scenario, sys.executable, "-c", script) as running:
        pid = int(running.until("pid "))
        assert running.wait() == 1
        assert any("ZeroDivisionError" in line for line in running.said)
        wait_until_gone(pid)


def test_bug_at_a_calls_end_ends_the_tree() -> None:
    script = """if 1:
        import os, socket, sys
        print("pid", os.getpid(), file=sys.stderr, flush=True)
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("198.18.0.1", 80))
    """
    with driver("bug_at_exit", sys.executable, "-c", script, environment={"PORT": "9"}) as running:
        pid = int(running.until("pid "))
        assert running.wait() == 1
        assert any("ZeroDivisionError" in line for line in running.said)
        wait_until_gone(pid)
