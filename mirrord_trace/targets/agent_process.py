"""An agent as a child process of ours, with one end of a socket pair as its standard input.

The supervisor blocks signals in all its threads and a signal mask is inherited, so the child is made with
posix_spawn(3), which gives it an empty mask and default dispositions; subprocess cannot. It gets a session of its
own, so that Ctrl-C reaches the user's process only. The agent leaves when the socket closes: nothing is left when we
are killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence

import attrs
import trio

from mirrord_trace.errors import Failure

_GRACE_S = 0.25
_LAST_WORDS_S = 0.5
_LAST_LINES = 10
_RESETTABLE_SIGNALS = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@attrs.frozen
class ChildProcess:
    """A child that is known by a descriptor, so that no other process can be taken for it."""

    pid: int
    pidfd: int

    @classmethod
    def spawn(
        cls, command: Sequence[str], *, standard_files: Sequence[int] = (), own_session: bool = False
    ) -> ChildProcess:
        """Start a command with these descriptors as its first ones; it inherits the others of 0, 1 and 2.

        Raises OSError when it cannot be executed.
        """
        pid = os.posix_spawnp(
            command[0],
            list(command),
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, ours, number) for number, ours in enumerate(standard_files)],
            setsid=own_session,
            setsigmask=(),
            setsigdef=_RESETTABLE_SIGNALS,
        )
        return cls(pid, os.pidfd_open(pid))

    async def wait(self) -> int | None:
        """Wait until the process has ended and return its exit status, or None when somebody else reaped it."""
        await trio.lowlevel.wait_readable(self.pidfd)
        with contextlib.suppress(ChildProcessError):
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)  # noqa: ASYNC222 (it has ended)
            return None if result is None else result.si_status
        return None

    async def ends_within(self, seconds: float) -> bool:
        """Whether the process ends, or has ended, within so many seconds."""
        with trio.move_on_after(seconds):
            await self.wait()
            return True
        return False

    def kill(self) -> None:
        """Send SIGKILL, unless the process has ended or (under sudo) is another user's."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


@attrs.frozen
class AgentProcess:
    """An agent that is starting or runs."""

    child: ChildProcess
    stream: trio.SocketStream
    """Our end of the socket pair."""
    log: int
    """Descriptor of a file in memory that takes standard output and standard error."""

    async def last_words(self) -> str:
        """The end of what a dying agent has written. Waits a moment for its end."""
        await self.child.ends_within(_LAST_WORDS_S)
        size = os.fstat(self.log).st_size
        text = os.pread(self.log, 4096, max(0, size - 4096)).decode(errors="replace")
        return "\n".join(text.splitlines()[-_LAST_LINES:])


def agent_command(pid: int, secret_hash: str) -> list[str]:
    """The command that serves process `pid` over its standard input.

    With -P the folder from which the user runs us, which may hold a `select.py` of theirs, is not searched for
    modules.
    """
    agent = [sys.executable, "-P", "-m", "mirrord_agent"]
    return [*agent, "--pid", str(pid), "--secret-hash", secret_hash, "--socket-fd", "0"]


async def through_sudo(command: list[str]) -> list[str]:
    """The command to run another as root, after sudo has asked for a password if it wants one.

    sudo finds its own permission again by our terminal and session, so it cannot have a session of its own. It must
    not stay either: with `use_pty` it would take what is typed at the terminal for the agent. So it works in the
    background and ends at once; the agent, in a session of its own, keeps the socket that sudo passed on.
    """
    try:
        question = ChildProcess.spawn(["sudo", "--validate"])
    except OSError as error:
        raise Failure(f"cannot start sudo: {error.strerror}", "Install sudo, or run mirrord-trace as root.") from error
    try:
        status = await question.wait()
    finally:
        os.close(question.pidfd)
    if status != 0:
        raise Failure("sudo refused to start the agent as root", "What it says is above.")
    # Root's Python does not search the user's own packages.
    return ["sudo", "--non-interactive", "--background", "--", "setsid", "--fork", *with_our_modules(command)]


def with_our_modules(command: Sequence[str]) -> list[str]:
    """A Python command that finds the modules that we find, whatever user and environment it runs with."""
    return ["env", "PYTHONPATH=" + os.pathsep.join(filter(None, sys.path)), *command]


@contextlib.asynccontextmanager
async def running_agent(command: Sequence[str], *, own_session: bool) -> AsyncIterator[AgentProcess]:
    """Start an agent; on exit close its socket and see it off, within about two seconds.

    Raises `Failure` when the command cannot be started.
    """
    with contextlib.ExitStack() as resources:
        ours, theirs = socket.socketpair()
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
        resources.callback(ours.close)
        log = os.memfd_create("agent log", os.MFD_CLOEXEC)
        resources.callback(os.close, log)
        with theirs:
            try:
                child = ChildProcess.spawn(command, standard_files=(theirs.fileno(), log, log), own_session=own_session)
            except OSError as error:
                raise Failure(f"cannot start the agent: {command[0]}: {error.strerror}") from error
        resources.callback(os.close, child.pidfd)
        try:
            yield AgentProcess(child, stream, log)
        finally:
            with trio.CancelScope(shield=True):
                await stream.aclose()
                if not await child.ends_within(_GRACE_S):
                    child.kill()
                    await child.ends_within(_GRACE_S)
