"""Waits for what the kernel shows in /proc but tells nobody of: it is looked at again and again, within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from mirrord_syscalls.abi import native_abi

_LOOK_EVERY_S = 0.01


def holds_within(time_s: float, condition: Callable[[], bool]) -> bool:
    """Whether it came to hold in this time."""
    deadline = time.monotonic() + time_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def threads_of(pid: int) -> list[Path]:
    """Their directories in /proc."""
    return list(Path(f"/proc/{pid}/task").glob("*"))


def sleeps_in(call: str, thread: Path) -> bool:
    """Whether a thread waits in a system call, and is not stopped: proc_pid_syscall(5). Needs the right to trace it."""
    try:
        states = [_state(thread)]
        number = (thread / "syscall").read_text().split()[0]
        states.append(_state(thread))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return states == ["S", "S"] and number == str(native_abi().numbers[call])


def has_ended(pid: int) -> bool:
    """Whether a process is a zombie, or gone."""
    try:
        return _state(Path(f"/proc/{pid}")) == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
