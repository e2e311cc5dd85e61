"""Test bodies that run in a child process, so that what they do to themselves ends with them."""

from __future__ import annotations

import ctypes
import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec

import pytest

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_Parameters = ParamSpec("_Parameters")


def in_child(body: Callable[_Parameters, None], prepare: Callable[[], None]) -> Callable[_Parameters, None]:
    """Runs a test in a child process, once it is prepared; fails with what it fails with."""

    @functools.wraps(body)
    def run(*arguments: _Parameters.args, **named: _Parameters.kwargs) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                prepare()
                body(*arguments, **named)
            except BaseException:
                os.write(writing, traceback.format_exc().encode())
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as report:
            told = report.read().decode()
        _, status = os.waitpid(pid, 0)
        if told or status:
            pytest.fail(told or f"ended with {os.waitstatus_to_exitcode(status)}", pytrace=False)

    return run


def unshare(kind: int) -> None:
    """unshare(2), for who is not root in a user namespace where he is. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    checked("unshare", _libc.unshare(kind if user == 0 else kind | CLONE_NEWUSER))
    if user != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def checked(what: str, result: int) -> None:
    """Raises the OSError that a libc function left in errno."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
