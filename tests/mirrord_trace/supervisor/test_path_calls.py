"""Every call that names files, made on other files than those it names: the same as natively, in both deliveries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.mirrord_trace.supervisor.harness import ROOT, TIMEOUT_S, UNPRIVILEGED, run
from tests.mirrord_trace.supervisor.scenarios import MIRRORED

pytestmark = pytest.mark.usefixtures("delivery")

PROGRAM = [sys.executable, "-m", "tests.mirrord_trace.supervisor.programs.path_calls"]


@pytest.fixture
def tree() -> Iterator[Path]:
    """An empty directory where everybody may write."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o1777)
        yield Path(directory)


def natively(*command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=TIMEOUT_S)


def lines(output: Path, directory: Path) -> list[str]:
    return output.read_text().replace(str(directory), os.fsdecode(MIRRORED)).splitlines()


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), (UNPRIVILEGED, []), ([], UNPRIVILEGED)], ids=["root", "user", "a user's under root"]
)
def test_every_call(tree: Path, ours: list[str], theirs: list[str]) -> None:
    """`ours` are the rights of the supervisor, `theirs` those of the task."""
    native, mirrored = tree / "native", tree / "mirrored"
    for directory in (native, mirrored):
        directory.mkdir()
        directory.chmod(0o1777)
    natively(*ours, *theirs, *PROGRAM, str(native), str(tree / "natively"))
    command = [*(theirs or ["env"]), *PROGRAM, os.fsdecode(MIRRORED), str(tree / "found")]
    ended = run("mirror", *command, prefix=ours, environment={"TREE": str(mirrored)})
    assert ended.exit_code == 0, ended.said
    found, expected = lines(tree / "found", mirrored), lines(tree / "natively", native)
    for line, expected_line in zip(found, expected, strict=False):
        assert line == expected_line
    assert len(found) == len(expected)
