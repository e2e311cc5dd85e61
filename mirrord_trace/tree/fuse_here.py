"""What this machine lacks to show the pod's files as a file system, and how to get it.

Mounting takes four things: the library (pyfuse3), /dev/fuse, the permission to open it, and somebody who may mount.
Root may, unless his container took CAP_SYS_ADMIN from him. For anybody else fusermount3(1) does it. It is set-user-ID
root, opens /dev/fuse as the user who asks, and unmounts only what it finds in /etc/mtab. It mounts for nobody without a
name, for mount(8) shows whose a mount is.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from mirrord_trace.tree.unmounting import fusermount

_CAP_SYS_ADMIN = 1 << 21
_DEVICE = "/dev/fuse"
_MTAB = "/etc/mtab"


@attrs.frozen
class Lack:
    """Something that is missing."""

    what: str
    how: str
    """How to get it."""


@attrs.frozen(kw_only=True)
class Facts:
    """What decides whether something can be mounted here."""

    has_library: bool
    device_errno: int
    """Why /dev/fuse cannot be opened, or 0."""
    device_mode: int
    """Its permission bits."""
    is_root: bool
    may_mount: bool
    """Whether we have CAP_SYS_ADMIN ourselves."""
    may_anybody_mount: bool
    """Whether a program that root owns could get it from us."""
    fusermount: str | None
    is_fusermount_privileged: bool
    """Whether it gets its owner's rights: it is set-user-ID, on a file system that respects that."""
    has_mtab: bool
    user: int
    """The number of the user who asks."""
    has_name: bool
    """Whether he is in the user database, passwd(5)."""


def missing() -> tuple[Lack, ...]:
    """What is missing on this machine for this user; nothing if FUSE should work."""
    return lacks_of(facts())


def lacks_of(facts: Facts) -> tuple[Lack, ...]:
    """What is missing, given the facts."""
    return tuple(_lacks(facts))


def _lacks(facts: Facts) -> Iterator[Lack]:
    if not facts.has_library:
        yield Lack(
            "pyfuse3 is not installed",
            "pip install 'mirrord-trace[fuse]' (it is compiled: on Debian it needs the packages gcc, pkg-config, "
            "python3-dev and libfuse3-dev)",
        )
    if facts.device_errno:
        yield _lacking_device(facts)
    if facts.may_mount:
        return
    if not facts.may_anybody_mount:
        yield Lack(
            "nobody may mount anything here (no_new_privs is set, or CAP_SYS_ADMIN is not in the bounding set)",
            "start the container with --cap-add SYS_ADMIN --security-opt apparmor=unconfined, or mirrord-trace outside "
            "of what confines it",
        )
    elif facts.is_root:
        yield Lack("root has no CAP_SYS_ADMIN here", "start the container with --cap-add SYS_ADMIN")
    elif facts.fusermount is None:
        yield Lack("fusermount3 is missing, with which ordinary users mount", "sudo apt-get install fuse3")
    elif not facts.is_fusermount_privileged:
        path = facts.fusermount
        yield Lack(f"{path} is not set-user-ID root", f"sudo chown root {path} && sudo chmod u+s {path}")
    elif not facts.has_mtab:
        yield Lack(
            f"{_MTAB} is missing, without which fusermount3 does not unmount",
            f"sudo ln -s /proc/self/mounts {_MTAB}",
        )
    elif not facts.has_name:
        user = facts.user
        yield Lack(
            f"user {user} has no name here (no entry in /etc/passwd), and fusermount3 mounts for nobody without",
            f"sudo useradd --no-create-home --uid {user} user{user}; for a container, do it in its image, or start it "
            "with --user and one that it knows",
        )


def _lacking_device(facts: Facts) -> Lack:
    match facts.device_errno:
        case errno.EACCES:
            return Lack(
                f"you may not open {_DEVICE} (its mode is {facts.device_mode:04o})",
                f"sudo chmod 666 {_DEVICE}, as is usual",
            )
        case errno.EPERM:
            return Lack(f"this container may not open {_DEVICE}", f"start it with --device {_DEVICE}")
        case errno.ENOENT | errno.ENODEV | errno.ENXIO:
            return Lack(f"{_DEVICE} is missing", f"sudo modprobe fuse; for a container, --device {_DEVICE}")
        case other:
            return Lack(f"{_DEVICE} cannot be opened: {os.strerror(other)}", f"look at `ls -l {_DEVICE}`")


def facts() -> Facts:
    """Looks at this machine."""
    device_errno = _errno_of_opening(_DEVICE)
    try:
        device_mode = stat.S_IMODE(os.stat(_DEVICE).st_mode)
    except OSError:
        device_mode = 0
    told = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    program = fusermount()
    return Facts(
        has_library=importlib.util.find_spec("pyfuse3") is not None,
        device_errno=device_errno,
        device_mode=device_mode,
        is_root=os.geteuid() == 0,
        may_mount=bool(int(told["CapEff"], 16) & _CAP_SYS_ADMIN),
        may_anybody_mount=bool(int(told["CapBnd"], 16) & _CAP_SYS_ADMIN) and told.get("NoNewPrivs", "0") == "0",
        fusermount=program,
        is_fusermount_privileged=program is not None and _is_privileged(program),
        has_mtab=os.path.exists(_MTAB),
        user=os.getuid(),
        has_name=_has_name(os.getuid()),
    )


def _errno_of_opening(path: str) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _has_name(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _is_privileged(program: str) -> bool:
    try:
        found, where = os.stat(program), os.statvfs(program)
    except OSError:
        return False
    return found.st_uid == 0 and bool(found.st_mode & stat.S_ISUID) and not where.f_flag & os.ST_NOSUID
