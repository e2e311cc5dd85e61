"""Starts the driver with programs of the tests, and waits with bounds."""

from __future__ import annotations

import functools
import hashlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.rights import as_user

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
TIMEOUT_S = 30
UNPRIVILEGED = [*as_user(reads_everything=True), "--bounding-set=-all,+dac_read_search"]
"""Runs a command as an ordinary user, whose setuid programs have no rights either."""


@functools.cache
def program(name: str) -> str:
    """A program of programs/NAME.c, compiled; for any user who can reach this checkout, as `UNPRIVILEGED` can."""
    source = HERE / "programs" / f"{name}.c"
    directory = ROOT / "build/supervisor-programs"
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not binary.exists():
        fresh = binary.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-pthread", "-o", fresh, source], check=True)
        fresh.replace(binary)
    return str(binary)


def delivery() -> str:
    """The delivery that drivers start with: see the fixture of that name."""
    return os.environ.get("DELIVERY", "ptrace")


@attrs.define(eq=False)
class Driver:
    """A running driver. Its stderr is read line by line."""

    process: subprocess.Popen[bytes]
    said: list[str] = attrs.field(factory=list)
    _rest: bytes = b""
    _output: bytes = b""

    def until(self, beginning: str) -> str:
        """The next line that begins so, without that; fails when it does not come in time."""
        deadline = time.monotonic() + TIMEOUT_S
        for line in self._lines(deadline):
            if line.startswith(beginning):
                return line.removeprefix(beginning)
        pytest.fail(f"never said {beginning!r}, but: {self.said}")

    def _lines(self, deadline: float) -> Iterator[str]:
        assert self.process.stderr is not None
        descriptor = self.process.stderr.fileno()
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                self.said.append(line.decode(errors="replace"))
                yield self.said[-1]
            if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return
            data = os.read(descriptor, 65536)
            if not data:
                return
            self._rest += data

    def wait(self) -> int:
        """The exit code; everything it says until then is in `said`."""
        deadline = time.monotonic() + TIMEOUT_S
        for _ in self._lines(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def next_line(self) -> str:
        """The next line of the program's output."""
        assert self.process.stdout is not None
        descriptor = self.process.stdout.fileno()
        while b"\n" not in self._output:
            assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"no line, but: {self._output!r}, {self.said}"
            data = os.read(descriptor, 65536)
            assert data, f"ended with {self._output!r}"
            self._output += data
        line, _, self._output = self._output.partition(b"\n")
        return line.decode()

    @property
    def stdout(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode(errors="replace")


@contextmanager
def driver(
    scenario: str,
    *command: str,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    own_session: bool = False,
) -> Iterator[Driver]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.mirrord_trace.supervisor.driver", delivery(), scenario, *command],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **(environment or {})},
        start_new_session=own_session,
    )
    with process:
        try:
            yield Driver(process)
        finally:
            if process.poll() is None:
                process.kill()


@attrs.frozen
class Ended:
    """How a driver ended."""

    exit_code: int
    stdout: str
    said: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """A program may have begun a line before one of them."""
        mark = "driver: warning: "
        return [line.partition(mark)[2] for line in self.said if mark in line]


def run(
    scenario: str, *command: str, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Ended:
    """Runs a command to its end."""
    with driver(scenario, *command, prefix=prefix, environment=environment) as running:
        exit_code = running.wait()
        return Ended(exit_code, running.stdout, tuple(running.said))


def wait_until_gone(pid: int) -> None:
    """Fails when a process (not a child of ours) still lives after a while."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"process {pid} still lives"
    finally:
        os.close(descriptor)
