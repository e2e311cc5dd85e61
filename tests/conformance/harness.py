"""Runs one program in one world or the other: natively inside the pod, or outside with the pod as the tool's target.

A case asks for a `World` and runs a program in it. The native world just does it. The world of a delivery runs the
program natively first (once per session), then under the tool, and fails with a difference unless standard output
and exit status are equal; after it, no process may be left. What a case says about the output beyond that is checked
in every world, so the native one proves that the expectation is true.

"Outside" is a network namespace with nothing but `lo`: what the tool should have taken to the pod and did not gets
ENETUNREACH there, and can neither leave this machine nor be answered by another. Its host name is another one, too.

Every wait has a bound. Nothing here polls with sleeps: processes are waited for through pidfds.
"""

from __future__ import annotations

import ctypes
import difflib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.conformance.pods import ConformancePod

PR_SET_CHILD_SUBREAPER = 36
NATIVE = "native"
DELIVERIES = ("notify", "ptrace")
"""Each runs every case; `--delivery` of the tool takes these names."""

GONE_WITHIN_S = 2.0
"""How long after the tool's end its last process may take to be gone; it promises a second."""


@attrs.frozen
class Outcome:
    """What a program did."""

    stdout: str
    stderr: str
    exit_status: int

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()

    def value(self, label: str) -> str:
        """What the line that begins with the label and ": " goes on with. The label stands on one line only."""
        found = [line.removeprefix(f"{label}: ") for line in self.lines if line.startswith(f"{label}: ")]
        assert len(found) == 1, f"{len(found)} lines begin with {label!r} in:\n{self.stdout}"
        return found[0]


def tool_command(
    outside: ConformancePod, pod: ConformancePod, delivery: str, program: Sequence[str], options: Sequence[str] = ()
) -> list[str]:
    """The command line of the tool for a program: run in the network of one pod, with the other as target."""
    return [
        *("nsenter", f"--net=/proc/{outside.pid}/ns/net", f"--uts=/proc/{outside.pid}/ns/uts", "--"),
        *(sys.executable, "-m", "mirrord_trace", "run", "--quiet"),
        *("--target", f"pid/{pod.pid}", "--delivery", delivery, *options, "--", *program),
    ]


def become_subreaper() -> None:
    """From now on, who loses its parent below this process becomes its child: nothing hides from `nothing_left`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def descendants(pid: int) -> dict[int, str]:
    """Every living process below one, with its command line."""
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        parent = pending.pop()
        try:
            tasks = os.listdir(f"/proc/{parent}/task")
        except FileNotFoundError:
            continue
        for task in tasks:
            try:
                children = Path(f"/proc/{parent}/task/{task}/children").read_text().split()
            except FileNotFoundError:
                continue
            for child in map(int, children):
                pending.append(child)
                try:
                    state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                    command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if state != "Z":
                    found[child] = command
    return found


def wait_until_gone(pids: Sequence[int], timeout_s: float) -> list[int]:
    """Those of the processes that still live when the time is over."""
    deadline = time.monotonic() + timeout_s
    alive = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            left_s = max(0.0, deadline - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                alive.append(pid)
        finally:
            os.close(descriptor)
    return alive


def reap(pids: Sequence[int]) -> None:
    """Collect those orphans that came to this process and have ended."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue


@contextmanager
def nothing_left() -> Iterator[None]:
    """What the block started must be gone soon after it; what is not is killed, and is a failure."""
    before = descendants(os.getpid())
    try:
        yield
    finally:
        new = {pid: command for pid, command in descendants(os.getpid()).items() if pid not in before}
        alive = wait_until_gone(list(new), GONE_WITHIN_S)
        for pid in alive:
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(alive, GONE_WITHIN_S)
        reap(list(new))
    assert not alive, f"left behind: {[new[pid] for pid in alive]}"


