"""Test bodies in a mount namespace of their own: what they mount is nobody else's, and goes when they end.

Also mounts without a server (FUSE), and what an ordinary user needs for them; and ways for him to what he may read but
cannot reach.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import stat
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import ParamSpec

from tests.children import CLONE_NEWNS, checked, in_child, unshare

MS_REC, MS_PRIVATE, MS_BIND = 16384, 1 << 18, 4096
MNT_DETACH = 2
PR_SET_DUMPABLE = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAP_CHOWN = 1 << 0
USER = 65534
"""An ordinary user's number: nobody's, whom every system knows. fusermount3 mounts for nobody without a name."""
FUSE_DEVICE = os.makedev(10, 229)
OURS = "mirrord-trace"
"""The type and source of the file system that we serve."""

IS_ROOT = os.geteuid() == 0
"""Before any test puts itself elsewhere."""

_libc = ctypes.CDLL(None, use_errno=True)
_Parameters = ParamSpec("_Parameters")


def in_private_mounts(body: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Runs a test in a child process with its own mounts; whoever is not root gets a user namespace for it."""
    return in_child(body, _unshare_mounts)


def where_users_may_mount(body: Callable[_Parameters, None]) -> Callable[_Parameters, None]:
    """Runs a test in a child process, and its own mounts if we are root, where ordinary users may use FUSE.

    Fails with what is missing where that cannot be had.
    """
    return in_child(body, _let_users_mount)


def _unshare_mounts() -> None:
    unshare(CLONE_NEWNS)
    checked("mount --make-rprivate /", _libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))


def _let_users_mount() -> None:
    if shutil.which("fusermount3") is None:
        raise LookupError("fusermount3 is missing: apt-get install fuse3 (`.ci/system-packages python` does it)")
    if not os.path.exists("/etc/mtab"):
        raise LookupError(
            "/etc/mtab is missing, without which fusermount3 does not unmount: ln -s ../proc/self/mounts /etc/mtab "
            "(`.ci/system-packages python` does it)"
        )
    _need_fuse_device()
    if IS_ROOT:
        _unshare_mounts()
        _put_in_place_of_fuse(stat.S_IFCHR, 0o666)
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except PermissionError as error:
        raise LookupError(f"/dev/fuse is not for us ({error}): chmod 666 /dev/fuse") from error


def _need_fuse_device() -> None:
    if not os.path.exists("/dev/fuse"):
        raise LookupError("/dev/fuse is missing: modprobe fuse; in a container, --device /dev/fuse")


def mounts_below(directory: Path) -> list[str]:
    """Where something is mounted. Only there: on this machine others may mount and unmount meanwhile."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{directory}/")]


def bind(source: Path, target: Path) -> None:
    checked("mount --bind", _libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None))


def tmpfs(target: Path, options: str) -> None:
    checked("mount -t tmpfs", _libc.mount(b"none", os.fsencode(target), b"tmpfs", 0, options.encode()))


def let_everybody_reach(places: Iterable[Path]) -> None:
    """Opens the way to directories for ordinary users, by the same paths; for root in mounts of his own.

    Whatever above them is not for everybody is covered by a directory that has nothing else in it.
    """
    everywhere = {path for place in places for path in (place.absolute(), place.resolve()) if place.exists()}
    gates: dict[Path, set[Path]] = {}
    for place in everywhere:
        shut = [path for path in (*reversed(place.parents), place) if not path.stat().st_mode & stat.S_IXOTH]
        if shut:
            gates.setdefault(shut[0], set()).update(place.iterdir() if place in shut else [place])
    for gate, inner in gates.items():
        kept = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW) for path in sorted(inner)}
        links = {path: os.readlink(path) for path in inner if path.is_symlink()}
        tmpfs(gate, "mode=755")
        for path, descriptor in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path in links:
                path.symlink_to(links[path])
            else:
                path.mkdir(exist_ok=True) if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.touch()
                bind(Path(f"/proc/self/fd/{descriptor}"), path)
            os.close(descriptor)


def fusectl() -> None:
    """Mounts the file system that lists FUSE's connections, unless it is there."""
    directory = b"/sys/fs/fuse/connections"
    if IS_ROOT and not os.path.ismount(directory):
        checked("mount -t fusectl", _libc.mount(b"none", directory, b"fusectl", 0, None))
    if not os.path.ismount(directory):
        raise LookupError("fusectl is not mounted: mount -t fusectl none /sys/fs/fuse/connections")


def mount_fuse(target: Path, subtype: str = OURS) -> int:
    """Mounts a file system that nobody serves: whatever asks it waits until this descriptor is closed."""
    _need_fuse_device()
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode=40755,user_id={os.getuid()},group_id={os.getgid()}"
    checked(
        "mount -t fuse", _libc.mount(b"nobody", os.fsencode(target), b"fuse." + subtype.encode(), 0, options.encode())
    )
    return descriptor


def mount_fuse_as_user(target: Path) -> int:
    """The same by fusermount3(1), which hands out the descriptor."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        subprocess.run(
            ["fusermount3", "-o", f"fsname={OURS},subtype={OURS}", "--", os.fspath(target)],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            check=True,
        )
        return int(socket.recv_fds(ours, 1, 1)[1][0])


def take_request(device: int) -> None:
    """Receives what such a mount is asked, after the kernel's greeting, and leaves it without an answer.

    Whoever asks then waits for the answer, and no signal ends that: fuse(4), request_wait_answer() in Linux's
    fs/fuse/dev.c.
    """
    greeting = os.read(device, 1 << 17)
    _, opcode, unique = struct.unpack_from("=IIQ", greeting)
    assert opcode == 26  # FUSE_INIT
    answer = struct.pack("=IIIIHHIIHH32x", 7, 31, 1 << 17, 0, 16, 12, 1 << 16, 1, 0, 0)
    os.write(device, struct.pack("=IiQ", 16 + len(answer), 0, unique) + answer)
    os.read(device, 1 << 17)


def shut_fuse_device() -> None:
    """Gives this mount namespace a /dev/fuse that nobody but root may open."""
    _put_in_place_of_fuse(stat.S_IFREG, 0)


def _put_in_place_of_fuse(kind: int, mode: int) -> None:
    _need_fuse_device()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        tmpfs(directory, "mode=755")
        try:
            node = directory / "fuse"
            os.mknod(node, kind, FUSE_DEVICE)
            node.chmod(mode)
            bind(node, Path("/dev/fuse"))
        finally:
            checked("umount", _libc.umount2(os.fsencode(directory), MNT_DETACH))


def become_user(user: int = USER) -> None:
    """Drops all rights for good, those of root or of a user namespace, where one stays who one is."""
    if IS_ROOT:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    else:
        keep_capabilities(0)


def keep_capabilities(kept: int) -> None:
    """Drops all capabilities but those of this mask, which are among the first 32."""
    header, sets = struct.pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0), struct.pack("=III12x", kept, kept, 0)
    checked("capset", _libc.capset(header, sets))
