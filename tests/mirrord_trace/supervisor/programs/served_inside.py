"""A program that works on files which a child of its own serves (FUSE): python -m … WHAT DIRECTORY.

The child passes all on to DIRECTORY/behind, by paths: for each thing that it is asked it makes calls that name files.
It is mounted at DIRECTORY/mount, and the kernel keeps nothing of what it says. Its process id is in DIRECTORY/server.

WHAT is "work", to see what comes of calls; or, to see that others go on, a call that is made when the child is stopped.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyfuse3
import trio

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


class Passing(pyfuse3.Operations):
    """Knows each file by its path; a number is never used again."""

    def __init__(self, top: str) -> None:
        super().__init__()
        self.paths = {pyfuse3.ROOT_INODE: top}

    def path_in(self, parent: int, name: bytes) -> str:
        return os.path.join(self.paths[parent], os.fsdecode(name))

    def attributes(self, path: str, inode: int | None = None) -> pyfuse3.EntryAttributes:
        found = asked(os.lstat, path)
        told = pyfuse3.EntryAttributes()
        if inode is None:
            inode = next((number for number, known in self.paths.items() if known == path), len(self.paths) + 1)
            self.paths[inode] = path
        told.st_ino, told.attr_timeout, told.entry_timeout = inode, 0, 0
        for name in ("mode", "nlink", "uid", "gid", "size", "atime_ns", "mtime_ns", "ctime_ns"):
            setattr(told, f"st_{name}", getattr(found, f"st_{name}"))
        return told

    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        return self.attributes(self.paths[inode], inode)

    async def lookup(self, parent: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        return self.attributes(self.path_in(parent, name))

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: int | None, ctx: Any) -> pyfuse3.EntryAttributes:
        path = self.paths[inode]
        if fields.update_mode:
            asked(os.chmod, path, stat.S_IMODE(attr.st_mode))
        if fields.update_size:
            asked(os.truncate, path, attr.st_size)
        return self.attributes(path, inode)

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        asked(os.mkdir, self.path_in(parent, name), mode)
        return self.attributes(self.path_in(parent, name))

    async def rename(self, parent: int, name: bytes, parent_new: int, name_new: bytes, flags: int, ctx: Any) -> None:
        asked(os.rename, self.path_in(parent, name), self.path_in(parent_new, name_new))

    async def readlink(self, inode: int, ctx: Any) -> bytes:
        return os.fsencode(asked(os.readlink, self.paths[inode]))

    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=asked(os.open, self.paths[inode], flags & ~os.O_CREAT))

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        opened = asked(os.open, self.path_in(parent, name), flags | os.O_CREAT, mode)
        return pyfuse3.FileInfo(fh=opened), self.attributes(self.path_in(parent, name))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return os.pwrite(fh, buf, off)

    async def release(self, fh: int) -> None:
        os.close(fh)

    async def access(self, inode: int, mode: int, ctx: Any) -> bool:
        return bool(asked(os.access, self.paths[inode], os.F_OK))


def asked(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except OSError as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from error


def serve(behind: Path, mount: Path, ready: int) -> None:
    pyfuse3.init(Passing(str(behind)), str(mount), set())
    os.write(ready, b"x")
    trio.run(pyfuse3.main)


@contextmanager
def served(directory: Path) -> Iterator[int]:
    """The process id of who serves."""
    behind, mount = directory / "behind", directory / "mount"
    for path in (behind, mount, behind / "here"):
        path.mkdir()
    (behind / "file").write_text("old")
    for script in (behind / "script", behind / "here" / "script"):
        script.write_text("#!/bin/sh\necho a script\n")
        script.chmod(0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            serve(behind, mount, writing)
        finally:
            os._exit(1)
    os.close(writing)
    (directory / "server").write_text(str(child))
    assert os.read(reading, 1) == b"x", "nobody serves"
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _libc.umount2(os.fsencode(mount), _MNT_DETACH)


def say(text: object) -> None:
    os.write(1, f"{text}\n".encode())


def in_child(action: Callable[[], object]) -> int:
    """The process id of a child that does it."""
    child = os.fork()
    if child == 0:
        try:
            action()
        finally:
            os._exit(0)
    return child


def look_around(mount: Path) -> None:
    os.chroot(mount)
    for path in ("/moved", "/srv/nothing"):
        say(os.path.exists(path))


def work(mount: Path) -> None:
    (mount / "file").chmod(0o640)
    say(oct((mount / "file").stat().st_mode))
    (mount / "file").rename(mount / "moved")
    say((mount / "moved").read_text())
    (mount / "new").write_text("text")
    say((mount / "new").read_text())
    (mount / "directory").mkdir()
    say((mount / "directory").is_dir())
    for script in (mount / "script", mount / "here" / "script"):
        say(subprocess.run([script], check=True, stdout=subprocess.PIPE, text=True).stdout)
    os.waitpid(in_child(lambda: look_around(mount)), 0)
    (mount / "moved").rename(mount / "file")


CALLS: dict[str, Callable[[Path], object]] = {
    "chmod": lambda mount: (mount / "file").chmod(0o600),
    "stat": lambda mount: (mount / "file").stat(),
    "rename": lambda mount: (mount / "file").rename(mount / "moved"),
    "execute": lambda mount: os.execv(mount / "script", ["script"]),
    "execute here": lambda mount: os.execv(mount / "here" / "script", ["script"]),
}


def others_go_on(server: int, call: Callable[[], object], directory: Path) -> None:
    """While somebody waits for a server that is stopped; then he is killed."""
    os.kill(server, signal.SIGSTOP)
    os.waitpid(server, os.WUNTRACED)
    child = in_child(call)
    while Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2][0] not in "SDt":
        os.sched_yield()
    for number in range(200):
        assert not os.path.exists(directory / f"nothing {number}")
    say("others go on")
    os.kill(child, signal.SIGKILL)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main() -> None:
    what, directory = sys.argv[1], Path(sys.argv[2])
    with served(directory) as server:
        work(directory / "mount")
        if what != "work":
            others_go_on(server, lambda: CALLS[what](directory / "mount"), directory)


if __name__ == "__main__":
    main()
