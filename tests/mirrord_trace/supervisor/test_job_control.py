"""Signals and the terminal: the program and we are one job, as a shell sees it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator

import attrs
import pytest

from tests.mirrord_trace.supervisor.harness import ROOT, TIMEOUT_S, driver, program

pytestmark = pytest.mark.usefixtures("delivery")


@attrs.define(eq=False)
class Terminal:
    """A driver in the foreground of a pseudo-terminal, whose session leader is its parent: as a shell's job."""

    pid: int
    controller: int
    seen: str = ""

    def until(self, text: str) -> None:
        """Reads what is shown up to `text`."""
        deadline = time.monotonic() + TIMEOUT_S
        while text not in self.seen:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([self.controller], [], [], left_s)[0]:
                pytest.fail(f"never showed {text!r}, but {self.seen!r}")
            try:
                self.seen += os.read(self.controller, 65536).decode(errors="replace")
            except OSError:
                pytest.fail(f"ended without showing {text!r}, but {self.seen!r}")
        self.seen = self.seen.partition(text)[2]

    def press(self, key: bytes) -> None:
        os.write(self.controller, key)


SHELL = """if 1:
    import os, signal, sys
    # A shell with one job: starts it, tells of its stops, continues it when it is asked to, and ends as it does.
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    job = os.fork()
    if job == 0:
        os.setpgid(0, 0)
        os.tcsetpgrp(0, os.getpid())
        for number in (signal.SIGTTOU, signal.SIGINT, signal.SIGTSTP):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(sys.argv[1], sys.argv[1:])
    while True:
        _, status = os.waitpid(job, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            print("shell: ended with", os.waitstatus_to_exitcode(status), flush=True)
            break
        os.tcsetpgrp(0, os.getpgrp())
        print("shell: stopped by", os.WSTOPSIG(status), flush=True)
        sys.stdin.readline()
        print("shell: fg", flush=True)
        os.tcsetpgrp(0, job)
        os.killpg(job, signal.SIGCONT)
"""


@pytest.fixture
def terminal(request: pytest.FixtureRequest, delivery: str) -> Iterator[Terminal]:
    """Runs the program `job` with the arguments that the test is parametrised with."""
    command = [sys.executable, "-m", "tests.mirrord_trace.supervisor.driver", delivery, "pass_all"]
    command.append(program("job"))
    command += getattr(request, "param", [])
    pid, controller = os.forkpty()
    if pid == 0:
        try:
            os.chdir(ROOT)
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            os.execv(sys.executable, [sys.executable, "-c", SHELL, *command])
        finally:
            os._exit(99)
    running = Terminal(pid, controller)
    running.until("runs ")
    try:
        yield running
    finally:
        os.close(controller)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_ctrl_c_ends_the_program(terminal: Terminal) -> None:
    terminal.press(b"\x03")
    terminal.until(f"shell: ended with {128 + signal.SIGINT}\r\n")


@pytest.mark.parametrize("terminal", [["catches"]], indirect=True)
def test_ctrl_c_reaches_a_program_that_catches_it_once(terminal: Terminal) -> None:
    terminal.press(b"\x03")
    terminal.until("got INT\r\n")
    terminal.until("shell: ended with 7\r\n")


def test_ctrl_z_stops_the_job_and_fg_continues_it(terminal: Terminal) -> None:
    for _ in range(3):
        terminal.press(b"\x1a")
        terminal.until(f"shell: stopped by {int(signal.SIGTSTP)}\r\n")
        terminal.press(b"fg\n")
        terminal.until("shell: fg\r\n")
        terminal.until("got CONT\r\n")
    terminal.press(b"\x03")
    terminal.until("shell: ended with ")


def test_window_changes_reach_the_program(terminal: Terminal) -> None:
    fcntl.ioctl(terminal.controller, termios.TIOCSWINSZ, struct.pack("=4H", 33, 77, 0, 0))
    terminal.until("got WINCH\r\n")


def test_signals_to_us_are_passed_on_and_those_of_the_program_to_its_group_are_not() -> None:
    with driver("pass_all", program("job"), "catches", own_session=True) as running:
        assert running.next_line().startswith("runs ")
        running.process.send_signal(signal.SIGUSR1)
        assert running.next_line() == "got USR1"
        assert running.next_line() == "got USR2"
        running.process.send_signal(signal.SIGTERM)
        assert running.next_line() == "got TERM"  # and no second USR2 before it
        assert running.wait() == 8


def test_group_that_is_stopped_as_a_whole_continues() -> None:
    with driver("pass_all", program("job"), "catches", own_session=True) as running:
        pid = int(running.next_line().removeprefix("runs "))
        for _ in range(5):
            os.killpg(running.process.pid, signal.SIGSTOP)
            info = os.waitid(os.P_PID, running.process.pid, os.WSTOPPED)
            assert info is not None
            os.killpg(running.process.pid, signal.SIGCONT)
            assert running.next_line() == "got CONT"
        os.kill(pid, signal.SIGSTOP)
        running.until(f"driver: stopped by {int(signal.SIGSTOP)}")
        os.kill(pid, signal.SIGCONT)
        assert running.next_line() == "got CONT"
        os.kill(pid, signal.SIGINT)
        assert running.wait() == 7
