"""Entries of the target's directories that are examined one after the other, as who lists a directory does.

The tree has told of them already, so each call only passes. When a directory turns out to be listed so, and the policy
has one answer for all entries with plain names, the delivery lets go of such calls by itself for a while. Nothing is
lost if the tree knows less by then: the kernel asks it.
"""

from __future__ import annotations

import time
from typing import Final

import attrs

from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.names import PRESENTED
from mirrord_trace.supervisor.delivery.concerns import LocalPaths
from mirrord_trace.supervisor.handlers.whose import Named, Whose
from mirrord_trace.tree.base import LIFETIME_S, Tree

_HABIT: Final = 16
"""So many calls in a row about one directory are a listing."""
_NOT_SOON: Final = -4096
"""A directory that cannot be shown so is asked about again after so many more."""


@attrs.define(eq=False)
class Entries:
    """Counts, in the delivery's thread, what passes."""

    _policy: FilesPolicy
    _whose: Whose
    _local: LocalPaths
    _directory: bytes = b""
    _passed: int = 0

    def passed(self, tree: Tree, named: Named) -> None:
        """A call may examine what is known already and named relative to a directory in the tree."""
        directory = named.whole[: -len(named.raw) - 1].rstrip(b"/")
        if directory != self._directory:
            self._directory, self._passed = directory, 0
        self._passed += 1
        if self._passed >= _HABIT:
            self._passed = 0 if self._show(tree, directory) else _NOT_SOON

    def take_back(self) -> None:
        """Something has changed that answers may depend on. From any thread."""
        self._local.show_by_name(b"", 0.0)

    def _show(self, tree: Tree, directory: bytes) -> bool:
        if not tree.answers_always or not self._may_show(directory):
            return False
        self._local.show_by_name(tree.root + directory, time.monotonic() + LIFETIME_S)
        if not self._may_show(directory):  # by now; Trio's thread may have taken back what was not there yet
            self.take_back()
        return True

    def _may_show(self, directory: bytes) -> bool:
        return not self._whose.has_written and self._policy.reads_by_name(directory, PRESENTED)
