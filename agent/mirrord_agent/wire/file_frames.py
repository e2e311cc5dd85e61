"""What the two sides say to each other about files.

Paths are absolute below the target's root and raw bytes. Each request is made with the rights of the target's process.
What `OpenFile` opened is named by that request's stream, as long as the client has not sent `Close` or `Reset` for it;
so is a listing that `Listed` does not end. A request with a handle that is no more fails with EBADF.
"""

from __future__ import annotations

import attrs

from mirrord_agent.wire.file_records import Change, FilesystemStatus, Status


def _bytes_for_people(payload: bytes | memoryview) -> str:
    return f"<{len(payload)} bytes>"


# Requests with a path.


@attrs.frozen
class Look:
    """Asks what is there, step by step. Answered by `Looked`."""

    stream: int
    path: bytes
    follow: bool
    """Whether a link at the end of the path is followed."""
    content_limit: int
    """A regular file of at most so many bytes is to come along; 0 for none."""
    known: int = 0
    """Of so many bytes at the path's beginning it is known that they lead down to a directory: if they still do, the
    steps up to there need not be told."""


@attrs.frozen
class OpenFile:
    """Asks for a handle (open(2)). Answered by `FileOpened`."""

    stream: int
    path: bytes
    flags: int
    mode: int
    mask: int
    """Which bits of `mode` a new file does not get, unless its directory has a default ACL (umask(2))."""


@attrs.frozen
class ListDirectory:
    """Asks for a directory's first entries. Answered by `Listed`."""

    stream: int
    path: bytes


@attrs.frozen
class GetFilesystem:
    """Asks for statfs(2). Answered by `FilesystemTold`."""

    stream: int
    path: bytes


@attrs.frozen
class CheckAccess:
    """Asks for faccessat(2) with the target's effective rights, no link followed. Answered by `Done`."""

    stream: int
    path: bytes
    mode: int


@attrs.frozen
class ReadLink:
    """Asks for a link's text. Answered by `FileData`."""

    stream: int
    path: bytes


@attrs.frozen
class GetAttribute:
    """Asks for an extended attribute; no link followed. Answered by `FileData`."""

    stream: int
    path: bytes
    name: bytes


@attrs.frozen
class ListAttributes:
    """Asks for the names of the extended attributes, each ended by NUL; no link followed. Answered by `FileData`."""

    stream: int
    path: bytes


@attrs.frozen
class SetAttribute:
    """Sets an extended attribute (lsetxattr(2)). Answered by `Done`."""

    stream: int
    path: bytes
    name: bytes
    flags: int
    payload: bytes | memoryview = attrs.field(repr=_bytes_for_people)


@attrs.frozen
class RemoveAttribute:
    """Removes an extended attribute (lremovexattr(2)). Answered by `Done`."""

    stream: int
    path: bytes
    name: bytes


@attrs.frozen
class MakeDirectory:
    """mkdir(2). Answered by `FileTold`."""

    stream: int
    path: bytes
    mode: int
    mask: int
    """As in `OpenFile`."""


@attrs.frozen
class MakeNode:
    """mknod(2). Answered by `FileTold`."""

    stream: int
    path: bytes
    mode: int
    mask: int
    """As in `OpenFile`."""
    rdev: int


@attrs.frozen
class MakeLink:
    """symlink(2). Answered by `FileTold`."""

    stream: int
    path: bytes
    target: bytes


@attrs.frozen
class Link:
    """link(2), no link followed. Answered by `FileTold`."""

    stream: int
    old: bytes
    new: bytes


@attrs.frozen
class Rename:
    """renameat2(2). Answered by `FileTold`, of the new path."""

    stream: int
    old: bytes
    new: bytes
    flags: int


@attrs.frozen
class Remove:
    """unlink(2), or rmdir(2) for a directory. Answered by `Done`."""

    stream: int
    path: bytes
    directory: bool


