"""However it ends, nothing stays behind: no process, no directory; and what ended it is said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.mirrord_trace.supervisor.harness import (
    HERE,
    TIMEOUT_S,
    UNPRIVILEGED,
    Driver,
    driver,
    program,
    run,
    wait_until_gone,
)

PROGRAM = ["sh", "-c", 'sleep 1000 & trap "" HUP; exec "$0" interrupt', program("calls")]
pytestmark = pytest.mark.usefixtures("delivery")

STAGES = ["workspace ", "about to launch", "explains", "ready", "holds"]


@attrs.frozen
class Marked:
    """Processes that a variable in their environment tells from all others."""

    mark: str = attrs.field(factory=lambda: uuid.uuid4().hex)

    def pids(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if self.mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def assert_gone(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        left = self.pids()
        while left and time.monotonic() < deadline:  # what is found may have forked on before it was killed
            for pid in left:
                wait_until_gone(pid)
            left = self.pids()
        assert left == []


@pytest.fixture
def marked() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    for pid in marked.pids():
        os.kill(pid, signal.SIGKILL)


def workspace_of(said: list[str]) -> Path:
    return Path(next(line.removeprefix("driver: workspace ") for line in said if line.startswith("driver: workspace ")))


def reach(running: Driver, stage: str) -> None:
    """Returns at a stage of STAGES; "explains" is when the delivery begins to run."""
    if stage == "explains":
        running.until("driver: about to launch")
        stage = "explain: "
    running.until(f"driver: {stage}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("rights", [[], UNPRIVILEGED], ids=["root", "user"])
def test_kill_9_of_the_supervisor(stage: str, rights: list[str], marked: Marked) -> None:
    with driver(
        "hold_reads", *PROGRAM, prefix=rights, environment={"MARK": marked.mark}, stdin=subprocess.PIPE
    ) as running:
        reach(running, stage)
        running.process.kill()
        running.process.wait(TIMEOUT_S)
        marked.assert_gone()
        assert not workspace_of(running.said).exists()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_to_the_supervisor(stage: str, number: signal.Signals, marked: Marked) -> None:
    with driver("hold_reads", *PROGRAM, environment={"MARK": marked.mark}, stdin=subprocess.PIPE) as running:
        reach(running, stage)
        running.process.send_signal(number)
        assert running.wait() == 128 + number
        assert not any("Traceback" in line for line in running.said), running.said
        marked.assert_gone()
        assert not workspace_of(running.said).exists()


def test_sigterm_ends_a_tree_that_ignores_it(marked: Marked) -> None:
    script = 'trap "" TERM; echo runs >&2; while :; do sleep 1000; done'
    with driver("pass_all", "sh", "-c", script, environment={"MARK": marked.mark}, stdin=subprocess.PIPE) as running:
        running.until("runs")
        running.process.terminate()
        assert running.wait() == 128 + signal.SIGKILL
        marked.assert_gone()


def test_supervisor_that_is_killed_while_the_tree_is_stopped(marked: Marked) -> None:
    with driver("hold_reads", *PROGRAM, environment={"MARK": marked.mark}, stdin=subprocess.PIPE) as running:
        pid = int(running.until("pid "))
        running.until("driver: holds")
        os.kill(pid, signal.SIGSTOP)
        running.until(f"driver: stopped by {int(signal.SIGSTOP)}")
        running.process.kill()
        running.process.wait(TIMEOUT_S)
        marked.assert_gone()


def test_directory_is_removed_by_the_guardian_and_without_it(marked: Marked) -> None:
    with driver("hold_reads", *PROGRAM, environment={"MARK": marked.mark}, stdin=subprocess.PIPE) as running:
        running.until("driver: holds")
        workspace = workspace_of(running.said)
        assert workspace.stat().st_mode & 0o777 == 0o711
        guardian = next(pid for pid in marked.pids() if os.getsid(pid) == pid and pid != running.process.pid)
        os.kill(guardian, signal.SIGKILL)
        running.process.terminate()
        assert running.wait() == 128 + signal.SIGTERM
        assert not workspace.exists()


def test_what_the_command_leaves_running_is_ended_and_named(marked: Marked) -> None:
    script = "import os, signal\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    signal.pause()\n"
    with driver(
        "nothing", sys.executable, "-c", script, environment={"MARK": marked.mark}, stdin=subprocess.PIPE
    ) as running:
        assert running.wait() == 0
        assert any(re.search(r"warning: .* left . running, ended with it: .*python", line) for line in running.said)
        marked.assert_gone()


@pytest.mark.parametrize(
    ("denied", "messages"),
    [
        ("ptrace", {"ptrace": "cannot trace the command: the kernel does not permit ptrace here"}),
        (
            "seccomp",
            {
                "ptrace": "cannot install the seccomp filter: Operation not permitted",
                "notify": "seccomp(2) with a listener fails: Operation not permitted",
            },
        ),
        ("pidfd_getfd", {"notify": "descriptors of a child cannot be duplicated"}),
    ],
)
def test_what_the_surroundings_deny(denied: str, messages: dict[str, str], marked: Marked, delivery: str) -> None:
    message = messages.get(delivery)
    deny = [sys.executable, str(HERE / "deny.py"), denied]
    with driver("pass_all", "true", prefix=deny, environment={"MARK": marked.mark}, stdin=subprocess.PIPE) as running:
        assert running.wait() == (0 if message is None else 1)
        assert message is None or any(message in line for line in running.said)
        assert not any("Traceback" in line for line in running.said)
        marked.assert_gone()


def test_supervisor_that_is_traced_itself(marked: Marked, delivery: str) -> None:
    """Under `strace -f`, say: a process has one tracer. Only the ptrace delivery must be our child's itself."""
    with driver(
        "pass_all", "true", prefix=[sys.executable, "-c", TRACES], environment={"MARK": marked.mark}
    ) as running:
        assert running.wait() == (1 if delivery == "ptrace" else 0)
        told = any("a process has one tracer only" in line for line in running.said)
        assert told == (delivery == "ptrace")


TRACES = """if 1:
    import ctypes, os, sys
    PTRACE_SEIZE, PTRACE_CONT, FORKS = 0x4206, 7, 0xe
    def ptrace(request, pid, data=0):
        return ctypes.CDLL(None).ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, ctypes.c_void_p(data))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(reading, 1)
        os.execv(sys.argv[1], sys.argv[1:])
    assert ptrace(PTRACE_SEIZE, pid, FORKS) == 0
    os.write(writing, b"g")
    while True:
        tid, status = os.waitpid(-1, 0x40000000)
        if os.WIFSTOPPED(status):
            ptrace(PTRACE_CONT, tid, 0 if status >> 16 else os.WSTOPSIG(status))
        elif tid == pid:
            os._exit(os.waitstatus_to_exitcode(status))
"""


def test_supervisor_that_was_started_with_sigchld_ignored() -> None:
    ignore = ["env", "--ignore-signal=CHLD"]
    show = "grep SigIgn /proc/self/status; true"
    ended = run("pass_all", "sh", "-c", show, prefix=ignore)
    native = subprocess.run([*ignore, "sh", "-c", show], capture_output=True, text=True, check=True)
    assert (ended.exit_code, ended.stdout) == (0, native.stdout)


@pytest.mark.parametrize(
    ("script", "exit_code"), [("exit 0", 0), ("exit 77", 77), ("kill -KILL $$", 137), ("kill -USR1 $$", 138)]
)
def test_exit_codes(script: str, exit_code: int) -> None:
    assert run("pass_all", "sh", "-c", script).exit_code == exit_code
