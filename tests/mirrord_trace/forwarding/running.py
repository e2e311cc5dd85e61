"""A command that serves a session, in a process of its own, while it runs."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import attrs

from tests.conformance.harness import become_subreaper, descendants, nothing_left, wait_until_gone

TIMEOUT_S = 60


@attrs.define(eq=False)
class Command:
    """A command under way. What it says on standard error is kept."""

    process: subprocess.Popen[bytes]
    told: list[str] = attrs.field(factory=list)
    _lines: queue.SimpleQueue[str | None] = attrs.field(factory=queue.SimpleQueue)

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line.decode(errors="replace").rstrip("\n"))
        self._lines.put(None)

    def tells(self, part: str) -> str:
        """The next line with this in it."""
        while True:
            line = self._lines.get(timeout=TIMEOUT_S)
            assert line is not None, f"it ended before it said {part!r}: {self.told}"
            self.told.append(line)
            if part in line:
                return line

    def port_of(self, far: str) -> int:
        """The port of 127.0.0.1 that is forwarded to somewhere."""
        found = re.search(r"127\.0\.0\.1:(\d+)", self.tells(f"-> {far}"))
        assert found is not None
        return int(found[1])

    def ends(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after a signal perhaps."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def command(
    *arguments: str, environment: Mapping[str, str] | None = None, stdout: int = subprocess.DEVNULL
) -> Iterator[Command]:
    """Starts one, without waiting for anything. It is killed with the block, and nothing of it may stay."""
    become_subreaper()
    with (
        nothing_left(),
        subprocess.Popen(
            [sys.executable, "-m", "mirrord_trace", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        ) as process,
    ):
        running = Command(process)
        reader = threading.Thread(target=running.read)
        reader.start()
        below: list[int] = []
        try:
            yield running
        finally:
            if process.poll() is None:
                below = list(descendants(process.pid))
                process.kill()
            process.wait()
            wait_until_gone(below, TIMEOUT_S)
            reader.join(TIMEOUT_S)
