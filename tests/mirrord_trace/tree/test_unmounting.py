"""Mounts go away whatever their server does, and nothing reaches through one that is there."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mirrord_trace.tree import unmounting
from tests.forking import forked
from tests.mirrord_trace.supervisor.harness import TIMEOUT_S
from tests.mirrord_trace.tree.private_mounts import (
    IS_ROOT,
    USER,
    become_user,
    bind,
    fusectl,
    in_private_mounts,
    let_everybody_reach,
    mount_fuse,
    mount_fuse_as_user,
    mounts_below,
    take_request,
    where_users_may_mount,
)

_ROUNDS = 5
"""How often somebody mounts something at each place, while a directory is removed."""


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A directory whose files nobody may touch."""
    directory = tmp_path / "precious"
    (directory / "deep" / "er").mkdir(parents=True)
    for path in ("file", "deep/file", "deep/er/file"):
        (directory / path).write_text("keep me")
    (directory / "deep").chmod(0o555)
    return directory


def is_whole(precious: Path) -> bool:
    mode = (precious / "deep").stat().st_mode & 0o777
    return mode == 0o555 and sorted(p.read_text() for p in precious.rglob("file")) == ["keep me"] * 3


def hand_over(tmp_path: Path, *directories: Path) -> None:
    """Lets an ordinary user reach the test's directory and own what is in it."""
    tmp_path.chmod(0o755)
    if IS_ROOT:
        let_everybody_reach([tmp_path])
        for path in (tmp_path, *directories, *(inner for directory in directories for inner in directory.iterdir())):
            os.chown(path, USER, USER)


