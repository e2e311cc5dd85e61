"""A pod's files without a pod: `RemoteFiles` as the agent would answer it, for a directory of the test's."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import attrs
import trio

from mirrord_trace.remote_files import MAX_PIECE, Entry, Looked, RemoteFiles, RemoteHandle, Status, Visited
from mirrord_trace.reporting import Step

if TYPE_CHECKING:
    from collections.abc import Iterator

_LINKS_AT_MOST = 40
_ENTRIES_AT_A_TIME = 500


def status_of(found: os.stat_result) -> Status:
    return Status(
        mode=found.st_mode,
        ino=found.st_ino,
        nlink=found.st_nlink,
        uid=found.st_uid,
        gid=found.st_gid,
        rdev=found.st_rdev,
        size=found.st_size,
        blocks=found.st_blocks,
        blksize=found.st_blksize,
        atime_ns=found.st_atime_ns,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
        device=found.st_dev,
        has_attributes=False,
    )


@attrs.define(eq=False)
class ScratchPod:
    """`root` is the pod's root. What it is asked is kept in `asked`."""

    root: Path
    asked: list[str] = attrs.field(factory=list)
    denied: set[bytes] = attrs.field(factory=set)
    """Paths that the target may not open."""
    before_read: Callable[[bytes, int], None] = lambda path, offset: None
    reading: int = 0
    reading_at_most: int = 0

    @property
    def files(self) -> RemoteFiles:
        return cast(RemoteFiles, self)

    def path(self, path: str) -> Path:
        """Where something of the pod is here."""
        return self.root / path.lstrip("/")

    async def look(self, path: bytes, *, follow: bool, content_limit: int = 0) -> Looked:
        self.asked.append(f"look {path!r}")
        await trio.lowlevel.checkpoint()
        visited = tuple(self._walk(path, follow))
        last = visited[-1].status
        if last is None or not stat.S_ISREG(last.mode) or not content_limit:
            return Looked(visited, None, 0)
        if visited[-1].path in self.denied:
            return Looked(visited, None, errno.EACCES)
        if not 0 < last.size <= content_limit:
            return Looked(visited, None, errno.EFBIG)
        return Looked(visited, self._content(visited[-1].path), 0)

    async def open(self, path: bytes, flags: int, mode: int = 0) -> RemoteHandle:
        self.asked.append(f"open {path!r}")
        await trio.lowlevel.checkpoint()
        if path in self.denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        is_fifo = stat.S_ISFIFO(os.lstat(self._local(path)).st_mode)
        descriptor = os.open(self._local(path), flags | (os.O_NONBLOCK if is_fifo else 0))
        status = status_of(os.fstat(descriptor))
        return cast(RemoteHandle, Handle(self, path, descriptor, status, seekable=not is_fifo))

    async def access(self, path: bytes, mode: int) -> None:
        await trio.lowlevel.checkpoint()
        if path in self.denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async def list(self, path: bytes) -> AsyncGenerator[tuple[Entry, ...], None]:
        self.asked.append(f"list {path!r}")
        await trio.lowlevel.checkpoint()
        if path in self.denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        names = os.listdir(self._local(path))
        for begin in range(0, len(names), _ENTRIES_AT_A_TIME):
            entries = []
            for name in names[begin : begin + _ENTRIES_AT_A_TIME]:
                entry = path.rstrip(b"/") + b"/" + name
                status = None if entry in self.denied else status_of(os.lstat(self._local(entry)))
                entries.append(Entry(name, status))
            yield tuple(entries)
            await trio.lowlevel.checkpoint()

    def _content(self, path: bytes) -> bytes:
        with open(self._local(path), "rb") as file:
            return file.read()

    def _local(self, path: bytes) -> bytes:
        return os.fsencode(self.root) + path

    def _walk(self, path: bytes, follow: bool) -> Iterator[Visited]:
        follow = follow or path.endswith(b"/")
        left = [component for component in reversed(path.split(b"/")) if component not in (b"", b".")]
        here, links = b"", 0
        if not left:
            yield Visited(b"/", status_of(self.root.stat()), 0, None)
        while left:
            component = left.pop()
            if component == b"..":
                here = here.rpartition(b"/")[0]
                if not left:
                    yield Visited(here or b"/", status_of(os.stat(self._local(here))), 0, None)
                continue
            there = here + b"/" + component
            try:
                found = os.lstat(self._local(there))
            except OSError as error:
                yield Visited(there, None, error.errno or 0, None)
                return
            status, is_link = status_of(found), stat.S_ISLNK(found.st_mode)
            target = os.readlink(self._local(there)) if is_link else None
            if target is not None and (left or follow):
                links += 1
                if links > _LINKS_AT_MOST:
                    yield Visited(there, None, errno.ELOOP, None)
                    return
                yield Visited(there, status, 0, target)
                here = b"" if target.startswith(b"/") else here
                left += [part for part in reversed(target.split(b"/")) if part not in (b"", b".")]
                if not left:
                    yield Visited(b"/", status_of(self.root.stat()), 0, None)
                continue
            yield Visited(there, status, 0, target)
            if left and not stat.S_ISDIR(found.st_mode):
                yield Visited(there, None, errno.ENOTDIR, None)
                return
            here = there


@attrs.define(eq=False)
class Handle:
    pod: ScratchPod
    path: bytes
    descriptor: int
    status: Status
    seekable: bool

    async def read(self, offset: int, length: int) -> bytes:
        self.pod.reading += 1
        self.pod.reading_at_most = max(self.pod.reading, self.pod.reading_at_most)
        try:
            await trio.lowlevel.checkpoint()
            self.pod.before_read(self.path, offset)
            if not self.seekable:
                await trio.lowlevel.wait_readable(self.descriptor)
                return os.read(self.descriptor, length)
            return os.pread(self.descriptor, min(length, MAX_PIECE), offset)
        finally:
            self.pod.reading -= 1

    async def status_now(self) -> Status:
        await trio.lowlevel.checkpoint()
        return status_of(os.fstat(self.descriptor))

    def close(self) -> None:
        os.close(self.descriptor)


class _Step:
    def detail(self, text: str) -> None:
        """Nobody looks."""

    def waiting(self, reason: str) -> None:
        """Nobody looks."""


@attrs.define(eq=False)
class Told:
    """A reporter that keeps what it was told."""

    warnings: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    explanations: list[str] = attrs.field(factory=list)

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        yield _Step()

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def explain(self, text: str) -> None:
        self.explanations.append(text)

    def ready(self) -> None:
        """No process here."""

    def close(self) -> None:
        """Nothing is drawn."""
