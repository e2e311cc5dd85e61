"""The tree that is a FUSE mount, as those see it who send calls into it.

The kernel asks for a path component by component, then for the file, then for its content, each a round trip. `ensure`
knows where all this is going: one walk at the agent brings the whole way and a small file's content, from which the
kernel's requests are then answered. Whether content comes along with attributes, too, depends on whether that was of
use the last times: who looks at a file often reads it next, but who lists a directory doesn't.
"""

from __future__ import annotations

import stat
from collections.abc import Callable

import attrs

from mirrord_trace.policy.paths import climbs
from mirrord_trace.remote_files import Looked
from mirrord_trace.session_link import SessionLost
from mirrord_trace.tree import containment
from mirrord_trace.tree.base import Asked, Need
from mirrord_trace.tree.creations import Creations
from mirrord_trace.tree.fuse.serving import SMALL_FILE_BYTES, Serving
from mirrord_trace.tree.fuse.siblings import LIVE, UNASKED_FILE_BYTES
from mirrord_trace.tree.fuse.unnamed import Unnamed
from mirrord_trace.tree.known import Fact, is_settled
from mirrord_trace.tree.pipes import Pipes

_GUESSES = 8
"""So many contents may come for nothing before we guess no more."""
_OPENING = (Need.CONTENT, Need.OUTPUT)
_EXAMINING = (Need.ATTRIBUTES, Need.TARGET)


@attrs.define(eq=False)
class FuseTree:
    """See `Tree`."""

    root: bytes
    may_write: bool
    serving: Serving
    pipes: Pipes
    unnamed: Unnamed
    abandon: Callable[[], None]
    on_mapped: Callable[[], None] = lambda: None
    answers_always: bool = attrs.field(init=False, default=True)
    creations: Creations = attrs.field(init=False, factory=Creations)
    _guesses_left: int = _GUESSES
    _is_mapped: bool = False

    def is_ready(self, path: bytes, need: Need) -> bool:
        """See `Tree`."""
        if climbs(path):
            return False
        known = self.serving.known
        bare = path.rstrip(b"/")
        fact = known.itself(bare) if need is Need.ATTRIBUTES and bare == path else known.followed(bare)
        if fact is None:
            return False
        status = fact.status
        if status is None or need not in _OPENING:
            return True
        if need is Need.CONTENT and stat.S_ISREG(status.mode):
            return fact.content is not None or not self._may_come_along(fact)
        return not self._is_pipe_of_the_pod(fact)

    def ask(self, path: bytes, need: Need) -> Asked | None:
        """See `Tree`."""
        if climbs(path):
            return None
        bare = path.rstrip(b"/")
        return self.serving.ask_ahead(
            bare, follow=_follows(path, bare, need), content_limit=self._content_limit(path, bare, need)
        )

    def begin(self, path: bytes, need: Need) -> bool:
        """See `Tree`."""
        if need not in _EXAMINING or climbs(path):
            return False
        bare = path.rstrip(b"/")
        return not self.serving.is_ours(bare) and self.serving.walks.begin(
            bare,
            follow=_follows(path, bare, need),
            content_limit=self._content_limit(path, bare, need),
            learned=self._examined,
        )

    async def ensure(self, path: bytes, need: Need, asked: Asked | None = None) -> bytes:
        """See `Tree`."""
        if climbs(path):
            path = await containment.without_climbs(self.serving.files, path)
        if asked is not None or not self.is_ready(path, need):
            try:
                await self._bring(path, need, asked)
            except SessionLost:
                return self.root + path  # the kernel will be told, by us
        if need in _OPENING:
            fact = self.serving.known.followed(path.rstrip(b"/"))
            if fact is not None and self._is_pipe_of_the_pod(fact):
                return await (self.pipes.alias if need is Need.CONTENT else self.pipes.outlet)(path)
        return self.root + path

    async def read_link(self, path: bytes) -> bytes:
        """See `Tree`."""
        fact = self.serving.known.itself(path)
        if fact is not None and fact.target is not None:
            return fact.target
        return await self.serving.files.read_link(path)

    async def give_name(self, number: int, path: bytes) -> None:
        """See `Tree`."""
        await self.unnamed.give_name(number, path)

    def pod_path(self, path: bytes) -> bytes | None:
        """See `Tree`."""
        return containment.pod_path(self.root, path)

    def file_is_opened(self) -> None:
        """The kernel is about to open a file of the tree."""
        if not self._is_mapped:
            self._is_mapped = True
            self.on_mapped()

    async def _bring(self, path: bytes, need: Need, asked: Asked | None) -> None:
        bare = path.rstrip(b"/")
        limit_bytes = self._content_limit(path, bare, need) if asked is None else asked.content_limit
        looked, fact = await self.serving.look(
            bare, follow=_follows(path, bare, need), content_limit=limit_bytes, asked=asked
        )
        if need is not Need.CONTENT:
            self._examined(looked, fact)

    def _examined(self, looked: Looked, fact: Fact) -> None:
        """What somebody has asked for, without wanting the content, is known."""
        self._guesses_left -= looked.content is not None
        if fact.status is not None:
            self.serving.siblings.found(looked.result.path)

    def _content_limit(self, path: bytes, bare: bytes, need: Need) -> int:
        """How long content may be that is to come along."""
        limit_bytes = 0
        if need is Need.CONTENT:
            fact = self.serving.known.followed(bare)
            if fact is not None and fact.content is None and fact.status is not None and _is_small(fact.status.size):
                self._guesses_left = _GUESSES  # it should have come with the attributes
            limit_bytes = SMALL_FILE_BYTES
        elif need in (Need.ATTRIBUTES, Need.TARGET) and self._guesses_left > 0 and not path.startswith(LIVE):
            limit_bytes = UNASKED_FILE_BYTES
        return 0 if limit_bytes and self._has_pages(bare) else limit_bytes

    def content_was_used(self) -> None:
        """A file was opened whose content had come along."""
        self._guesses_left = _GUESSES

    def _has_pages(self, path: bytes) -> bool:
        """Whether the content, or the kernel's copy of it, will probably still do."""
        fact = self.serving.known.last_fact(path)
        if fact is None or fact.status is None or not is_settled(fact.status):
            return False
        return fact.content is not None or self.serving.has_pages(fact.status)

    def _is_pipe_of_the_pod(self, fact: Fact) -> bool:
        """Whether who opens it should meet the pod's processes; one that was made from here is for those here."""
        status = fact.status
        return status is not None and stat.S_ISFIFO(status.mode) and not self.serving.inodes.is_local_pipe(status)

    def _may_come_along(self, fact: Fact) -> bool:
        status = fact.status
        if status is None or fact.content_errno or not _is_small(status.size):
            return False
        return not self.serving.has_pages(status)


def _follows(path: bytes, bare: bytes, need: Need) -> bool:
    """Whether a link at the end is to be followed; `bare` is the path without the slash that wants a directory."""
    return need is not Need.ATTRIBUTES or bare != path


def _is_small(size: int) -> bool:
    return size <= SMALL_FILE_BYTES
