"""Traces: what the file holds whatever happens to the run, and what becomes of calls of real processes in it."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mirrord_syscalls.sockaddr import Unix
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor.delivery.base import (
    PASS,
    Call,
    Fail,
    PresentAddresses,
    Return,
    UseAddress,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.tracing import TraceFile, decision_of

TOOL = [sys.executable, "-m", "mirrord_trace", "run", "--quiet", "-t", "demo"]
PROGRAM = """
import os, socket, sys
with open("/srv/shop/shop.conf") as file:
    file.read()
try:
    open("/srv/shop/missing")
except FileNotFoundError:
    pass
socket.create_connection(("198.18.0.20", 80)).close()
if child := os.fork():
    os.waitpid(child, 0)
else:
    os.stat("/srv/shop")
    os._exit(0)
print("done", flush=True)
if "wait" in sys.argv:
    sys.stdin.read()
sys.exit(7)
"""


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [
        (PASS, "passed"),
        (Fail(errno.ENOENT), "not found"),
        (Fail(errno.ECONNREFUSED), "errno ECONNREFUSED"),
        (Fail(9999), "errno 9999"),
        (Return(3), "value"),
        (UseAddress(Unix(b"")), "remote"),
        (UsePath(b"/tree/etc/motd"), "remote"),
        (UsePath(b"/trees"), "local"),
        (UsePaths((b"/tree/a", b"/tree/b")), "remote"),
        (UsePaths((b"/tree/a", b"/b")), "local and remote"),
        (PresentAddresses(lambda address: address), "passed, addresses translated"),
    ],
)
def test_decisions_have_names(verdict: Verdict, decision: str) -> None:
    assert decision_of(verdict, b"/tree")["decision"] == decision


def _call(name: str = "openat") -> Call:
    return cast(Call, SimpleNamespace(tid=os.getpid(), name=name))


def test_a_trace_without_calls_is_an_array(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    path.write_text("what was there before" * 9)
    TraceFile.create(str(path), pytest.fail).close()
    assert json.loads(path.read_text()) == []


def test_names_are_written_once_and_again_only_when_they_change(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = TraceFile.create(str(path), pytest.fail)
    for name in ("execve", "execve", "openat"):
        trace.add(_call(name), 2_000, 3_500, {"decision": "passed"})
    trace.close()
    events = json.loads(path.read_text())
    assert [event["name"] for event in events] == ["process_name", "thread_name", "execve", "execve", "openat"]
    assert (events[-1]["ts"], events[-1]["dur"], events[-1]["pid"]) == (2.0, 1.5, os.getpid())


def test_many_calls_do_not_stay_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    trace = TraceFile.create(str(path), pytest.fail)
    for _ in range(2_000):
        trace.add(_call(), 0, 1, {"decision": "passed"})
    assert path.stat().st_size > 100_000
    trace.close()
    assert len(json.loads(path.read_text())) == 2_002


def test_a_full_disk_ends_the_trace_at_a_whole_event(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    told: list[str] = []
    trace = TraceFile.create(str(path), told.append)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
        for _ in range(2_000):
            trace.add(_call(), 0, 1, {"decision": "passed"})
        trace.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    assert told == [f"the trace in {path} is not complete: File too large"]
    assert 100 < len(json.loads(path.read_text())) < 2_000


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing"])
def test_what_cannot_be_written_is_told(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "there"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = path / "trace.json"
    with pytest.raises(Failure, match="cannot write the trace to"):
        TraceFile.create(str(path), pytest.fail)


def test_a_trace_that_cannot_be_written_ends_the_command_before_it_begins(tmp_path: Path) -> None:
    done = subprocess.run(
        [*TOOL, "--trace", str(tmp_path), "--", "echo", "begun"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot write the trace to" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
def test_calls_of_a_process_and_its_child_are_there(tmp_path: Path, delivery: str) -> None:
    path = tmp_path / "trace.json"
    command = [*TOOL, "--delivery", delivery, "--trace", str(path), "--", sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (7, "done\n"), done.stderr
    _agrees_with_the_program(json.loads(path.read_text()))


@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
def test_a_trace_can_be_read_when_the_supervisor_was_killed(tmp_path: Path, delivery: str) -> None:
    path = tmp_path / "trace.json"
    command = [*TOOL, "--delivery", delivery, "--trace", str(path), "--", sys.executable, "-c", PROGRAM, "wait"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "done\n"
        while b'"198.18.0.20:80"' not in path.read_bytes() or b'"path":"/srv/shop"' not in path.read_bytes():
            assert running.poll() is None
            os.sched_yield()
        running.send_signal(signal.SIGKILL)
    _agrees_with_the_program(json.loads(path.read_text()))


def _agrees_with_the_program(events: list[dict[str, Any]]) -> None:
    calls = [event for event in events if event["ph"] == "X"]
    assert len(calls) + sum(event["ph"] == "M" for event in events) == len(events)
    assert all(event["dur"] >= 0 and event["args"]["decision"] for event in calls)
    [connected] = [event for event in calls if event["args"].get("address") == "198.18.0.20:80"]
    assert (connected["name"], connected["args"]["decision"], connected["args"]["held"]) == ("connect", "remote", True)
    about = {event["args"].get("path"): event for event in calls if event["name"] in ("openat", "newfstatat", "stat")}
    assert about["/srv/shop/shop.conf"]["args"]["decision"] == "remote"
    assert about["/srv/shop"]["pid"] != connected["pid"]
    named = {event["pid"] for event in events if event["name"] == "process_name"}
    assert {event["pid"] for event in calls} <= named
