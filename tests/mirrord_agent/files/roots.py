"""A root of our own for tests of files: a child process in a chroot, so that leaving it would show."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirrord_agent.files.root import Root
from mirrord_agent.files.walking import look
from mirrord_agent.target import Target
from mirrord_agent.wire.file_frames import Look
from mirrord_agent.wire.file_records import Visited, unpack_walk

# Its root is the given folder; it says when, and ends with its standard input. Who is not root makes a user namespace.
_CONFINED = """
import ctypes, os, sys
if os.geteuid():
    assert ctypes.CDLL(None).unshare(0x10000000) == 0
os.chroot(sys.argv[1])
os.chdir("/")
print("confined", flush=True)
sys.stdin.read()
"""


@contextmanager
def confined(root: Path, environment: dict[str, str] | None = None) -> Iterator[Target]:
    """A process whose root is `root`."""
    command = [sys.executable, "-c", _CONFINED, str(root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"confined\n"
        target = Target.open(process.pid)
        try:
            yield target
        finally:
            target.close()
            process.kill()


@contextmanager
def opened(target: Target) -> Iterator[Root]:
    """The root of a process, held open."""
    root = Root.open(target)
    try:
        yield root
    finally:
        root.release()


def walk(root: Root, path: bytes, *, follow: bool = True, known: int = 0) -> tuple[Visited, ...]:
    """The steps of a walk."""
    return unpack_walk(look(root, os.getuid(), Look(1, path, follow, 0, known)).payload)


def content(root: Root, path: bytes, limit: int = 1000) -> bytes:
    """A file's content. Raises OSError where the walk or the reading fails."""
    answer = look(root, os.getuid(), Look(1, path, True, limit))
    if answer.content_length is None:
        end = unpack_walk(answer.payload)[-1].errno or answer.content_errno
        raise OSError(end, os.strerror(end))
    return answer.payload[len(answer.payload) - answer.content_length :]
