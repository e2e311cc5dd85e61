"""Inodes of a tree: the numbers by which the kernel knows the pod's files, and the names under which it met them.

A file keeps the inode number that it has in the pod, so that what it prints is the same there and here. But here all
files are on one device and numbers must not repeat: a file gets another when its own is taken by a file of another
device. One file has one inode, by however many names it is known, as long as the kernel remembers it; it says when it
forgets (`forget`), and how often it was told of an inode before (`lookups`). A directory that is seen in two places is
mounted in both: the kernel takes no directory for two, so these are two inodes.

A name belongs to a directory's inode, not to a path: so a directory that is renamed takes along what is below it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

import attrs

from mirrord_trace.remote_files import Status

ROOT = 1
"""The number by which the kernel knows the root (FUSE_ROOT_ID)."""
_FIRST_APART = 1 << 31
"""Numbers from here on are for files whose own are taken. Programs with 32-bit inode numbers can still read them."""

Version = tuple[int, int, int, int]
UNKNOWN_VERSION: Version = (0, 0, 0, 0)
"""Of pages that no status tells of."""


@attrs.define(eq=False)
class Inode:
    """A file that the kernel may know."""

    number: int
    """By which the kernel names it."""
    device: int
    ino: int
    """The pod's numbers for it; both -1 for a root that was not looked at yet."""
    lookups: int = 0
    """How often the kernel was told of it and has not forgotten it."""
    names: list[tuple[Inode, bytes]] = attrs.field(factory=list, repr=False)
    """Directories, and what it is called there; the name met last is the last one."""
    children: dict[bytes, Inode] | None = attrs.field(default=None, repr=False)
    pages: Version | None = None
    """Which version of the file the kernel's page cache may hold."""
    writes: int = 0
    """Counts what was begun and what was done to change its content from here."""
    seen: Status | None = attrs.field(default=None, repr=False)
    """What a directory was like when its status came last."""
    remains: Status | None = attrs.field(default=None, repr=False)
    """What is left of it, after its last name was taken away from here."""

    def is_file(self, status: Status) -> bool:
        """Whether a status is of this file."""
        return status.ino == self.ino and status.device == self.device

    def see(self, status: Status) -> None:
        """Its status has come."""
        if stat.S_ISDIR(status.mode):
            self.seen = status

    def paths(self) -> Iterator[bytes]:
        """Where it was met, the latest first; b"" for the root."""
        if self.number == ROOT:
            yield b""
        for parent, name in reversed(self.names):
            with contextlib.suppress(FileNotFoundError):
                yield parent.path() + b"/" + name

    def path(self) -> bytes:
        """Where it was met last; b"" for the root. Raises FileNotFoundError when all its names are gone."""
        names: list[bytes] = []
        inode = self
        while inode.number != ROOT:
            if not inode.names:
                return self._path_by_another_name()
            inode, name = inode.names[-1]
            names.append(name)
        names.append(b"")
        names.reverse()
        return b"/".join(names)

    def _path_by_another_name(self) -> bytes:
        for path in self.paths():
            return path
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


