"""Control groups of the containers: they only name and kill, and limit nothing (cgroups(7), version 2)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
from pathlib import Path


def name_of_node(directory: str) -> str:
    """The name of a node's cgroup, from a directory that only it has."""
    return "mirrord-trace-standin-" + hashlib.sha256(os.fsencode(directory)).hexdigest()[:12]


def make(path: Path) -> Path:
    """Makes a cgroup, with those above it."""
    path.mkdir(parents=True, exist_ok=True)
    return path


def kill(path: Path) -> None:
    """Sends SIGKILL to all that is in it or below (Linux 5.14)."""
    with contextlib.suppress(FileNotFoundError):
        (path / "cgroup.kill").write_text("1")


def remove(path: Path, top: Path) -> None:
    """Ends what is in a cgroup and removes it, with those above it that it leaves empty; `top` stays."""
    kill(path)
    _wait_until_empty(path)
    while path != top:
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError:
            return
        path = path.parent


def remove_tree(top: Path) -> None:
    """Ends what is in a cgroup and below, and removes all of it."""
    if not top.exists():
        return
    kill(top)
    _wait_until_empty(top)
    for directory, _, _ in os.walk(top, topdown=False):
        os.rmdir(directory)


def _wait_until_empty(path: Path) -> None:
    try:
        events = open(path / "cgroup.events", "rb", buffering=0)  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return
    with events:
        poll = select.poll()
        # A change of the file is an exceptional condition.
        poll.register(events, select.POLLPRI)
        while b"populated 1" in os.pread(events.fileno(), 4096, 0):
            poll.poll()
