"""The pod's files without a pod: a directory of this machine, asked by system calls in this thread.

It answers as an agent does, at once or after `delay_s`, counts what it was asked for, and can lose the session.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import trio

from mirrord_trace.remote_files import NOW, Change, Entry, FilesystemStatus, Looked, Status, Visited
from mirrord_trace.session_link import SessionLost

_LINKS_AT_MOST = 40
_PIECE = 100


def status_from(found: os.stat_result, has_attributes: bool = False) -> Status:
    return Status(
        found.st_mode,
        found.st_ino,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        found.st_rdev,
        found.st_size,
        found.st_blocks,
        found.st_blksize,
        found.st_atime_ns,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        has_attributes,
    )


@attrs.define(eq=False)
class ScratchHandle:
    files: ScratchFiles
    descriptor: int
    status: Status
    seekable: bool = True

    async def read(self, offset: int, length: int) -> bytes:
        await self.files.asked("read")
        if not self.seekable:
            await trio.lowlevel.wait_readable(self.descriptor)
            return os.read(self.descriptor, length)
        return os.pread(self.descriptor, min(length, 1 << 20), offset)

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        await self.files.asked("write")
        if not self.seekable:
            await trio.lowlevel.wait_writable(self.descriptor)
            return os.write(self.descriptor, data)
        return os.pwrite(self.descriptor, data, offset)

    async def status_now(self) -> Status:
        await self.files.asked("status_now")
        return status_from(os.fstat(self.descriptor))

    async def set(self, change: Change) -> Status:
        await self.files.asked("set handle")
        _change(self.descriptor, os.fstat(self.descriptor), change)
        return status_from(os.fstat(self.descriptor))

    async def open_again(self, flags: int) -> ScratchHandle:
        await self.files.asked("open_again")
        return self.files.handle(os.open(self._way, flags | os.O_CLOEXEC | os.O_NONBLOCK))

    async def give_name(self, path: bytes) -> Status:
        await self.files.asked("give_name")
        os.link(self._way, self.files.here(path), src_dir_fd=0, follow_symlinks=True)
        return status_from(os.fstat(self.descriptor))

    @property
    def _way(self) -> bytes:
        return b"/proc/self/fd/%d" % self.descriptor

    async def sync(self, data_only: bool) -> None:
        await self.files.asked("sync")
        (os.fdatasync if data_only else os.fsync)(self.descriptor)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.files.count_handles(-1)
        self.descriptor = -1


@attrs.define(eq=False)
class ScratchFiles:
    """`RemoteFiles` below `top`."""

    top: Path
    delay_s: float = 0.0
    is_lost: bool = False
    has_attributes: bool = False
    bug: Exception | None = None
    """Raised by everything."""
    open_handles: int = 0
    asks: Counter[str] = attrs.field(factory=Counter)
    held: trio.Event | None = None
    """While it is there nothing is answered before it is set."""
    _counted: trio.Event = attrs.field(factory=trio.Event)

    async def asked(self, what: str) -> None:
        self.asks[what] += 1
        if self.held is not None:
            await self.held.wait()
        if self.delay_s:
            await trio.sleep(self.delay_s)
        else:
            await trio.lowlevel.checkpoint()
        if self.is_lost:
            raise SessionLost("the agent is gone")
        if self.bug is not None:
            raise self.bug

    def count_handles(self, change: int) -> None:
        self.open_handles += change
        self._counted.set()
        self._counted = trio.Event()

    async def until_handles_are(self, count: int) -> None:
        while self.open_handles != count:
            await self._counted.wait()

    def here(self, path: bytes) -> bytes:
        return os.fsencode(self.top) + path.rstrip(b"/")

    async def look(self, path: bytes, *, follow: bool, content_limit: int = 0, known: int = 0) -> Looked:
        await self.asked("look")
        visited = self._walk(path, follow)
        last = visited[-1]
        content, content_errno = None, 0
        if content_limit and last.status is not None and stat.S_ISREG(last.status.mode):
            if last.status.size > content_limit:
                content_errno = errno.EFBIG
            else:
                content = _content(self.here(last.path))
        return Looked(tuple(visited), content, content_errno)

    def _walk(self, path: bytes, follow: bool) -> list[Visited]:
        visited: list[Visited] = []
        rest = [part for part in path.split(b"/") if part not in (b"", b".")][::-1]
        must_follow = follow or path.endswith(b"/")
        here: list[bytes] = []
        links = 0
        while rest:
            part = rest.pop()
            if part == b"..":
                here = here[:-1]
                continue
            place = b"/" + b"/".join([*here, part])
            try:
                status = status_from(os.lstat(self.here(place)), self.has_attributes)
                target = os.readlink(self.here(place)) if stat.S_ISLNK(status.mode) else None
                if rest and not stat.S_ISDIR(status.mode) and target is None:
                    visited.append(Visited(place, status, 0, None))
                    visited.append(Visited(place + b"/" + rest[-1], None, errno.ENOTDIR, None))
                    return visited
            except OSError as error:
                visited.append(Visited(place, None, error.errno or 0, None))
                return visited
            visited.append(Visited(place, status, 0, target))
            if target is not None and (rest or must_follow):
                links += 1
                if links > _LINKS_AT_MOST:
                    visited.append(Visited(place, None, errno.ELOOP, None))
                    return visited
                if target.startswith(b"/"):
                    here = []
                rest += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]
            else:
                here.append(part)
        place = b"/" + b"/".join(here)
        if not visited or visited[-1].path != place:
            visited.append(Visited(place, status_from(os.lstat(self.here(place) or b"/")), 0, None))
        return visited

    async def open(self, path: bytes, flags: int, mode: int = 0, mask: int = 0) -> ScratchHandle:
        await self.asked("open")
        return self.handle(await self._opened(path, flags, mode & ~mask))

    def handle(self, descriptor: int) -> ScratchHandle:
        self.count_handles(1)
        status = status_from(os.fstat(descriptor))
        return ScratchHandle(self, descriptor, status, not stat.S_ISFIFO(status.mode))

    async def _opened(self, path: bytes, flags: int, mode: int) -> int:
        while True:
            try:
                return self._open(path, flags, mode)
            except OSError as error:
                if error.errno != errno.ENXIO or flags & os.O_NONBLOCK:
                    raise
                await trio.sleep(0.01)

    def _open(self, path: bytes, flags: int, mode: int) -> int:
        old = os.umask(0)
        try:
            return os.open(self.here(path), flags | os.O_CLOEXEC | os.O_NONBLOCK, mode)
        finally:
            os.umask(old)

    async def list(self, path: bytes) -> AsyncIterator[tuple[Entry, ...]]:
        await self.asked("list")
        names = os.listdir(self.here(path) or b"/")
        for first in range(0, len(names), _PIECE):
            if first:
                await self.asked("list more")
            entries = []
            for name in names[first : first + _PIECE]:
                status = None
                with contextlib.suppress(OSError):
                    status = status_from(os.lstat(self.here(path) + b"/" + name))
                entries.append(Entry(name, status))
            yield tuple(entries)

    async def filesystem(self, path: bytes) -> FilesystemStatus:
        await self.asked("filesystem")
        found = os.statvfs(self.here(path))
        return FilesystemStatus(
            0,
            found.f_bsize,
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_namemax,
            found.f_frsize,
            found.f_flag,
            found.f_fsid,
        )

    async def access(self, path: bytes, mode: int) -> None:
        await self.asked("access")
        if not os.access(self.here(path), mode):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async def read_link(self, path: bytes) -> bytes:
        await self.asked("read_link")
        return os.readlink(self.here(path))

    async def get_attribute(self, path: bytes, name: bytes) -> bytes:
        await self.asked("get_attribute")
        return os.getxattr(self.here(path), name, follow_symlinks=False)

    async def list_attributes(self, path: bytes) -> tuple[bytes, ...]:
        await self.asked("list_attributes")
        return tuple(map(os.fsencode, os.listxattr(self.here(path), follow_symlinks=False)))

    async def set_attribute(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        await self.asked("set_attribute")
        os.setxattr(self.here(path), name, value, flags, follow_symlinks=False)

    async def remove_attribute(self, path: bytes, name: bytes) -> None:
        await self.asked("remove_attribute")
        os.removexattr(self.here(path), name, follow_symlinks=False)

    def _told(self, path: bytes) -> Status:
        return status_from(os.lstat(self.here(path)))

    async def make_directory(self, path: bytes, mode: int, mask: int = 0) -> Status:
        await self.asked("make_directory")
        os.mkdir(self.here(path))
        os.chmod(self.here(path), mode & ~mask)
        return self._told(path)

    async def make_node(self, path: bytes, mode: int, rdev: int, mask: int = 0) -> Status:
        await self.asked("make_node")
        os.mknod(self.here(path), mode, rdev)
        os.chmod(self.here(path), stat.S_IMODE(mode) & ~mask)
        return self._told(path)

    async def make_link(self, target: bytes, path: bytes) -> Status:
        await self.asked("make_link")
        os.symlink(target, self.here(path))
        return self._told(path)

    async def link(self, old: bytes, new: bytes) -> Status:
        await self.asked("link")
        os.link(self.here(old), self.here(new), follow_symlinks=False)
        return self._told(new)

    async def remove(self, path: bytes, directory: bool) -> None:
        await self.asked("remove")
        (os.rmdir if directory else os.unlink)(self.here(path))

    async def rename(self, old: bytes, new: bytes, flags: int = 0) -> Status:
        await self.asked("rename")
        if flags:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        os.rename(self.here(old), self.here(new))
        return self._told(new)

    async def set(self, path: bytes, change: Change) -> Status:
        await self.asked("set")
        _change(self.here(path), os.lstat(self.here(path)), change)
        return self._told(path)


def _content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _change(place: Any, before: os.stat_result, change: Change) -> None:
    if change.size is not None:
        os.truncate(place, change.size)
    if change.uid is not None or change.gid is not None:
        owners = (-1 if number is None else number for number in (change.uid, change.gid))
        (os.fchown if isinstance(place, int) else os.lchown)(place, *owners)
    if change.mode is not None:
        os.chmod(place, change.mode)
    link: dict[str, Any] = {} if isinstance(place, int) else {"follow_symlinks": False}
    if change.atime_ns is NOW and change.mtime_ns is NOW:
        os.utime(place, **link)
    elif change.atime_ns is not None or change.mtime_ns is not None:
        atime_ns = before.st_atime_ns if not isinstance(change.atime_ns, int) else change.atime_ns
        mtime_ns = before.st_mtime_ns if not isinstance(change.mtime_ns, int) else change.mtime_ns
        os.utime(place, ns=(atime_ns, mtime_ns), **link)
