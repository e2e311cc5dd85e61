"""The command, its world and its end, once the agent answers: what it gets, whose its files are, what its calls meet.

All of this is needed only when the agent has been started, which takes as long as loading it: so it is loaded then.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from mirrord_syscalls.abi import native_abi
from mirrord_trace.config import IncomingConfiguration, RunConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.policy.default_paths import Surroundings, mounted_paths
from mirrord_trace.policy.environment import OF_AWS_HERE, process_environment
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.incoming import IncomingPolicy
from mirrord_trace.policy.outgoing import OutgoingPolicy
from mirrord_trace.policy.paths import below
from mirrord_trace.relay.incoming.datagrams import IncomingDatagrams
from mirrord_trace.relay.incoming.ports import IncomingPorts
from mirrord_trace.relay.tcp import StreamRelay
from mirrord_trace.relay.udp import DatagramRelays
from mirrord_trace.reporting import Reporter
from mirrord_trace.session import Session
from mirrord_trace.sockets_here import TreeListeners
from mirrord_trace.supervisor import launch, names_files
from mirrord_trace.supervisor.bindings import Bindings
from mirrord_trace.supervisor.delivery.base import Delivery, Handlers
from mirrord_trace.supervisor.delivery.choice import MakeDelivery
from mirrord_trace.supervisor.handlers.datagrams import DatagramHandlers
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.supervisor.handlers.incoming import IncomingHandlers
from mirrord_trace.supervisor.handlers.names import NameHandlers
from mirrord_trace.supervisor.handlers.sockets import SocketHandlers
from mirrord_trace.supervisor.handlers.streams import StreamHandlers
from mirrord_trace.supervisor.socket_table import SocketTable
from mirrord_trace.supervisor.supervision import LAST_BYTES_S, Supervision
from mirrord_trace.supervisor.surroundings import read_surroundings
from mirrord_trace.targets.base import AgentLink
from mirrord_trace.tree.base import Tree
from mirrord_trace.tree.choice import load_tree, open_tree

if TYPE_CHECKING:
    # Loaded where a trace is asked for.
    from mirrord_trace.tracing import TraceFile


def load(configuration: RunConfiguration) -> None:
    """Loads what else `run_at` will need."""
    if not configuration.files.is_local_only:
        load_tree(configuration.files.tree)


async def run_at(
    link: AgentLink,
    session: Session,
    configuration: RunConfiguration,
    reporter: Reporter,
    supervision: Supervision,
    make_delivery: MakeDelivery,
    directory: Path,
    inherited: launch.ProcessState,
    trace: TraceFile | None = None,
) -> None:
    """Runs the command at the target, to its end and that of its connections. Raises Failure."""
    with reporter.step("reading its environment and names") as step:
        environment, presented = await _read_target(session, configuration, directory)
        step.detail(f"{session.facts.hostname}, {len(environment)} variables")
        await link.settled.wait()  # meanwhile the target's part was done; a failure there ends this block
    if link.others is not None:
        with reporter.step("reaching the other pods") as step:
            await link.others.reached(step)
    program = launch.find_program(configuration.command, environment)
    surroundings = read_surroundings(program, os.environb)
    async with (
        _files(session, configuration, surroundings, directory, reporter) as files,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_tell_of_loss, session, link, reporter, supervision)
        world = _World.build(configuration, session, nursery, presented, files, make_delivery, reporter, link, trace)
        if link.others is not None:
            link.others.hand_to(world.incoming)
        child = world.delivery.launch(program, inherited)
        if files.tree is not None:
            files.tree.on_mapped = world.delivery.expect_mapped_files
            files.tree.creations.maker = world.delivery.maker
            nursery.start_soon(_abandon_at_end, files.tree)
        await supervision.run(child, world.delivery)
        world.datagrams.drain()
        with trio.move_on_after(LAST_BYTES_S):
            await world.streams.sent()
        nursery.cancel_scope.cancel()
    if link.others is not None:
        link.others.end()  # while our session ends as well


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
        presented.update(
            await names_files.bring(
                session,
                directory,
                with_resolver=configuration.outgoing_udp,
                with_hostname=configuration.hostname,
            )
        )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_names)
        if configuration.environment.enabled:
            nursery.start_soon(read_environment)
    local: Mapping[bytes, bytes] = os.environb
    if configuration.magic.aws and configuration.environment.enabled:
        local = {name: value for name, value in local.items() if name not in OF_AWS_HERE}
    return process_environment(local, target, configuration.environment), presented


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
            mounted = mounted_paths(mounts, surroundings) if configuration.magic.auto_mount else ()
            aside = _aws_aside(surroundings, directory) if configuration.magic.aws else None
            policy = FilesPolicy.of(wanted, surroundings, mounted, aside)
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


def _aws_aside(surroundings: Surroundings, directory: Path) -> tuple[bytes, bytes] | None:
    """`~/.aws`, if there is one, and an empty directory for it: what programs keep there they can go on keeping."""
    path = below(surroundings.home, b".aws") if surroundings.home else b""
    if not os.path.isdir(path):
        return None
    (directory / "aws").mkdir(mode=0o700)
    return path, os.fsencode(directory / "aws")


async def _abandon_at_end(tree: Tree) -> None:
    """Whatever ends the run: a task that waits for the target's answer could not be killed."""
    try:
        await trio.sleep_forever()
    finally:
        tree.abandon()


