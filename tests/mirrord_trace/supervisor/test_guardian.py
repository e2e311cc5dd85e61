"""Who ends the tree when the supervisor, the guardian, or the whole process group is killed, and what the tree sees."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirrord_trace.supervisor.descent import children_of
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S, Driver, delivery, driver, wait_until_gone

GONE_WITHIN_S = 1.0
PTRACE_SEIZE = 0x4206
WALL = 0x4000_0000
OPENS = """if 1:
    import os, sys
    with open(sys.argv[1], "w", buffering=1) as seen:
        print("pid", os.getpid(), file=sys.stderr, flush=True)
        while True:
            try:
                os.close(os.open("/etc/passwd", os.O_RDONLY))
            except OSError as error:
                seen.write(f"{error}\\n")
"""
SLEEPS = "setsid sh -c 'echo pid $$ >&2; trap \"\" TERM HUP INT; while :; do sleep 1000; done' & sleep 1000"


@pytest.fixture(autouse=True)
def _notify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY", "notify")


def guardian_of(running: Driver) -> int:
    names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in children_of(running.process.pid)}
    return next(pid for pid, name in names.items() if name == "mirrord-guard\n")


def assert_gone_soon(pid: int, since: float) -> None:
    wait_until_gone(pid)
    assert time.monotonic() - since < GONE_WITHIN_S


def test_killed_supervisor_takes_the_tree_with_it_and_no_call_fails(tmp_path: Path) -> None:
    """The program makes intercepted calls without a pause; none may return, least of all with ENOSYS."""
    assert delivery() == "notify"
    seen = tmp_path / "seen"
    with driver("pass_all", sys.executable, "-c", OPENS, str(seen)) as running:
        pid = int(running.until("pid "))
        guardian = guardian_of(running)
        since = time.monotonic()
        running.process.kill()
        running.process.wait(TIMEOUT_S)
        assert_gone_soon(pid, since)
        assert_gone_soon(guardian, since)
    assert seen.read_text() == ""


def test_killed_process_group_takes_the_tree_with_it() -> None:
    """What has gone to a session of its own is not of the group, and goes too."""
    with driver("pass_all", "sh", "-c", SLEEPS, own_session=True) as running:
        pid = int(running.until("pid "))
        since = time.monotonic()
        os.killpg(running.process.pid, signal.SIGKILL)
        assert_gone_soon(pid, since)


def test_a_debugger_that_holds_the_command_keeps_nobody_else_alive() -> None:
    """What a tracer from outside holds cannot be reaped; what it leaves behind is killed all the same."""
    libc = ctypes.CDLL(None, use_errno=True)
    with driver("pass_all", "sh", "-c", SLEEPS) as running:
        pid = int(running.until("pid "))
        guardian = guardian_of(running)
        (command,) = children_of(guardian)
        assert libc.ptrace(ctypes.c_long(PTRACE_SEIZE), ctypes.c_long(command), None, None) == 0
        since = time.monotonic()
        running.process.kill()
        try:
            assert_gone_soon(pid, since)
        finally:
            os.waitpid(command, WALL)
        wait_until_gone(guardian)


def test_killed_guardian_ends_the_command_with_words() -> None:
    with driver("pass_all", "sh", "-c", SLEEPS) as running:
        pid = int(running.until("pid "))
        os.kill(guardian_of(running), signal.SIGKILL)
        assert running.wait() == 1
        wait_until_gone(pid)
        assert any("the guardian process was killed" in line for line in running.said)
        assert not any("Traceback" in line for line in running.said)


def test_guardian_keeps_nothing_open_but_its_socket_and_the_listener() -> None:
    """A reader of the command's output must see its end; the agent must see ours."""
    with driver("pass_all", "sh", "-c", "echo pid $$ >&2; read word", stdin=subprocess.PIPE) as running:
        running.until("pid ")
        folder = f"/proc/{guardian_of(running)}/fd"
        kinds = sorted(os.readlink(f"{folder}/{number}").partition(":")[0] for number in os.listdir(folder))
        assert [kind for kind in kinds if kind != "socket"] == ["anon_inode", "anon_inode"]  # listener and signals
        assert kinds.count("socket") == 1


def test_nothing_traces_the_command_once_it_runs() -> None:
    with driver("pass_all", "sh", "-c", "echo pid $$ >&2; read word", stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        assert "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("left", ["setsid sleep 1000 &", "sleep 1000 & exec sleep 1000 &"])
def test_what_loses_its_parent_is_still_the_trees(left: str) -> None:
    with driver("pass_all", "sh", "-c", f"( ( {left} ) ); exit 4") as running:
        assert running.wait() == 4
        assert any("running, ended with it" in line for line in running.said)
        assert "driver: left: []" in running.said


def test_a_program_may_signal_its_parent() -> None:
    """Only the supervisor's own end is the end of the tree; servers signal their parents when they are ready."""
    with driver("pass_all", "sh", "-c", "kill -USR1 $PPID; sleep 0.3; echo pid $$ >&2") as running:
        running.until("pid ")
        assert running.wait() == 0
