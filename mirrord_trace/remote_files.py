"""The pod's files, as requests to the agent.

Every path is absolute in the pod and raw bytes, and is resolved below the target's root by the agent, with the rights
of the target's process. Whatever fails raises OSError with the pod's errno, or SessionLost when the agent is gone.
Requests may be made by any number of tasks at once, are answered in any order, and can be cancelled.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import TypeVar

import attrs
import trio

from mirrord_agent.wire import file_frames as ask
from mirrord_agent.wire import file_records
from mirrord_agent.wire.file_records import NOW, Change, Entry, FilesystemStatus, Mount, Now, Status, Visited
from mirrord_agent.wire.frames import Close, Done, Frame
from mirrord_trace.session_requests import Request, Requests

__all__ = [
    "MAX_PATH",
    "MAX_PIECE",
    "NOW",
    "Change",
    "Entry",
    "FilesystemStatus",
    "Looked",
    "Mount",
    "Now",
    "RemoteFile",
    "RemoteFiles",
    "RemoteHandle",
    "Status",
    "Visited",
]

#: Most bytes of one read or write.
MAX_PIECE = 1 << 20
#: Longest path, in bytes (PATH_MAX counts the NUL behind it).
MAX_PATH = 4095
#: Bytes on their way to files that the agent has not yet acknowledged. They precede all data of connections.
_UNACKNOWLEDGED_BYTES = 4 << 20
#: More than any system has mounts.
_MOUNTS_LIMIT_BYTES = 64 << 20
#: Longest value of an extended attribute (XATTR_SIZE_MAX, linux/limits.h).
_MAX_ATTRIBUTE = 65536
#: Longest name of one, in bytes (XATTR_NAME_MAX, linux/limits.h).
_MAX_ATTRIBUTE_NAME = 255

_Answer = TypeVar("_Answer")
_Packed = TypeVar("_Packed")


@attrs.frozen
class RemoteFile:
    """A regular file of the pod, read whole."""

    data: bytes = attrs.field(repr=lambda data: f"<{len(data)} bytes>")
    mode: int
    """st_mode: type and permission bits."""
    mtime_ns: int
    """Last modification, nanoseconds since the epoch."""


@attrs.frozen
class Looked:
    """What a walk has seen."""

    visited: tuple[Visited, ...]
    """In the order in which the kernel resolves, `/` not among them unless it is the result; the last is the result. An
    error ends a walk. A path can be there several times. Of more than 2048 steps the last ones are told."""
    content: bytes | None
    """The whole file, if it came along. Then the result's status is that of the very descriptor that was read."""
    content_errno: int
    """Why there is no content of a regular file: the errno of opening or reading it, EFBIG where it is too long."""

    @property
    def result(self) -> Visited:
        """What the path leads to, or where the walk ended."""
        return self.visited[-1]


class RemoteHandle:
    """An open file of the pod. Made by `RemoteFiles.open`."""

    def __init__(self, files: RemoteFiles, number: int, status: Status, *, seekable: bool) -> None:
        self.status = status
        """As it was opened."""
        self.seekable = seekable
        """Whether it has offsets. If not (a FIFO, a terminal) it is a stream, and reading waits for data."""
        self._files = files
        self._number = number
        self._closed = False
        self._reading = trio.Lock()
        self._arriving: Request | None = None
        """What is being read of a stream, whoever will want it."""
        self._unread = b""
        """What was read of a stream, and more than was asked for."""

    async def read(self, offset: int, length: int) -> bytes:
        """At most `length` (and 1 MiB) bytes from `offset` on; fewer only at the end of the file.

        What has no offsets gives what there is, waits when there is nothing, and gives b"" at its end. One that is
        cancelled while it waits takes nothing away: what comes is for the next.
        """
        make = partial(ask.ReadFile, handle=self._number, offset=offset, length=min(length, MAX_PIECE))
        if self.seekable:
            return (await self._files.request(make, ask.FileData)).payload
        async with self._reading:
            if not self._unread:
                if self._arriving is None:
                    self._arriving = self._files.requests.start(make)
                await self._arriving.answered.wait()
                arriving, self._arriving = self._arriving, None
                self._unread = self._files.requests.outcome(arriving, ask.FileData).payload
            data, self._unread = self._unread[:length], self._unread[length:]
            return data

    async def write(self, offset: int, data: bytes | memoryview) -> int:
        """Writes at most 1 MiB of `data`; returns how much. A handle with O_APPEND writes at the end."""
        return await self._files.send(partial(ask.WriteFile, handle=self._number, offset=offset), data)

    async def status_now(self) -> Status:
        """What fstat(2) tells now."""
        return (await self._files.request(partial(ask.GetStatus, handle=self._number), ask.FileTold)).status

    async def set(self, change: Change) -> Status:
        """Changes the file (ftruncate(2), fchown(2), fchmod(2), futimens(3)); returns its new status."""
        make = partial(ask.ChangeFile, handle=self._number, change=change)
        return (await self._files.request(make, ask.FileTold)).status

    async def open_again(self, flags: int) -> RemoteHandle:
        """Another handle of the same file, whatever its name is now; of `flags` what makes a file has no effect."""
        make = partial(ask.OpenAgain, handle=self._number, flags=flags)
        return await self._files.opened(make)

    async def give_name(self, path: bytes) -> Status:
        """Links the file (linkat(2) of a descriptor): for one that was opened with O_TMPFILE. Returns its status."""
        make = partial(ask.GiveName, handle=self._number, path=_checked(path))
        return (await self._files.request(make, ask.FileTold)).status

    async def sync(self, data_only: bool) -> None:
        """fdatasync(2) or fsync(2) in the pod."""
        await self._files.request(partial(ask.SyncFile, handle=self._number, data_only=data_only), Done)

    def close(self) -> None:
        """Closes it, once; nobody waits. Requests under way are answered before."""
        if not self._closed:
            self._closed = True
            if self._arriving is not None:
                self._files.requests.abandon(self._arriving)
            self._files.tell(Close(self._number))


