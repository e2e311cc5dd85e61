"""A look at the path of a call before anything else is done: most calls concern nobody, and are let go by it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence

import attrs

from mirrord_syscalls.abi import Abi, path_arguments
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    Handlers,
    Memory,
    MemoryFault,
    MemoryHidden,
    TaskGone,
)
from mirrord_trace.supervisor.delivery.concerns import Concerns, PathEndings


@attrs.frozen
class PathTest:
    """Which argument of a call is a path, which one the descriptor it is relative to, and what concerns somebody."""

    argument: int
    concerns: Concerns
    directory: int | None = None
    """None: the path is relative to the working directory."""

    def may_concern_somebody(self, tid: int, arguments: Sequence[int], memory: Memory) -> bool:
        """Whether a handler must be asked about a call with these arguments. It will meet again what fails here."""
        try:
            path = memory.read_string(arguments[self.argument])
            if isinstance(self.concerns, PathEndings):
                return self.concerns.match(path)
            return self.concerns.match(path, None if path.startswith(b"/") else self._directory(tid, arguments))
        except (MemoryFault, MemoryHidden, TaskGone, OSError):
            return True

    def _directory(self, tid: int, arguments: Sequence[int]) -> bytes:
        """What a relative path is relative to, as /proc names it."""
        descriptor = AT_FDCWD
        if self.directory is not None:
            descriptor = ctypes.c_int(arguments[self.directory] & 0xFFFF_FFFF).value
        where = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
        return os.readlink(f"/proc/{tid}/{where}".encode())


PathTests = Mapping[int, PathTest]
"""By call number. A call that is not here may always concern somebody."""


def path_tests(handlers: Handlers, abi: Abi) -> PathTests:
    """For those calls of the handlers that can be tested so."""
    tests: dict[int, PathTest] = {}
    for name, concerns in handlers.concerns.items():
        if name in abi.numbers:
            (path,) = path_arguments(name)
            tests[abi.numbers[name]] = PathTest(path.index, concerns, path.directory)
    return tests
