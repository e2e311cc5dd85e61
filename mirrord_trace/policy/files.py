"""Whose file a path names: pure decisions on text.

A path is made absolute by whoever asks, and normalised here, as text: a way through symbolic links is not seen. In
mode `local` that is all. Else what `mapping` finds is replaced, and then the first of these decides:

1. programs that run, their libraries, what the loader reads for them: this machine's, whatever patterns say;
2. the user's patterns: `not_found`, `read_write`, `read_only`, `local`;
3. what the target has mounted, unless a program that runs is installed yet nearer to the path: the target's for reads;
4. the default lists (`default_paths`): not found, the target's for reads, this machine's;
5. the mode.

A read that the user lets go to the target leaves writes here: `read_only` writes locally, as in mirrord. In mode
`write` what is in the target's mounts is also written there.

Most calls of a process ask about paths that were asked about before, so answers are kept by the very bytes that were
asked; a new program forgets them. Answers may be asked for in several threads: what is kept is only ever added to
dictionaries, and replaced whole together with what it was derived from.
"""

from __future__ import annotations

import enum
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Final, Literal, Protocol

import attrs

from mirrord_trace.policy.default_paths import (
    LIBRARY,
    LOADER_FILES,
    LOCAL_TREES,
    REMOTE_TREES,
    Surroundings,
    has_local_name,
    installation,
)
from mirrord_trace.policy.local_trees import LocalTrees, local_trees
from mirrord_trace.policy.paths import ancestors, normalised

_KEPT_MAXIMUM: Final = 65_536
_KEPT_PATH_MAXIMUM: Final = 640
"""Longer paths are decided each time, so that what is kept stays within some 50 MB."""


class Place(enum.Enum):
    """Where what a path names is to be found."""

    LOCAL = "this machine"
    REMOTE = "the target"
    NOT_FOUND = "nowhere"


@attrs.frozen
class Decision:
    """Whose file a path names."""

    place: Place
    path: bytes
    """The path to use there: with what `mapping` changes, absolute and normalised."""


class Rules(Protocol):
    """What the user said: see `mirrord_trace.config.FilesConfiguration`, which is one."""

    @property
    def mode(self) -> Literal["read", "write", "local", "localwithoverrides"]:
        """What happens to paths that nothing else decides about."""

    @property
    def is_local_only(self) -> bool:
        """Whether every file is this machine's."""

    @property
    def may_write_remotely(self) -> bool:
        """Whether there may be files that are written at the target."""

    @property
    def read_write(self) -> Sequence[re.Pattern[str]]:
        """Read and written at the target."""

    @property
    def read_only(self) -> Sequence[re.Pattern[str]]:
        """Read at the target, written here."""

    @property
    def local(self) -> Sequence[re.Pattern[str]]:
        """Read and written here."""

    @property
    def not_found(self) -> Sequence[re.Pattern[str]]:
        """Nowhere."""

    @property
    def mapping(self) -> Sequence[tuple[re.Pattern[str], str]]:
        """What is replaced in paths, and by what (as `re.Match.expand` takes it); the first that finds something."""


def _text(path: bytes) -> str:
    """As patterns see it."""
    return path.decode(errors="surrogateescape")


def _nearest(above: Sequence[bytes], trees: frozenset[bytes]) -> int:
    """How long the path of the nearest of the trees is that what has these ancestors is in; 0: in none."""
    return 0 if trees.isdisjoint(above) else next(len(tree) for tree in above if tree in trees)


def _found(patterns: Iterable[re.Pattern[str]], text: str) -> bool:
    return any(pattern.search(text) for pattern in patterns)


@attrs.frozen(eq=False)
class _Derived:
    """What is known of programs, and the answers that were given since."""

    programs: frozenset[bytes] = frozenset()
    installations: frozenset[bytes] = frozenset()
    of_reads: dict[bytes, Decision] = attrs.field(factory=dict)
    of_writes: dict[bytes, Decision] = attrs.field(factory=dict)

    def needs(self, path: bytes) -> bool:
        """Whether a program that runs could not do so with another file: itself, and what is loaded with it."""
        if path in self.programs:
            return True
        if b".so" not in path and not path.startswith(b"/etc/ld"):
            return False  # most paths, of which the patterns would say the same
        if LOADER_FILES.match(path):
            return True
        library = LIBRARY.match(path)
        return library is not None and not self.installations.isdisjoint(library.groups())


