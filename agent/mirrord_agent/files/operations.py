"""What is done with paths: one function for each request, which makes the calls and gives the answer.

All may raise OSError, with the errno of the pod's kernel. They run in a worker's thread, which has the target's rights.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from mirrord_agent import libc
from mirrord_agent.files.root import Root, check_name, mode_in, way_to
from mirrord_agent.files.statuses import status_of, status_of_entry
from mirrord_agent.wire import file_frames as ask
from mirrord_agent.wire.file_frames import FileData, FilesystemTold, FileTold, PathRequest
from mirrord_agent.wire.file_records import Change, Now, Time
from mirrord_agent.wire.frames import Done

_Answer = FileData | FilesystemTold | FileTold | Done


def perform(root: Root, request: PathRequest) -> _Answer:
    """Does what is asked for. Raises OSError."""
    return _BY_REQUEST[type(request)](root, request)


def change_open(descriptor: int, change: Change) -> None:
    """Changes an open file."""
    if change.size is not None:
        os.ftruncate(descriptor, change.size)
    if change.uid is not None or change.gid is not None:
        os.fchown(descriptor, *_owners(change))
    if change.mode is not None:
        os.fchmod(descriptor, change.mode)
    if change.atime_ns is not None or change.mtime_ns is not None:
        libc.set_times(descriptor, _times(change))


def _change_path(root: Root, request: ask.ChangePath) -> FileTold:
    change = request.change
    with root.found(request.path) as found:
        way = way_to(found)
        if change.size is not None:
            os.truncate(way, change.size)
        if change.uid is not None or change.gid is not None:
            os.chown(way, *_owners(change))
        if change.mode is not None:
            # Kernels before 6.6 let some filesystems change a link's mode (chmod(2) never does).
            if stat.S_ISLNK(os.fstat(found).st_mode):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), request.path)
            os.chmod(way, change.mode)
        if change.atime_ns is not None or change.mtime_ns is not None:
            libc.set_times(way, _times(change))
        return FileTold(request.stream, status_of(found))


def _owners(change: Change) -> tuple[int, int]:
    return -1 if change.uid is None else change.uid, -1 if change.gid is None else change.gid


def _times(change: Change) -> tuple[int, ...]:
    return *_time(change.atime_ns), *_time(change.mtime_ns)


def _time(value: Time | None) -> tuple[int, int]:
    if value is None:
        return 0, libc.UTIME_OMIT
    if isinstance(value, Now):
        return 0, libc.UTIME_NOW
    return divmod(value, 10**9)


def _get_filesystem(root: Root, request: ask.GetFilesystem) -> FilesystemTold:
    with root.found(request.path) as found:
        return FilesystemTold(request.stream, libc.filesystem(found))


def _check_access(root: Root, request: ask.CheckAccess) -> Done:
    with root.found(request.path) as found:
        libc.check_access(found, request.mode)
    return Done(request.stream)


def _read_link(root: Root, request: ask.ReadLink) -> FileData:
    with root.found(request.path) as found:
        if not stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), request.path)
        return FileData(request.stream, os.readlink(b"", dir_fd=found))


# Extended attributes.


def _get_attribute(root: Root, request: ask.GetAttribute) -> FileData:
    check_name(request.name)
    with root.found(request.path) as found:
        return FileData(request.stream, os.getxattr(way_to(found), request.name))


def _list_attributes(root: Root, request: ask.ListAttributes) -> FileData:
    with root.found(request.path) as found:
        names = os.listxattr(way_to(found))
    return FileData(request.stream, b"".join(os.fsencode(name) + b"\0" for name in names))


def _set_attribute(root: Root, request: ask.SetAttribute) -> Done:
    check_name(request.name)
    with root.found(request.path) as found:
        os.setxattr(way_to(found), request.name, request.payload, request.flags)
    return Done(request.stream)


def _remove_attribute(root: Root, request: ask.RemoveAttribute) -> Done:
    check_name(request.name)
    with root.found(request.path) as found:
        os.removexattr(way_to(found), request.name)
    return Done(request.stream)


# Entries of directories.


def _make_directory(root: Root, request: ask.MakeDirectory) -> FileTold:
    with root.parent(request.path, errno.EEXIST) as (directory, name):
        os.mkdir(name, mode_in(directory, request.mode, request.mask), dir_fd=directory)
        return FileTold(request.stream, status_of_entry(directory, name))


def _make_node(root: Root, request: ask.MakeNode) -> FileTold:
    with root.parent(request.path, errno.EEXIST) as (directory, name):
        os.mknod(name, mode_in(directory, request.mode, request.mask), request.rdev, dir_fd=directory)
        return FileTold(request.stream, status_of_entry(directory, name))


def _make_link(root: Root, request: ask.MakeLink) -> FileTold:
    check_name(request.target)
    with root.parent(request.path, errno.EEXIST) as (directory, name):
        os.symlink(request.target, name, dir_fd=directory)
        return FileTold(request.stream, status_of_entry(directory, name))


def _link(root: Root, request: ask.Link) -> FileTold:
    with (
        root.parent(request.old, errno.EPERM) as (old_directory, old),
        root.parent(request.new, errno.EEXIST) as (directory, name),
    ):
        os.link(old, name, src_dir_fd=old_directory, dst_dir_fd=directory, follow_symlinks=False)
        return FileTold(request.stream, status_of_entry(directory, name))


def _rename(root: Root, request: ask.Rename) -> FileTold:
    with (
        root.parent(request.old, errno.EBUSY) as (old_directory, old),
        root.parent(request.new, errno.EBUSY) as (directory, name),
    ):
        libc.rename(old_directory, old, directory, name, request.flags)
        return FileTold(request.stream, status_of_entry(directory, name))


def _remove(root: Root, request: ask.Remove) -> Done:
    with root.parent(request.path, errno.EBUSY) as (directory, name):
        if request.directory:
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
    return Done(request.stream)


_BY_REQUEST: dict[type[Any], Callable[[Root, Any], _Answer]] = {
    ask.GetFilesystem: _get_filesystem,
    ask.CheckAccess: _check_access,
    ask.ReadLink: _read_link,
    ask.GetAttribute: _get_attribute,
    ask.ListAttributes: _list_attributes,
    ask.SetAttribute: _set_attribute,
    ask.RemoveAttribute: _remove_attribute,
    ask.MakeDirectory: _make_directory,
    ask.MakeNode: _make_node,
    ask.MakeLink: _make_link,
    ask.Link: _link,
    ask.Rename: _rename,
    ask.Remove: _remove,
    ask.ChangePath: _change_path,
}

#: The classes of the requests that `perform` serves.
REQUESTS = tuple(_BY_REQUEST)