class Inodes:
    """All inodes that the kernel may know."""

    def __init__(self) -> None:
        self.root = Inode(ROOT, -1, -1, lookups=1)
        self._by_number: dict[int, Inode] = {ROOT: self.root}
        self._by_file: dict[tuple[int, int], Inode] = {}
        self._next_apart = _FIRST_APART
        self._local_pipes: set[tuple[int, int]] = set()

    def __getitem__(self, number: int) -> Inode:
        return self._by_number[number]

    def find(self, number: int) -> Inode | None:
        """The inode of a number, if there is one."""
        return self._by_number.get(number)

    def __len__(self) -> int:
        return len(self._by_number)

    def pages_of(self, status: Status) -> Version | None:
        """Which version of a file the kernel's page cache may hold, as far as is known."""
        inode = self._by_file.get((status.device, status.ino))
        return None if inode is None else inode.pages

    def show_root(self, status: Status) -> None:
        """The root's status: its number in the pod is shown for it, and so for no other."""
        if not self.root.is_file(status):
            self._by_file.pop((self.root.device, self.root.ino), None)
            self.root.device, self.root.ino = status.device, status.ino
            self._by_file[status.device, status.ino] = self.root

    def meet(self, parent: Inode, name: bytes, status: Status) -> Inode:
        """The file that a name in a directory means, and means from now on."""
        children = parent.children
        if children is None:
            children = parent.children = {}
        before = children.get(name)
        if before is not None:
            if before.is_file(status):
                before.see(status)
                return before
            self.part(parent, name)
        inode = self._known_file(status)
        if inode is None:
            inode = self.meet_unnamed(status)
        children[name] = inode
        inode.names.append((parent, name))
        return inode

    def meet_unnamed(self, status: Status) -> Inode:
        """A file that was not met before, and has no name."""
        inode = Inode(self._number_for(status.ino), status.device, status.ino)
        self._by_number[inode.number] = inode
        self._by_file[status.device, status.ino] = inode
        inode.see(status)
        return inode

    def at(self, path: bytes) -> Inode | None:
        """The directory that lies at a real path (b"" for the root), if it was met there."""
        inode: Inode | None = self.root
        for name in path.split(b"/")[1:]:
            inode = (inode.children or {}).get(name) if inode is not None else None
        return inode

    def _known_file(self, status: Status) -> Inode | None:
        inode = self._by_file.get((status.device, status.ino))
        if inode is None or inode is self.root or (stat.S_ISDIR(status.mode) and inode.names):
            return None
        if inode.remains is not None:
            return None  # the number is used again, but the kernel knows that this one is dead
        return inode

    def part(self, parent: Inode, name: bytes) -> Inode | None:
        """A name means nothing any more. Returns the file that it meant, if the kernel was told."""
        inode = parent.children.pop(name, None) if parent.children else None
        if inode is not None:
            inode.names.remove((parent, name))
            self.drop_unknown(inode)
        return inode

    def keep_pipe_local(self, status: Status) -> None:
        """A FIFO was made from here: who opens it meets who opens it here."""
        self._local_pipes.add((status.device, status.ino))

    def is_local_pipe(self, status: Status) -> bool:
        """Whether a FIFO was made from here."""
        return (status.device, status.ino) in self._local_pipes

    def bury(self, inode: Inode, last: Status | None) -> None:
        """A name was taken away from here; `last` is what was known of the file before."""
        last = last or inode.seen
        if last is None or inode.names or not inode.is_file(last):
            return
        if stat.S_ISDIR(last.mode) or last.nlink <= 1:
            inode.remains = attrs.evolve(last, nlink=0)
            self._local_pipes.discard((last.device, last.ino))

    def move(self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes) -> Inode | None:
        """A name became another (rename(2)): what it means is the same. Returns what the other meant before."""
        inode = self.part(parent, name)
        replaced = self.part(new_parent, new_name)
        _name(inode, new_parent, new_name)
        return replaced

    def exchange(self, parent: Inode, name: bytes, other_parent: Inode, other_name: bytes) -> None:
        """Two names came to mean what the other meant (RENAME_EXCHANGE of rename(2))."""
        one, other = self.part(parent, name), self.part(other_parent, other_name)
        _name(one, other_parent, other_name)
        _name(other, parent, name)

    def number_apart(self) -> int:
        """A number that no inode has."""
        while self._next_apart in self._by_number:
            self._next_apart += 1
        self._next_apart += 1
        return self._next_apart - 1

    def forget(self, number: int, lookups: int) -> None:
        """The kernel forgets that it was told of an inode so many times."""
        inode = self._by_number.get(number)
        if inode is not None:
            inode.lookups -= lookups
            self.drop_unknown(inode)

    def drop_unknown(self, inode: Inode) -> None:
        """Takes an inode away if the kernel does not know it."""
        if inode.lookups > 0:
            return
        if self._by_number.get(inode.number) is inode:
            del self._by_number[inode.number]
        file = inode.device, inode.ino
        if self._by_file.get(file) is inode:
            del self._by_file[file]
        for parent, name in inode.names:
            if parent.children is not None:
                parent.children.pop(name, None)
        inode.names.clear()

    def _number_for(self, ino: int) -> int:
        if ino > ROOT and ino not in self._by_number and ino != self.root.ino:
            return ino
        return self.number_apart()


def _name(inode: Inode | None, parent: Inode, name: bytes) -> None:
    """Gives a file a name, if the kernel knows it."""
    if inode is not None and inode.lookups > 0:
        if parent.children is None:
            parent.children = {}
        parent.children[name] = inode
        inode.names.append((parent, name))
