"""An agent as a child process of ours, with one end of a socket pair as its standard input.

It gets a session of its own, so that Ctrl-C reaches the user's process only. The agent leaves when the socket closes:
nothing is left when we are killed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence

import attrs
import trio

from mirrord_trace.child_process import ChildProcess
from mirrord_trace.errors import Failure
from mirrord_trace.targets.owner import owner_in_words

_GRACE_S = 0.25
_LAST_WORDS_S = 0.5
_LAST_LINES = 10


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
    served = ["--pid", str(pid), "--secret-hash", secret_hash, "--socket-fd", "0"]
    return [*agent, *served, "--owner", owner_in_words()]


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
