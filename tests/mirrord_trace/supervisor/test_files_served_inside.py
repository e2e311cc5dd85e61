"""A process of the tree serves files (FUSE) and makes calls itself meanwhile: whoever takes its calls may not wait."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.mirrord_trace.supervisor.harness import ROOT, TIMEOUT_S, run
from tests.mirrord_trace.supervisor.programs.served_inside import CALLS
from tests.mirrord_trace.tree.private_mounts import in_private_mounts

PROGRAM = [sys.executable, "-m", "tests.mirrord_trace.supervisor.programs.served_inside"]


@contextmanager
def place(directory: Path) -> Iterator[Path]:
    """For one run; whoever still serves there at the end is killed, for others may wait for him in vain."""
    directory.mkdir()
    try:
        yield directory
    finally:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((directory / "server").read_text()), signal.SIGKILL)


def natively(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    ).stdout


@pytest.mark.usefixtures("delivery")
@pytest.mark.parametrize("what", ["work", *CALLS])
@in_private_mounts
def test_who_serves_files_inside_is_served(tmp_path: Path, what: str) -> None:
    with place(tmp_path / "native") as directory:
        expected = natively(*PROGRAM, what, str(directory))
    assert ("others go on\n-9\n" in expected) == (what != "work")
    (tmp_path / "empty").mkdir()
    with place(tmp_path / "run") as directory:
        environment = {"TREE": str(tmp_path / "empty"), "MOUNT": str(directory / "mount")}
        ended = run("files", *PROGRAM, what, str(directory), environment=environment)
    assert (ended.exit_code, ended.stdout) == (0, expected), ended.said
