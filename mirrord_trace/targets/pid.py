"""`pid/PID`: any process on this machine is a pod, with its environment, root and network.

The agent is a child of ours that enters the process's namespaces itself; if that needs more rights than we have, it
alone is started through sudo. What it says when it cannot is put into the user's words here, where it is known what
was tried.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from mirrord_agent.wire import handshake
from mirrord_agent.wire.frames import GoodbyeKind
from mirrord_trace.errors import Failure
from mirrord_trace.session import AgentRefused, SessionLost
from mirrord_trace.targets.agent_process import AgentProcess, agent_command, running_agent, through_sudo
from mirrord_trace.targets.base import AgentLink

if TYPE_CHECKING:
    from mirrord_trace.reporting import Reporter


@attrs.frozen
class ProcessTarget:
    """The target `pid/PID`."""

    pid: int
    sudo: bool = False
    """Start the agent, and nothing else, through sudo."""

    @contextlib.asynccontextmanager
    async def open(self, reporter: Reporter) -> AsyncIterator[AgentLink]:
        """See `Target.open`."""
        name = f"pid/{self.pid} ({living_process_name(self.pid)})"
        async with agent_for(self.pid, name, reporter, sudo=self.sudo) as link:
            yield link


def living_process_name(pid: int) -> str:
    """The name of a process (proc_pid_status(5)). Raises `Failure` when it has ended or never was."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise Failure(
            f"pid/{pid}: there is no process {pid} on this machine",
            "`ps -e` lists the processes; a container's is printed by `docker inspect -f {{.State.Pid}} NAME`.",
        ) from error
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if fields["State"].startswith("Z"):
        raise Failure(f"pid/{pid}: the process ({fields['Name']}) has ended; only its exit status is left")
    return fields["Name"]


@contextlib.asynccontextmanager
async def agent_for(pid: int, name: str, reporter: Reporter, *, sudo: bool = False) -> AsyncIterator[AgentLink]:
    """Run an agent on this machine that serves process `pid`; `name` is the target's for people."""
    secret = handshake.new_secret()
    command = agent_command(pid, handshake.hash_secret(secret))
    if sudo:
        command = await through_sudo(command)
    async with contextlib.AsyncExitStack() as resources:
        with reporter.step("starting the agent") as step:
            agent = await resources.enter_async_context(running_agent(command, own_session=not sudo))
            step.detail(name)
        try:
            link = AgentLink(agent.stream, secret, name, frozenset({agent.child.pid}), agent.last_words)
            link.settled.set()  # nothing but its stream bounds its life
            yield link
        except AgentRefused as refusal:
            raise _in_words(refusal, pid, name, sudo=sudo) from refusal
        except SessionLost as loss:
            raise await _epitaph(agent, name, loss) from loss


def _in_words(refusal: AgentRefused, pid: int, name: str, *, sudo: bool) -> Failure:
    if refusal.kind is not GoodbyeKind.PERMISSION:
        return Failure(f"the agent cannot serve {name}: {refusal.message}")
    if sudo or os.geteuid() == 0:
        advice = (
            "Not even root may do this here. In a container, root needs the capabilities SYS_PTRACE and SYS_ADMIN "
            "(docker run --cap-add) and the process's pid namespace."
        )
    else:
        advice = (
            "Start the agent as root; your own process stays yours:\n"
            f"    mirrord-trace run --sudo -t pid/{pid} -- COMMAND"
        )
    return Failure(f"no permission to enter {name}: {refusal.message}", advice)


async def _epitaph(agent: AgentProcess, name: str, loss: SessionLost) -> Failure:
    words = await agent.last_words()
    return Failure(f"the agent for {name} is gone: {loss.reason}", f"Its last words:\n{words}" if words else None)
