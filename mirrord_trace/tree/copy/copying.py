"""A tree of copies, for machines without FUSE: what a call will need of the pod's files is made here before the call.

The kernel cannot ask us back, so `ensure` must bring all that the call may want. It asks the pod, makes what it learns
(directories, links, files with the right size and nothing in them) and, for a call that will read, fetches the file.
Its answer is a path without links on the way: they have been followed at the pod. What is known counts for a second, as
in any tree. Nothing here can be written to for the pod.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from mirrord_trace.nurseries import serving_nursery
from mirrord_trace.policy.paths import climbs
from mirrord_trace.remote_files import MAX_PATH, Looked, RemoteFiles, Status
from mirrord_trace.reporting import Reporter
from mirrord_trace.tree import containment
from mirrord_trace.tree.base import LIFETIME_S, Asked, Need
from mirrord_trace.tree.copy.aliases import Aliases
from mirrord_trace.tree.copy.fetching import Fetching
from mirrord_trace.tree.copy.replica import Replica
from mirrord_trace.tree.creations import Creations
from mirrord_trace.tree.known import version_of
from mirrord_trace.tree.pipes import Pipes

_CONTENT_LIMIT: Final = 65_536
"""Files of at most so many bytes come together with their status."""
_PLACES_AT_MOST: Final = 131_072
_OPENED_WITHIN_S: Final = LIFETIME_S
"""How long a call may take from when it was told that a content is here until it has opened it."""
_LINKS_OF_EMPTY_DIRECTORY: Final = 2
"""Each directory in it has one more, on most file systems; on others all have 1."""
_NOWHERE: Final = (b"", 0.0)
_ENTRIES_AT_A_TIME: Final = 100
"""How many entries of a listing are made before others get their turn."""
_OPENING: Final = frozenset({Need.CONTENT, Need.LISTING})
_FOUND_OUT_BY_KERNEL: Final = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Errors that the kernel will find, too, if no links were on the way."""


