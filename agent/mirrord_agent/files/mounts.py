"""What the target has mounted (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import re
import stat

from mirrord_agent import libc
from mirrord_agent.files.root import Root
from mirrord_agent.wire.file_records import Mount

#: How the kernel writes space, tab, newline, backslash and # in a path.
_ESCAPED = re.compile(rb"\\([0-7]{3})")


def parse_mountinfo(text: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Path, type, root and options of each mount, in the order of mounting."""
    mounts = []
    for line in filter(None, text.split(b"\n")):
        before, _, behind = line.partition(b" - ")
        fields = before.split(b" ")
        mounts.append((_plain(fields[4]), behind.split(b" ")[0], _plain(fields[3]), fields[5]))
    return mounts


def _plain(escaped: bytes) -> bytes:
    return _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), escaped)


def mounts_from(root: Root, mountinfo: bytes) -> tuple[Mount, ...]:
    """The mounts that the text of a mountinfo file tells. One that cannot be reached counts as a directory.

    No file server is waited for: it may be gone for good.
    """
    return tuple(Mount(*fields, _is_directory(root, fields[0])) for fields in parse_mountinfo(mountinfo))


def _is_directory(root: Root, path: bytes) -> bool:
    rules = libc.RESOLVE_IN_ROOT | libc.RESOLVE_CACHED  # where something is mounted the kernel knows by heart
    try:
        found = libc.openat2(root.descriptor, path, os.O_PATH | os.O_NOFOLLOW, rules)
    except OSError:
        return True
    try:
        return stat.S_ISDIR(libc.type_without_asking(found))
    except OSError:
        return True
    finally:
        os.close(found)