@attrs.define(eq=False)
class FilesPolicy:
    """Decides by what the user said, where this machine needs its own files, and what the target has mounted."""

    _rules: Rules
    _mounted: frozenset[bytes]
    _local_trees: frozenset[bytes]
    _not_found: frozenset[bytes]
    _hidden_at_home: bytes | None
    _aside: tuple[bytes, bytes] | None = None
    """A directory, and another one of this machine that stands in for it."""
    _derived: _Derived = attrs.field(factory=_Derived)
    _has_patterns: bool = attrs.field(init=False)
    _places: frozenset[bytes] = attrs.field(init=False)
    """All of these; a path that is in none of them, nor in an installation, is decided by its name and the mode."""
    _adding: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        rules = self._rules
        self._has_patterns = bool(rules.not_found or rules.read_write or rules.read_only or rules.local)
        self._places = self._mounted | self._not_found | REMOTE_TREES | self._local_trees

    @classmethod
    def of(
        cls,
        configuration: Rules,
        surroundings: Surroundings,
        mounted: Sequence[bytes],
        aside: tuple[bytes, bytes] | None = None,
    ) -> FilesPolicy:
        """`mounted` are paths of the target that are its own by default: see `default_paths.mounted_paths`.

        `aside` is a directory of this machine's and another one that stands in for it.
        """
        policy = cls(
            configuration,
            frozenset(mounted),
            LOCAL_TREES | surroundings.local_trees,
            surroundings.not_found,
            surroundings.hidden_at_home,
            aside,
        )
        for program in (surroundings.executable, *surroundings.programs):
            policy.add_program(program)
        return policy

    @property
    def is_local_only(self) -> bool:
        """Whether every path is this machine's, under its own name: no call need be intercepted."""
        return self._rules.is_local_only

    @property
    def may_write_remotely(self) -> bool:
        """Whether there are paths that are written at the target."""
        return self._rules.may_write_remotely

    @property
    def installations(self) -> frozenset[bytes]:
        """The directories that are local for their programs; another object when there are more. From any thread."""
        return self._derived.installations

    def add_program(self, path: bytes) -> None:
        """From now on a program of this machine, given by its absolute path, is local with its installation.

        Nothing that was local ceases to be it.
        """
        path = normalised(path) if path.startswith(b"/") else b""
        if path in self._derived.programs or len(path) <= 1:
            return
        with self._adding:
            derived = self._derived
            programs, places = derived.programs | {path}, frozenset(installation(path)) - derived.installations
            installations = derived.installations | places if places else derived.installations
            changed = attrs.evolve(derived, programs=programs, installations=installations)
            is_local = all(self._place(path, writes, derived) is Place.LOCAL for writes in (False, True))
            if not is_local or any(map(self._matters, places)):
                changed = attrs.evolve(changed, of_reads={}, of_writes={})
            # Else what is kept stays, as does what comes to be kept of it meanwhile: most programs are in /usr/bin.
            self._derived = changed

    def local_trees(self, others: Iterable[bytes]) -> LocalTrees:
        """What is local with all that is below, as far as it is known beforehand; nothing at or below `others`.

        More when there are more `installations`.
        """
        rules = self._rules
        derived = self._derived
        mapped = (pattern for pattern, _ in rules.mapping)
        return local_trees(
            local=self._local_trees if rules.mode != "localwithoverrides" else (b"/",),
            installations=derived.installations,
            mounted=self._mounted,
            others=(*others, *self._not_found, *REMOTE_TREES, *(self._aside or ())[:1]),
            patterns=(*rules.not_found, *rules.read_write, *rules.read_only, *mapped),
        )

    def _matters(self, place: bytes) -> bool:
        """Whether there may be paths in a directory that are local only if a program is installed there."""
        rules = self._rules
        above = ancestors(place)
        return (
            bool(rules.not_found or rules.read_write or rules.read_only)
            or self._local_trees.isdisjoint(above)
            or not self._mounted.isdisjoint(above)
        )

    def decide(self, path: bytes, *, writes: bool) -> Decision:
        """Where an absolute path leads, for a call that only looks and reads, or for one that also changes something.

        Reading is opening with O_RDONLY, and asking for attributes, rights, links and lists; all else is writing.
        """
        derived = self._derived
        kept = derived.of_writes if writes else derived.of_reads
        decision = kept.get(path)
        if decision is None:
            decision = self._decided(path, writes, derived)
            if len(path) <= _KEPT_PATH_MAXIMUM:
                if len(kept) >= _KEPT_MAXIMUM:
                    kept.clear()
                kept[path] = decision
        return decision

    def reads_by_name(self, directory: bytes, others: Iterable[bytes]) -> bool:
        """Whether every entry of a directory that has a plain name is the target's for reads, but for `others`.

        `directory` is absolute and normalised, b"" for the root. Holds until there are more programs.
        """
        rules, derived = self._rules, self._derived
        if (
            self._has_patterns
            or rules.mapping
            or self.decide(directory + b"/x", writes=False).place is not Place.REMOTE
        ):
            return False
        places = (*self._places, *derived.installations, *derived.programs, *others)
        return not any(place[: place.rfind(b"/")] == directory for place in places)

    def is_written_remotely(self, path: bytes) -> bool:
        """Whether a file of the target may be changed there. `path` is the target's: `mapping` does not concern it."""
        if not self.may_write_remotely:
            return False
        path = normalised(path)
        return self._place(path, True, self._derived) is Place.REMOTE

    def _decided(self, path: bytes, writes: bool, derived: _Derived) -> Decision:
        path = normalised(path)
        if self.is_local_only:
            return Decision(Place.LOCAL, path)
        if self._rules.mapping:
            path = self._mapped(path)
        if self._aside is not None and self._aside[0] in ancestors(path):
            return Decision(Place.LOCAL, self._aside[1] + path[len(self._aside[0]) :])
        return Decision(self._place(path, writes, derived), path)

    def _mapped(self, path: bytes) -> bytes:
        text = _text(path)
        for pattern, replacement in self._rules.mapping:
            if found := pattern.search(text):
                text = text[: found.start()] + found.expand(replacement) + text[found.end() :]
                return normalised(b"/" + text.encode(errors="surrogateescape"))
        return path

    def _place(self, path: bytes, writes: bool, derived: _Derived) -> Place:
        place = self._by_patterns(path, writes) if self._has_patterns else None
        place = place or self._by_default(path, writes, derived)
        return Place.LOCAL if place is not Place.LOCAL and derived.needs(path) else place

    def _by_patterns(self, path: bytes, writes: bool) -> Place | None:
        rules, text = self._rules, _text(path)
        if _found(rules.not_found, text):
            return Place.NOT_FOUND
        if _found(rules.read_write, text):
            return Place.REMOTE
        if _found(rules.read_only, text):
            return Place.LOCAL if writes else Place.REMOTE
        return Place.LOCAL if _found(rules.local, text) else None

    def _by_default(self, path: bytes, writes: bool, derived: _Derived) -> Place:
        mode = self._rules.mode
        remote = Place.REMOTE if mode == "write" or not writes else Place.LOCAL
        above = ancestors(path)
        if self._places.isdisjoint(above) and derived.installations.isdisjoint(above):
            return Place.LOCAL if mode == "localwithoverrides" or self._has_own_name(path) else remote
        own = _nearest(above, derived.installations)
        if _nearest(above, self._mounted) > own:
            return remote
        if not self._not_found.isdisjoint(above):
            return Place.NOT_FOUND
        if not writes and not REMOTE_TREES.isdisjoint(above):
            return Place.REMOTE
        if own or mode == "localwithoverrides" or not self._local_trees.isdisjoint(above):
            return Place.LOCAL
        return Place.LOCAL if self._has_own_name(path) else remote

    def _has_own_name(self, path: bytes) -> bool:
        """Whether a path is this machine's by its name: the root, hidden files at home, parts of programs."""
        hidden = self._hidden_at_home
        return path == b"/" or (hidden is not None and path.startswith(hidden)) or has_local_name(path)
