"""Directories of which it is known beforehand that all that is below is this machine's.

`FilesPolicy` asks many things of a path, one after the other. Of most paths that a program names the answer follows
from the directory alone: /usr, the working directory, the program's installation. Those directories are put together
here, once; then a call can be let go by its path even where no Python runs. What is said here must be what the policy
decides, or less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import attrs

from mirrord_trace.policy.paths import ancestors, climbs, normalised
from mirrord_trace.policy.words import necessary_word


@attrs.frozen
class LocalTrees:
    """Says of a path that it is this machine's, under its own name, whatever a call does with it; or nothing."""

    nearest: Mapping[bytes, bool] = MappingProxyType({})
    """Of these places, which are absolute and normalised, the nearest one at or above a path says whether it is."""
    words: tuple[bytes, ...] = ()
    """In ASCII and lower case: of a path that has one of them in it, in whatever case, nothing is said. Where there are
    any, neither of one that is not ASCII: what is not may count as a letter of ASCII in another case."""

    def hold(self, path: bytes) -> bool:
        """Whether it is known of an absolute path. Of one with `..` in it it never is: links on the way matter."""
        if climbs(path):
            return False
        path = normalised(path)
        return not self._may_be_found(path) and _nearest(path, self.nearest)

    def _may_be_found(self, path: bytes) -> bool:
        if not self.words:
            return False
        lowered = path.lower()
        return not path.isascii() or any(word in lowered for word in self.words)


def local_trees(
    *,
    local: Iterable[bytes],
    installations: frozenset[bytes],
    mounted: frozenset[bytes],
    others: Iterable[bytes],
    patterns: Iterable[re.Pattern[str]],
) -> LocalTrees:
    """What follows from places, all with what is below them.

    `local` are this machine's unless they are in one of `mounted`, `installations` even then. Of `others` it is not
    known, whatever else is there; nor of what the patterns find.
    """
    words = {necessary_word(pattern) for pattern in patterns}
    if None in words:
        return LocalTrees()
    others = frozenset(others)
    nearest = dict.fromkeys((place for place in local if mounted.isdisjoint(_above(place))), True)
    nearest |= dict.fromkeys(mounted, False) | dict.fromkeys(installations, True)
    nearest = {place: is_local for place, is_local in nearest.items() if others.isdisjoint(_above(place))}
    nearest |= dict.fromkeys(others, False)
    return LocalTrees(_without_repetitions(nearest), tuple(sorted(word for word in words if word is not None)))


def _without_repetitions(nearest: Mapping[bytes, bool]) -> Mapping[bytes, bool]:
    """Without the places that say what would be said without them."""
    kept: dict[bytes, bool] = {}
    for place in sorted(nearest, key=len):
        if _nearest(place, kept) is not nearest[place]:
            kept[place] = nearest[place]
    return MappingProxyType(kept)


def _nearest(path: bytes, places: Mapping[bytes, bool]) -> bool:
    return next((places[place] for place in _above(path) if place in places), False)


def _above(path: bytes) -> tuple[bytes, ...]:
    """The path, what is above it, and the root."""
    return (*ancestors(path), b"/")