def run_outside(
    command: Sequence[str], *, stdin: bytes = b"", cwd: str | None = None, timeout_s: float = 60
) -> Outcome:
    """Run a command on this side of the pod. When it takes too long the processes are killed and it is a failure."""
    with (
        nothing_left(),
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            start_new_session=True,
        ) as process,
    ):
        try:
            stdout, stderr = process.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired:
            below = descendants(process.pid)
            for pid in (process.pid, *below):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            stdout, stderr = process.communicate(timeout=10)
            raise AssertionError(
                f"hangs: {list(command)} after {timeout_s} s; below it {list(below.values())}\n"
                f"stdout: {stdout.decode(errors='replace')[-3000:]}\nstderr: {stderr.decode(errors='replace')[-3000:]}"
            ) from None
    return Outcome(stdout.decode(errors="replace"), stderr.decode(errors="replace"), process.returncode)


@attrs.define
class World:
    """Where a case's programs run: `name` is "native" or a delivery; `outside` has the network of the tool."""

    name: str
    pod: ConformancePod
    outside: ConformancePod
    native_outcomes: dict[tuple[object, ...], Outcome]

    @property
    def traced(self) -> bool:
        return self.name != NATIVE

    def native(
        self,
        program: Sequence[str | Path],
        *,
        stdin: bytes = b"",
        cwd: str | None = None,
        timeout_s: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> Outcome:
        """The program's outcome inside the pod; the same program is run there only once."""
        argv = list(map(str, program))
        key = (id(self.pod), tuple(argv), stdin, cwd, tuple(sorted((environment or {}).items())))
        if key not in self.native_outcomes:
            env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            env |= {**self.pod.environment, **(environment or {})}
            done = self.pod.run(argv, stdin=stdin, cwd=cwd, timeout_s=timeout_s, env=env)
            stdout, stderr = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
            # A program that a signal ended: what a shell makes of it is what the tool exits with.
            status = done.returncode if done.returncode >= 0 else 128 - done.returncode
            self.native_outcomes[key] = Outcome(stdout, stderr, status)
        return self.native_outcomes[key]

    def run(
        self,
        program: Sequence[str | Path],
        *,
        options: Sequence[str] = (),
        stdin: bytes = b"",
        cwd: str | None = None,
        timeout_s: float = 60,
        exit_status: int = 0,
    ) -> Outcome:
        """The program's outcome in this world, which is the native one, or a failure that shows the difference.

        Natively it must end with `exit_status`: programs that fail alike everywhere would show nothing.
        """
        native = self.native(program, stdin=stdin, cwd=cwd, timeout_s=timeout_s)
        argv = list(map(str, program))
        assert native.exit_status == exit_status, (
            f"{' '.join(argv)} in the pod: exit status {native.exit_status}\n"
            f"{native.stdout[-2000:]}\nstandard error:\n{native.stderr[-2000:]}"
        )
        if not self.traced:
            return native
        traced = run_outside(self.command(argv, options), stdin=stdin, cwd=cwd, timeout_s=timeout_s)
        if (traced.stdout, traced.exit_status) != (native.stdout, native.exit_status):
            before = [*native.lines, f"(exit status {native.exit_status})"]
            after = [*traced.lines, f"(exit status {traced.exit_status})"]
            difference = difflib.unified_diff(
                before, after, "in the pod", f"under the tool ({self.name})", lineterm="", n=1
            )
            text = "\n".join(difference)
            raise AssertionError(f"{' '.join(argv)}\n{text}\nstandard error:\n{traced.stderr[-4000:]}")
        self.check_what_is_left()
        return traced

    def command(self, program: Sequence[str | Path], options: Sequence[str] = ()) -> list[str]:
        """How a program is started in this world, for cases that talk with it."""
        assert self.traced
        return tool_command(self.outside, self.pod, self.name, list(map(str, program)), options)

    def check_what_is_left(self) -> None:
        """Fails when a run under the tool has left something. For processes every run looks by itself."""
