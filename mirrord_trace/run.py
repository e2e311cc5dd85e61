"""`mirrord-trace run`, from a configuration to the exit code of the process: the pieces put together, in order.

Resources are opened from the outside in (signals, workspace, agent, session, relays, process) and closed in reverse,
so that whatever fails or is cancelled leaves nothing behind. What a kill -9 of this process leaves is cleaned up by
others: the tree's guardian (or the kernel, PTRACE_O_EXITKILL) ends the tree, the agent sees its stream end, the
workspace's guardian removes the workspace.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import trio

from mirrord_syscalls.abi import native_abi
from mirrord_trace.config import RunConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.policy.default_paths import Surroundings, mounted_paths
from mirrord_trace.policy.environment import process_environment
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.outgoing import OutgoingPolicy
from mirrord_trace.relay.tcp import StreamRelay
from mirrord_trace.relay.udp import DatagramRelays
from mirrord_trace.reporting import Reporter
from mirrord_trace.session import Session, open_session
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor import launch, names_files, signals
from mirrord_trace.supervisor.delivery import choice
from mirrord_trace.supervisor.delivery.base import Delivery, Handlers
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.names import NameHandlers
from mirrord_trace.supervisor.handlers.sockets import SocketHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import SocketTable
from mirrord_trace.supervisor.supervision import TERM_GRACE_S, Supervision
from mirrord_trace.supervisor.surroundings import read_surroundings
from mirrord_trace.supervisor.workspace import workspace
from mirrord_trace.targets import parse_target
from mirrord_trace.targets.base import AgentLink
from mirrord_trace.tree.base import Tree
from mirrord_trace.tree.choice import check as check_tree
from mirrord_trace.tree.choice import open_tree

_PR_SET_CHILD_SUBREAPER: Final = 36
_LAST_BYTES_S: Final = 5.0
"""How long bytes that the process wrote before it ended may take to reach the agent, and from there the far side."""
_HURRIED_S: Final = 0.2
"""The same after SIGTERM: everything is to be gone within a second."""


def run(configuration: RunConfiguration, reporter: Reporter) -> int:
    """Runs the command in the target's world; its exit code, or 128 + the number of the signal that ended it.

    Raises Failure (in an exception group, perhaps) for what the user can mend.
    """
    target = parse_target(
        configuration.target, sudo=configuration.sudo, cluster=configuration.cluster, agent=configuration.agent
    )
    try:
        abi = native_abi()
    except LookupError as error:
        raise Failure(str(error.args[0])) from error
    files = configuration.files
    if not files.is_local_only:
        check_tree(files.tree, may_write=files.may_write_remotely)  # before a target is disturbed
    inherited = launch.ProcessState.take_over(signals.CHILD_AND_DOORBELL | signals.WATCHED)
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    make_delivery = choice.choose(configuration.delivery, abi, reporter.explain)
    with workspace(reporter.warning) as directory, signals.signal_descriptor() as arriving:

        async def main() -> int:
            supervision = Supervision(reporter)
            with trio.CancelScope() as finishing:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(supervision.watch_signals, arriving)
                    nursery.start_soon(_hurry, supervision, finishing)
                    async with target.open(reporter) as link, _session(link, reporter) as session:
                        await _run_at(
                            link, session, configuration, reporter, supervision, make_delivery, directory, inherited
                        )
                        finishing.deadline = trio.current_time() + _LAST_BYTES_S
                    nursery.cancel_scope.cancel()
            return supervision.exit_code

        return trio.run(main)


async def _hurry(supervision: Supervision, finishing: trio.CancelScope) -> None:
    """Bounds what may outlast the process when SIGTERM tells us to end, before its end or after."""
    await supervision.terminated.wait()
    await trio.sleep(TERM_GRACE_S + _HURRIED_S)
    finishing.cancel()


@asynccontextmanager
async def _session(link: AgentLink, reporter: Reporter) -> AsyncIterator[Session]:
    async with AsyncExitStack() as resources:
        with reporter.step("connecting to the agent"):
            session = await resources.enter_async_context(open_session(link.stream, link.secret))
            link.answered.set()
        yield session


async def _run_at(
    link: AgentLink,
    session: Session,
    configuration: RunConfiguration,
    reporter: Reporter,
    supervision: Supervision,
    make_delivery: choice.MakeDelivery,
    directory: Path,
    inherited: launch.ProcessState,
) -> None:
    with reporter.step("reading its environment and names") as step:
        environment, presented = await _read_target(session, configuration, directory)
        step.detail(f"{session.facts.hostname}, {len(environment)} variables")
        await link.settled.wait()  # meanwhile the target's part was done; a failure there ends this block
    program = launch.find_program(configuration.command, environment)
    surroundings = read_surroundings(program, os.environb)
    async with (
        _files(session, configuration, surroundings, directory, reporter) as files,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_tell_of_loss, session, link, reporter, supervision)
        world = _World.build(configuration, session, nursery, presented, files, make_delivery)
        child = world.delivery.launch(program, inherited)
        if files.tree is not None:
            files.tree.on_mapped = world.delivery.expect_mapped_files
            nursery.start_soon(_abandon_at_end, files.tree)
        await supervision.run(child, world.delivery)
        world.datagrams.drain()
        with trio.move_on_after(_LAST_BYTES_S):
            await world.streams.sent()
        nursery.cancel_scope.cancel()


async def _read_target(
    session: Session, configuration: RunConfiguration, directory: Path
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The environment that the process gets, and the stand-ins of its names files."""
    target: dict[bytes, bytes] = {}
    presented: dict[bytes, bytes] = {}

    async def read_environment() -> None:
        try:
            target.update(await session.environment())
        except OSError as error:
            raise Failure(f"cannot read the target's environment: {error.strerror}") from error

    async def read_names() -> None:
        presented.update(await names_files.bring(session, directory, with_resolver=configuration.outgoing_udp))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_names)
        if configuration.environment.enabled:
            nursery.start_soon(read_environment)
    wanted = configuration.environment
    merged = process_environment(dict(os.environb), target, include=wanted.include, exclude=wanted.exclude)
    return merged, presented