def mounts_on(path: Path) -> int:
    """How many, whether or not one hides the others."""
    shown = str(path).replace("\\", "\\134").replace(" ", "\\040")
    return sum(line.split()[4] == shown for line in Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    directory = tmp_path / "work space\\040"
    (directory / "tree").mkdir(parents=True)
    (directory / "hosts").write_text("127.0.0.1")
    return directory


def test_nothing_is_mounted(workspace: Path) -> None:
    assert unmounting.detach(workspace / "tree")
    assert unmounting.detach(workspace / "absent")
    assert not unmounting.is_mountpoint(workspace / "tree")
    assert not unmounting.is_mountpoint(workspace / "absent")


@in_private_mounts
def test_several_mounts_on_top_of_each_other(workspace: Path, precious: Path) -> None:
    for _ in range(3):
        bind(precious, workspace / "tree")
    assert unmounting.is_mountpoint(workspace / "tree")
    assert unmounting.detach(workspace / "tree")
    assert not unmounting.is_mountpoint(workspace / "tree")
    assert is_whole(precious)


@in_private_mounts
def test_a_strange_name_of_somebody_elses_mount(tmp_path: Path, workspace: Path, precious: Path) -> None:
    strange = tmp_path / "first\rsecond\x0bthird"
    strange.mkdir()
    bind(precious, strange)
    bind(precious, workspace / "tree")
    assert unmounting.detach(workspace / "tree")
    assert unmounting.remove(workspace)
    assert unmounting.is_mountpoint(strange)


def served_by_nobody(mount: Callable[[Path], int], workspace: Path, is_dead: bool) -> None:
    device = mount(workspace / "tree")
    if is_dead:
        os.close(device)
        with pytest.raises(OSError, match="Transport endpoint") as raised:
            os.stat(workspace / "tree")
        assert raised.value.errno == errno.ENOTCONN
    assert mounts_on(workspace / "tree") == 1
    assert unmounting.is_mountpoint(workspace / "tree")
    assert unmounting.detach(workspace / "tree")
    assert mounts_on(workspace / "tree") == 0
    mount(workspace / "tree")
    assert unmounting.remove(workspace)
    assert mounts_on(workspace / "tree") == 0
    assert not workspace.exists()


@pytest.mark.parametrize("is_dead", [False, True], ids=["hangs", "dead"])
@in_private_mounts
def test_server_that_hangs_or_is_dead(workspace: Path, is_dead: bool) -> None:
    served_by_nobody(mount_fuse, workspace, is_dead)


@pytest.mark.parametrize("is_dead", [False, True], ids=["hangs", "dead"])
@where_users_may_mount
def test_ordinary_users_server_that_hangs_or_is_dead(tmp_path: Path, workspace: Path, is_dead: bool) -> None:
    hand_over(tmp_path, workspace)
    if IS_ROOT:
        become_user()
    served_by_nobody(mount_fuse_as_user, workspace, is_dead)


def asks(path: Path, device: int) -> int:
    """A child that asks the server of `device`, which has received that and will not answer.

    If nothing else ends that, a signal to this process does, and with it the connection.
    """
    signal.alarm(TIMEOUT_S)
    pid = os.fork()
    if pid == 0:
        os.close(device)
        try:
            os.stat(path / "file")
        except OSError as error:
            os._exit(error.errno or 0)
        os._exit(0)
    take_request(device)
    return pid


@pytest.mark.parametrize("signals", [[], [signal.SIGKILL]], ids=["lives", "killed"])
@in_private_mounts
def test_whoever_waits_for_our_server_goes_on(workspace: Path, signals: list[int]) -> None:
    if not IS_ROOT:
        fusectl()
    whoever_waits_goes_on(mount_fuse, workspace, signals)


@pytest.mark.parametrize("signals", [[], [signal.SIGKILL]], ids=["lives", "killed"])
@where_users_may_mount
def test_whoever_waits_for_an_ordinary_users_server_goes_on(
    tmp_path: Path, workspace: Path, signals: list[int]
) -> None:
    fusectl()
    hand_over(tmp_path, workspace)
    if IS_ROOT:
        become_user()
    whoever_waits_goes_on(mount_fuse_as_user, workspace, signals)


def whoever_waits_goes_on(mount: Callable[[Path], int], workspace: Path, signals: list[int]) -> None:
    """Although the server's descriptor is open."""
    device = mount(workspace / "tree")
    pid = asks(workspace / "tree", device)
    for number in signals:
        os.kill(pid, number)
    assert unmounting.remove(workspace)
    assert not workspace.exists()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == (-signals[0] if signals else errno.ECONNABORTED)


@in_private_mounts
def test_somebody_elses_server_is_not_cut_off(workspace: Path) -> None:
    """What was mounted over our directory goes from there, but it goes on where else it is."""
    elsewhere = workspace.parent / "elsewhere"
    elsewhere.mkdir()
    device = mount_fuse(elsewhere, "other")
    bind(elsewhere, workspace / "tree")
    pid = asks(elsewhere, device)
    assert unmounting.remove(workspace)
    assert not workspace.exists()
    assert mounts_on(elsewhere) == 1
    os.close(device)  # only this ends it
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.ECONNABORTED


@in_private_mounts
def test_ordinary_user_without_fusermount_leaves_the_mount_and_what_is_behind(
    tmp_path: Path, workspace: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand_over(tmp_path, workspace)
    bind(precious, workspace / "tree")
    become_user()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(unmounting, "_SYSTEM_PATH", "/nowhere")
    assert not unmounting.detach(workspace / "tree")
    assert not unmounting.remove(workspace)
    assert is_whole(precious)


@pytest.mark.parametrize("at", ["tree", "copy/a/b", "hosts"])
@in_private_mounts
def test_what_is_mounted_is_unmounted_and_stays(workspace: Path, precious: Path, at: str) -> None:
    target = workspace / at
    if at == "hosts":
        bind(precious / "file", target)
    else:
        target.mkdir(parents=True, exist_ok=True)
        bind(precious, target)
    assert unmounting.remove(workspace)
    assert not workspace.exists()
    assert is_whole(precious)


@pytest.mark.parametrize("at", ["tree", "copy/a/b", "hosts", "."])
@in_private_mounts
def test_what_cannot_be_unmounted_is_not_reached(
    workspace: Path, precious: Path, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the mount had come after the last look for one, or could not be seen."""
    target = workspace / at
    if at == "hosts":
        bind(precious / "file", target)
    else:
        target.mkdir(parents=True, exist_ok=True)
        bind(precious, target)
    monkeypatch.setattr(unmounting, "_mountpoints_below", lambda directory, mounts: [])
    monkeypatch.setattr(unmounting, "_is_detached", lambda mountpoint, connections: True)
    monkeypatch.setattr(unmounting, "_PATIENCE_S", 0.05)
    assert not unmounting.remove(workspace)
    assert is_whole(precious)


@contextmanager
def binding(source: Path, targets: Sequence[Path]) -> Iterator[None]:
    """Another process mounts something again and again, from before the block begins, so many times."""

    def mount(begin: Callable[[], None]) -> None:
        bind(source, targets[0])
        begin()
        for target in [*targets] * _ROUNDS:
            with suppress(OSError):
                bind(source, target)

    with forked(mount):
        yield


@in_private_mounts
def test_mounts_that_come_and_go_meanwhile(workspace: Path, precious: Path) -> None:
    """While the directory is emptied."""
    targets = [workspace / "tree"]
    for number in range(200):
        (workspace / f"copy/{number}/in").mkdir(parents=True)
        (workspace / f"copy/{number}/file").touch()
        targets += [workspace / f"copy/{number}", workspace / f"copy/{number}/in"]
    with binding(precious, targets):
        unmounting.remove(workspace)
    assert unmounting.remove(workspace)
    assert is_whole(precious)
    assert mounts_below(workspace.parent) == []


def make_denied(workspace: Path) -> None:
    """Directories that their owner may not list, enter or change."""
    for mode in (0o000, 0o111, 0o444, 0o555):
        inner = workspace / "copy" / f"{mode:o}" / "in"
        inner.mkdir(parents=True)
        (inner / "file").touch()
        inner.chmod(mode)
        inner.parent.chmod(mode)


def test_everything_is_removed(workspace: Path, precious: Path) -> None:
    (workspace / "link").symlink_to(precious)
    (workspace / "copy" / "link").parent.mkdir()
    (workspace / "copy" / "link").symlink_to(precious)
    os.mkfifo(workspace / "copy" / "fifo")
    (workspace / os.fsdecode(b"\xff\n\xfe")).mkdir()
    (workspace / ("x" * 255)).touch()
    make_denied(workspace)
    assert unmounting.remove(workspace)
    assert not workspace.exists()
    assert is_whole(precious)
    assert unmounting.remove(workspace)


@in_private_mounts
def test_an_ordinary_user_removes_what_his_own_modes_deny(tmp_path: Path) -> None:
    hand_over(tmp_path)
    become_user()
    workspace = tmp_path / "workspace"
    make_denied(workspace)
    assert unmounting.remove(workspace)
    assert not workspace.exists()


def test_depth_does_not_matter(workspace: Path) -> None:
    """Deeper than Python recurs, descriptors go round and a path can be long."""
    descriptor = os.open(workspace, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("in", dir_fd=descriptor)
        inner = os.open("in", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)
    assert unmounting.remove(workspace)
    assert not workspace.exists()


def test_several_at_once(workspace: Path) -> None:
    for number in range(300):
        (workspace / f"copy/{number}/in").mkdir(parents=True)
        (workspace / f"copy/{number}/in/file").touch()
    helpers = []
    for _ in range(3):
        helper = os.fork()
        if helper == 0:
            status = 1
            try:
                status = 0 if unmounting.remove(workspace) else 1
            finally:
                os._exit(status)
        helpers.append(helper)
    assert [os.waitpid(helper, 0)[1] for helper in helpers] == [0, 0, 0]
    assert not workspace.exists()
