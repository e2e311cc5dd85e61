"""Mounts the tree, serves it in Trio's loop, and takes the mount away.

The kernel waits for nobody but the process that has /dev/fuse open: when that is closed, however we end, every request
fails and tasks that wait go on. The mount itself stays behind then as an empty shell; the workspace's guardian removes
it. Between mounting and unmounting nothing here may look at the mount, not even to resolve its path.
libfuse prints why it cannot mount to standard error, which belongs to the user's terminal: it is caught.

The process is not to be forked while /dev/fuse is open, unless the child closes it or executes a program: else requests
would wait for a child that does not serve them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pyfuse3
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.nurseries import serving_nursery
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.reporting import Reporter
from mirrord_trace.tree.fuse.askers import Askers
from mirrord_trace.tree.fuse.changing import Changes
from mirrord_trace.tree.fuse.contents import Contents
from mirrord_trace.tree.fuse.listing import Listings
from mirrord_trace.tree.fuse.names import Names
from mirrord_trace.tree.fuse.opened import OpenFiles
from mirrord_trace.tree.fuse.operations import Operations
from mirrord_trace.tree.fuse.requests import serve_requests
from mirrord_trace.tree.fuse.serving import Serving
from mirrord_trace.tree.fuse.tree import FuseTree
from mirrord_trace.tree.fuse.unnamed import Unnamed
from mirrord_trace.tree.mounts import mounts_here
from mirrord_trace.tree.pipes import Pipes
from mirrord_trace.tree.unmounting import MOUNTPOINT, SUBTYPE, detach

_TASKS = 8
"""Requests that are taken before another is answered without starting a task for them; many more may be under way."""
_TASKS_AT_MOST = 1024
_READ_AHEAD_KIB = 512
_READY_WITHIN_S = 10.0


@asynccontextmanager
async def open_fuse_tree(
    files: RemoteFiles,
    directory: Path,
    *,
    writable: Callable[[bytes], bool],
    may_write: bool,
    tell: Reporter,
) -> AsyncIterator[FuseTree]:
    """A tree of the pod's files, mounted below `directory`; unmounted at the end of the block, whoever still uses it.

    `writable` says of a path of the pod whether it may be changed; where nothing may, `may_write` is False and the
    mount is read-only. A process has one such tree at a time. Raises Failure when it cannot be mounted.
    """
    mountpoint = directory / MOUNTPOINT
    mountpoint.mkdir(exist_ok=True)
    async with serving_nursery() as nursery:
        mount = _Mount(mountpoint, tell)
        tree, operations = _tree(files, mount, writable, nursery, may_write=may_write)
        _mount(operations, mountpoint, read_only=not may_write)
        nursery.start_soon(mount.serve)
        await _until_ready(operations)
        _read_further_ahead(tree.root)
        yield tree


def _tree(
    files: RemoteFiles, mount: _Mount, writable: Callable[[bytes], bool], nursery: trio.Nursery, *, may_write: bool
) -> tuple[FuseTree, Operations]:
    """Puts the parts together."""
    root = os.fsencode(mount.mountpoint.resolve())
    serving = Serving(files, root, writable, nursery)
    open_files = mount.open_files
    nursery.start_soon(open_files.hold_those_that_stay, nursery)
    pipes = Pipes(files, mount.mountpoint.parent, nursery)
    unnamed = Unnamed(serving, open_files)
    tree = FuseTree(root, may_write, serving, pipes, unnamed, mount.scope.cancel)
    operations = Operations(
        serving,
        Names(serving, open_files),
        Contents(serving, open_files, unnamed, tree.file_is_opened, tree.content_was_used),
        Listings(serving),
        Changes(serving, open_files),
        tree.creations,
        Askers(os.geteuid(), os.getpid()),
        mount.tell_fault,
    )
    return tree, operations


@attrs.define(eq=False)
class _Mount:
    mountpoint: Path
    tell: Reporter
    open_files: OpenFiles = attrs.field(factory=OpenFiles)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Cancelled to stop serving: all requests fail from then on."""
    _is_fault_told: bool = False

    async def serve(self) -> None:
        """Serves requests until that is cancelled, or somebody unmounts the tree; unmounted in the end."""
        try:
            try:
                with self.scope:
                    self.tell.warning(f"the target's files cannot be reached any more: {await _until_it_ends()}")
            finally:
                pyfuse3.close(unmount=False)  # it closes /dev/fuse, and so nobody waits for us any more
                self.open_files.close()
            await trio.sleep_forever()
        finally:
            detach(self.mountpoint)

    def tell_fault(self, error: Exception) -> None:
        """Tells of a fault of ours, once."""
        if not self._is_fault_told:
            self._is_fault_told = True
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            self.tell.warning(
                f"a fault of mirrord-trace: the process got EIO for a file of the target: {error!r} ({where})"
            )


async def _until_it_ends() -> str:
    """Serves requests; returns why there can be no more."""
    why = "somebody has unmounted them"
    try:
        await serve_requests(_TASKS, _TASKS_AT_MOST)
    except* OSError as errors:
        why = str(errors.exceptions[0])
    return why


def _mount(operations: Operations, mountpoint: Path, *, read_only: bool) -> None:
    options = {f"fsname={SUBTYPE}", f"subtype={SUBTYPE}", "nosuid", "nodev"}
    if os.geteuid() == 0:
        options.add("allow_other")
    if read_only:
        options.add("ro")
    logging.getLogger("pyfuse3").addHandler(logging.NullHandler())
    said = ""
    with tempfile.TemporaryFile() as caught:
        try:
            with _standard_error_to(caught.fileno()):
                pyfuse3.init(operations, os.fspath(mountpoint), options)
        except RuntimeError as error:
            caught.seek(0)
            said = caught.read().decode(errors="replace").strip() or str(error)
    if said:
        cause = said.splitlines()[-1].strip()
        raise Failure(
            f"cannot mount the target's files at {mountpoint}: {cause}", "Use --fs-tree copy, which needs no mount."
        )


@contextlib.contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """Standard error goes elsewhere for a moment, that of child processes too."""
    kept = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


async def _until_ready(operations: Operations) -> None:
    with trio.move_on_after(_READY_WITHIN_S):
        await operations.is_ready.wait()
        return
    raise Failure("the kernel does not ask for the target's files after they were mounted")


def _read_further_ahead(root: bytes) -> None:
    """Has the kernel read more at a time, where we may ask for that; else it stays at 128 KiB."""
    for mount in mounts_here():
        if mount.path == root:
            with contextlib.suppress(OSError):
                Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").write_text(str(_READ_AHEAD_KIB))
