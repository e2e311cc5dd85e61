"""Room for descriptors in tasks, which are real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from mirrord_trace.supervisor.delivery.notify.lowering.descriptors import has_room

_TASK = """
import os, resource, sys
limit, opened, closed = map(int, sys.argv[1:])
while os.dup(0) < opened - 1:
    pass
if closed:
    os.close(closed)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def task(limit: int, opened: int, closed: int = 0) -> Iterator[int]:
    """The id of a process with this RLIMIT_NOFILE that has opened so many descriptors, and has closed one of them."""
    command = [sys.executable, "-c", _TASK, *map(str, (limit, opened, closed))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process.pid


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize(
    ("limit", "opened", "closed", "room"),
    [
        (64, 20, 0, True),
        (64, 63, 0, True),
        (64, 64, 0, False),
        (64, 64, 9, True),
        (10, 20, 0, False),
        (10, 20, 15, False),
        (10, 20, 9, True),
        (10, 20, 10, False),
    ],
)
def test_room_is_what_is_free_below_the_limit(
    monkeypatch: pytest.MonkeyPatch, limit: int, opened: int, closed: int, room: bool, is_old: bool
) -> None:
    with task(limit, opened, closed) as pid, monkeypatch.context() as old:
        if is_old:  # the kernel does not say how many are open
            old.setattr(os, "stat", lambda path: SimpleNamespace(st_size=0))
        assert has_room(pid) is room


def test_who_is_gone_has_room() -> None:
    with task(10, 10) as pid:
        assert not has_room(pid)
    assert has_room(pid)
