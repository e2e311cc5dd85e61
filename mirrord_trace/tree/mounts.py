"""What is mounted, as this process sees it: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import attrs

_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")
"""How the kernel writes space, tab, newline and backslash in a path."""


@attrs.frozen
class Mount:
    """One mount. Others may be mounted on top of it, at the same path."""

    id: int
    """As proc_pid_fdinfo(5) has it, too."""
    device: str
    """Its file system's device number: major, colon, minor."""
    path: bytes
    type: bytes
    """Its file system's, with the subtype: fuse.sshfs."""


def mounts_here() -> tuple[Mount, ...]:
    """All mounts that this process can reach, in the order of mounting; asks no file system."""
    return parse(Path("/proc/self/mountinfo").read_bytes())


def parse(text: bytes) -> tuple[Mount, ...]:
    """The mounts that a mountinfo file tells."""
    return tuple(map(_parse_line, filter(None, text.split(b"\n"))))


def _parse_line(line: bytes) -> Mount:
    before, _, behind = line.partition(b" - ")
    fields = before.split(b" ")
    path = _ESCAPED.sub(lambda escaped: bytes([int(escaped[1], 8)]), fields[4])
    return Mount(int(fields[0]), fields[2].decode(), path, behind.split(b" ")[0])