async def _tell_of_loss(session: Session, link: AgentLink, reporter: Reporter, supervision: Supervision) -> None:
    await session.lost.wait()
    if link.others is not None:
        link.others.take_over_first()
    reporter.warning(
        f"the agent is gone ({session.loss_reason}): connections to the target are reset, new ones fail (ENETUNREACH)"
    )
    words = ""
    # The command's end, which may come of the loss, is no reason not to ask for its cause; SIGTERM is.
    with trio.CancelScope(shield=True) as asking:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(supervision.hurry, asking)
            words = await link.last_words()
            nursery.cancel_scope.cancel()
    if words:
        reporter.warning(f"the agent's last words: {words}")


@attrs.frozen
class _Incoming:
    """What the sessions with a workload's other pods are for."""

    ports: IncomingPorts
    datagrams: IncomingDatagrams

    def join(self, session: Session, name: str) -> list[trio.Event]:
        """See `Following.join`."""
        return [*self.ports.join(session, name), *self.datagrams.join(session, name)]

    def leave(self, session: Session) -> None:
        """See `Following.leave`."""
        self.ports.leave(session)
        self.datagrams.leave(session)


@attrs.frozen
class _World:
    """What the process's calls meet."""

    delivery: Delivery
    streams: StreamRelay
    datagrams: DatagramRelays
    incoming: _Incoming

    @classmethod
    def build(
        cls,
        configuration: RunConfiguration,
        session: Session,
        nursery: trio.Nursery,
        presented: Mapping[bytes, bytes],
        files: _Files,
        make_delivery: MakeDelivery,
        reporter: Reporter,
        link: AgentLink,
        trace: TraceFile | None,
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
        datagram_handlers = DatagramHandlers(
            table, policy, listeners, datagrams, gives_ports_back=configuration.incoming.ports is None
        )
        ports = IncomingPorts(session, streams, nursery, reporter.warning, link.told_when_stolen)
        nursery.start_soon(ports.watch)
        arriving = IncomingDatagrams(
            session, datagram_handlers.serve, datagram_handlers.serve_too, reporter.warning, nursery
        )
        incoming = _incoming_handlers(configuration.incoming, ports, arriving, datagram_handlers.bindings, listeners)
        stream_handlers = StreamHandlers(
            table, policy, listeners, streams, configuration.connect_hold_s, incoming.stand_in
        )
        names = NameHandlers(os.fsencode(session.facts.hostname), os.fsencode(session.facts.domain_name))
        paths = FileHandlers(files.policy, presented, files.tree, session.files)
        sockets = SocketHandlers(table, stream_handlers, datagram_handlers, incoming)
        handlers = Handlers.of(
            *sockets.interests(),
            *(names.interests() if configuration.hostname else ()),
            *paths.interests(native_abi().numbers),
        )
        if trace is not None:
            from mirrord_trace.tracing import traced

            handlers = traced(handlers, trace, None if files.tree is None else files.tree.root)
            nursery.start_soon(trace.write_out)
        delivery = make_delivery(handlers)
        return cls(delivery, streams, datagrams, _Incoming(ports, arriving))


def _incoming_handlers(
    wanted: IncomingConfiguration,
    ports: IncomingPorts,
    datagrams: IncomingDatagrams,
    bindings: Bindings,
    listeners: TreeListeners,
) -> IncomingHandlers:
    requests = wanted.http_filter
    policy = IncomingPolicy(
        mode=None if wanted.mode == "off" else wanted.mode,
        ports=wanted.ports,
        ignore_ports=wanted.ignore_ports,
        ignore_localhost=wanted.ignore_localhost,
        port_mapping=wanted.port_mapping,
        listen_ports=wanted.listen_ports,
        http_filter=None if requests is None else requests.requests,
        filter_ports=None if requests is None else requests.ports,
    )
    return IncomingHandlers(
        policy,
        ports,
        datagrams,
        bindings,
        listeners,
        ports.tell,
        flush=wanted.flush_connections,
        mark=wanted.inject_headers,
    )
