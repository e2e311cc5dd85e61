"""Programs of this machine that the tree executes: the policy is told of each before it runs."""

from __future__ import annotations

import os
import stat
from typing import Final

import attrs

from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.supervisor.looks import looked
from mirrord_trace.supervisor.surroundings import programs_executed_with

_AT_MOST: Final = 4096
_MAY_EXECUTE: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH


@attrs.define(eq=False)
class Programs:
    """What was executed, by the paths that were used."""

    _policy: FilesPolicy
    _known: set[bytes] = attrs.field(factory=set)

    def are_complete_with(self, path: bytes) -> bool:
        """Whether the policy need not be told of a program: it was, or there are too many. From any thread."""
        return path in self._known or len(self._known) >= _AT_MOST

    async def note(self, path: bytes) -> None:
        """Tells the policy of a program, if there is one at an absolute path; a search often looks in vain."""
        found = await looked(_programs_at, path)
        for program in found:
            self._policy.add_program(program)
        if found:
            self._known.add(path)


def _programs_at(path: bytes) -> tuple[bytes, ...]:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ()
    return programs_executed_with(path) if stat.S_ISREG(mode) and mode & _MAY_EXECUTE else ()
