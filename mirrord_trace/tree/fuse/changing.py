"""Changes of the pod's files, each made in the pod before it is answered.

Nothing is held back here: there is no write-back cache, and what the pod's kernel says is what the task gets to hear. A
place that may not be changed by the policy answers as a read-only mount does (EROFS).
"""

from __future__ import annotations

import stat
import time

import attrs
import pyfuse3

from mirrord_agent.wire.fields import told_time
from mirrord_trace.remote_files import NOW, Change, Now, Status
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.creations import NewMode
from mirrord_trace.tree.fuse.opened import OpenFiles
from mirrord_trace.tree.fuse.serving import Serving
from mirrord_trace.tree.inodes import UNKNOWN_VERSION, Inode
from mirrord_trace.tree.known import Fact

_RENAME_EXCHANGE = 2
_NOW_IS_NEAR_NS = 100_000_000


@attrs.frozen
class Changes:
    """Answers requests that change directories, attributes and extended attributes."""

    serving: Serving
    open_files: OpenFiles

    async def make_directory(self, parent: int, name: bytes, new: NewMode) -> pyfuse3.EntryAttributes:
        """mkdir(2)."""
        directory, path = self._place(parent, name)
        asked_s = self.serving.known.clock()
        status = await self.serving.files.make_directory(path, stat.S_IMODE(new.mode), new.mask)
        return self._made(directory, name, status, asked_s)

    async def make_node(self, parent: int, name: bytes, new: NewMode, rdev: int) -> pyfuse3.EntryAttributes:
        """mknod(2)."""
        directory, path = self._place(parent, name)
        asked_s = self.serving.known.clock()
        status = await self.serving.files.make_node(path, new.mode, rdev, new.mask)
        if stat.S_ISFIFO(new.mode):
            self.serving.inodes.keep_pipe_local(status)
        return self._made(directory, name, status, asked_s)

    async def make_link(self, parent: int, name: bytes, target: bytes) -> pyfuse3.EntryAttributes:
        """symlink(2). The target is kept as it is written."""
        directory, path = self._place(parent, name)
        asked_s = self.serving.known.clock()
        return self._made(directory, name, await self.serving.files.make_link(target, path), asked_s)

    async def link(self, number: int, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        """link(2)."""
        directory, path = self._place(parent, name)
        inode = self.serving.inodes[number]
        old, _ = await self.serving.path_and_fact(inode)
        self.serving.check_writable(old)
        asked_s = self.serving.known.clock()
        status = await self.serving.files.link(old, path)
        self.serving.forget(inode)
        return self._made(directory, name, status, asked_s)

    async def remove(self, parent: int, name: bytes, *, is_directory: bool) -> None:
        """unlink(2), rmdir(2)."""
        serving = self.serving
        directory, path = self._place(parent, name)
        await self._hold(directory, name)
        last = serving.known.last_fact(path)
        try:
            await serving.files.remove(path, is_directory)
        finally:
            (serving.known.forget_below if is_directory else serving.known.forget)(path)
        self._bury(serving.inodes.part(directory, name), last)
        serving.forget(directory)

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """renameat2(2)."""
        serving = self.serving
        directory, path = self._place(parent, name)
        new_directory, new_path = self._place(new_parent, new_name)
        await self._hold(new_directory, new_name)
        last = serving.known.last_fact(new_path)
        status = None
        try:
            status = await serving.files.rename(path, new_path, flags)
        finally:
            is_file = status is not None and not stat.S_ISDIR(status.mode) and not flags & _RENAME_EXCHANGE
            for changed in (path, new_path):
                (serving.known.forget if is_file else serving.known.forget_below)(changed)
        if flags & _RENAME_EXCHANGE:
            serving.inodes.exchange(directory, name, new_directory, new_name)
        else:
            self._bury(serving.inodes.move(directory, name, new_directory, new_name), last)
        serving.forget(directory)
        serving.forget(new_directory)

    async def set(self, number: int, change: Change, opened: int | None) -> pyfuse3.EntryAttributes:
        """chmod(2), chown(2), truncate(2), utimensat(2), and the same of descriptors."""
        serving = self.serving
        inode = serving.inodes[number]
        inode.writes += 1
        asked_s = serving.known.clock()
        try:
            status = await self._changed(inode, change, opened)
        finally:
            inode.writes += 1
        if change.size is not None:
            inode.pages = UNKNOWN_VERSION
        serving.replace(inode, status, asked_s)
        return serving.attributes(inode, status, LIFETIME_S)

    async def set_attribute(self, number: int, name: bytes, value: bytes) -> None:
        """setxattr(2)."""
        inode = self.serving.inodes[number]
        path, _ = await self.serving.path_with_attributes(inode)
        self.serving.check_writable(path)
        await self.serving.files.set_attribute(path, name, value)
        self.serving.forget(inode)

    async def remove_attribute(self, number: int, name: bytes) -> None:
        """removexattr(2)."""
        inode = self.serving.inodes[number]
        path, _ = await self.serving.path_with_attributes(inode)
        self.serving.check_writable(path)
        await self.serving.files.remove_attribute(path, name)
        self.serving.forget(inode)

    async def _changed(self, inode: Inode, change: Change, opened: int | None) -> Status:
        if opened is not None:
            return await (await self.open_files[opened].remote()).set(change)
        if not inode.names:
            handle = self.open_files.handle_of(inode)
            if handle is not None:
                return await handle.set(change)
        if inode.remains is not None:
            inode.remains = _as_changed(inode.remains, change)
            return inode.remains
        return await self.serving.files.set(await self._writable_path(inode), change)

    async def _writable_path(self, inode: Inode) -> bytes:
        path, _ = await self.serving.path_and_fact(inode)
        self.serving.check_writable(path)
        return path

    def _place(self, parent: int, name: bytes) -> tuple[Inode, bytes]:
        """A directory and the path of an entry that is to be changed. Raises OSError: EROFS."""
        directory = self.serving.inodes[parent]
        path = directory.path() + b"/" + name
        self.serving.check_writable(path)
        return directory, path

    def _made(self, directory: Inode, name: bytes, status: Status, asked_s: float) -> pyfuse3.EntryAttributes:
        self.serving.known.replace(directory.path(), name, status, asked_s)
        self.serving.forget(directory)
        return self.serving.entry(directory, name, status, LIFETIME_S)

    def _bury(self, inode: Inode | None, last: Fact | None) -> None:
        """An inode has lost a name, perhaps its last; `last` is what was known of it before."""
        if inode is not None:
            self.serving.forget(inode)
            self.serving.inodes.bury(inode, last.status if last is not None else None)

    async def _hold(self, directory: Inode, name: bytes) -> None:
        """Whoever has open what lies there keeps it."""
        inode = (directory.children or {}).get(name)
        if inode is not None:
            await self.open_files.hold(inode)


def _as_changed(status: Status, change: Change) -> Status:
    """What is changed of something that is not in the pod any more, for whoever still has it open here."""
    return attrs.evolve(
        status,
        mode=status.mode if change.mode is None else stat.S_IFMT(status.mode) | change.mode,
        uid=status.uid if change.uid is None else change.uid,
        gid=status.gid if change.gid is None else change.gid,
        atime_ns=change.atime_ns if isinstance(change.atime_ns, int) else status.atime_ns,
        mtime_ns=change.mtime_ns if isinstance(change.mtime_ns, int) else status.mtime_ns,
    )


def change_of(wanted: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> Change:
    """What is to be changed.

    The kernel tells whether a time is the present one, but the library does not pass it on. What differs from it by no
    more than the steps in which the kernel's clock advances is taken for it: then the pod's clock decides, and who may
    write may do so, not only the owner.
    """
    atime_ns = _time(wanted.st_atime_ns) if fields.update_atime else None
    mtime_ns = _time(wanted.st_mtime_ns) if fields.update_mtime else None
    if fields.update_size and (atime_ns is NOW or mtime_ns is NOW):
        atime_ns = mtime_ns = None  # truncating sets them
    return Change(
        mode=stat.S_IMODE(wanted.st_mode) if fields.update_mode else None,
        uid=wanted.st_uid if fields.update_uid else None,
        gid=wanted.st_gid if fields.update_gid else None,
        size=wanted.st_size if fields.update_size else None,
        atime_ns=atime_ns,
        mtime_ns=mtime_ns,
    )


def _time(time_ns: int) -> int | Now:
    if 0 <= time.time_ns() - time_ns < _NOW_IS_NEAR_NS:
        return NOW
    return told_time(time_ns)
