"""Which paths are somebody's concern, said by the handlers in values that a delivery can look into without them."""

from __future__ import annotations

import time
from typing import Final, Protocol

import attrs

from mirrord_trace.policy.default_paths import is_plain_name
from mirrord_trace.policy.local_trees import LocalTrees

LOCAL_PATHS: Final = 16384
"""How many paths `LocalPaths` keeps."""
LOCAL_PATH_BYTES: Final = 640
"""The longest key that it keeps."""


@attrs.frozen
class PathEndings:
    """How a path ends that may concern a handler. A value, not a function: a delivery may look where Python is not."""

    endings: tuple[bytes, ...]

    def match(self, path: bytes) -> bool:
        """Whether the path ends so."""
        return path.endswith(self.endings)


class CopyOfLocalPaths(Protocol):
    """Keeps what `LocalPaths` keeps where it can be looked up without Python."""

    def add(self, key: bytes) -> None:
        """One more path, see `LocalPaths.key`."""

    def forget(self) -> None:
        """All paths that were added are forgotten."""

    def use_trees(self, trees: LocalTrees) -> None:
        """These take the place of those before."""

    def show_by_name(self, directory: bytes, until_s: float) -> None:
        """See `LocalPaths.show_by_name`."""


@attrs.define(eq=False)
class LocalPaths:
    """Paths that concern nobody, whatever a call does with them: found out by the handlers, looked up by the delivery.

    They are those in trees that are local as a whole, known beforehand, and others one by one, known from when they
    were first met. A value as well: a delivery may look where Python is not, and then says where else to put them
    (`copy_to`). Bounded: when there are too many single ones, all are forgotten and found out anew. For the delivery's
    thread only.
    """

    _trees: LocalTrees = attrs.field(factory=LocalTrees)
    _keys: set[bytes] = attrs.field(factory=set)
    _copy: CopyOfLocalPaths | None = None
    _shown: tuple[bytes, float] = (b"", 0.0)

    def copy_to(self, copy: CopyOfLocalPaths) -> None:
        """`copy` is told of all that is here, and of all that changes."""
        self._copy = copy
        copy.use_trees(self._trees)
        for key in self._keys:
            copy.add(key)

    def use_trees(self, trees: LocalTrees) -> None:
        """From now on these, and no others, are local as a whole."""
        if trees != self._trees:
            self._trees = trees
            if self._copy is not None:
                self._copy.use_trees(trees)

    def add(self, path: bytes, directory: bytes | None = None) -> None:
        """A path as calls have it; with the directory that it is relative to, as /proc names that."""
        key = self.key(path, directory)
        if key in self._keys or len(key) > LOCAL_PATH_BYTES:
            return
        if len(self._keys) >= LOCAL_PATHS:
            self._keys.clear()
            if self._copy is not None:
                self._copy.forget()
        self._keys.add(key)
        if self._copy is not None:
            self._copy.add(key)

    def show_by_name(self, directory: bytes, until_s: float) -> None:
        """Until then, by time.monotonic, who examines an entry of a directory by a plain name concerns nobody.

        There is one such directory at a time, as /proc names it. An earlier time takes it back, from any thread.
        """
        self._shown = directory, until_s
        if self._copy is not None:
            self._copy.show_by_name(directory, until_s)

    def is_shown(self, path: bytes, directory: bytes) -> bool:
        """Whether that is so for this path now."""
        shown, until_s = self._shown
        return directory == shown and is_plain_name(path) and time.monotonic() < until_s

    def match(self, path: bytes, directory: bytes | None = None) -> bool:
        """Whether a handler wants to see a call on this path."""
        if self.key(path, directory) in self._keys:
            return False
        whole = path if directory is None else b"%s/%s" % (directory, path)
        return not path or not whole.startswith(b"/") or not self._trees.hold(whole)

    @staticmethod
    def key(path: bytes, directory: bytes | None) -> bytes:
        """How a path is kept: no path has a NUL in it."""
        return path if directory is None else directory + b"\0" + path


@attrs.frozen
class ExaminedPaths:
    """What concerns somebody of calls that only ask for attributes."""

    local: LocalPaths

    def match(self, path: bytes, directory: bytes | None = None) -> bool:
        """Whether a handler wants to see a call on this path."""
        if directory is not None and self.local.is_shown(path, directory):
            return False
        return self.local.match(path, directory)


Concerns = PathEndings | LocalPaths | ExaminedPaths
