"""Which tree shows the pod's files: a FUSE mount where the machine allows it, else copies.

Copies cannot be written to for the pod. So where that is wanted, nothing takes FUSE's place.
"""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from mirrord_trace.errors import Failure, UsageFailure
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.reporting import Reporter
from mirrord_trace.tree import fuse_here
from mirrord_trace.tree.base import Tree
from mirrord_trace.tree.fuse_here import Lack

Kind = Literal["auto", "fuse", "copy"]
"""What the user may ask for."""
_WHO_FORBIDS: Final = (
    "in a container a security profile may forbid it, Docker's does: --security-opt apparmor=unconfined; elsewhere the "
    "kernel's log may say more: sudo dmesg"
)


def check(wanted: Kind, *, may_write: bool) -> tuple[Lack, ...]:
    """What FUSE lacks here, if it is wanted. Raises Failure if `open_tree` will for that reason.

    It needs no target, so it can be asked before one is opened.
    """
    if wanted == "copy" and may_write:
        raise UsageFailure(
            "the target's files are to be written to, and copies of them cannot be",
            "leave out --fs-tree copy (FUSE can write), or only read them: --fs-mode read",
        )
    lacks = () if wanted == "copy" else fuse_here.missing()
    if lacks and (wanted == "fuse" or may_write):
        raise _failure(lacks, may_write=may_write)
    return lacks


def load_tree(wanted: Kind) -> None:
    """Loads what `open_tree` will most probably need, which takes its time. What cannot be loaded is told by that."""
    if wanted != "copy" and not fuse_here.missing():
        with suppress(ImportError):
            import mirrord_trace.tree.fuse.mount  # noqa: F401


@asynccontextmanager
async def open_tree(
    wanted: Kind,
    files: RemoteFiles,
    directory: Path,
    *,
    writable: Callable[[bytes], bool],
    may_write: bool,
    tell: Reporter,
) -> AsyncIterator[Tree]:
    """The pod's files as a local tree, below the workspace `directory`.

    `writable`: whether a path of the pod may be changed. `may_write`: whether any may. Raises Failure when the wanted
    tree cannot be had, or none that can be written to.
    """
    async with AsyncExitStack() as opened:
        tree: Tree | None = None
        lacks = check(wanted, may_write=may_write)
        if wanted != "copy" and not lacks:
            try:
                tree = await opened.enter_async_context(_fuse_tree(files, directory, writable, may_write, tell))
                tell.explain("the target's files: mounted with FUSE")
            except Failure as failure:
                lacks = (Lack(failure.message, _WHO_FORBIDS),)
        if tree is None:
            if wanted == "fuse" or may_write:
                raise _failure(lacks, may_write=may_write)
            if lacks:
                tell.note(f"no FUSE here ({_in_words(lacks)}): the target's files are copied when they are needed")
                tell.explain(_advice(lacks))
            tree = await opened.enter_async_context(_copy_tree(files, directory, tell))
            tell.explain("the target's files: copies, made when they are needed")
        yield tree


@asynccontextmanager
async def _fuse_tree(
    files: RemoteFiles, directory: Path, writable: Callable[[bytes], bool], may_write: bool, tell: Reporter
) -> AsyncIterator[Tree]:
    """Raises Failure when it cannot be mounted."""
    try:
        from mirrord_trace.tree.fuse.mount import open_fuse_tree
    except ImportError as error:
        raise Failure(f"pyfuse3 cannot be loaded: {error}", "pip install --force-reinstall pyfuse3") from error
    async with open_fuse_tree(files, directory, writable=writable, may_write=may_write, tell=tell) as tree:
        yield tree


@asynccontextmanager
async def _copy_tree(files: RemoteFiles, directory: Path, tell: Reporter) -> AsyncIterator[Tree]:
    """Raises Failure when it cannot be made."""
    from mirrord_trace.tree.copy.copying import open_copy_tree  # takes its time, and mostly is not needed

    async with AsyncExitStack() as opened:
        try:
            tree = await opened.enter_async_context(open_copy_tree(files, directory, tell))
        except OSError as error:
            raise Failure(
                f"cannot make {os.fsdecode(error.filename or directory)}: {error.strerror}",
                "set TMPDIR to a directory of yours with more room" if error.errno == errno.ENOSPC else None,
            ) from error
        yield tree


def _failure(lacks: Sequence[Lack], *, may_write: bool) -> Failure:
    why = "writing to the target's files needs FUSE" if may_write else "the target's files cannot be mounted with FUSE"
    instead = "\nOr only read them: --fs-mode read" if may_write else "\nOr have them copied: --fs-tree copy"
    return Failure(f"{why}: {_in_words(lacks)}", _advice(lacks) + instead)


def _in_words(lacks: Sequence[Lack]) -> str:
    return "; ".join(lack.what for lack in lacks)


def _advice(lacks: Sequence[Lack]) -> str:
    return "\n".join(f"{lack.what}: {lack.how}" if len(lacks) > 1 else lack.how for lack in lacks if lack.how)
