"""Runs what is measured, and looks at its memory.

Everything is started in a session of its own and, when its time is over or the benchmark is interrupted, killed with
all that is below it: nothing outlives its block. The tool passes a SIGKILL of itself on by its own means.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.errors import MeasurementFailed

Command = Sequence[str | Path]

_PR_SET_CHILD_SUBREAPER = 36
_GONE_WITHIN_S = 5.0


def become_subreaper() -> None:
    """From now on, who loses its parent below this process becomes its child, so that it can be found."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    """Every process below one, parents before children."""
    found: list[int] = []
    pending = [pid]
    while pending:
        parent = pending.pop(0)
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                with contextlib.suppress(OSError):
                    children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
                    found += (new := [int(child) for child in children])
                    pending += new
    return found


@contextmanager
def running(
    command: Command, *, stdin: int = subprocess.DEVNULL, stderr: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    """A process with its standard output (and error) on pipes; it and all below it are gone when the block is left."""
    with subprocess.Popen(
        command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                end(process)


def end(process: subprocess.Popen[str]) -> None:
    """SIGTERM, then SIGKILL to it and to what is still below it."""
    below = descendants(process.pid)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1)
    for pid in (process.pid, *below):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(_GONE_WITHIN_S)
    reap()


def reap() -> None:
    """Collects orphans that came to us and have ended, if no child of ours that somebody waits for is among them."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError, IndexError):
            state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) == os.getpid():
                os.waitpid(pid, os.WNOHANG)


def run(command: Command, timeout_s: float) -> str:
    """The standard output of a command that must succeed. Raises MeasurementFailed."""
    with running(command) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            end(process)
            stdout, stderr = process.communicate()
            text = f"still running after {timeout_s:g} s: {shown(command)}\n{_tail(stdout + stderr)}"
            raise MeasurementFailed(text) from None
        if process.returncode != 0:
            text = f"exit status {process.returncode}: {shown(command)}\n{_tail(stdout + stderr)}"
            raise MeasurementFailed(text)
    return stdout


def wait_readable(descriptor: int, timeout_s: float) -> bool:
    """Whether there is something to read, or the end, within so many seconds."""
    return bool(select.select([descriptor], [], [], max(0.0, timeout_s))[0])


def read_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """The next line of its standard output, without its end. Raises MeasurementFailed with its last words."""
    assert process.stdout is not None
    assert process.stderr is not None
    assert isinstance(process.args, list)
    descriptor, deadline = process.stdout.fileno(), time.monotonic() + timeout_s
    line = b""
    while not line.endswith(b"\n"):
        if not wait_readable(descriptor, deadline - time.monotonic()):
            raise MeasurementFailed(f"said nothing within {timeout_s:g} s: {shown(process.args)}")
        byte = os.read(descriptor, 1)  # what is behind the line stays in the pipe, where the next wait sees it
        if not byte:
            raise MeasurementFailed(f"ended: {shown(process.args)}\n{_tail(process.stderr.read())}")
        line += byte
    return line.decode().removesuffix("\n")


@contextmanager
def serving(command: Command, timeout_s: float) -> Iterator[subprocess.Popen[str]]:
    """As `running`, for a program whose first line is "ready". Raises MeasurementFailed."""
    with running(command) as process:
        line = read_line(process, timeout_s)
        if line != "ready":
            raise MeasurementFailed(f"is not ready, but says {line!r}: {shown(command)}")
        yield process


def shown(command: Sequence[object]) -> str:
    """The command line, or as much of it as tells what it was."""
    text = shlex.join(map(str, command))
    return text if len(text) <= 160 else f"{text[:100]} … {text[-55:]}"


def _tail(text: str) -> str:
    return "\n".join(text.splitlines()[-8:])


def numbers(output: str) -> dict[str, float]:
    """Lines "WORDS NUMBER" as numbers by words. Raises MeasurementFailed."""
    found = {}
    for line in output.splitlines():
        words, _, number = line.rpartition(" ")
        try:
            found[words] = float(number)
        except ValueError:
            raise MeasurementFailed(f"a program that measures printed {line!r}") from None
    return found


@attrs.frozen
class MemoryUse:
    """Of one or several processes, in bytes. `rss`: resident; `pss`: the same with shared pages divided by sharers."""

    rss: int = 0
    pss: int = 0

    def __add__(self, other: MemoryUse) -> MemoryUse:
        return MemoryUse(self.rss + other.rss, self.pss + other.pss)

    @classmethod
    def of_rollup(cls, text: str) -> MemoryUse:
        """From the text of /proc/PID/smaps_rollup (proc(5))."""
        fields = {line.split(":")[0]: line.split()[1] for line in text.splitlines()[1:]}
        return cls(int(fields["Rss"]) * 1024, int(fields["Pss"]) * 1024)


def memory_by_role(tool: int, programs: frozenset[str]) -> dict[str, MemoryUse]:
    """Memory of the tool's own processes: supervisor (`tool` itself), agent and guardian; not of what it runs.

    `programs`: paths of the executables that are the user's. A guardian is what remains: a fork of the supervisor.
    """
    found: dict[str, MemoryUse] = {}
    for pid in (tool, *descendants(tool)):
        with contextlib.suppress(OSError, ValueError, KeyError):
            if os.readlink(f"/proc/{pid}/exe") in programs:
                continue
            role = "supervisor" if pid == tool else "agent" if is_agent(pid) else "guardian"
            use = MemoryUse.of_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
            found[role] = found.get(role, MemoryUse()) + use
    return found


def is_agent(pid: int) -> bool:
    """Whether a process is an agent."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(b"mirrord_agent" in word for word in words)


def processor_time_s(pid: int) -> float:
    """What a process that runs has used, in the kernel and outside, by all its threads. Raises OSError."""
    clock_of_process = ~pid << 3 | 2  # as clock_getcpuclockid(3) makes it, which Python lacks
    return time.clock_gettime(clock_of_process)


def processor_times_s(pids: Iterable[int]) -> dict[int, float]:
    """The same of several, without those that have ended."""
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = processor_time_s(pid)
    return found


def keep_on(pid: int, processors: Collection[int]) -> None:
    """All threads of a process, and what they start, run on these processors only. One that has ended does not mind."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(task), processors)