class RemoteFiles:
    """The files below the target's root, with its rights. Made by the session."""

    def __init__(self, requests: Requests, distrust: Callable[[str], OSError]) -> None:
        """`distrust` ends the session because the agent sent what it may not, and gives what is to be raised."""
        self.requests = requests
        """For handles: the requests of the session."""
        self._distrust = distrust
        self._unacknowledged = 0
        self._acknowledged = trio.lowlevel.ParkingLot()

    async def look(self, path: bytes, *, follow: bool, content_limit: int = 0, known: int = 0) -> Looked:
        """Walks along a path from the target's root, component by component, as the kernel does.

        Links on the way are followed, 40 at most, and one at the end if `follow` or a slash stands behind it; `..`
        stops at the root; magic links of /proc are not followed (EXDEV). What stops the walk is the error of its last
        step, and is not raised. A regular file of at most `content_limit` (and 256 KiB) bytes is opened for reading and
        read in the same round trip; one whose size says nothing, as in /proc, counts as too long.

        Of `known` bytes at the path's beginning the caller believes that they lead down to a directory, links nowhere:
        while that is so, the steps up to there are not told, which saves time.
        """
        make = partial(ask.Look, path=_checked(path), follow=follow, content_limit=content_limit, known=known)
        return await self.answered_look(self.requests.start(make))

    def ask_ahead(
        self,
        path: bytes,
        *,
        follow: bool,
        content_limit: int = 0,
        known: int = 0,
        begun: Callable[[Request], None] | None = None,
    ) -> Request | None:
        """Asks what `look` asks, from any thread, for `answered_look`. None where it can't be asked just now.

        `begun` gets the request before its answer can come.
        """
        if len(path) > MAX_PATH:
            return None
        make = partial(ask.Look, path=path, follow=follow, content_limit=content_limit, known=known)
        return self.requests.start_from_any_thread(make, begun)

    async def answered_look(self, request: Request) -> Looked:
        """The answer of `ask_ahead`."""
        return self._unpack(_looked, await self.requests.finish(request, ask.Looked))

    def look_that_came(self, request: Request) -> Looked:
        """The same when it is there. Raises OSError."""
        return self._unpack(_looked, self.requests.outcome(request, ask.Looked))

    async def open(self, path: bytes, flags: int, mode: int = 0, mask: int = 0) -> RemoteHandle:
        """Opens a file.

        `flags` are those of open(2): the access mode, O_APPEND, O_CREAT, O_EXCL, O_TRUNC, O_NOFOLLOW, O_DIRECTORY,
        O_NONBLOCK, O_SYNC, O_DSYNC, O_NOATIME, O_TMPFILE; others have no effect. A file is made with `mode` less
        `mask`, or, in a directory that has a default ACL, with what that leaves of `mode` (acl(5)). To open a FIFO for
        writing waits for a reader; one for reading is opened at once, and reading waits.
        """
        return await self.opened(partial(ask.OpenFile, path=_checked(path), flags=flags, mode=mode & 0o7777, mask=mask))

    async def list(self, path: bytes) -> AsyncGenerator[tuple[Entry, ...], None]:
        """A directory's entries without `.` and `..`, in pieces, in the order in which the pod's kernel gives them.

        The next piece is under way while one is looked at. Close the generator when it is not read to its end.
        """
        answer = await self.request(partial(ask.ListDirectory, path=_checked(path)), ask.Listed)
        make = partial(ask.ListMore, listing=answer.stream)
        more = None if answer.last else self.requests.start(make)
        try:
            while True:
                if entries := self._unpack(file_records.unpack_entries, answer.payload):
                    yield entries
                if more is None:
                    return
                answer = await self.requests.finish(more, ask.Listed)
                more = None if answer.last else self.requests.start(make)
        finally:
            if more is not None:
                self.requests.abandon(more)
                self.tell(Close(make.keywords["listing"]))

    async def filesystem(self, path: bytes) -> FilesystemStatus:
        """What statfs(2) tells."""
        return (await self.request(partial(ask.GetFilesystem, path=_checked(path)), ask.FilesystemTold)).status

    async def access(self, path: bytes, mode: int) -> None:
        """Raises OSError unless the target may do with the file what `mode` (R_OK, W_OK, X_OK) says."""
        await self.request(partial(ask.CheckAccess, path=_checked(path), mode=mode), Done)

    async def read_link(self, path: bytes) -> bytes:
        """What a symbolic link says, as it says it."""
        return (await self.request(partial(ask.ReadLink, path=_checked(path)), ask.FileData)).payload

    async def get_attribute(self, path: bytes, name: bytes) -> bytes:
        """The value of an extended attribute; no link is followed here and in the next three."""
        make = partial(ask.GetAttribute, path=_checked(path), name=_attribute(name))
        return (await self.request(make, ask.FileData)).payload

    async def list_attributes(self, path: bytes) -> tuple[bytes, ...]:
        """The names of a file's extended attributes, as the target may see them."""
        names = (await self.request(partial(ask.ListAttributes, path=_checked(path)), ask.FileData)).payload
        return tuple(names.split(b"\0")[:-1])

    async def set_attribute(self, path: bytes, name: bytes, value: bytes, flags: int = 0) -> None:
        """Sets an extended attribute; `flags` are XATTR_CREATE or XATTR_REPLACE."""
        if len(value) > _MAX_ATTRIBUTE:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        make = partial(ask.SetAttribute, path=_checked(path), name=_attribute(name), flags=flags, payload=value)
        await self.request(make, Done)

    async def remove_attribute(self, path: bytes, name: bytes) -> None:
        """Removes an extended attribute."""
        await self.request(partial(ask.RemoveAttribute, path=_checked(path), name=_attribute(name)), Done)

    async def make_directory(self, path: bytes, mode: int, mask: int = 0) -> Status:
        """mkdir(2), `mask` as for `open`; returns the directory's status."""
        return await self._told(partial(ask.MakeDirectory, path=_checked(path), mode=mode & 0o7777, mask=mask))

    async def make_node(self, path: bytes, mode: int, rdev: int, mask: int = 0) -> Status:
        """mknod(2): `mode` has the type and permissions, `mask` as for `open`; returns the new file's status."""
        make = partial(ask.MakeNode, path=_checked(path), mode=mode & 0o177777, mask=mask, rdev=rdev)
        return await self._told(make)

    async def make_link(self, target: bytes, path: bytes) -> Status:
        """symlink(2): makes a link at `path` that says `target`; returns the link's status."""
        return await self._told(partial(ask.MakeLink, path=_checked(path), target=_checked(target)))

    async def link(self, old: bytes, new: bytes) -> Status:
        """link(2); returns the file's status."""
        return await self._told(partial(ask.Link, old=_checked(old), new=_checked(new)))

    async def rename(self, old: bytes, new: bytes, flags: int = 0) -> Status:
        """renameat2(2) with its flags; returns the status of what is at `new` now."""
        return await self._told(partial(ask.Rename, old=_checked(old), new=_checked(new), flags=flags))

    async def remove(self, path: bytes, directory: bool) -> None:
        """rmdir(2) or unlink(2)."""
        await self.request(partial(ask.Remove, path=_checked(path), directory=directory), Done)

    async def set(self, path: bytes, change: Change) -> Status:
        """Changes a file, never what a link leads to; returns its new status."""
        return await self._told(partial(ask.ChangePath, path=_checked(path), change=change))

    async def mounts(self) -> tuple[Mount, ...]:
        """What the target has mounted, in the order of mounting; `/` among it."""
        request = self.requests.start(ask.GetMounts, _MOUNTS_LIMIT_BYTES)
        await self.requests.finish(request, Done)
        return self._unpack(file_records.unpack_mounts, b"".join(request.parts))

    async def read_whole(self, path: bytes, limit_bytes: int) -> RemoteFile:
        """Reads a regular file, links followed.

        Raises OSError: besides the pod's, EISDIR and EINVAL for what is no regular file, EFBIG for what is longer than
        `limit_bytes`.
        """
        what = f"reading {os.fsdecode(path)!r}"
        looked = await self.look(path, follow=True, content_limit=limit_bytes)
        status = looked.result.status
        if status is None:
            raise OSError(looked.result.errno, f"{what}: {os.strerror(looked.result.errno)}")
        if stat.S_ISDIR(status.mode):
            raise OSError(errno.EISDIR, f"{what}: {os.strerror(errno.EISDIR)}")
        if not stat.S_ISREG(status.mode):
            raise OSError(errno.EINVAL, f"{what}: not a regular file")
        data = looked.content
        if data is None:
            handle = await self.open(looked.result.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                status, data = handle.status, await _read_to_end(handle, limit_bytes + 1)
            finally:
                handle.close()
        if len(data) > limit_bytes:
            raise OSError(errno.EFBIG, f"{what}: longer than {limit_bytes} bytes")
        return RemoteFile(data, status.mode, status.mtime_ns)

    # For handles.

    async def request(self, make: Callable[[int], Frame], expected: type[_Answer]) -> _Answer:
        """Makes a request and waits for its answer."""
        return await self.requests.finish(self.requests.start(make), expected)

    async def opened(self, make: Callable[[int], Frame]) -> RemoteHandle:
        """Makes a request that opens something."""
        opened = await self.request(make, ask.FileOpened)
        return RemoteHandle(self, opened.stream, opened.status, seekable=opened.seekable)

    async def send(self, make: partial[ask.WriteFile], data: bytes | memoryview) -> int:
        """Makes a request that carries data, when not too much of it is on its way; returns what was written."""
        payload = data[:MAX_PIECE]
        while self._unacknowledged and self._unacknowledged + len(payload) > _UNACKNOWLEDGED_BYTES:
            await self._acknowledged.park()
        self._unacknowledged += len(payload)
        try:
            return (await self.request(partial(make, payload=payload), ask.Written)).amount
        finally:
            self._unacknowledged -= len(payload)
            self._acknowledged.unpark_all()

    def tell(self, frame: Frame) -> None:
        """Sends a frame that has no answer."""
        self.requests.tell(frame)

    async def _told(self, make: Callable[[int], Frame]) -> Status:
        return (await self.request(make, ask.FileTold)).status

    def _unpack(self, unpack: Callable[[_Packed], _Answer], packed: _Packed) -> _Answer:
        try:
            return unpack(packed)
        except ValueError as error:
            raise self._distrust(str(error)) from None


def _looked(answer: ask.Looked) -> Looked:
    """Raises ValueError for what makes no sense."""
    walk, content = answer.payload, None
    if answer.content_length is not None:
        end = len(walk) - answer.content_length
        if end < 0:
            raise ValueError("more content than there is")
        walk, content = walk[:end], walk[end:]
    visited = file_records.unpack_walk(walk)
    if not visited:
        raise ValueError("a walk without steps")
    return Looked(visited, content, answer.content_errno)


async def _read_to_end(handle: RemoteHandle, limit_bytes: int) -> bytes:
    """The first `limit_bytes` of a file, whatever its size is said to be."""
    pieces: list[bytes] = []
    length = 0
    while length < limit_bytes and (piece := await handle.read(length, limit_bytes - length)):
        pieces.append(piece)
        length += len(piece)
    return b"".join(pieces)


def _checked(path: bytes) -> bytes:
    """The path, if it can be one at all. Raises OSError as the kernel would."""
    if len(path) > MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
    return path


def _attribute(name: bytes) -> bytes:
    """An attribute's name, if it can be one. Raises OSError (ERANGE: xattr(7))."""
    if not 0 < len(name) <= _MAX_ATTRIBUTE_NAME:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return name
