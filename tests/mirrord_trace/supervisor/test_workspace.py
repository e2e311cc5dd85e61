"""Whoever is killed, and in whatever order: no directory stays, no mount, and nothing behind a mount is lost."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mirrord_trace.errors import Failure
from mirrord_trace.supervisor import workspace as module
from mirrord_trace.supervisor.descent import children_of
from mirrord_trace.supervisor.workspace import workspace
from mirrord_trace.tree import unmounting
from mirrord_trace.tree.unmounting import MOUNTPOINT
from tests.mirrord_trace.supervisor.harness import ROOT, TIMEOUT_S, wait_until_gone
from tests.mirrord_trace.tree.private_mounts import (
    IS_ROOT,
    fusectl,
    in_private_mounts,
    let_everybody_reach,
    mounts_below,
    where_users_may_mount,
)
from tests.rights import as_user
from tests.waiting import has_ended, holds_within, sleeps_in

ORDERS = [
    ["supervisor"],
    ["first", "supervisor"],
    ["second", "supervisor"],
    ["supervisor", "first"],
    ["supervisor", "second"],
    ["first", "second"],
]
"""Who is killed, one after the other. Who is left of the three cleans up."""
STAGES = {"starts": ORDERS[:1], "workspace": ORDERS, "mounted": ORDERS, "leaves": ORDERS}
"""As the holder says them, and who can be killed: before it starts it has no guardians. The last is on its way out."""


@attrs.define
class Holder:
    """A running `workspace_holder`."""

    process: subprocess.Popen[bytes]
    directory: Path | None = None
    guardians: list[int] = attrs.field(factory=list)
    is_over: bool = False
    """Guardians may be gone: they are from when the supervisor leaves, or is killed."""

    def reach(self, stage: str) -> None:
        if stage == "leaves":
            self.reach("mounted")
            self.is_over = True
            self.go_on()
            return
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        while True:
            assert select.select([self.process.stdout], [], [], TIMEOUT_S)[0]
            said, _, what = self.process.stdout.readline().decode().strip().partition(" ")
            assert said, "the holder failed"
            if said == "workspace":
                self.directory = Path(what)
                self.guardians = sorted(children_of(self.process.pid))
            if said == stage:
                return
            self.go_on()

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def kill(self, who: str) -> None:
        """Fails if there is nobody to kill."""
        if who == "supervisor":
            assert self.process.poll() is None
            self.is_over = True
            self.process.kill()
            self.process.wait(TIMEOUT_S)
        else:
            with contextlib.suppress(*([ProcessLookupError] if self.is_over else [])):
                os.kill(self.guardians[0 if who == "first" else 1], signal.SIGKILL)

    def has_looked_for_dead_ones(self) -> bool:
        """Whether the child that its first guardian has for this has ended."""
        first = self.guardians[0]
        return sleeps_in("poll", Path(f"/proc/{first}")) and all(map(has_ended, children_of(first)))

    def wait_until_all_are_gone(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(TIMEOUT_S)
        for guardian in self.guardians:
            wait_until_gone(guardian)


@contextmanager
def holder(tmp_path: Path, *arguments: str, rights: list[str] | None = None) -> Iterator[Holder]:
    process = subprocess.Popen(
        [*(rights or []), sys.executable, "-m", "tests.mirrord_trace.supervisor.workspace_holder", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)},
    )
    with process:
        try:
            yield Holder(process)
        finally:
            process.kill()


@pytest.fixture
def precious(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("precious")
    (directory / "file").write_text("keep me")
    return directory


@pytest.mark.parametrize(
    ("stage", "order"),
    [
        pytest.param(stage, order, id=f"{stage}-{' '.join(order)}")
        for stage, orders in STAGES.items()
        for order in orders
    ],
)
@in_private_mounts
def test_kill_9_at_any_stage(tmp_path: Path, precious: Path, stage: str, order: list[str]) -> None:
    with holder(tmp_path, "bind", str(precious)) as running:
        running.reach(stage)
        for who in order:
            running.kill(who)
        running.wait_until_all_are_gone()
    assert list(tmp_path.iterdir()) == []
    assert mounts_below(tmp_path) == []
    assert (precious / "file").read_text() == "keep me"


def kill_server(tmp_path: Path, mount: list[str], rights: list[str], order: list[str]) -> None:
    """The mount is dead (ENOTCONN) once its server is."""
    with holder(tmp_path, *mount, rights=rights) as running:
        running.reach("mounted")
        assert mounts_below(tmp_path) != []
        for who in order:
            running.kill(who)
        running.wait_until_all_are_gone()
    assert list(tmp_path.iterdir()) == []
    assert mounts_below(tmp_path) == []


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@in_private_mounts
def test_kill_9_of_a_server(tmp_path: Path, order: list[str]) -> None:
    kill_server(tmp_path, ["fuse"], [], order)


@pytest.mark.parametrize("order", ORDERS[:-1], ids=" ".join)
@in_private_mounts
def test_kill_9_of_who_has_a_file_open_that_he_serves(tmp_path: Path, precious: Path, order: list[str]) -> None:
    """The kernel tells him that it is closed, before it tells anybody that he ends, and waits for his answer."""
    kill_server(tmp_path, ["served", str(precious)], [], order)
    assert (precious / "file").read_text() == "keep me"


@pytest.mark.parametrize("order", ORDERS[:-1], ids=" ".join)
@where_users_may_mount
def test_kill_9_of_an_ordinary_user_who_has_a_file_open_that_he_serves(
    tmp_path: Path, precious: Path, order: list[str]
) -> None:
    fusectl()
    tmp_path.chmod(0o777)
    if IS_ROOT:
        let_everybody_reach([tmp_path, precious])
    kill_server(tmp_path, ["served", str(precious)], as_user(reads_everything=True) if IS_ROOT else [], order)
    assert (precious / "file").read_text() == "keep me"


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
@where_users_may_mount
def test_kill_9_of_an_ordinary_users_server(tmp_path: Path, order: list[str]) -> None:
    """He needs fusermount3 to be rid of the mount."""
    tmp_path.chmod(0o777)
    if IS_ROOT:
        let_everybody_reach([tmp_path])
    kill_server(tmp_path, ["fusermount3"], as_user(reads_everything=True) if IS_ROOT else [], order)


@pytest.mark.parametrize("order", ORDERS[:3], ids=" ".join)
@in_private_mounts
def test_mount_that_is_served_and_can_be_written_to(tmp_path: Path, precious: Path, order: list[str]) -> None:
    """As if its server had outlived the supervisor: nothing may be removed through it."""
    with holder(tmp_path, "nothing") as running:
        running.reach("mounted")
        assert running.directory is not None
        tree = running.directory / MOUNTPOINT
        command = [
            sys.executable,
            "-m",
            "tests.mirrord_trace.tree.scratch_server",
            str(precious),
            str(running.directory),
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment
        ) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"mounted\n"
            (tree / "file").chmod(0o600)
            (tree / "other").mkdir()
            (tree / "other" / "inside").write_text("keep me, too")
            for who in order:
                running.kill(who)
            running.wait_until_all_are_gone()
            assert mounts_below(tmp_path) == []
            assert list(tmp_path.iterdir()) == []
            assert (precious / "file").read_text() == "keep me"
            assert (precious / "other" / "inside").read_text() == "keep me, too"
            server.communicate(b"\n", TIMEOUT_S)


@in_private_mounts
def test_what_three_dead_ones_leave_is_removed_by_the_next_run(tmp_path: Path, precious: Path) -> None:
    with holder(tmp_path, "bind", str(precious)) as running, holder(tmp_path, "nothing") as alive:
        running.reach("mounted")
        alive.reach("mounted")
        assert holds_within(TIMEOUT_S, alive.has_looked_for_dead_ones)
        for who in ("first", "second", "supervisor"):
            running.kill(who)
        running.wait_until_all_are_gone()
        assert running.directory is not None
        assert running.directory.is_dir()
        assert mounts_below(tmp_path) != []
        with holder(tmp_path, "nothing") as later:
            later.reach("mounted")
            while running.directory.exists():  # a child of its guardian sees to it
                os.sched_yield()
            later.go_on()
            later.reach("gone")
            later.wait_until_all_are_gone()
        assert list(tmp_path.iterdir()) == [alive.directory]
        assert mounts_below(tmp_path) == []
        assert (precious / "file").read_text() == "keep me"


@pytest.fixture
def tmpdir_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


SWEEPER_HANGS = """if 1:
    import os, pathlib, signal, sys
    from mirrord_trace.supervisor import workspace
    pid = pathlib.Path(sys.argv[1])
    def hang(parent):
        pid.with_suffix(".new").write_text(str(os.getpid()))
        pid.with_suffix(".new").rename(pid)
        signal.pause()
    workspace._remove_dead_ones = hang
    with workspace.workspace(print) as directory:
        while not pid.exists():
            os.sched_yield()
        print(directory, flush=True)
        if len(sys.argv) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
    print(directory.exists())
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_nobody_waits_for_who_looks_after_dead_runs(tmp_path: Path, is_killed: bool) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SWEEPER_HANGS, tmp_path / "pid", *["killed"] * is_killed],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    directory, *after = ended.stdout.splitlines()
    assert after == ([] if is_killed else ["False"])
    wait_until_gone(int((tmp_path / "pid").read_text()))
    assert not Path(directory).exists()


