"""The command as a user meets it: real processes, the demo pod, exit codes and what is said on stderr."""

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirrord_trace.policy.environment import STAYS_LOCAL

TIMEOUT_S = 30
COMMAND = [sys.executable, "-m", "mirrord_trace"]


def mirrord_trace(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "run", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def test_exit_code_is_that_of_the_command() -> None:
    result = mirrord_trace("--quiet", "--", "sh", "-c", "echo out; echo err >&2; exit 77")
    assert (result.returncode, result.stdout, result.stderr) == (77, "out\n", "err\n")


def test_exit_code_of_a_killed_command_is_128_and_the_signal() -> None:
    assert mirrord_trace("--quiet", "--", "sh", "-c", "kill -KILL $$").returncode == 128 + 9


def test_command_that_does_not_exist() -> None:
    result = mirrord_trace("no-such-command-anywhere")
    assert result.returncode == 127
    assert "no-such-command-anywhere" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_command_that_cannot_be_executed(tmp_path: Path, kind: str) -> None:
    command = tmp_path / "command"
    if kind == "file":
        command.write_text("no program")
        command.chmod(0o644)
    else:
        command.mkdir()
    result = mirrord_trace(command)
    assert result.returncode == 126
    assert str(command) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("target", ["nonsense", "pid/", "pid/-1", "pid/x", ""])
def test_target_that_cannot_be_meant(target: str) -> None:
    result = mirrord_trace("-t", target, "--", "true")
    assert result.returncode == 2
    assert "pid/PID" in result.stderr


def test_process_that_is_gone() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    result = mirrord_trace("-t", f"pid/{gone.pid}", "--", "true")
    assert result.returncode == 1
    assert str(gone.pid) in result.stderr
    assert "Traceback" not in result.stderr


def test_variables_are_the_targets_over_the_local_ones() -> None:
    script = 'echo "$POD_NAME|$GREETING|$LOCAL_ONLY|$RUST_LOG"'
    local = {"LOCAL_ONLY": "local", "GREETING": "local", "RUST_LOG": "local"}
    assert "RUST_LOG" in STAYS_LOCAL
    assert mirrord_trace("-q", "--", "sh", "-c", script, **local).stdout == (
        "web-demo-0|Hello from the demo pod|local|local\n"
    )
    assert mirrord_trace("-q", "--no-env", "--", "sh", "-c", script, **local).stdout == "|local|local|local\n"
    assert mirrord_trace("-q", "-x", "POD_*", "--", "sh", "-c", script, **local).stdout == (
        "web-demo-0|local|local|local\n"
    )
    assert mirrord_trace("-q", "-s", "POD_*", "--", "sh", "-c", script, **local).stdout == (
        "|Hello from the demo pod|local|local\n"
    )


def test_progress_ends_before_the_command_writes() -> None:
    """On one terminal, as a person sees it."""
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "run", "--", "echo", "from the command"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        seen = b""
        deadline = time.monotonic() + TIMEOUT_S
        while select.select([controller], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                seen += os.read(controller, 4096)
            except OSError:  # EIO: nobody has the terminal open any more
                break
        else:
            process.kill()
            pytest.fail(f"still running after {TIMEOUT_S} s, having written {seen!r}")
    os.close(controller)
    before, _, after = seen.partition(b"from the command\r\n")
    assert process.returncode == 0
    assert b"ready after" in before
    assert after == b""
    assert before.endswith((b"\n", b"\r\x1b[K"))
