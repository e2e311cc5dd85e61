from __future__ import annotations

import os
import subprocess
import sys

import attrs
import pytest

from mirrord_trace.targets.workloads.ownership import OWNER_ANNOTATION, RUN_ANNOTATION, Ownership, RunState

TELL = "from mirrord_trace.targets.workloads.ownership import Ownership; print(Ownership.ours().annotations())"


def test_what_is_written_can_be_read() -> None:
    ours = Ownership.ours()
    assert Ownership.read(ours.annotations()) == ours
    assert ours.pid == os.getpid()
    assert ours.owner.endswith("@" + os.uname().nodename)


def test_our_own_run_lives() -> None:
    ours = Ownership.ours()
    assert ours.state(ours) is RunState.LIVES


def test_a_run_that_ended_here_is_over() -> None:
    ours = Ownership.ours()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        with open(f"/proc/{process.pid}/stat") as stat:
            started = int(stat.read().rpartition(") ")[2].split()[19])
        theirs = attrs.evolve(ours, pid=process.pid, start_time=started)
        assert theirs.state(ours) is RunState.LIVES
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert theirs.state(ours) is RunState.OVER, "only the exit status is left"
    assert theirs.state(ours) is RunState.OVER


def test_another_process_with_the_same_id() -> None:
    ours = Ownership.ours()
    assert attrs.evolve(ours, start_time=ours.start_time - 1).state(ours) is RunState.OVER


@pytest.mark.parametrize(
    "change",
    [{"owner": "eve@elsewhere"}, {"boot_id": "another"}, {"pid_namespace": 1}],
    ids=lambda change: next(iter(change)),
)
def test_elsewhere_nobody_can_tell(change: dict[str, str]) -> None:
    ours = Ownership.ours()
    assert attrs.evolve(ours, **change).state(ours) is RunState.UNKNOWN  # type: ignore[arg-type]


def test_another_pid_namespace_on_this_machine() -> None:
    """The same process id means another process there, and what lives there is not seen from here."""
    unshared = [
        "unshare",
        *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]),
        "--pid",
        "--fork",
        "--mount-proc",
    ]
    told = subprocess.run(
        [*unshared, sys.executable, "-c", TELL],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    theirs = Ownership.read(eval(told.stdout))
    assert theirs.pid == 1
    assert theirs.state(Ownership.ours()) is RunState.UNKNOWN


@pytest.mark.parametrize("run", ["", "boot", "boot 1 2", "boot 1 2 x", "boot 1 2 3 4", "boot 1 -2 3", "boot 1 2 ٣"])
def test_what_is_not_in_our_form_tells_nothing(run: str) -> None:
    read = Ownership.read({OWNER_ANNOTATION: "a@b", RUN_ANNOTATION: run})
    assert read == Ownership("a@b")
    assert read.state(Ownership.ours()) is RunState.UNKNOWN


def test_no_annotations() -> None:
    assert Ownership.read({}) == Ownership("")
