"""Files without a name: O_TMPFILE of open(2), and linkat(2), which gives one a name.

The kernel asks us to make a file of a name that means "none" (see `Creations`), and forgets the name at once. It would
not let us link a file that it takes for removed, so such a linkat is not made at all: we have the agent link what it
has open, and tell the kernel that what it believes of the name is not so.
"""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import Final

import attrs
import pyfuse3
import trio

from mirrord_trace.remote_files import RemoteHandle
from mirrord_trace.tree.creations import NewMode
from mirrord_trace.tree.fuse.opened import OpenFiles
from mirrord_trace.tree.fuse.serving import Serving, failure
from mirrord_trace.tree.inodes import Inode
from mirrord_trace.tree.known import split

_KEPT_FLAGS: Final = os.O_ACCMODE | os.O_APPEND | os.O_SYNC
_waiting: Final = trio.CapacityLimiter(100)


@attrs.frozen
class Unnamed:
    """Makes and names them."""

    serving: Serving
    open_files: OpenFiles

    async def make(
        self, directory: Inode, name: bytes, new: NewMode, flags: int, *, may_get_a_name: bool
    ) -> tuple[Inode, RemoteHandle]:
        """Opens a new file in a directory; the kernel believes for a moment that it is called `name`."""
        flags = flags & _KEPT_FLAGS | os.O_TMPFILE | (0 if may_get_a_name else os.O_EXCL)
        handle = await self.serving.files.open(directory.path() or b"/", flags, new.mode, new.mask)
        inode = self.serving.inodes.meet_unnamed(handle.status)
        self.serving.nursery.start_soon(_have_forgotten, directory, name)
        return inode, handle

    async def give_name(self, number: int, path: bytes) -> None:
        """linkat(2) of an open file. Raises OSError with the pod's errno."""
        serving = self.serving
        inode = serving.inodes.find(number)
        if inode is None:
            raise failure(errno.ENOENT)
        above, name = split(path.rstrip(b"/"))
        looked = await serving.files.look(above or b"/", follow=True)
        if looked.result.status is None:
            raise failure(looked.result.errno)
        above = looked.result.path.rstrip(b"/")
        serving.check_writable(above + b"/" + name)
        handle = self.open_files.handle_of(inode)
        asked_s = serving.known.clock()
        if handle is not None:
            status = await handle.give_name(above + b"/" + name)
        else:
            old, _ = await serving.path_and_fact(inode)
            status = await serving.files.link(old, above + b"/" + name)
        serving.known.replace(above, name, status, asked_s)
        with contextlib.suppress(OSError):  # the kernel does not have it any more
            pyfuse3.invalidate_inode(number, attr_only=True)
        directory = serving.inodes.at(above)
        if directory is not None:
            serving.forget(directory)
            if inode.lookups:
                serving.inodes.meet(directory, name, status)
            await _have_forgotten(directory, name)


async def _have_forgotten(directory: Inode, name: bytes) -> None:
    """The kernel forgets what it believes of a name. It waits for whoever works in the directory, and they for us."""
    forget = partial(pyfuse3.invalidate_entry, directory.number, name)
    with contextlib.suppress(OSError):  # it believes nothing
        await trio.to_thread.run_sync(forget, abandon_on_cancel=True, limiter=_waiting)
