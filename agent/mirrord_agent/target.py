"""The process whose world the agent serves.

A process id can be given to another process, so it is used once: `/proc/PID` is opened, and everything later goes
through that descriptor, which answers ESRCH for ever once the process is gone. What may only be opened with rights that
the agent gives up when it enters the target's user namespace is opened at once, and kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Self

import attrs

from mirrord_agent.capabilities import Capability, why_denied
from mirrord_agent.wire.frames import Goodbye, GoodbyeKind


class TargetUnusable(Exception):
    """The agent cannot serve this process; `goodbye` says why and what is missing."""

    def __init__(self, kind: GoodbyeKind, message: str) -> None:
        super().__init__(message)
        self.goodbye = Goodbye(kind, message)


#: What is opened below /proc/PID: that takes PTRACE_MODE_READ (ptrace(2)), and the environment has mode 0400 besides.
_GUARDED = {"environ": os.O_RDONLY, "root": os.O_PATH | os.O_DIRECTORY, "mountinfo": os.O_RDONLY}


@attrs.frozen
class Target:
    """An open hold on a process."""

    pid: int
    directory: int
    """Descriptor of /proc/PID."""
    pidfd: int
    """Readable when the process has ended (pidfd_open(2))."""
    _kept: Mapping[str, int]
    """Descriptors of the guarded files, as they were when the agent started."""

    @classmethod
    def open(cls, pid: int) -> Self:
        """Takes hold of a process. Raises TargetUnusable when it is gone or its environment may not be read."""
        try:
            directory = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise TargetUnusable(GoodbyeKind.TARGET_GONE, f"there is no process {pid}") from error
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            os.close(directory)
            raise TargetUnusable(
                GoodbyeKind.TARGET_GONE, f"{pid} is not a process: it has ended, or is a thread of another ({error})"
            ) from error
        kept: dict[str, int] = {}
        target = cls(pid, directory, pidfd, kept)
        try:
            for name in _GUARDED:
                kept[name] = target._open_guarded(name)
        except BaseException:
            target.close()
            raise
        return target

    def open_guarded(self, name: str) -> int:
        """Opens `environ`, `root` or `mountinfo` below /proc/PID. Raises OSError.

        Where that is no longer allowed, it is what it was when the agent started.
        """
        try:
            return os.open(name, _GUARDED[name], dir_fd=self.directory)
        except PermissionError:
            return os.dup(self._kept[name])

    def read_guarded(self, name: str) -> bytes:
        """All that such a file tells. Raises OSError."""
        descriptor = self.open_guarded(name)
        try:
            content = b""
            while piece := os.pread(descriptor, 1 << 20, len(content)):
                content += piece
            return content
        finally:
            os.close(descriptor)

    def _open_guarded(self, name: str) -> int:
        """Raises TargetUnusable."""
        try:
            return os.open(name, _GUARDED[name], dir_fd=self.directory)
        except PermissionError as error:
            raise TargetUnusable(
                GoodbyeKind.PERMISSION,
                f"/proc/{self.pid}/{name} may not be read: process {self.pid} belongs to {self._owner()}; "
                + why_denied(
                    Capability.SYS_PTRACE,
                    Capability.DAC_OVERRIDE,
                    otherwise="or the same uid and a process that is dumpable and has no more capabilities than "
                    "the agent",
                ),
            ) from error
        except OSError as error:
            raise self.gone(error) from error

    def gone(self, error: OSError) -> TargetUnusable:
        """That the process ended while the agent started, which an error of the kernel's shows."""
        return TargetUnusable(
            GoodbyeKind.TARGET_GONE, f"process {self.pid} ended while the agent started ({error.strerror})"
        )

    def _owner(self) -> str:
        try:
            return f"uid {os.stat('.', dir_fd=self.directory).st_uid}"
        except OSError:
            return "an unknown user"

    def close(self) -> None:
        """Lets go of the process."""
        for descriptor in (self.directory, self.pidfd, *self._kept.values()):
            with suppress(OSError):
                os.close(descriptor)