def wait_for_zombie(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
        os.sched_yield()


def test_a_fault_of_who_looks_after_dead_runs_is_told(tmpdir_is_ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(parent: Path) -> None:
        raise RuntimeError("out of order")

    monkeypatch.setattr(module, "_remove_dead_ones", fail)
    told: list[str] = []
    before = children_of(os.getpid())
    with workspace(told.append) as directory:
        first = min(set(children_of(os.getpid())) - set(before))
        while not (sweepers := children_of(first)):
            os.sched_yield()
        wait_for_zombie(*sweepers)
    (line,) = told
    assert line.startswith(
        f"the look for what killed runs left in {tmpdir_is_ours} failed: RuntimeError('out of order')"
    )
    assert not directory.exists()


def test_a_fault_of_a_guardian_is_told(tmpdir_is_ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor, remove = os.getpid(), unmounting.remove

    def fail(directory: Path) -> bool:
        if os.getpid() == supervisor:
            return remove(directory)
        raise RuntimeError("out of order")

    monkeypatch.setattr(unmounting, "remove", fail)
    told: list[str] = []
    with workspace(told.append) as directory:
        pass
    assert len(told) == 2
    for line in told:
        assert line.startswith(f"a guardian of {directory} failed; ")
        assert "RuntimeError('out of order') (test_workspace.py, line " in line
    assert not directory.exists()


def test_a_directory_that_stays_is_told(tmpdir_is_ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmounting, "remove", lambda directory: False)
    told: list[str] = []
    with workspace(told.append) as directory:
        pass
    assert told == [f"{directory} cannot be removed: see what is mounted below it, unmount that and remove it"]
    directory.rmdir()


def test_what_else_lies_there_is_nobodys_business(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = ["mirrord-trace-0123456789ab", "mirrord-trace-0123456789abcdef", "mirrord-trace-pod-x", "x"]
    for name in others:
        (tmp_path / name).mkdir(0o700)
    (tmp_path / "mirrord-trace-ba9876543210").symlink_to(tmp_path / "x")
    with workspace(pytest.fail):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "mirrord-trace-ba9876543210"])


def test_directory_is_for_everybody_to_search_and_nobody_to_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "link"))
    with workspace(pytest.fail) as directory:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o711
        assert directory.parent == tmp_path
    assert not directory.exists()


