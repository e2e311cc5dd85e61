"""What all parts of the FUSE server share: what is known, which inodes the kernel knows, and who asks.

The kernel asks by inode, the agent is asked by path. A path is where we met the inode last; all that the agent tells is
compared with the inode, for the pod's files may be moved by others. If the inode is no longer there, ESTALE makes the
kernel look the whole path up again (path_openat, retry_estale in fs/namei.c).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import attrs
import pyfuse3
import trio

from mirrord_trace.remote_files import Looked, RemoteFiles, Status
from mirrord_trace.tree.base import LIFETIME_S, Asked
from mirrord_trace.tree.fuse.siblings import Siblings
from mirrord_trace.tree.fuse.walks import Walks
from mirrord_trace.tree.inodes import Inode, Inodes
from mirrord_trace.tree.known import Fact, Known, is_settled, version_of

SMALL_FILE_BYTES = 64 << 10
"""A file that is not longer comes along with the walk that looks for it."""


def failure(number: int) -> OSError:
    """An error of the kernel's interface."""
    return OSError(number, os.strerror(number))


def entry_attributes(number: int, status: Status, lifetime_s: float) -> pyfuse3.EntryAttributes:
    """A status as the kernel is told it."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = number
    entry.entry_timeout = lifetime_s
    entry.attr_timeout = lifetime_s
    entry.st_mode = status.mode
    entry.st_nlink = status.nlink
    entry.st_uid = status.uid
    entry.st_gid = status.gid
    entry.st_rdev = status.rdev
    entry.st_size = status.size
    entry.st_blocks = status.blocks
    entry.st_blksize = status.blksize
    entry.st_atime_ns = status.atime_ns
    entry.st_mtime_ns = status.mtime_ns
    entry.st_ctime_ns = status.ctime_ns
    return entry


def absent_entry(lifetime_s: float) -> pyfuse3.EntryAttributes:
    """That there is nothing, for the kernel to remember."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = lifetime_s
    return entry