@attrs.frozen
class ChangePath:
    """Changes mode, owners, size or times; no link followed. Answered by `FileTold`."""

    stream: int
    path: bytes
    change: Change


# Requests with a handle, and of the target itself.


@attrs.frozen
class ReadFile:
    """Asks for at most `length` bytes from `offset` on. Answered by `FileData`.

    It is shorter only at the end of the file. What has no offsets answers with what there is, when there is some.
    """

    stream: int
    handle: int
    offset: int
    length: int


@attrs.frozen
class WriteFile:
    """Writes at `offset`; at the end if the handle appends. Answered by `Written`."""

    stream: int
    handle: int
    offset: int
    payload: bytes | memoryview = attrs.field(repr=_bytes_for_people)


@attrs.frozen
class GetStatus:
    """Asks for fstat(2). Answered by `FileTold`."""

    stream: int
    handle: int


@attrs.frozen
class ChangeFile:
    """Changes what a handle leads to. Answered by `FileTold`."""

    stream: int
    handle: int
    change: Change


@attrs.frozen
class SyncFile:
    """fsync(2), or fdatasync(2). Answered by `Done`."""

    stream: int
    handle: int
    data_only: bool


@attrs.frozen
class OpenAgain:
    """Asks for another handle of what a handle leads to, whatever its name is now. Answered by `FileOpened`."""

    stream: int
    handle: int
    flags: int


@attrs.frozen
class GiveName:
    """Links what a handle leads to (linkat(2) of a descriptor). Answered by `FileTold`."""

    stream: int
    handle: int
    path: bytes


@attrs.frozen
class ListMore:
    """Asks for the next entries of a listing. Answered by `Listed`."""

    stream: int
    listing: int


@attrs.frozen
class GetMounts:
    """Asks for the target's mounts. Answered by `Part`s that make up packed mounts, then `Done`."""

    stream: int


# Answers.


@attrs.frozen
class Looked:
    """The walk (`file_records.pack_walk`), then the content, if it came along."""

    stream: int
    content_length: int | None
    """How many of the payload's last bytes are content; None: there is none."""
    content_errno: int
    """Why there is no content: what open(2) or read(2) said, EFBIG for a file that is too long. 0 otherwise."""
    payload: bytes = attrs.field(repr=_bytes_for_people)


@attrs.frozen
class FileOpened:
    """The handle is there."""

    stream: int
    seekable: bool
    """Whether it has offsets. If not, it is a stream: reading waits for data."""
    status: Status


@attrs.frozen
class FileTold:
    """A file's status."""

    stream: int
    status: Status


@attrs.frozen
class FileData:
    """Bytes of a file, of a link or of attributes."""

    stream: int
    payload: bytes = attrs.field(repr=_bytes_for_people)


@attrs.frozen
class Written:
    """So many bytes were written."""

    stream: int
    amount: int


@attrs.frozen
class Listed:
    """Entries of a directory, without `.` and `..` (`file_records.unpack_entries`)."""

    stream: int
    last: bool
    """Whether these were the last ones: then there is no listing to ask on or to close."""
    payload: bytes = attrs.field(repr=_bytes_for_people)


@attrs.frozen
class FilesystemTold:
    """A filesystem's status."""

    stream: int
    status: FilesystemStatus


HandleRequest = ReadFile | WriteFile | GetStatus | ChangeFile | SyncFile
PathRequest = (
    GetFilesystem
    | CheckAccess
    | ReadLink
    | GetAttribute
    | ListAttributes
    | SetAttribute
    | RemoveAttribute
    | MakeDirectory
    | MakeNode
    | MakeLink
    | Link
    | Rename
    | Remove
    | ChangePath
)
FileRequest = (
    Look | OpenFile | OpenAgain | GiveName | ListDirectory | ListMore | GetMounts | PathRequest | HandleRequest
)
FileAnswer = Looked | FileOpened | FileTold | FileData | Written | Listed | FilesystemTold
