"""Files are read in a root of our own: a child process in a chroot, so that leaving it would show."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrord_agent.environment import read_environment
from mirrord_agent.files import read_file, resolve
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind

# Its root is the given folder; it says when, and ends with its standard input. Who is not root makes a user namespace.
_CONFINED = """
import ctypes, os, sys
if os.geteuid():
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.chroot(sys.argv[1])
os.chdir("/")
print("confined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
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
def target(root: Path) -> Iterator[Target]:
    command = [sys.executable, "-c", _CONFINED, str(root)]
    environment = {"POD_NAME": "web-0", "EMPTY": "", "LINES": "a\nb=c"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"confined\n"
        target = Target.open(process.pid)
        yield target
        target.close()
        process.kill()


@pytest.mark.parametrize("path", [b"/etc/hosts", b"etc/hosts", b"/absolute", b"/../../etc/hosts", b"//etc/./hosts"])
def test_paths_resolve_below_the_targets_root(target: Target, path: bytes) -> None:
    assert read_file(target, path, 100).data == b"inside"


@pytest.mark.parametrize("path", [b"/escape", b"/real", b"/../secret", b"/etc/../../secret"])
def test_no_path_leads_out_of_the_root(target: Target, path: bytes) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(target, path, 100)


@pytest.mark.parametrize(
    ("path", "number"),
    [
        (b"/loop", errno.ELOOP),
        (b"/etc", errno.EISDIR),
        (b"/etc/hosts/x", errno.ENOTDIR),
        (b"/fifo", errno.EINVAL),
        (b"", errno.ENOENT),
        (b"/etc\0/hosts", errno.EINVAL),
        (b"/" + b"x" * 256, errno.ENAMETOOLONG),
    ],
)
def test_errors_are_the_kernels(target: Target, path: bytes, number: int) -> None:
    with pytest.raises(OSError, match=r"\w") as error:
        read_file(target, path, 100)
    assert error.value.errno == number


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


def test_a_volume_that_is_updated_is_seen_fresh(root: Path, target: Target) -> None:
    (root / "volume").mkdir()
    for number in range(20):
        update_volume(root / "volume", number)
        content = read_file(target, b"/volume/token", 100)
        assert content.data == b"%d" % number
        assert content.mtime_ns == (root / "volume/token").stat().st_mtime_ns


def test_a_file_longer_than_the_limit_is_not_cut(target: Target) -> None:
    assert read_file(target, b"/etc/hosts", 6).data == b"inside"
    with pytest.raises(OSError, match="longer than 5 bytes"):
        read_file(target, b"/etc/hosts", 5)


def test_descriptors_do_not_pile_up(target: Target) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in (b"/etc/hosts", b"/etc", b"/fifo", b"/nowhere"):
        try:
            read_file(target, path, 3)
        except OSError:
            continue
    os.close(resolve(target, b"/etc"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_environment_is_the_processs_own(target: Target) -> None:
    variables = set(read_environment(target).split(b"\0"))
    assert {b"POD_NAME=web-0", b"EMPTY=", b"LINES=a\nb=c"} <= variables


def test_a_process_that_ended_is_never_another(root: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        target = Target.open(process.pid)
        process.kill()
    with pytest.raises(ProcessLookupError):
        read_environment(target)
    with pytest.raises(OSError, match="No such process"):
        read_file(target, b"/etc/hosts", 100)
    target.close()
    with pytest.raises(TargetUnusable, match="no process") as gone:
        Target.open(process.pid)
    assert gone.value.goodbye.kind is GoodbyeKind.TARGET_GONE
