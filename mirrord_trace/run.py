"""`mirrord-trace run`, from a configuration to the exit code of the process: the pieces put together, in order.

Resources are opened from the outside in (signals, workspace, agent, session, relays, process) and closed in reverse,
so that whatever fails or is cancelled leaves nothing behind. What a kill -9 of this process leaves is cleaned up by
others: the tree's guardian (or the kernel, PTRACE_O_EXITKILL) ends the tree, the agent sees its stream end, the
workspace's guardian removes the workspace.
"""

from __future__ import annotations

import ctypes
from contextlib import closing, nullcontext
from typing import Final

import trio

from mirrord_syscalls.abi import native_abi
from mirrord_trace.agent_session import agent_session
from mirrord_trace.config import RunConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.supervisor import launch, signals
from mirrord_trace.supervisor.delivery import choice
from mirrord_trace.supervisor.supervision import LAST_BYTES_S, Supervision
from mirrord_trace.supervisor.workspace import workspace
from mirrord_trace.targets import parse_target
from mirrord_trace.tree.choice import check as check_tree

_PR_SET_CHILD_SUBREAPER: Final = 36


def run(configuration: RunConfiguration, reporter: Reporter) -> int:
    """Runs the command in the target's world; its exit code, or 128 + the number of the signal that ended it.

    Raises Failure (in an exception group, perhaps) for what the user can mend.
    """
    target = parse_target(
        configuration.target,
        sudo=configuration.sudo,
        cluster=configuration.cluster,
        agent=configuration.agent,
        all_pods=configuration.incoming.all_pods,
    )
    try:
        abi = native_abi()
    except LookupError as error:
        raise Failure(str(error.args[0])) from error
    files = configuration.files
    if not files.is_local_only:
        check_tree(files.tree, may_write=files.may_write_remotely)  # before a target is disturbed
    trace = None
    if configuration.trace is not None:
        from mirrord_trace.tracing import TraceFile

        trace = TraceFile.create(configuration.trace, reporter.warning)  # before a target is disturbed
    inherited = launch.ProcessState.take_over(signals.CHILD_AND_DOORBELL | signals.WATCHED)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    load_delivery = choice.choose(configuration.delivery, abi, reporter.explain)
    with (
        nullcontext() if trace is None else closing(trace),
        workspace(reporter.warning) as directory,
        signals.signal_descriptor() as arriving,
    ):

        async def main() -> int:
            supervision = Supervision(reporter)
            with trio.CancelScope() as finishing:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervision.watch_signals, arriving)
                    nursery.start_soon(supervision.hurry, finishing)
                    async with target.open(reporter) as link:
                        from mirrord_trace import running  # the agent is starting meanwhile

                        running.load(configuration)
                        make_delivery = load_delivery()
                        async with agent_session(link, reporter) as session:
                            await running.run_at(
                                link,
                                session,
                                configuration,
                                reporter,
                                supervision,
                                make_delivery,
                                directory,
                                inherited,
                                trace,
                            )
                            finishing.deadline = trio.current_time() + LAST_BYTES_S
                    nursery.cancel_scope.cancel()
            return supervision.exit_code

        return trio.run(main)
