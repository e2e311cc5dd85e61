"""What the kernel asks of names and attributes: lookup, getattr, readlink, access, extended attributes."""

from __future__ import annotations

import errno
import os
import stat

import attrs
import pyfuse3

from mirrord_trace.remote_files import Status
from mirrord_trace.tree import containment
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.fuse.opened import OpenFiles
from mirrord_trace.tree.fuse.serving import Serving, absent_entry, failure
from mirrord_trace.tree.inodes import Inode
from mirrord_trace.tree.known import split

_CAPABILITIES = b"security.capability"
"""The kernel asks for it before every write (file_remove_privs); the pod's kernel does what is to be done itself."""


@attrs.frozen
class Names:
    """Answers requests that read what is known of files."""

    serving: Serving
    open_files: OpenFiles

    async def lookup(self, parent: int, name: bytes) -> pyfuse3.EntryAttributes:
        """An entry of a directory."""
        serving = self.serving
        directory = serving.inodes[parent]
        fact = await serving.fact_at(directory, name)
        lifetime_s = serving.known.remaining_s(fact)
        if fact.status is not None:
            return serving.entry(directory, name, fact.status, lifetime_s)
        serving.inodes.part(directory, name)
        if fact.errno == errno.ENOENT:
            return absent_entry(lifetime_s)
        raise failure(fact.errno)

    async def attributes(self, number: int) -> pyfuse3.EntryAttributes:
        """An inode's attributes; of one that has no name any more, as the agent's handle tells them."""
        serving = self.serving
        inode = serving.inodes[number]
        try:
            _, fact = await serving.path_and_fact(inode)
        except OSError as error:
            return serving.attributes(inode, await self._remains(inode, error), LIFETIME_S)
        assert fact.status is not None, "a fact of an inode has a status"
        return serving.attributes(inode, fact.status, serving.known.remaining_s(fact))

    async def _remains(self, inode: Inode, error: OSError) -> Status:
        """The status of an inode that has no name any more, although it is in use; or raises the error."""
        status = None
        if error.errno == errno.ESTALE:
            status = await self.open_files.status_of(inode) or inode.remains
        if status is None:
            raise error
        return status

    async def link_target(self, number: int) -> bytes:
        """Where a link leads to, inside the tree."""
        serving = self.serving
        inode = serving.inodes[number]
        path, fact = await serving.path_and_fact(inode)
        target = fact.target if fact.target is not None else await serving.files.read_link(path)
        directories = [split(name)[0] for name in (path, *inode.paths())]
        return await containment.contained_target(serving.files, serving.root, directories, target)

    async def check_access(self, number: int, mode: int) -> None:
        """access(2) and chdir(2). Raises OSError where it is denied; what has no name any more cannot be asked for."""
        serving = self.serving
        inode = serving.inodes[number]
        try:
            path, fact = await serving.path_and_fact(inode)
        except OSError as error:
            await self._remains(inode, error)
            return
        assert fact.status is not None, "a fact of an inode has a status"
        kind = stat.S_IFMT(fact.status.mode)
        if mode & os.W_OK and kind in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            serving.check_writable(path)
        await serving.files.access(path, mode & (os.R_OK | os.W_OK | os.X_OK))

    async def attribute(self, number: int, name: bytes) -> bytes:
        """The value of an extended attribute."""
        serving = self.serving
        inode = serving.inodes[number]
        if name == _CAPABILITIES and self.open_files.is_written(inode):
            raise failure(errno.ENODATA)
        path, fact = await serving.path_with_attributes(inode)
        if fact.status is not None and not fact.status.has_attributes:
            raise failure(errno.ENODATA)
        return await serving.files.get_attribute(path, name)

    async def attribute_names(self, number: int) -> tuple[bytes, ...]:
        """Which extended attributes there are."""
        serving = self.serving
        path, fact = await serving.path_with_attributes(serving.inodes[number])
        if fact.status is not None and not fact.status.has_attributes:
            return ()
        return await serving.files.list_attributes(path)