@attrs.frozen
class _Files:
    """Which files are whose, and where the target's are."""

    policy: FilesPolicy
    tree: Tree | None


@asynccontextmanager
async def _files(
    session: Session,
    configuration: RunConfiguration,
    surroundings: Surroundings,
    directory: Path,
    reporter: Reporter,
) -> AsyncIterator[_Files]:
    wanted = configuration.files
    if wanted.is_local_only:
        yield _Files(FilesPolicy.of(wanted, surroundings, ()), None)
        return
    async with AsyncExitStack() as resources:
        with reporter.step("opening its files") as step:
            try:
                mounts = await session.files.mounts()
            except OSError as error:
                raise Failure(f"cannot read what the target has mounted: {error.strerror}") from error
            policy = FilesPolicy.of(wanted, surroundings, mounted_paths(mounts, surroundings))
            tree = await resources.enter_async_context(
                open_tree(
                    wanted.tree,
                    session.files,
                    directory,
                    writable=policy.is_written_remotely,
                    may_write=policy.may_write_remotely,
                    tell=reporter,
                )
            )
            step.detail(f"mode {wanted.mode}")
        yield _Files(policy, tree)


async def _abandon_at_end(tree: Tree) -> None:
    """Whatever ends the run: a task that waits for the target's answer could not be killed."""
    try:
        await trio.sleep_forever()
    finally:
        tree.abandon()


async def _tell_of_loss(session: Session, link: AgentLink, reporter: Reporter, supervision: Supervision) -> None:
    await session.lost.wait()
    reporter.warning(
        f"the agent is gone ({session.loss_reason}): connections to the target are reset, new ones fail (ENETUNREACH)"
    )
    words = ""
    # The command's end, which may come of the loss, is no reason not to ask for its cause; SIGTERM is.
    with trio.CancelScope(shield=True) as asking:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hurry, supervision, asking)
            words = await link.last_words()
            nursery.cancel_scope.cancel()
    if words:
        reporter.warning(f"the agent's last words: {words}")


@attrs.frozen
class _World:
    """What the process's calls meet."""

    delivery: Delivery
    streams: StreamRelay
    datagrams: DatagramRelays

    @classmethod
    def build(
        cls,
        configuration: RunConfiguration,
        session: Session,
        nursery: trio.Nursery,
        presented: Mapping[bytes, bytes],
        files: _Files,
        make_delivery: choice.MakeDelivery,
    ) -> _World:
        """Puts the handlers together. Nothing runs yet but what keeps the relays tidy."""
        table = SocketTable()
        policy = OutgoingPolicy(
            configuration.outgoing_tcp,
            configuration.outgoing_udp,
            configuration.ignore_localhost,
            configuration.unix_streams,
        )
        listeners = TreeListeners(lambda: delivery.living_tasks())
        streams = StreamRelay(session, nursery)
        datagrams = DatagramRelays(session, nursery)
        nursery.start_soon(datagrams.sweep)
        stream_handlers = StreamHandlers(table, policy, listeners, streams, configuration.connect_hold_s)
        datagram_handlers = DatagramHandlers(table, policy, listeners, datagrams)
        names = NameHandlers(os.fsencode(session.facts.hostname), os.fsencode(session.facts.domain_name))
        paths = FileHandlers(files.policy, presented, files.tree, session.files)
        sockets = SocketHandlers(table, stream_handlers, datagram_handlers)
        delivery = make_delivery(
            Handlers.of(*sockets.interests(), *names.interests(), *paths.interests(native_abi().numbers))
        )
        return cls(delivery, streams, datagrams)
