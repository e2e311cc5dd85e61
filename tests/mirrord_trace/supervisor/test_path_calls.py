"""Every call that names files, made on other files than those it names: the same as natively, in both deliveries."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest

from tests.mirrord_trace.supervisor.harness import HERE, ROOT, TIMEOUT_S, UNPRIVILEGED, Driver, delivery, driver, run
from tests.mirrord_trace.supervisor.scenarios import MIRRORED
from tests.waiting import holds_within, sleeps_in, threads_of

pytestmark = pytest.mark.usefixtures("delivery")

PROGRAM = [sys.executable, "-m", "tests.mirrord_trace.supervisor.programs.path_calls"]
WAITING = [sys.executable, "-m", "tests.mirrord_trace.supervisor.programs.path_waits"]


@attrs.frozen
class Trees:
    """An empty directory for the native program, one that is called MIRRORED for the other; everybody may write."""

    native: Path
    mirrored: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"TREE": str(self.mirrored)}

    def lines(self, text: str) -> list[str]:
        """As both ought to say it."""
        names = os.fsdecode(MIRRORED)
        return text.replace(str(self.native), names).replace(str(self.mirrored), names).splitlines()


@pytest.fixture
def trees() -> Iterator[Trees]:
    with TemporaryDirectory() as directory:
        trees = Trees(Path(directory) / "native", Path(directory) / "mirrored")
        for path in (Path(directory), trees.native, trees.mirrored):
            path.mkdir(exist_ok=True)
            path.chmod(0o1777)
        yield trees


def natively(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S
    ).stdout


def compare(trees: Trees, ours: list[str], theirs: list[str]) -> None:
    """Every call, natively and under a supervisor. `ours` are the rights of the supervisor, `theirs` the task's."""
    outputs = native, found = [path.with_name(path.name + "-output") for path in (trees.native, trees.mirrored)]
    natively(*ours, *theirs, *PROGRAM, str(trees.native), str(native))
    command = [*(theirs or ["env"]), *PROGRAM, os.fsdecode(MIRRORED), str(found)]
    ended = run("mirror", *command, prefix=ours, environment=trees.environment)
    assert ended.exit_code == 0, ended.said
    expected, seen = (trees.lines(output.read_text()) for output in outputs)
    assert [pair for pair in zip(seen, expected, strict=False) if pair[0] != pair[1]] == []
    assert len(seen) == len(expected)


@pytest.mark.parametrize(
    ("ours", "theirs"), [([], []), (UNPRIVILEGED, []), ([], UNPRIVILEGED)], ids=["root", "user", "a user's under root"]
)
def test_every_call(trees: Trees, ours: list[str], theirs: list[str]) -> None:
    compare(trees, ours, theirs)


def test_where_threads_cannot_have_a_umask(trees: Trees) -> None:
    """Ours takes nothing away here; the task's is applied by us."""
    denied = ["sh", "-c", 'umask 0; exec "$@"', "sh", sys.executable, str(HERE / "deny.py"), "unshare"]
    compare(trees, denied, [])


@pytest.mark.parametrize("what", ["many", "interrupt", "restart", "ignored", "alone"])
def test_opens_that_wait(trees: Trees, what: str) -> None:
    expected = natively(*WAITING, what, str(trees.native))
    ended = run("mirror", *WAITING, what, os.fsdecode(MIRRORED), environment=trees.environment)
    assert (ended.exit_code, ended.stdout) == (0, expected)
    assert expected


def test_a_wait_ends_with_the_task(trees: Trees) -> None:
    with driver("mirror", *WAITING, "wait", os.fsdecode(MIRRORED), environment=trees.environment) as running:
        pid = int(running.until("pid "))
        until_waiting(running, pid)
        os.kill(pid, signal.SIGKILL)
        assert running.wait() == 128 + signal.SIGKILL


def test_a_wait_goes_on_after_a_stop(trees: Trees) -> None:
    with driver("mirror", *WAITING, "wait", os.fsdecode(MIRRORED), environment=trees.environment) as running:
        pid = int(running.until("pid "))
        until_waiting(running, pid)
        os.kill(pid, signal.SIGSTOP)
        running.until("driver: stopped by")
        os.kill(pid, signal.SIGCONT)
        with open(trees.mirrored / "fifo", "wb") as fifo:
            fifo.write(b"after all")
        assert running.wait() == 0
        assert running.stdout == "opened b'after all'\n"


def until_waiting(running: Driver, pid: int) -> None:
    """Until the FIFO's open waits: the task's own, or under notify that of a thread of the supervisor's."""
    opener = running.process.pid if delivery() == "notify" else pid
    assert holds_within(TIMEOUT_S, lambda: any(sleeps_in("openat", thread) for thread in threads_of(opener)))


def test_the_task_keeps_its_cpus(trees: Trees) -> None:
    """Who makes calls for it may be kept on one CPU; it never is."""
    program = "import os, sys\nfor _ in range(50): os.stat(sys.argv[1])\nprint(sorted(os.sched_getaffinity(0)))"
    command = [sys.executable, "-c", program, os.fsdecode(MIRRORED)]
    ended = run("mirror", *command, environment=trees.environment)
    assert (ended.exit_code, ended.stdout) == (0, f"{sorted(os.sched_getaffinity(0))}\n"), ended.said
