"""Takes mounts away whatever their server is doing, and removes directories without ever reaching through a mount.

Behind a mount of ours lie somebody's files: the pod's, perhaps writable. So nothing here may depend on a mount being
gone, or on its being there:

- A directory is opened with O_PATH, which enters a mount without asking its server. Then its mount's id tells
  (proc_pid_fdinfo(5)) whether it is still ours. Whatever is mounted on it later, the descriptor and all that is named
  relative to it stay what they were.
- unlink(2), rmdir(2) and rename(2) do not enter what is mounted on the last component; they fail with EBUSY.
- A lazy unmount asks no server and waits for none: it works after the server's death (ENOTCONN) and while it hangs.
  umount2(2) needs CAP_SYS_ADMIN, an ordinary user asks fusermount3(1), which is setuid root.
- It does not end what waits for the server. A call that the server has been told of ends by no signal, not even SIGKILL
  (request_wait_answer() in Linux's fs/fuse/dev.c), and if it is the server's own, so does the server not: only an abort
  of the connection helps. MNT_FORCE makes one, with CAP_SYS_ADMIN; the mount's owner can write to a file of fusectl for
  it (fuse(4), Documentation/filesystems/fuse), where that is mounted. It hits all mounts of the connection, wherever
  they are: so it is for our own file system only, not for what somebody else has mounted here.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from mirrord_trace.tree.mounts import Mount, mounts_here

MOUNTPOINT: Final = "tree"
"""The one directory of a workspace on which we mount something."""

SUBTYPE: Final = "mirrord-trace"
"""What we call our file system."""
_OUR_TYPE: Final = b"fuse." + SUBTYPE.encode()
"""As mountinfo shows the file system that we serve."""
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_SYSTEM_PATH: Final = "/usr/bin:/bin:/usr/local/bin"
_FUSERMOUNT_S: Final = 10.0
_PATIENCE_S: Final = 2.0
"""How long somebody else, such as a fusermount3 that has lost its parent, may still be at work in a directory."""
_FIRST_PAUSE_S: Final = 0.001
_LAST_PAUSE_S: Final = 0.1
_ENTER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


def fusermount() -> str | None:
    """Where fusermount3(1) is, for whoever may not mount and unmount by himself."""
    return shutil.which("fusermount3") or shutil.which("fusermount3", path=_SYSTEM_PATH)


def is_mountpoint(path: Path) -> bool:
    """Whether something is mounted at a path, or it cannot be seen. Asks no server. False where there is nothing."""
    with contextlib.ExitStack() as opened:
        try:
            inside = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            opened.callback(os.close, inside)
            outside = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
            opened.callback(os.close, outside)
            return _mount_id(inside) != _mount_id(outside)
        except OSError as error:
            return not isinstance(error, FileNotFoundError | NotADirectoryError)


def detach(mountpoint: Path) -> bool:
    """Unmounts lazily all that is mounted at a path; whether nothing is there any more. Never waits for a server.

    It is for the end of a run: if our file system is there, whatever waits for an answer gets ECONNABORTED. Without the
    right to unmount it runs fusermount3, which takes some milliseconds.
    """
    return _is_detached(mountpoint, _our_connections(mounts_here()))


def remove(directory: Path) -> bool:
    """Removes a directory of ours and what is in it, after unmounting what is mounted there; whether it is gone.

    Files behind a mount are never touched: what cannot be unmounted stays, and so does the directory. Several processes
    may do this at once.
    """
    deadline, pause_s = time.monotonic() + _PATIENCE_S, _FIRST_PAUSE_S
    while True:
        mounts = mounts_here()
        connections = _our_connections(mounts)
        below = _mountpoints_below(directory, mounts)
        mounts_left = [mountpoint for mountpoint in below if not _is_detached(mountpoint, connections)]
        _empty(directory)
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError:
            if mounts_left or time.monotonic() > deadline:
                return False
        else:
            return True
        time.sleep(pause_s)  # whoever is at work there tells nobody when he is done
        pause_s = min(2 * pause_s, _LAST_PAUSE_S)


def _is_detached(mountpoint: Path, connections: dict[int, str]) -> bool:
    while is_mountpoint(mountpoint):
        if not (_is_ended(mountpoint, connections) or _is_unmounted(mountpoint) or _fusermount_unmounts(mountpoint)):
            return False
    return True


def _is_ended(mountpoint: Path, connections: dict[int, str]) -> bool:
    """If our own file system is on top there, its connection is aborted, as far as we may; whether it is unmounted."""
    try:
        top = os.open(mountpoint, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        connection = connections.get(_mount_id(top))
    finally:
        os.close(top)
    if connection is None:
        return False
    if _is_unmounted(mountpoint, _MNT_FORCE):
        return True
    with contextlib.suppress(OSError):
        (_CONNECTIONS / connection / "abort").write_bytes(b"1")
    return False


def _is_unmounted(mountpoint: Path, flags: int = 0) -> bool:
    return bool(_libc.umount2(os.fsencode(mountpoint), flags | _MNT_DETACH | _UMOUNT_NOFOLLOW) == 0)


def _fusermount_unmounts(mountpoint: Path) -> bool:
    program = fusermount()
    if program is None:
        return False
    nowhere = subprocess.DEVNULL
    try:
        done = subprocess.run(
            [program, "-u", "-z", "-q", "--", mountpoint],
            stdin=nowhere,
            stdout=nowhere,
            stderr=nowhere,
            timeout=_FUSERMOUNT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _mount_id(descriptor: int) -> int:
    with open(f"/proc/self/fdinfo/{descriptor}") as facts:
        return next(int(line.split()[1]) for line in facts if line.startswith("mnt_id:"))


def _our_connections(mounts: Iterable[Mount]) -> dict[int, str]:
    """By the ids of mounts of our own file system, their connections' names in fusectl: the device's minor number."""
    return {mount.id: mount.device.partition(":")[2] for mount in mounts if mount.type == _OUR_TYPE}


def _mountpoints_below(directory: Path, mounts: Iterable[Mount]) -> list[Path]:
    """Where something is mounted below a directory, the deepest first."""
    prefix = os.path.realpath(os.fsencode(directory)) + b"/"
    paths = {mount.path for mount in mounts if mount.path.startswith(prefix)}
    return [Path(os.fsdecode(path)) for path in sorted(paths, reverse=True)]


def _empty(directory: Path) -> None:
    """Removes what is in a directory, as far as it can.

    Directories within are moved up before they are emptied. So nothing recurs, and neither the depth of a tree nor the
    length of its paths matters.
    """
    with contextlib.suppress(OSError), _entered(None, str(directory.parent)) as parent:
        mount = _mount_id(parent)
        with _entered(parent, directory.name, mount) as top, _listed(top) as listing:
            new_names = (f"removed-{os.getpid()}-{number}" for number in itertools.count())
            stuck: set[str] = set()
            while names := set(os.listdir(listing)) - stuck:
                stuck.update(name for name in names if not _is_removed(top, name, mount, new_names))


def _is_removed(top: int, name: str, mount: int, new_names: Iterator[str]) -> bool:
    """Removes an entry of the directory `top`; what it contains and is no file is moved there first."""
    if _is_unlinked(top, name):
        return True
    try:
        with _entered(top, name, mount) as directory, _listed(directory) as listing:
            for inner in os.listdir(listing):
                if not _is_unlinked(directory, inner):
                    with contextlib.suppress(OSError), _entered(directory, inner, mount):
                        os.rename(inner, next(new_names), src_dir_fd=directory, dst_dir_fd=top)
        os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _is_unlinked(directory: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def _entered(parent: int | None, name: str, mount: int | None = None) -> Iterator[int]:
    """A directory by an O_PATH descriptor. What belongs to another mount gives EXDEV and is not looked at.

    One of that mount, which is ours, gets the permissions that emptying or moving it takes.
    """
    descriptor = os.open(name, _ENTER if mount else _ENTER & ~os.O_NOFOLLOW, dir_fd=parent)
    try:
        if mount is not None:
            if _mount_id(descriptor) != mount:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(f"/proc/self/fd/{descriptor}", stat.S_IRWXU)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _listed(directory: int) -> Iterator[int]:
    """The same directory, whatever is mounted on it by now, to be read."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
