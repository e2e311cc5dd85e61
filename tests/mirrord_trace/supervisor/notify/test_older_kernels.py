"""Held calls, signals and ends on kernels that lack a part of what notification has today.

Without WAIT_KILLABLE_RECV a signal ends the wait for our answer: the call is made again, or fails with EINTR, by the
kernel's own rules, and comes to the handler as a new one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.mirrord_trace.supervisor.harness import HERE, driver, program

pytestmark = pytest.mark.parametrize("missing", ["WAIT_KILLABLE_RECV", "SYNC_WAKE_UP"])


@pytest.fixture(autouse=True)
def _notify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY", "notify")


def without(missing: str) -> list[str]:
    return [sys.executable, str(HERE / "deny.py"), missing]


def test_signal_interrupts_a_held_call(missing: str) -> None:
    with driver("hold_reads", program("calls"), "interrupt", prefix=without(missing), stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds")
        os.kill(pid, signal.SIGUSR1)
        assert running.wait() == 0
        assert running.stdout == "read: Interrupted system call, 1 signals\n"


def test_held_call_is_made_again_after_a_signal(missing: str) -> None:
    with driver("hold_reads", program("calls"), "restart", prefix=without(missing), stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds")
        os.kill(pid, signal.SIGUSR1)
        running.until("driver: holds")
        os.kill(pid, signal.SIGKILL)
        assert running.wait() == 128 + signal.SIGKILL


def test_held_call_of_a_killed_process_is_cancelled(missing: str) -> None:
    with driver("hold_reads", program("calls"), "held", prefix=without(missing)) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds for good")
        os.kill(pid, signal.SIGKILL)
        running.until("driver: held no more")
        assert running.wait() == 128 + signal.SIGKILL
