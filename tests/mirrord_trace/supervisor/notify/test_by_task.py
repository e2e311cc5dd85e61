"""Calls that only the task itself can make, where it cannot be traced for them: a debugger does that already."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.mirrord_trace.supervisor.harness import run
from tests.mirrord_trace.supervisor.scenarios import MIRRORED

PROGRAM = [sys.executable, "-m", "tests.mirrord_trace.supervisor.programs.path_traced"]


@pytest.fixture(autouse=True)
def _notify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY", "notify")


def test_they_fail_and_the_user_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/echo never said\n")
    script.chmod(0o755)
    ended = run("mirror", *PROGRAM, os.fsdecode(MIRRORED), environment={"TREE": str(tmp_path)})
    assert ended.stdout.splitlines() == [
        "chdir EPERM",
        "chdir EPERM",
        "execve EPERM",
        "location b'#!/bin/ec'",  # a descriptor that can do more than the one asked for
        "ended 0",
    ]
    assert ended.exit_code == 0
    told = [line for line in ended.warnings if "traced already" in line]
    assert [line.split()[0] for line in told] == ["chdir", "execve"]
    assert str(tmp_path) in told[0]
