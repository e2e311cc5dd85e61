"""How the frames about files travel. The codec's table takes them in."""

from __future__ import annotations

import enum
from typing import Any

import attrs

from mirrord_agent.wire import file_frames as files
from mirrord_agent.wire.fields import BLOB, FLAG, INT64_MAX, STREAM, UINT32, Field, Layout, integer, optional
from mirrord_agent.wire.file_records import (
    NOW,
    Change,
    Time,
    pack_filesystem,
    pack_status,
    unpack_filesystem,
    unpack_status,
)

_INT64 = integer(-INT64_MAX - 1, INT64_MAX)
_UINT64 = integer(0, (1 << 64) - 1)
_LENGTH = integer(0, INT64_MAX)
_STATUS = Field(pack_status, unpack_status)
_FILESYSTEM = Field(pack_filesystem, unpack_filesystem)


def _pack_time(value: Time) -> object:
    return value.value if isinstance(value, enum.Enum) else value


def _unpack_time(value: Any) -> object:
    return NOW if value == NOW.value else _INT64.unpack(value)


_TIME = Field(_pack_time, _unpack_time)
_CHANGE_FIELDS = (
    ("mode", optional(integer(0, 0o7777))),
    ("uid", optional(UINT32)),
    ("gid", optional(UINT32)),
    ("size", optional(_LENGTH)),
    ("atime_ns", optional(_TIME)),
    ("mtime_ns", optional(_TIME)),
)


def _pack_change(change: Change) -> object:
    return [field.pack(getattr(change, name)) for name, field in _CHANGE_FIELDS]


def _unpack_change(value: Any) -> Change:
    if type(value) is not list or len(value) != len(_CHANGE_FIELDS):
        raise ValueError(f"expected a change, got {value!r:.60}")
    fields: dict[str, Any] = {
        name: field.unpack(item) for (name, field), item in zip(_CHANGE_FIELDS, value, strict=True)
    }
    return Change(**fields)


_CHANGE = Field(_pack_change, _unpack_change)
assert [name for name, _ in _CHANGE_FIELDS] == [field.name for field in attrs.fields(Change)]


def _layout(number: int, frame: type[Any], payload: bool = False, **fields: Field) -> Layout:
    """As every frame about files it has a stream, which comes first."""
    return Layout(number, frame, (("stream", STREAM), *fields.items()), payload)


FILE_LAYOUTS = (
    _layout(64, files.Look, path=BLOB, follow=FLAG, content_limit=_LENGTH, known=_LENGTH),
    _layout(65, files.OpenFile, path=BLOB, flags=UINT32, mode=UINT32, mask=UINT32),
    _layout(66, files.ListDirectory, path=BLOB),
    _layout(67, files.GetFilesystem, path=BLOB),
    _layout(68, files.CheckAccess, path=BLOB, mode=UINT32),
    _layout(69, files.ReadLink, path=BLOB),
    _layout(70, files.GetAttribute, path=BLOB, name=BLOB),
    _layout(71, files.ListAttributes, path=BLOB),
    _layout(72, files.SetAttribute, payload=True, path=BLOB, name=BLOB, flags=UINT32),
    _layout(73, files.RemoveAttribute, path=BLOB, name=BLOB),
    _layout(74, files.MakeDirectory, path=BLOB, mode=UINT32, mask=UINT32),
    _layout(75, files.MakeNode, path=BLOB, mode=UINT32, mask=UINT32, rdev=_UINT64),
    _layout(76, files.MakeLink, path=BLOB, target=BLOB),
    _layout(77, files.Link, old=BLOB, new=BLOB),
    _layout(78, files.Rename, old=BLOB, new=BLOB, flags=UINT32),
    _layout(79, files.Remove, path=BLOB, directory=FLAG),
    _layout(80, files.ChangePath, path=BLOB, change=_CHANGE),
    _layout(81, files.ReadFile, handle=STREAM, offset=_LENGTH, length=integer(0, 1 << 20)),
    _layout(82, files.WriteFile, payload=True, handle=STREAM, offset=_LENGTH),
    _layout(83, files.GetStatus, handle=STREAM),
    _layout(84, files.ChangeFile, handle=STREAM, change=_CHANGE),
    _layout(85, files.SyncFile, handle=STREAM, data_only=FLAG),
    _layout(86, files.ListMore, listing=STREAM),
    _layout(87, files.GetMounts),
    _layout(88, files.OpenAgain, handle=STREAM, flags=UINT32),
    _layout(89, files.GiveName, handle=STREAM, path=BLOB),
    _layout(96, files.Looked, payload=True, content_length=optional(UINT32), content_errno=integer(0, 4095)),
    _layout(97, files.FileOpened, seekable=FLAG, status=_STATUS),
    _layout(98, files.FileTold, status=_STATUS),
    _layout(99, files.FileData, payload=True),
    _layout(100, files.Written, amount=_LENGTH),
    _layout(101, files.Listed, payload=True, last=FLAG),
    _layout(102, files.FilesystemTold, status=_FILESYSTEM),
)
