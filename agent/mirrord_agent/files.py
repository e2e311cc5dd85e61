"""Files below the target's root, and nowhere else.

Paths are resolved by openat2(2) with RESOLVE_IN_ROOT: absolute links and `..` stay below the root, and magic links are
not followed, so no path leads out of the pod. A file is looked at (O_PATH) before it is opened, because to open a
device or a FIFO can have effects.
"""

from __future__ import annotations

import errno
import os
import stat

import attrs

from mirrord_agent import libc
from mirrord_agent.target import Target

#: How often a resolution that raced with a rename is tried again (EAGAIN of openat2(2)).
_RESOLVE_ATTEMPTS = 16


@attrs.frozen
class FileContent:
    """A regular file that was read whole."""

    data: bytes
    mode: int
    """st_mode: type and permission bits."""
    mtime_ns: int


def resolve(target: Target, path: bytes) -> int:
    """An O_PATH descriptor of what `path` names below the target's root. Raises OSError."""
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a path with a NUL byte", path)
    root = os.open("root", os.O_PATH | os.O_DIRECTORY, dir_fd=target.directory)
    try:
        for _ in range(_RESOLVE_ATTEMPTS):
            try:
                return libc.openat2(root, path, os.O_PATH, libc.RESOLVE_IN_ROOT)
            except BlockingIOError:
                continue
        raise OSError(errno.EAGAIN, "the path kept changing while it was resolved", path)
    finally:
        os.close(root)


def read_file(target: Target, path: bytes, limit_bytes: int) -> FileContent:
    """Reads a whole regular file of at most `limit_bytes`.

    Raises OSError: what the pod's kernel says, EISDIR for a directory, EINVAL for what is neither, EFBIG for a longer
    file.
    """
    found = resolve(target, path)
    try:
        kind = os.fstat(found).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "not a regular file", path)
        descriptor = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
    finally:
        os.close(found)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        pieces: list[bytes] = []
        length = 0
        # Files of /proc have no size: what counts is what can be read.
        while piece := file.read(min(limit_bytes + 1 - length, 1 << 20)):
            pieces.append(piece)
            length += len(piece)
            if length > limit_bytes:
                raise OSError(errno.EFBIG, f"longer than {limit_bytes} bytes", path)
    return FileContent(b"".join(pieces), status.st_mode, status.st_mtime_ns)
