"""Children of ours that are not the user's process: an agent, sudo, a plugin that fetches credentials.

The supervisor blocks signals in all its threads and a signal mask is inherited, so they are made with posix_spawn(3),
which gives them an empty mask and default dispositions; subprocess cannot. So Ctrl-C reaches those that ask something.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence

import attrs
import trio

_RESETTABLE_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@attrs.frozen
class ChildProcess:
    """A child that is known by a descriptor, so that no other process can be taken for it."""

    pid: int
    pidfd: int

    @classmethod
    def spawn(
        cls,
        command: Sequence[str],
        *,
        standard_files: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        own_session: bool = False,
    ) -> ChildProcess:
        """Start a command with these descriptors as its first ones; it inherits the others of 0, 1 and 2.

        Without `environment` it gets ours. Raises OSError when it cannot be executed.
        """
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ if environment is None else environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, number) for number, ours in enumerate(standard_files)],
            setsid=own_session,
            setsigmask=(),
            setsigdef=_RESETTABLE_SIGNALS,
        )
        return cls(pid, os.pidfd_open(pid))

    async def wait(self) -> int | None:
        """Wait until the process has ended.

        Returns its exit status, negative: the signal that ended it, or None when somebody else reaped it.
        """
        await trio.lowlevel.wait_readable(self.pidfd)
        with contextlib.suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)  # noqa: ASYNC222 (it has ended)
            if result is not None:
                return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        return None

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process ends, or has ended, within so many seconds."""
        with trio.move_on_after(seconds):
            await self.wait()
            return True
        return False

    def end(self) -> None:
        """Send SIGTERM, unless the process has ended or is another user's."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended or (under sudo) is another user's."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, number)
