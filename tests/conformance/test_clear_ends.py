"""Clear ends: whatever ends, in whatever way, is told, hangs nothing and leaves nothing behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance import build, places
from tests.conformance.harness import descendants, nothing_left, run_outside, tool_command, wait_until_gone
from tests.conformance.pods import ConformancePod

FAR = places.FAR[0]
READY_WITHIN_S = 20.0
PROMISED_S = 1.0
HONEST_ERRNOS = {"ENETUNREACH", "ENETDOWN", "ECONNABORTED", "ECONNRESET", "EHOSTUNREACH", "ENOTCONN", "EPIPE"}


@contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command in a session of its own; afterwards it is gone, and all that it started."""
    with nothing_left():
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate(timeout=10)


def wait_until_ready(process: subprocess.Popen[bytes], timeout_s: float = READY_WITHIN_S) -> bool:
    """Whether the program has written its first line, "ready", within the time."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], timeout_s)[0]:
        return False
    return os.read(process.stdout.fileno(), 100).startswith(b"ready")


@pytest.fixture
def family(outside: ConformancePod, pod: ConformancePod, delivery: str) -> list[str]:
    program = [*build.python_program("family"), FAR, str(places.ECHO)]
    return tool_command(outside, pod, delivery, program)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_the_tree_and_the_agent_go_with_the_supervisor(family: list[str], how: signal.Signals) -> None:
    with started(family) as tool:
        assert wait_until_ready(tool), "not ready"
        below = descendants(tool.pid)
        assert any("mirrord_agent" in command for command in below.values()), below
        assert sum("family.py" in command for command in below.values()) >= 4, below
        tool.send_signal(how)
        alive = wait_until_gone([tool.pid, *below], PROMISED_S)
        assert not alive, "still there: " + "\n".join(f"{pid} {below.get(pid, 'the tool')}" for pid in alive)


@pytest.mark.parametrize("after_ms", [0, 40, 80, 120, 160, 200, 250, 300, 350, 400, 500, 600])
def test_killing_the_supervisor_at_any_stage_leaves_nothing(family: list[str], after_ms: int) -> None:
    with started(family) as tool:
        wait_until_ready(tool, after_ms / 1000)
        tool.kill()
        tool.wait(10)


def test_when_the_agent_is_killed_the_process_is_told_and_goes_on(
    outside: ConformancePod, pod: ConformancePod, delivery: str
) -> None:
    arguments = [FAR, str(places.ECHO), str(places.SILENT), "shop"]
    program = [*build.python_program("witness"), *arguments]
    with started(tool_command(outside, pod, delivery, program)) as tool:
        assert wait_until_ready(tool), "not ready"
        agents = [pid for pid, command in descendants(tool.pid).items() if "mirrord_agent" in command]
        assert agents
        for pid in agents:
            os.kill(pid, signal.SIGKILL)
        begun = time.monotonic()
        output, errors = tool.communicate(b"\n", timeout=60)
        took_s = time.monotonic() - begun
    lines = dict(line.split(": ", 1) for line in output.decode().splitlines())
    for what in ("a blocked read", "a connect under way", "an idle connection", "a new connection"):
        assert lines[what] in HONEST_ERRNOS, f"{what}: {lines[what]}"
    assert lines["a datagram"] in HONEST_ERRNOS | {"ECONNREFUSED"}, lines
    assert lines["a lookup"] == "gaierror"
    assert lines["a Unix socket pair"] == "works"
    assert tool.returncode == 21
    assert took_s < 15, f"{took_s:.1f} s: something waited for a time-out"
    told = errors.decode().strip().splitlines()
    assert told, "nothing was told"
    assert len(told) == len(set(told)), f"told more than once: {told}"
    assert "Traceback" not in errors.decode()


def test_a_supervisor_without_an_agent_ends_with_its_process(
    outside: ConformancePod, pod: ConformancePod, delivery: str
) -> None:
    with started(tool_command(outside, pod, delivery, ["sh", "-c", "echo ready; read line; exit 9"])) as tool:
        assert wait_until_ready(tool)
        for pid, command in descendants(tool.pid).items():
            if "mirrord_agent" in command:
                os.kill(pid, signal.SIGKILL)
        tool.communicate(b"\n", timeout=20)
        assert tool.returncode == 9


@pytest.mark.parametrize(("kind", "status"), [("absent", 127), ("not executable", 126), ("directory", 126)])
def test_commands_that_cannot_be_run(
    outside: ConformancePod, pod: ConformancePod, delivery: str, tmp_path: Path, kind: str, status: int
) -> None:
    command = tmp_path / "command"
    if kind == "directory":
        command.mkdir()
    elif kind == "not executable":
        command.write_text("#!/bin/sh\n")
    outcome = run_outside(tool_command(outside, pod, delivery, [str(command)]))
    assert outcome.exit_status == status
    assert str(command) in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_target_that_is_gone_is_named(outside: ConformancePod, pod: ConformancePod, delivery: str) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait(10)
    command = tool_command(outside, pod, delivery, ["true"])
    command[command.index("--target") + 1] = f"pid/{ended.pid}"
    outcome = run_outside(command)
    assert outcome.exit_status == 1
    assert str(ended.pid) in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_setuid_program_is_warned_about(
    outside: ConformancePod, pod: ConformancePod, delivery: str, tmp_path: Path
) -> None:
    program = tmp_path / "setuid-program"
    shutil.copy(build.c_program("world", "musl"), program)
    os.chown(program, 65534, 65534)
    program.chmod(0o4755)
    # Root's tool lets the program have its user; one that may not, as an ordinary user's may not, says so.
    outcome = run_outside(["setpriv", "--no-new-privs", "--", *tool_command(outside, pod, delivery, [str(program)])])
    assert outcome.exit_status == 0
    assert "setuid" in outcome.stderr.lower() or "set-user-id" in outcome.stderr.lower(), outcome.stderr
    assert "setuid-program" in outcome.stderr
