"""The kernel's requests, as pyfuse3 hands them over: who asks is looked at, and every failure becomes an errno.

pyfuse3 ends the whole file system when a request raises anything but FUSEError, so nothing else leaves here. A fault of
ours is told once and answered EIO, as is a session that is lost.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence

import pyfuse3
import trio

from mirrord_trace.session_link import SessionLost
from mirrord_trace.tree.creations import Creations
from mirrord_trace.tree.fuse.askers import Askers
from mirrord_trace.tree.fuse.changing import Changes, change_of
from mirrord_trace.tree.fuse.contents import Contents
from mirrord_trace.tree.fuse.listing import Listings
from mirrord_trace.tree.fuse.names import Names
from mirrord_trace.tree.fuse.serving import Serving

_LAST_ERRNO = 511
"""The kernel takes no errno beyond (fuse_dev_do_write)."""


class Operations(pyfuse3.Operations):
    """One mount's requests."""

    supports_dot_lookup = False

    def __init__(
        self,
        serving: Serving,
        names: Names,
        contents: Contents,
        listings: Listings,
        changes: Changes,
        creations: Creations,
        askers: Askers,
        on_fault: Callable[[Exception], None],
    ) -> None:
        self.is_ready = trio.Event()
        """Set when the kernel has introduced itself."""
        self._serving = serving
        self._names = names
        self._contents = contents
        self._listings = listings
        self._changes = changes
        self._creations = creations
        self._askers = askers
        self._on_fault = on_fault

    @contextlib.contextmanager
    def _answering(self, context: pyfuse3.RequestContext | None = None) -> Iterator[None]:
        try:
            if context is not None and not self._askers.may_ask(context.uid, context.pid):
                raise pyfuse3.FUSEError(errno.EACCES)
            yield
        except pyfuse3.FUSEError:
            raise
        except SessionLost:
            raise pyfuse3.FUSEError(errno.EIO) from None
        except OSError as error:
            raise pyfuse3.FUSEError(_for_the_kernel(error.errno)) from None
        except Exception as error:
            self._on_fault(error)
            raise pyfuse3.FUSEError(errno.EIO) from None

    def init(self) -> None:
        """The kernel has introduced itself."""
        self.is_ready.set()

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """An entry of a directory."""
        with self._answering(ctx):
            return await self._names.lookup(parent_inode, name)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The kernel forgets inodes."""
        for number, lookups in inode_list:
            self._serving.inodes.forget(number, lookups)

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """stat(2)."""
        with self._answering(ctx):
            return await self._names.attributes(inode)

    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """chmod(2), chown(2), truncate(2), utimensat(2)."""
        with self._answering(ctx):
            return await self._changes.set(inode, change_of(attr, fields), fh)

    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """Where a link leads."""
        with self._answering(ctx):
            return await self._names.link_target(inode)

    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """access(2), chdir(2)."""
        with self._answering(ctx):
            await self._names.check_access(inode, mode)
        return True

    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """getxattr(2)."""
        with self._answering(ctx):
            return await self._names.attribute(inode, name)

    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """listxattr(2)."""
        with self._answering(ctx):
            return await self._names.attribute_names(inode)

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """setxattr(2)."""
        with self._answering(ctx):
            await self._changes.set_attribute(inode, name, value)

    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """removexattr(2)."""
        with self._answering(ctx):
            await self._changes.remove_attribute(inode, name)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """statfs(2). Which file it is asked of the library does not tell: it is that of the root."""
        with self._answering(ctx):
            status = await self._serving.files.filesystem(b"/")
        answer = pyfuse3.StatvfsData()
        answer.f_bsize, answer.f_frsize = status.bsize, status.frsize
        answer.f_blocks, answer.f_bfree, answer.f_bavail = status.blocks, status.bfree, status.bavail
        answer.f_files, answer.f_ffree, answer.f_favail = status.files, status.ffree, status.ffree
        answer.f_namemax = status.namelen
        return answer

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """open(2) of a file that is there."""
        with self._answering(ctx):
            return await self._contents.open(inode, flags)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """open(2) of a file that is not there."""
        with self._answering(ctx):
            new = self._creations.mode_of(ctx.pid, mode, ctx.umask)
            may_get_a_name = self._creations.take_unnamed(name)
            return await self._contents.create(parent_inode, name, new, flags, may_get_a_name=may_get_a_name)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Part of a file; a memoryview serves as well."""
        with self._answering():
            return await self._contents.read(fh, off, size)  # type: ignore[return-value]

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """write(2)."""
        with self._answering():
            return await self._contents.write(fh, off, buf)

    async def release(self, fh: int) -> None:
        """The last close(2)."""
        with self._answering():
            self._contents.release(fh)

    async def fsync(self, fh: int, datasync: bool) -> None:
        """fsync(2)."""
        with self._answering():
            await self._contents.synchronise(fh, data_only=datasync)

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """open(2) of a directory."""
        with self._answering(ctx):
            return await self._listings.open(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """getdents(2)."""
        with self._answering():
            await self._listings.read(fh, start_id, token)

    async def releasedir(self, fh: int) -> None:
        """The last close(2) of a directory."""
        with self._answering():
            self._listings.close(fh)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """fsync(2) of a directory."""
        with self._answering():
            await self._listings.synchronise(fh, data_only=datasync)

    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """mkdir(2)."""
        with self._answering(ctx):
            new = self._creations.mode_of(ctx.pid, mode, ctx.umask)
            return await self._changes.make_directory(parent_inode, name, new)

    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """mknod(2)."""
        with self._answering(ctx):
            new = self._creations.mode_of(ctx.pid, mode, ctx.umask)
            return await self._changes.make_node(parent_inode, name, new, rdev)

    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """symlink(2)."""
        with self._answering(ctx):
            return await self._changes.make_link(parent_inode, name, target)

    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """link(2)."""
        with self._answering(ctx):
            return await self._changes.link(inode, new_parent_inode, new_name)

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """unlink(2)."""
        with self._answering(ctx):
            await self._changes.remove(parent_inode, name, is_directory=False)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """rmdir(2)."""
        with self._answering(ctx):
            await self._changes.remove(parent_inode, name, is_directory=True)

    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """renameat2(2)."""
        with self._answering(ctx):
            await self._changes.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)


def _for_the_kernel(number: int | None) -> int:
    if number is None or not 0 < number <= _LAST_ERRNO:
        return errno.EIO
    # The kernel would never ask again, for any file.
    return errno.EOPNOTSUPP if number == errno.ENOSYS else number
