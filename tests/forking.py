"""A forked child that does something while a test goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LIMIT_S = 60


@contextmanager
def forked(do: Callable[[Callable[[], None]], None]) -> Iterator[None]:
    """The block begins when the child says so, by calling what it is given, and the child ends with the block."""
    begun, begins = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(_LIMIT_S)
            do(lambda: _say(begins))
        finally:
            os._exit(1)
    os.close(begins)
    try:
        assert os.read(begun, 1), "the child failed before it began"
        yield
    finally:
        os.close(begun)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _say(begins: int) -> None:
    os.write(begins, b".")
