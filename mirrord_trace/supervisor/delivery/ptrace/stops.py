"""What wait(2) tells of the tree, in order; or first of one task, while the others' news are kept for later.

All news are taken from the kernel even when one task's are wanted: an exec waits until the tracer has been told of the
end of every other thread of its process.
"""

from __future__ import annotations

import os
from collections import deque

import attrs

_WALL = 0x4000_0000
_WNOTHREAD = 0x2000_0000
_FLAGS = _WALL | _WNOTHREAD


@attrs.define(eq=False)
class Stops:
    """For the tracer's thread. A status is as wait(2) gives it."""

    _kept: deque[tuple[int, int]] = attrs.field(factory=deque)

    def next(self) -> tuple[int, int] | None:
        """The next (task, status); None when there is nothing now. Raises ChildProcessError when nobody is left."""
        if self._kept:
            return self._kept.popleft()
        tid, status = os.waitpid(-1, _FLAGS | os.WNOHANG)
        return (tid, status) if tid else None

    def wait(self) -> tuple[int, int]:
        """The next (task, status). Raises ChildProcessError when nobody is left."""
        return self._kept.popleft() if self._kept else os.waitpid(-1, _FLAGS)

    def wait_for(self, wanted: int) -> int:
        """The next status of one task, whose last one must have been taken already."""
        while True:
            tid, status = os.waitpid(-1, _FLAGS)
            if tid == wanted:
                return status
            self._kept.append((tid, status))

    def keep(self, tid: int, status: int) -> None:
        """For later."""
        self._kept.append((tid, status))
