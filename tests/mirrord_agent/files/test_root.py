"""Paths that want to lead out of the root, and a process that is gone."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrord_agent.environment import read_environment
from mirrord_agent.files.rights import rights_of
from mirrord_agent.files.root import Root, resolve
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind
from tests.mirrord_agent.files.roots import confined, content, opened, walk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").write_text("inside")
    (root / "absolute").symlink_to("/etc/hosts")
    (root / "escape").symlink_to("../../../../../../secret")
    (root / "real").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to("loop")
    os.mkfifo(root / "fifo")
    return root


@pytest.fixture
def target(folder: Path) -> Iterator[Target]:
    with confined(folder, {"POD_NAME": "web-0", "EMPTY": "", "LINES": "a\nb=c"}) as target:
        yield target


@pytest.fixture
def root(target: Target) -> Iterator[Root]:
    with opened(target) as root:
        yield root


def read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


INSIDE = [b"/etc/hosts", b"etc/hosts", b"/absolute", b"/../../etc/hosts", b"//etc/./hosts"]
OUTSIDE = [b"/escape", b"/real", b"/../secret", b"/etc/../../secret"]


@pytest.mark.parametrize("path", INSIDE)
def test_paths_resolve_below_the_targets_root(root: Root, path: bytes) -> None:
    assert content(root, path) == b"inside"
    assert read_all(root.open_path(path, os.O_RDONLY)) == b"inside"


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_root(root: Root, path: bytes) -> None:
    assert walk(root, path)[-1].errno == errno.ENOENT
    with pytest.raises(FileNotFoundError):
        root.open_path(path, os.O_RDONLY)
    with pytest.raises(FileNotFoundError), root.parent(path + b"/x/y", errno.EBUSY):
        pass


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"/loop", errno.ELOOP),
        (b"/etc/hosts/x", errno.ENOTDIR),
        (b"/etc/hosts/", errno.ENOTDIR),
        (b"/etc/hosts/.", errno.ENOTDIR),
        (b"/etc/hosts/..", errno.ENOTDIR),
        (b"", errno.ENOENT),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_errors_are_the_kernels(root: Root, path: bytes, number: int) -> None:
    assert walk(root, path)[-1].errno == number
    with pytest.raises(OSError, match=r"\w") as error:
        root.open_path(path, os.O_PATH)
    assert error.value.errno == number


def test_a_path_with_a_nul_byte_is_none(root: Root) -> None:
    for attempt in (lambda path: root.open_path(path, os.O_PATH), lambda path: walk(root, path)):
        with pytest.raises(OSError, match="NUL") as error:
            attempt(b"/etc\0/hosts")
        assert error.value.errno == errno.EINVAL


def update_volume(volume: Path, number: int) -> None:
    """Gives the volume's files a new content at once, as the kubelet does it (pkg/volume/util/atomic_writer.go)."""
    content = volume / f"..{number}"
    content.mkdir()
    (content / "token").write_text(str(number))
    (volume / "..data_tmp").symlink_to(content.name)
    old = os.readlink(volume / "..data") if number else None
    (volume / "..data_tmp").rename(volume / "..data")
    if old is None:
        (volume / "token").symlink_to("..data/token")
    else:
        (volume / old / "token").unlink()
        (volume / old).rmdir()


def test_a_volume_that_is_updated_is_seen_fresh(folder: Path, root: Root) -> None:
    (folder / "volume").mkdir()
    for number in range(20):
        update_volume(folder / "volume", number)
        assert content(root, b"/volume/token") == b"%d" % number
        status = walk(root, b"/volume/token")[-1].status
        assert status is not None
        assert status.mtime_ns == (folder / "volume/token").stat().st_mtime_ns


def test_descriptors_do_not_pile_up(target: Target, root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (*INSIDE, *OUTSIDE, b"/etc", b"/fifo", b"/nowhere", b"/loop", b"/etc/hosts/x"):
        for follow in (True, False):
            walk(root, path, follow=follow)
    os.close(resolve(target, b"/etc"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_is_the_processs_own(target: Target) -> None:
    variables = set(read_environment(target).split(b"\0"))
    assert {b"POD_NAME=web-0", b"EMPTY=", b"LINES=a\nb=c"} <= variables


def test_a_process_that_ended_is_never_another(folder: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        target = Target.open(process.pid)
        process.kill()
    with pytest.raises(ProcessLookupError):
        read_environment(target)
    with pytest.raises(ProcessLookupError):
        rights_of(target)
    with pytest.raises(OSError, match="No such process"):
        Root.open(target)
    target.close()
    with pytest.raises(TargetUnusable, match="no process") as gone:
        Target.open(process.pid)
    assert gone.value.goodbye.kind is GoodbyeKind.TARGET_GONE
