"""Whose a file is, for one call: what the policy says of its path, and what was written on this machine before."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import attrs

from mirrord_trace.policy.files import Decision, FilesPolicy, Place
from mirrord_trace.policy.paths import climbs
from mirrord_trace.supervisor.handlers.path_calls import Use
from mirrord_trace.supervisor.looks import exists, is_there, looked

_WRITTEN_AT_MOST: Final = 65_536


@attrs.frozen
class Named:
    """What a path of a call names."""

    whole: bytes
    """Absolute, as the process would write it: below the tree it has the target's name."""
    raw: bytes
    is_relative: bool
    in_tree: bool
    """Whether it is reached through the tree already: relative to a directory there, or by the tree's own name."""

    @property
    def names_tree(self) -> bool:
        """Whether it is a path through the tree as this machine sees it."""
        return self.in_tree and not self.is_relative

    def with_ending(self, path: bytes) -> bytes:
        """A normalised path with the slash, or slash and dot, that stand at the end: they mean a directory."""
        for ending in (b"/", b"/."):
            if self.whole.endswith(ending) and path != b"/":
                return path + ending
        return path

    @property
    def climbs(self) -> bool:
        """Whether a component is `..`, so that links on the way matter."""
        return climbs(self.whole)


@attrs.frozen
class Doubt:
    """Whose it is only a look tells: this machine's if it is there."""

    if_here: Decision
    if_not: Decision
    writes: bool

    @property
    def path(self) -> bytes:
        """Where to look."""
        return self.if_here.path


@attrs.define(eq=False)
class Whose:
    """Decides. What is not said to be for Trio's thread is for any."""

    policy: FilesPolicy
    on_written: Callable[[], None] = lambda: None
    """Called, in any thread, before something is written here although the target's file would be read."""
    _written: set[bytes] = attrs.field(factory=set)
    """Where that was so."""

    def decide(self, path: bytes, use: Use) -> tuple[Decision | Doubt, bool]:
        """Whose it is for this use, and whether that is this machine's for every use of this path."""
        decision = self.policy.decide(path, writes=use.writes)
        match decision.place:
            case Place.REMOTE if self._may_be_written(decision.path):
                return Doubt(attrs.evolve(decision, place=Place.LOCAL), decision, use.writes), False
            case Place.LOCAL:
                other = self.policy.decide(path, writes=not use.writes)
                if other.place is Place.LOCAL:
                    return decision, other.path == decision.path
                if use.writes and other.place is Place.REMOTE:
                    if not use.is_local_write:
                        return Doubt(decision, other, use.writes), False
                    self._remember_written(decision.path)
        return decision, False

    def settled(self, tid: int, whose: Decision | Doubt) -> Decision | Doubt:
        """Without the doubt, if the kernel knows by heart whether a task has something there."""
        if isinstance(whose, Decision) or (is_here := is_there(tid, whose.path)) is None:
            return whose
        return self._decided(whose, is_here=is_here)

    async def seen(self, tid: int, whose: Decision | Doubt) -> Decision:
        """The decision, after a look if need be, which may take as long as a file system does. For Trio's thread."""
        if isinstance(whose, Decision):
            return whose
        return self._decided(whose, is_here=await looked(exists, tid, whose.path))

    def _decided(self, doubt: Doubt, *, is_here: bool) -> Decision:
        if is_here and doubt.writes:
            self._remember_written(doubt.path)
        return doubt.if_here if is_here else doubt.if_not

    @property
    def has_written(self) -> bool:
        """Whether there is anything of that kind."""
        return bool(self._written)

    def _may_be_written(self, path: bytes) -> bool:
        if not self._written:
            return False
        part = path
        while part not in self._written:
            part = os.path.dirname(part)
            if len(part) <= 1:
                return False
        return True

    def _remember_written(self, path: bytes) -> None:
        if len(self._written) >= _WRITTEN_AT_MOST:
            self._written.clear()
        self._written.add(path)
        self.on_written()