@asynccontextmanager
async def open_copy_tree(
    files: RemoteFiles, directory: Path, tell: Reporter, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[CopyTree]:
    """A tree of copies below `directory`, for its owner to remove. Raises OSError when it cannot be made."""
    private, root, aside = directory / "copy", directory / "copy" / "root", directory / "copy" / "aside"
    private.mkdir(0o700)
    # What root starts may turn into another user; nobody else's user does.
    private.chmod(0o711 if os.geteuid() == 0 else 0o700)
    root.mkdir(0o755)
    aside.mkdir(0o700)
    replica = Replica(os.fsencode(root), os.fsencode(aside), tell.warning)
    aliases = Aliases.open(os.fsencode(private / "aliases"))
    async with serving_nursery() as nursery:
        pipes = Pipes(files, private, nursery)
        yield CopyTree(files, replica, aliases, Fetching(files, replica, tell, clock), pipes, clock)


@attrs.define(eq=False)
class CopyTree:
    """See `mirrord_trace.tree.base.Tree`."""

    _files: RemoteFiles
    _replica: Replica
    _aliases: Aliases
    _fetching: Fetching
    _pipes: Pipes
    _clock: Callable[[], float]
    may_write: bool = attrs.field(init=False, default=False)
    answers_always: bool = attrs.field(init=False, default=False)
    on_mapped: Callable[[], None] = attrs.field(init=False, default=lambda: None)
    """Never called: touching a copy's pages waits for nobody but a disk."""
    creations: Creations = attrs.field(init=False, factory=Creations)
    """Of no use: nothing is made here."""
    root: bytes = attrs.field(init=False)
    _places: dict[Need, dict[bytes, tuple[bytes, float]]] = attrs.field(init=False)
    """Where on this machine calls are made, and until when all that they need is there."""
    _ends: dict[bytes, bytes] = attrs.field(init=False, factory=dict)
    """Where in the pod paths led whose content was wanted."""
    _listed: dict[bytes, tuple[int, ...]] = attrs.field(init=False, factory=dict)
    """Directories all of whose entries are here, in the version in which they were listed."""
    _is_abandoned: bool = attrs.field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self.root = self._replica.root
        self._places = {need: {} for need in Need}

    def is_ready(self, path: bytes, need: Need) -> bool:
        """See `Tree.is_ready`."""
        place, until_s = self._places[need].get(path, _NOWHERE)
        return self._clock() < until_s and place == self.root + path

    def ask(self, path: bytes, need: Need) -> None:
        """See `Tree.ask`: what is brought is made here, so Trio's thread has to be woken in any case."""

    def begin(self, path: bytes, need: Need) -> bool:
        """See `Tree`. The kernel finds what is here, and does not wait for more."""
        return False

    async def ensure(self, path: bytes, need: Need, asked: Asked | None = None) -> bytes:
        """See `Tree.ensure`. Also raises what this machine has against a copy: ENOSPC, say."""
        if self._is_abandoned:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        if need in (Need.CHANGE, Need.OUTPUT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        place, until_s = self._places[need].get(path, _NOWHERE)
        if self._clock() < until_s:
            return place
        since_s = self._clock()
        looked = await self._bring(path, need, since_s)
        result = looked.result
        if need is Need.CONTENT and result.status is not None and stat.S_ISFIFO(result.status.mode):
            return await self._pipes.alias(result.path)
        ends_with_link = need in _OPENING and await self._ends_with_link(path, looked)
        place = self._place(path, looked, ends_with_link=ends_with_link)
        self._note(path, need, place, since_s)
        if need is Need.CONTENT:
            self._replica.promise(result.path, max(self._clock(), since_s + LIFETIME_S) + _OPENED_WITHIN_S)
        return place

    async def read_link(self, path: bytes) -> bytes:
        """See `Tree.read_link`."""
        result = (await self._files.look(path, follow=False)).result
        if result.status is None:
            raise OSError(result.errno, os.strerror(result.errno), path)
        if result.target is None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return result.target

    async def give_name(self, number: int, path: bytes) -> None:
        """See `Tree.give_name`. Always raises EROFS."""
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def pod_path(self, path: bytes) -> bytes | None:
        """See `Tree.pod_path`."""
        return containment.pod_path(self.root, path)

    def abandon(self) -> None:
        """See `Tree.abandon`. No task waits here in a way that it could not be killed."""
        self._is_abandoned = True

    async def _bring(self, path: bytes, need: Need, since_s: float) -> Looked:
        """Makes all that a call will need; returns what was seen on the way."""
        wants_content = need is Need.CONTENT
        limit = _CONTENT_LIMIT if wants_content and not self._may_be_whole(path) else 0
        looked = await self._files.look(path, follow=need is not Need.ATTRIBUTES, content_limit=limit)
        self._show(looked, since_s)
        result = looked.result
        if result.status is None:
            return looked
        if stat.S_ISDIR(result.status.mode):
            if need in _OPENING:
                await self._list(result.path, result.status, since_s)
            elif self._has_unknown_directories(result.path, result.status):
                with contextlib.suppress(PermissionError):
                    await self._list(result.path, result.status, since_s)
        elif wants_content:
            if len(self._ends) >= _PLACES_AT_MOST:
                self._ends.clear()
            self._ends[path] = result.path
            await self._bring_content(looked, result.path, result.status, since_s)
        return looked

    def _place(self, path: bytes, looked: Looked, *, ends_with_link: bool) -> bytes:
        """Where the call is made. Raises OSError where it would not fail by itself as in the pod."""
        result = looked.result
        if result.status is not None:
            must_be_directory = path.endswith(b"/") and result.path != b"/"
            place = self.root + result.path + (b"/" if must_be_directory else b"")
            if not ends_with_link:
                return place
            with self._replica.complaining():
                return self._aliases.leading_to(place)
        if ends_with_link:
            alias = self._aliases.failing_with(result.errno)
            if alias is not None:
                return alias
        has_links = any(step.target is not None for step in looked.visited)
        is_too_long = len(self.root) + len(path) > MAX_PATH
        if has_links or is_too_long or climbs(path) or result.errno not in _FOUND_OUT_BY_KERNEL:
            raise OSError(result.errno, os.strerror(result.errno), path)
        return self.root + path

    async def _ends_with_link(self, path: bytes, looked: Looked) -> bool:
        """Whether the last component of a path that was followed is a link."""
        links = [step.path for step in looked.visited if step.target is not None]
        if not links or path.endswith(b"/"):
            return False
        if links[0] == path:
            return True
        name = os.path.basename(path)
        if all(os.path.basename(link) != name for link in links):
            return False
        return (await self._files.look(path, follow=False)).result.target is not None

    def _may_be_whole(self, path: bytes) -> bool:
        """Whether what a path leads to was here the last time, so that its status may be all that is needed."""
        held = self._replica.held(self._ends.get(path, path))
        return held is not None and held.is_whole and held.is_sure

    async def _bring_content(self, looked: Looked, path: bytes, status: Status, since_s: float) -> None:
        if not stat.S_ISREG(status.mode):
            return
        if looked.content is not None:
            with self._replica.complaining():
                self._replica.fill(path, status, looked.content, since_s)
                self._replica.settle()
        elif looked.content_errno not in (0, errno.EFBIG):
            raise OSError(looked.content_errno, os.strerror(looked.content_errno), path)
        elif not self._replica.is_whole(path, status):
            await self._fetching.fetch(path, status, since_s)

    def _has_unknown_directories(self, path: bytes, status: Status) -> bool:
        """Whether directories may be in a directory that are not here, so that it has fewer links than that tells of.

        fts(3) and find(1) look no further where they have seen as many directories as there are links.
        """
        return status.nlink != _LINKS_OF_EMPTY_DIRECTORY and self._listed.get(path) != version_of(status)

    async def _list(self, path: bytes, status: Status, since_s: float) -> None:
        """Makes all entries of a directory."""
        prefix = path.rstrip(b"/") + b"/"
        names: set[bytes] = set()
        async for entries in self._files.list(path):
            for begin in range(0, len(entries), _ENTRIES_AT_A_TIME):
                with self._replica.complaining():
                    for entry in entries[begin : begin + _ENTRIES_AT_A_TIME]:
                        names.add(entry.name)
                        if entry.status is None:
                            self._replica.place_unknown(prefix + entry.name, since_s)
                        else:
                            self._replica.place(prefix + entry.name, entry.status, since_s)
                            self._note_entry(prefix + entry.name, entry.status, since_s)
                await trio.lowlevel.checkpoint()
        with self._replica.complaining():
            self._replica.keep_only(path, names, since_s)
            self._replica.settle()
        if len(self._listed) >= _PLACES_AT_MOST:
            self._listed.clear()
        self._listed[path] = version_of(status)
        self._note(path, Need.LISTING, self.root + path, since_s)

    def _show(self, looked: Looked, since_s: float) -> None:
        """Makes what a walk has shown."""
        with self._replica.complaining():
            for step in looked.visited:
                if step.status is not None:
                    self._replica.place(step.path, step.status, since_s)
                elif step.errno == errno.ENOENT:
                    self._replica.remove(step.path, since_s)
            self._replica.settle()

    def _note_entry(self, path: bytes, status: Status, since_s: float) -> None:
        if stat.S_ISDIR(status.mode) and self._has_unknown_directories(path, status):
            return
        self._note(path, Need.ATTRIBUTES, self.root + path, since_s)
        if not stat.S_ISLNK(status.mode):  # where a link leads was not asked
            self._note(path, Need.TARGET, self.root + path, since_s)

    def _note(self, path: bytes, need: Need, place: bytes, since_s: float) -> None:
        places = self._places[need]
        if len(places) >= _PLACES_AT_MOST:
            places.clear()
        places[path] = place, since_s + LIFETIME_S
