"""Job control: a real shell on a real terminal runs a program, stops it, continues it and interrupts it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.conformance import build
from tests.conformance.harness import World, nothing_left, tool_command

ANSWER_WITHIN_S = 15.0
CONTROL_C, CONTROL_Z, CONTROL_BACKSLASH = "\x03", "\x1a", "\x1c"


class Terminal:
    """The far end of a terminal: what a person types and sees."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""
        self._position = 0

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self._descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def expect(self, text: str) -> None:
        """Read on until the text has come, after what was expected before."""
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while (found := self._seen.find(text, self._position)) < 0:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._descriptor], [], [], left_s)[0]:
                raise AssertionError(f"{text!r} does not come; the terminal shows:\n{self._seen}")
            self._seen += os.read(self._descriptor, 65536).decode(errors="replace")
        self._position = found + len(text)


@contextmanager
def shell() -> Iterator[Terminal]:
    """An interactive shell in a session of its own, with a terminal of its own."""
    near, far = pty.openpty()
    environment = {**os.environ, "PS1": "prompt> ", "TERM": "dumb"}
    with nothing_left():
        process = subprocess.Popen(
            ["setsid", "--ctty", "bash", "--norc", "--noprofile", "--noediting", "-i"],
            stdin=far,
            stdout=far,
            stderr=far,
            env=environment,
        )
        os.close(far)
        try:
            terminal = Terminal(near)
            terminal.expect("prompt> ")
            yield terminal
            terminal.type("exit\n")
            process.wait(ANSWER_WITHIN_S)
        finally:
            os.close(near)
            process.kill()
            process.wait()


def typed(world: World, program: Sequence[str]) -> str:
    """The line to type: the program itself, or the tool with the program."""
    command = tool_command(world.outside, world.pod, world.name, program) if world.traced else program
    return shlex.join(command) + "\n"


def test_a_program_is_stopped_continued_and_interrupted(world: World) -> None:
    with shell() as terminal:
        terminal.type("set -b\n")
        terminal.type(typed(world, build.python_program("terminal")))
        terminal.expect("started, in the foreground: True")
        terminal.expect("a terminal: True True True")
        terminal.type("hello\n")
        terminal.expect("line: hello")
        terminal.resize(columns=123, lines=45)
        terminal.expect("window: 123 45")
        for _ in range(3):
            terminal.type(CONTROL_Z)
            terminal.expect("Stopped")
            terminal.expect("prompt> ")
            terminal.type("fg\n")
            terminal.expect("continued, in the foreground: True")
        terminal.type("again\n")
        terminal.expect("line: again")
        terminal.type(CONTROL_Z)
        terminal.expect("Stopped")
        terminal.type("bg\n")
        terminal.expect("continued, in the foreground: False")
        # It reads: SIGTTIN. The shell tells at once (set -b).
        terminal.expect("Stopped")
        terminal.type("fg\n")
        terminal.expect("continued, in the foreground: True")
        terminal.type("still there\n")
        terminal.expect("line: still there")
        terminal.type(CONTROL_C)
        terminal.expect("interrupted")
        terminal.expect("prompt> ")
        terminal.type('echo "ended with $?"\n')
        terminal.expect("ended with 33")


def test_keys_that_kill_give_the_status_of_their_signal(world: World) -> None:
    with shell() as terminal:
        terminal.type("ulimit -c 0\n")
        for key, status in ((CONTROL_C, 130), (CONTROL_BACKSLASH, 131)):
            terminal.type(typed(world, ["sh", "-c", "echo be''gun; exec sleep 60"]))
            terminal.expect("begun")
            terminal.type(key)
            terminal.expect("prompt> ")
            terminal.type('echo "ended with $?"\n')
            terminal.expect(f"ended with {status}")


def test_the_end_of_input_reaches_the_program(world: World) -> None:
    with shell() as terminal:
        terminal.type(typed(world, build.python_program("terminal")))
        terminal.expect("a terminal: True True True")
        terminal.type("\x04")
        terminal.expect("end of input")
        terminal.expect("prompt> ")
        terminal.type('echo "ended with $?"\n')
        terminal.expect("ended with 34")


def test_a_pipeline_of_the_shell_has_both_ends(world: World) -> None:
    with shell() as terminal:
        line = typed(world, ["sh", "-c", "echo one; echo two; test -t 1 || echo pi''ped"]).rstrip()
        terminal.type(f"{line} | tr a-z A-Z\n")
        terminal.expect("PIPED")