def test_directory_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    children = children_of(os.getpid())
    with pytest.raises(Failure, match=r"cannot make .*absent") as raised, workspace(pytest.fail):
        pass
    assert raised.value.advice == "set TMPDIR to a directory of yours"
    assert children_of(os.getpid()) == children


def test_guardians_keep_no_pipe_open_that_somebody_waits_for(tmp_path: Path) -> None:
    script = """if 1:
        import os, sys
        from mirrord_trace.supervisor.workspace import workspace
        with workspace(print):
            os.close(1)
            os.close(2)
            sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": str(tmp_path)},
    ) as process:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            assert select.select([stream], [], [], TIMEOUT_S)[0]
            assert stream.read() == b""
        assert process.poll() is None


def test_standard_descriptors_that_are_closed(tmp_path: Path) -> None:
    """Then the guardians' pipes have their numbers."""
    script = """if 1:
        import os, pathlib, signal, sys
        os.closerange(0, 3)
        from mirrord_trace.supervisor.descent import children_of
        from mirrord_trace.supervisor.workspace import workspace
        with workspace(print) as directory:
            assert directory.exists()
            pathlib.Path(sys.argv[1]).write_text(" ".join(map(str, children_of(os.getpid()))))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    guardians = tmp_path / "guardians"
    (tmp_path / "tmp").mkdir()
    path = os.pathsep.join(filter(None, sys.path))
    killed = subprocess.run(
        [sys.executable, "-c", script, guardians],
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path / "tmp")},
        timeout=TIMEOUT_S,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    for guardian in guardians.read_text().split():
        wait_until_gone(int(guardian))
    assert list((tmp_path / "tmp").iterdir()) == []
