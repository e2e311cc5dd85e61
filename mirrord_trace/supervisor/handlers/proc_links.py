"""Links of /proc that lead to what a process has open: proc_pid_cwd(5), proc_pid_fd(5) and their like."""

from __future__ import annotations

import os
from typing import Final

PROC: Final = b"/proc"
_TO_FILES: Final = (b"cwd", b"exe", b"root")
_OF_THE_CALLER: Final = (b"self", b"thread-self")


def is_link_of_proc(path: bytes) -> bool:
    """Whether a normalised path names such a link, by its text."""
    if not path.startswith(PROC + b"/"):
        return False
    directory, last = os.path.split(path)
    return last in _TO_FILES or directory.endswith(b"/fd")


def link_of_proc(tid: int, path: bytes) -> bytes | None:
    """What such a link leads to as a task sees it; None for any other path, and for what cannot be read."""
    if not is_link_of_proc(path):
        return None
    try:
        return os.readlink(as_seen_by_all(tid, path))
    except OSError:
        return None


def as_seen_by_all(tid: int, link: bytes) -> bytes:
    """The path of such a link of a task, for whoever is not the task."""
    process, _, rest = link[len(b"/proc/") :].partition(b"/")
    return b"/proc/%d/%s" % (tid, rest) if process in _OF_THE_CALLER else link
