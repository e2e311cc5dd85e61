"""Open files, and what is done with them.

Everything is opened with O_NONBLOCK, which means nothing to ordinary files, so that no FIFO and no device holds a
thread. Where the client did not ask for that flag, waiting is done in Trio (`mirrord_agent.files.streams`).
"""

from __future__ import annotations

import errno
import os
import stat

import trio

from mirrord_agent.files import operations
from mirrord_agent.files.root import Held, Root, mode_in, way_to
from mirrord_agent.files.statuses import status_of
from mirrord_agent.wire.file_frames import (
    ChangeFile,
    FileData,
    FileOpened,
    FileTold,
    GetStatus,
    GiveName,
    HandleRequest,
    OpenAgain,
    OpenFile,
    ReadFile,
    SyncFile,
    WriteFile,
    Written,
)
from mirrord_agent.wire.file_records import Status
from mirrord_agent.wire.frames import Done

#: The flags of open(2) that mean something here; others are dropped.
_FLAGS = (
    os.O_ACCMODE
    | os.O_APPEND
    | os.O_CREAT
    | os.O_EXCL
    | os.O_TRUNC
    | os.O_NOFOLLOW
    | os.O_DIRECTORY
    | os.O_SYNC
    | os.O_NOATIME
    | os.O_TMPFILE
)
_FLAGS_AGAIN = os.O_ACCMODE | os.O_APPEND | os.O_TRUNC | os.O_SYNC | os.O_NOATIME
_NO_WAIT = os.O_NONBLOCK | os.O_NOCTTY


class Arriving:
    """What a worker is reading, whoever will want it."""

    def __init__(self) -> None:
        self.there = trio.Event()
        self.outcome: object = None
        """Bytes, or the exception that reading raised."""

    def arrive(self, outcome: object) -> None:
        """It has been read."""
        self.outcome = outcome
        self.there.set()


class OpenedFile(Held):
    """An open file."""

    def __init__(self, descriptor: int, flags: int) -> None:
        super().__init__(descriptor)
        self.status: Status = status_of(descriptor)
        self.waits = not flags & os.O_NONBLOCK
        """Whether the client waits for what is not there yet."""
        kind = stat.S_IFMT(self.status.mode)
        self.is_fifo = kind == stat.S_IFIFO
        self.is_stored = kind in (stat.S_IFBLK, stat.S_IFDIR) or (kind == stat.S_IFREG and self.status.blocks > 0)
        """Whether reading it waits for a disk at most."""
        self.seekable = self.is_stored or _seeks(descriptor)
        """Whether it has offsets."""
        self.arriving: Arriving | None = None
        """What a worker is reading of a stream."""
        self.unread = b""
        """What was read of a stream, and more than was asked for."""
        self.reading = trio.Lock()
        self.writing = trio.Lock()


def _seeks(descriptor: int) -> bool:
    try:
        os.lseek(descriptor, 0, os.SEEK_CUR)
    except OSError:
        return False
    return True


def open_file(root: Root, request: OpenFile) -> OpenedFile | None:
    """Opens a file; None if that has to wait for a FIFO's reader (fifo(7)). Raises OSError."""
    flags = request.flags & _FLAGS
    try:
        descriptor = root.open_path(request.path, flags | _NO_WAIT, _mode_of_new(root, request, flags))
    except OSError as error:
        if error.errno == errno.ENXIO and not request.flags & os.O_NONBLOCK and _is_fifo(root, request):
            return None
        raise
    return _opened(descriptor, request.flags)


def _opened(descriptor: int, flags: int) -> OpenedFile:
    try:
        return OpenedFile(descriptor, flags)
    except BaseException:
        os.close(descriptor)
        raise


def _mode_of_new(root: Root, request: OpenFile, flags: int) -> int:
    """The mode with which an open may make a file."""
    mode = request.mode & 0o7777
    try:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            directory = root.open_path(request.path, os.O_PATH)
            try:
                return mode_in(directory, mode, request.mask)
            finally:
                os.close(directory)
        if flags & os.O_CREAT:
            with root.parent(request.path, errno.EISDIR) as (above, _):
                return mode_in(above, mode, request.mask)
    except OSError:
        pass  # the open will say the same
    return 0


def open_again(file: OpenedFile, request: OpenAgain) -> OpenedFile:
    """Opens an open file once more. Raises OSError."""
    flags = request.flags & _FLAGS_AGAIN
    return _opened(os.open(way_to(file.descriptor), flags | _NO_WAIT | os.O_CLOEXEC), request.flags)


def give_name(root: Root, file: OpenedFile, request: GiveName) -> FileTold:
    """Links an open file. Raises OSError."""
    with root.parent(request.path, errno.EEXIST) as (directory, name):
        os.link(way_to(file.descriptor), name, dst_dir_fd=directory, follow_symlinks=True)
    return FileTold(request.stream, status_of(file.descriptor))


def _is_fifo(root: Root, request: OpenFile) -> bool:
    descriptor = root.open_path(request.path, os.O_PATH | request.flags & os.O_NOFOLLOW)
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def opened_frame(request: OpenFile | OpenAgain, file: OpenedFile) -> FileOpened:
    """The answer to a request that succeeded."""
    return FileOpened(request.stream, file.seekable, file.status)


def perform(file: OpenedFile, request: HandleRequest) -> FileData | FileTold | Written | Done:
    """Does what is asked for with an open file that has offsets, or with any that is not to be read or written."""
    match request:
        case ReadFile():
            return FileData(request.stream, read(file, request.offset, request.length))
        case WriteFile():
            return Written(request.stream, os.pwrite(file.descriptor, request.payload, request.offset))
        case GetStatus():
            return FileTold(request.stream, status_of(file.descriptor))
        case ChangeFile():
            operations.change_open(file.descriptor, request.change)
            return FileTold(request.stream, status_of(file.descriptor))
        case SyncFile():
            (os.fdatasync if request.data_only else os.fsync)(file.descriptor)
            return Done(request.stream)


def read(file: OpenedFile, offset: int, length: int) -> bytes:
    """Bytes from `offset` on, fewer than `length` only at the end. Raises OSError."""
    data = os.pread(file.descriptor, length, offset)
    # Files of /proc give a page at a time, and a network filesystem may give what it has.
    while 0 < len(data) < length and (more := os.pread(file.descriptor, length - len(data), offset + len(data))):
        data += more
    return data