@attrs.define(eq=False)
class Serving:
    """The state of one mount."""

    files: RemoteFiles
    root: bytes
    """Where it is mounted."""
    writable: Callable[[bytes], bool]
    """Whether a path of the pod may be changed."""
    nursery: trio.Nursery
    """For what goes on after a request is answered; cancelled at the end."""
    known: Known = attrs.field(factory=Known)
    inodes: Inodes = attrs.field(factory=Inodes)
    siblings: Siblings = attrs.field(init=False)
    walks: Walks = attrs.field(init=False)

    @walks.default
    def _none_begun(self) -> Walks:
        return Walks(self.files, self.known)

    @siblings.default
    def _looking_ahead(self) -> Siblings:
        async def look(path: bytes, content_limit: int) -> None:
            await self.look(path, content_limit=content_limit)

        return Siblings(self.files.list, self.known, self.nursery, look, self.has_pages)

    def has_pages(self, status: Status) -> bool:
        """Whether the kernel has a file's content, and that is what the file has by now."""
        return self.inodes.pages_of(status) == version_of(status) and is_settled(status)

    def ask_ahead(self, path: bytes, *, follow: bool, content_limit: int) -> Asked | None:
        """Asks for what `look` waits for, from any thread; None where that is not to be, or not just now."""
        if self.is_ours(path):
            return None
        since_s = self.known.clock()
        known = self.known.led_down(path)
        request = self.files.ask_ahead(path or b"/", follow=follow, content_limit=content_limit, known=known)
        return None if request is None else Asked(request, since_s, content_limit)

    async def look(
        self, path: bytes, *, follow: bool = False, content_limit: int = 0, asked: Asked | None = None
    ) -> tuple[Looked, Fact]:
        """Walks along a path (b"" for the root) at the agent and takes in what is there; the fact is where it ended."""
        self.check_not_ours(path)
        path = path or b"/"
        if asked is None:
            since_s = self.known.clock()
            known = self.known.led_down(path)
            looked = await self.files.look(path, follow=follow, content_limit=content_limit, known=known)
        else:
            since_s = asked.since_s
            looked = await self.files.answered_look(asked.request)
        return looked, self.known.learn(path, looked, follow=follow, since_s=since_s)

    async def look_at(self, path: bytes, *, content_limit: int = 0) -> Fact:
        """The same for a path without links before its last component. Raises OSError: ESTALE when it has some."""
        looked, fact = await self.look(path, content_limit=content_limit)
        if looked.result.path != (path or b"/"):
            raise failure(errno.ESTALE)
        return fact

    async def fact_at(self, parent: Inode, name: bytes) -> Fact:
        """What is known of an entry of a directory; the agent is asked where that is nothing."""
        directory = parent.path()
        path = directory + b"/" + name
        self.check_not_ours(path)
        fact = self.known.entry(directory, name)
        if fact is None and await self.walks.coming_by(path):
            fact = self.known.entry(directory, name)
        if fact is None:
            fact = await self.look_at(path)
            if fact.status is not None:
                self.siblings.found(path)
        return fact

    def fresh(self, inode: Inode) -> Fact | None:
        """What is known of an inode."""
        for path in inode.paths():
            fact = self.known.fact(path)
            if fact is not None and fact.status is not None and self.is_at(inode, fact.status):
                return fact
        return None

    async def path_and_fact(self, inode: Inode) -> tuple[bytes, Fact]:
        """Where an inode is, and what is known of it, after asking where that is nothing. Raises OSError: ESTALE."""
        for path in tuple(inode.paths()):
            fact = self.known.fact(path)
            if fact is None and await self.walks.coming_by(path):
                fact = self.known.fact(path)
            if fact is None:
                try:
                    fact = await self.look_at(path)
                except OSError as error:
                    if error.errno != errno.ESTALE:
                        raise
            if fact is not None and fact.status is not None and self.is_at(inode, fact.status):
                return path or b"/", fact
        raise failure(errno.ESTALE)

    async def path_with_attributes(self, inode: Inode) -> tuple[bytes, Fact]:
        """The same for extended attributes. Raises OSError: EOPNOTSUPP for a file that has no name (any more)."""
        if not inode.names and inode is not self.inodes.root:
            raise failure(errno.EOPNOTSUPP)
        return await self.path_and_fact(inode)

    def check_not_ours(self, path: bytes) -> None:
        """Raises OSError (ENOENT) for the mount itself: a pod that has this machine's files must not show it in itself.

        Whoever walked in there would walk for ever, and each step would keep one more of the agent's workers waiting.
        """
        if self.is_ours(path):
            raise failure(errno.ENOENT)

    def is_ours(self, path: bytes) -> bool:
        """Whether a path of the pod is that of the mount, or below it."""
        return path.startswith(self.root) and (path == self.root or path[len(self.root) :].startswith(b"/"))

    def is_at(self, inode: Inode, status: Status) -> bool:
        """Whether a status that was found at an inode's path is of the inode."""
        if inode is self.inodes.root:
            self.inodes.show_root(status)
        return inode.is_file(status)

    def entry(self, parent: Inode, name: bytes, status: Status, lifetime_s: float) -> pyfuse3.EntryAttributes:
        """The answer that tells the kernel of a file by its name; it counts as told."""
        inode = self.inodes.meet(parent, name, status)
        inode.lookups += 1
        return entry_attributes(inode.number, status, lifetime_s)

    def unnamed_entry(self, inode: Inode, status: Status) -> pyfuse3.EntryAttributes:
        """The answer that tells the kernel of a file without a name; it counts as told."""
        inode.lookups += 1
        entry = entry_attributes(inode.number, status, LIFETIME_S)
        entry.entry_timeout = 0
        return entry

    def attributes(self, inode: Inode, status: Status, lifetime_s: float) -> pyfuse3.EntryAttributes:
        """The attributes of a file that the kernel knows."""
        return entry_attributes(self.shown_number(inode), status, lifetime_s)

    def shown_number(self, inode: Inode) -> int:
        """The inode number that tasks see. The root has its own, though the kernel names it by another."""
        return inode.ino if inode is self.inodes.root and inode.ino > 0 else inode.number

    def learn(self, inode: Inode, status: Status, asked_s: float) -> None:
        """Takes in the status of an inode, which was asked for at `asked_s`, where it was met last."""
        for parent, name in inode.names[-1:]:
            self.known.put(parent.path(), name, Fact(status, 0, None, asked_s))

    def replace(self, inode: Inode, status: Status, asked_s: float) -> None:
        """Takes in the status of an inode that we have changed ourselves."""
        inode.see(status)
        for parent, name in inode.names[:-1]:
            self.known.forget_status(parent.path() + b"/" + name)
        for parent, name in inode.names[-1:]:
            self.known.replace(parent.path(), name, status, asked_s)

    def forget(self, inode: Inode) -> None:
        """The file was changed: its status does not count any more, under whatever name."""
        for path in inode.paths():
            self.known.forget_status(path)

    def check_writable(self, path: bytes) -> None:
        """Raises OSError (EROFS) where nothing may be changed."""
        if not self.writable(path):
            raise failure(errno.EROFS)
