"""The system calls that containers are made of and that Python 3.11 has no function for.

Each is one thin function that raises OSError, as those of `pod_init`, which this goes on from.
"""

from __future__ import annotations

import os
from collections.abc import Container

from mirrord_trace.targets.pod_init import (
    AT_RECURSIVE,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_PRIVATE,
    MS_REC,
    attach,
    checked,
    copy_of_mounts,
    libc,
    mount,
)

CLONE_NEWCGROUP = 0x02000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_SYS_MOUNT_SETATTR = 442
_MOUNT_ATTR_RDONLY = 1
_AT_EMPTY_PATH = 0x1000
_PR_CAPBSET_DROP, _PR_SET_NAME, _PR_SET_NO_NEW_PRIVS = 24, 15, 38

CAPABILITIES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
"""Names by number (linux/capability.h), without CAP_."""


def unshare(kinds: int) -> None:
    """unshare(2)."""
    checked("unshare", libc.unshare(kinds))


def setns(descriptor: int, kind: int) -> None:
    """setns(2): moves the calling thread, or for a pid namespace its future children."""
    checked("setns", libc.setns(descriptor, kind))


def limit_capabilities(names: Container[str]) -> None:
    """Keeps only these in the bounding set; the next execve(2) applies it, to root as well (capabilities(7))."""
    for number, name in enumerate(CAPABILITIES):
        if name not in names:
            # One that this kernel does not know is EINVAL, and surely not had.
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def give_up_new_privileges() -> None:
    """PR_SET_NO_NEW_PRIVS."""
    checked("PR_SET_NO_NEW_PRIVS", libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def name_process(name: str) -> None:
    """What /proc/PID/comm shows; at most 15 bytes."""
    checked("PR_SET_NAME", libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0))


def tree(path: str) -> int:
    """What is mounted at and below a path, where its last link leads, to be attached elsewhere: a descriptor."""
    return copy_of_mounts(os.path.realpath(path))


def attach_tree(descriptor: int, target: str, *, read_only: bool) -> None:
    """Mounts what `tree` has returned, and closes the descriptor."""
    if read_only:
        # struct mount_attr: set, clear, propagation, userns_fd.
        attributes = _MOUNT_ATTR_RDONLY.to_bytes(8, "little") + bytes(24)
        flags = _AT_EMPTY_PATH | AT_RECURSIVE
        result = libc.syscall(_SYS_MOUNT_SETATTR, descriptor, b"", flags, attributes, len(attributes))
        checked(f"mount_setattr for {target}", result)
    attach(descriptor, target)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """A bind mount of what is at and below a path."""
    attach_tree(tree(source), target, read_only=read_only)


def keep_mounts_to_ourselves() -> None:
    """Makes every mount of this (new) mount namespace private, so that ours show nowhere else.

    In a plain chroot the root is no mount point, and what it lies on can neither be made private nor be left by
    pivot_root(2). There a copy of the tree becomes the root; it is attached to /proc, which is always a mount of its
    own, so that the outside sees nothing of that either.
    """
    try:
        mount("none", "/", MS_REC | MS_PRIVATE)
    except OSError:
        copy = copy_of_mounts("/")
        mount("none", "/proc", MS_PRIVATE)
        attach(copy, "/proc")
        os.chdir("/proc")
        os.chroot(".")
        mount("none", "/", MS_REC | MS_PRIVATE)


__all__ = [
    "CAPABILITIES",
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWUTS",
    "MS_BIND",
    "MS_NODEV",
    "MS_NOEXEC",
    "MS_NOSUID",
    "MS_RDONLY",
    "MS_REMOUNT",
    "attach_tree",
    "bind",
    "checked",
    "give_up_new_privileges",
    "keep_mounts_to_ourselves",
    "libc",
    "limit_capabilities",
    "mount",
    "name_process",
    "setns",
    "tree",
    "unshare",
]
