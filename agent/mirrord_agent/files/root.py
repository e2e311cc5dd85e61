"""Paths below the target's root, and nowhere else.

Paths are resolved by openat2(2) with RESOLVE_IN_ROOT: absolute links and `..` stay below the root, and magic links are
not followed, so no path leads out of the pod. An O_PATH descriptor stands for what was found; /proc/self/fd/N leads to
that very file, link or not, whatever becomes of its path. That is how calls are made on it that take only a path.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from mirrord_agent import libc
from mirrord_agent.target import Target

#: How often a resolution that raced with a rename is tried again (EAGAIN of openat2(2)).
_RESOLVE_ATTEMPTS = 16
_DEFAULT_ACL = b"system.posix_acl_default"


class Held:
    """A descriptor that is closed by the last who uses it.

    Its owner may let go of it while workers use it, and the number of one that was closed is given to the next file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._users = 1
        """Its owner is the first."""
        self._lock = threading.Lock()

    def hold(self) -> None:
        """Somebody else uses it, too."""
        with self._lock:
            self._users += 1

    def release(self) -> None:
        """Somebody no longer uses it. May wait for a disk."""
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last:
            self.close()

    def close(self) -> None:
        """Closes it; by the last user only."""
        os.close(self.descriptor)


class Root(Held):
    """The target's root, as it was when the session began. It is opened with the agent's rights, not the target's."""

    @classmethod
    def open(cls, target: Target) -> Self:
        """Takes hold of the target's root. Raises OSError."""
        return cls(target.open_guarded("root"))

    def open_path(self, path: bytes, flags: int, mode: int = 0) -> int:
        """Opens what `path` names; whether a link at its end is followed, `flags` say. Raises OSError."""
        check_name(path)
        for _ in range(_RESOLVE_ATTEMPTS):
            try:
                return libc.openat2(self.descriptor, path, flags, libc.RESOLVE_IN_ROOT, mode)
            except BlockingIOError:
                continue
        raise OSError(errno.EAGAIN, "the path kept changing while it was resolved", path)

    @contextmanager
    def found(self, path: bytes) -> Iterator[int]:
        """An O_PATH descriptor of the file itself; a link at the end is not followed. Raises OSError."""
        descriptor = self.open_path(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def parent(self, path: bytes, of_none: int) -> Iterator[tuple[int, bytes]]:
        """The directory that `path` is an entry of, and the entry's name.

        Raises OSError; `of_none` is its number for the root, which is nobody's entry.
        """
        check_name(path)
        above, _, name = path.rstrip(b"/").rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(of_none, os.strerror(of_none), path)
        descriptor = self.open_path(above or b"/", os.O_PATH | os.O_DIRECTORY)
        try:
            yield descriptor, name
        finally:
            os.close(descriptor)


def mode_in(directory: int, mode: int, mask: int) -> int:
    """What remains of the mode of what is made in a directory: a default ACL counts instead of the mask (acl(5))."""
    if not mode & mask or _has_default_acl(directory):
        return mode
    return mode & ~mask


def _has_default_acl(directory: int) -> bool:
    try:
        return bool(os.getxattr(way_to(directory), _DEFAULT_ACL))
    except OSError:  # none, or a file system without ACLs
        return False


def resolve(target: Target, path: bytes) -> int:
    """An O_PATH descriptor of what `path` leads to below the target's root. Raises OSError."""
    root = Root.open(target)
    try:
        return root.open_path(path, os.O_PATH)
    finally:
        root.release()


def check_name(name: bytes) -> None:
    """Raises OSError for what no system call can be told."""
    if b"\0" in name:
        raise OSError(errno.EINVAL, "a name with a NUL byte", name)


def way_to(descriptor: int) -> bytes:
    """The path of an open file, for calls that want one."""
    return b"/proc/self/fd/%d" % descriptor
