"""What stat(2) tells, as the wire has it."""

from __future__ import annotations

import os

from mirrord_agent.files.root import way_to
from mirrord_agent.wire.fields import told_time
from mirrord_agent.wire.file_records import Status


def has_attributes(path: bytes, *, follow: bool = False) -> bool:
    """Whether a file has extended attributes that may be listed; True where the filesystem does not say."""
    try:
        return bool(os.listxattr(path, follow_symlinks=follow))
    except OSError:
        return True


def status_from(found: os.stat_result, attributes: bool) -> Status:
    """A status as the wire has it."""
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
        told_time(found.st_atime_ns),
        told_time(found.st_mtime_ns),
        told_time(found.st_ctime_ns),
        found.st_dev,
        attributes,
    )


def status_of(descriptor: int) -> Status:
    """The status of an open file, O_PATH or not. Raises OSError."""
    return status_from(os.fstat(descriptor), has_attributes(way_to(descriptor), follow=True))


def status_of_entry(directory: int, name: bytes) -> Status:
    """The status of a directory's entry, a link not followed. Raises OSError."""
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return status_from(found, has_attributes(way_to(directory) + b"/" + name))
