"""`mirrord-trace run`: flags in, a `RunConfiguration` out; the exit code of the process back."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar, Unpack

import click

from mirrord_trace.cli import completing
from mirrord_trace.cli.incoming import incoming_options, incoming_section
from mirrord_trace.cli.options import (
    ClusterFlags,
    GroupedCommand,
    agent_modes,
    agent_start,
    cluster_options,
    configured,
    is_ephemeral,
    not_empty,
    on_this_machine,
    option,
    refuse_flags_of_a_cluster,
)
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: attrs would double the time that --help takes.
    from mirrord_trace.config import Delivery, FilesMode, IncomingMode, RunConfiguration, TreeKind

_PROCESS: Final = "What the command gets"
_FILES: Final = "Whose files the command gets"


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}") from error


_T = TypeVar("_T")


def _taken(make: Callable[[], _T]) -> _T:
    try:
        return make()
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _path_patterns(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[re.Pattern[str], ...]:
    """A callback: regular expressions to search in paths."""
    if not values:
        return ()
    from mirrord_trace.config.patterns import path_pattern

    return _taken(lambda: tuple(path_pattern(value) for value in values))


def _mapping(
    _context: click.Context, _parameter: click.Parameter, values: tuple[tuple[str, str], ...]
) -> tuple[tuple[re.Pattern[str], str], ...]:
    """A callback: regular expressions to search in paths, and what replaces what they find."""
    if not values:
        return ()
    from mirrord_trace.config.patterns import path_pattern, replacement

    if any("--" in value for value in values):
        raise click.BadParameter("'--' is where the command begins: REGEX and REPLACEMENT must both be before it")
    patterns = _taken(lambda: [path_pattern(pattern) for pattern, _ in values])
    return _taken(
        lambda: tuple(
            (pattern, replacement(pattern, text)) for pattern, (_, text) in zip(patterns, values, strict=True)
        )
    )


def _with_env_file(chosen: "RunConfiguration") -> "RunConfiguration":
    """With what the file of variables says, if there is one. Raises UsageFailure for what is wrong with it."""
    if chosen.environment.env_file is None:
        return chosen
    import attrs

    from mirrord_trace.config.env_file import read_env_file

    said = read_env_file(chosen.environment.env_file, os.environ)
    return attrs.evolve(chosen, environment=attrs.evolve(chosen.environment, from_file=said))


def _names(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A callback: the names in texts in which semicolons separate. One without any would mean all variables."""
    for value in values:
        if not value.strip(";"):
            raise click.BadParameter(f"{value!r} names no variable")
    return tuple(name for value in values for name in value.split(";") if name)


@click.command(
    cls=GroupedCommand,
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command inside a target's world.",
    options_metavar="[OPTIONS]",
)
@option(
    "-t",
    "--target",
    metavar="TARGET",
    shell_complete=completing.targets,
    help="Where the command shall seem to run. In a cluster: KIND/NAME or KIND/NAME/container/CONTAINER, where KIND is "
    "pod, deployment, statefulset, daemonset, replicaset, job, cronjob, rollout or service, or label/KEY=VALUE; "
    "targetless, in the cluster but next to no pod. On this machine: demo, a small pod made for the occasion, or "
    "pid/PID, the namespaces of a process, such as one in a local container. Default: demo; where a cluster or an "
    "agent is named, by flags or in the configuration file, targetless.",
)
@cluster_options
@agent_modes
@agent_start
@option("--no-env", is_flag=True, group=_PROCESS, help="Keep the local environment variables.")
@option(
    "-x",
    "--include-env",
    multiple=True,
    metavar="NAME",
    callback=_names,
    group=_PROCESS,
    help="Take only these variables of the target; * and ? are wildcards, a list is separated by semicolons. Naming "
    "one that otherwise stays local, such as PATH, takes it as well. Repeatable.",
)
@option(
    "-s",
    "--exclude-env",
    multiple=True,
    metavar="NAME",
    callback=_names,
    group=_PROCESS,
    help="Take all variables of the target but these; written as for -x, which it excludes.",
)
@option(
    "--env-file",
    metavar="FILE",
    callback=not_empty,
    shell_complete=completing.files,
    group=_PROCESS,
    help="Set the variables that a file of NAME=VALUE lines names, over those of the target.",
)
@option(
    "--fs-mode",
    type=click.Choice(["read", "write", "local", "localwithoverrides"]),
    group=_FILES,
    help="read: files are read from the target and written here (the default). write: they are written there, too. "
    "local: all files are this machine's. localwithoverrides: all but what the options below name and the target has "
    "mounted. Programs, libraries, system directories and the working directory are this machine's in any mode.",
)
@option(
    "--fs-read-only",
    multiple=True,
    metavar="REGEX",
    callback=_path_patterns,
    group=_FILES,
    help="Paths that are read from the target and written here. Like all regular expressions on paths it is searched "
    "without regard to case. Repeatable.",
)
@option(
    "--fs-read-write",
    multiple=True,
    metavar="REGEX",
    callback=_path_patterns,
    group=_FILES,
    help="Paths that are the target's for reading and writing. Repeatable.",
)
@option(
    "--fs-local",
    multiple=True,
    metavar="REGEX",
    callback=_path_patterns,
    group=_FILES,
    help="Paths that are this machine's. Repeatable.",
)
@option(
    "--fs-not-found",
    multiple=True,
    metavar="REGEX",
    callback=_path_patterns,
    group=_FILES,
    help="Paths that do not exist for the command; this has precedence over the others. Repeatable.",
)
@option(
    "--fs-mapping",
    multiple=True,
    nargs=2,
    metavar="REGEX REPLACEMENT",
    callback=_mapping,
    group=_FILES,
    help="Replace what is found in a path before all else; $1 and ${name} stand for groups. Repeatable.",
)
@option(
    "--fs-tree",
    type=click.Choice(["auto", "fuse", "copy"]),
    default="auto",
    show_default=True,
    group=_FILES,
    help="How the target's files are shown to the command: fuse is a mount, and can be written to; copy needs no FUSE "
    "and fetches whole files.",
)
@option("--no-outgoing", is_flag=True, group=_PROCESS, help="TCP connections and datagrams leave from this machine.")
@option("--no-tcp-outgoing", is_flag=True, group=_PROCESS, help="TCP connections leave from this machine.")
@option(
    "--no-udp-outgoing",
    is_flag=True,
    group=_PROCESS,
    help="Datagrams, name lookups included, leave from this machine.",
)
@option("--ignore-localhost", is_flag=True, group=_PROCESS, help="Connections to localhost stay on this machine.")
@option(
    "--unix-stream",
    "unix_streams",
    multiple=True,
    type=_regex,
    metavar="REGEX",
    group=_PROCESS,
    help="Reach Unix sockets whose path this finds at the target. Repeatable.",
)
@incoming_options
@option(
    "--connect-hold",
    type=click.FloatRange(min=0),
    default=0.3,
    show_default=True,
    metavar="SECONDS",
    group=_PROCESS,
    help="How long a non-blocking connect may wait for the far side's answer before it returns EINPROGRESS.",
)
@option(
    "--delivery",
    type=click.Choice(["auto", "notify", "ptrace"]),
    default="auto",
    show_default=True,
    group=_PROCESS,
    help="How system calls are intercepted: notify is several times faster and lets debuggers work in the command; "
    "ptrace works on older kernels and in more containers. auto tries whether notify works.",
)
@option(
    "--trace",
    metavar="FILE",
    shell_complete=completing.files,
    help="Write every intercepted call, with what was decided and how long it took, to a file that Perfetto and "
    "chrome://tracing open. docs/tracing.md shows how to read it.",
)
@option("--sudo", is_flag=True, help="For pid/PID: start the agent through sudo. The command itself never is.")
@option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@option("-v", "--verbose", is_flag=True, help="Say also what was chosen and why.")
@click.argument(
    "command",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=completing.files,
    metavar="[--] COMMAND [ARG]...",
)
def run(
    *,
    target: str | None,
    agent_mode: str | None,
    ephemeral_container: bool,
    agent_image: str | None,
    agent_namespace: str | None,
    agent_ttl: int | None,
    trace: str | None,
    agent_startup_timeout: float | None,
    sudo: bool,
    no_env: bool,
    include_env: tuple[str, ...],
    exclude_env: tuple[str, ...],
    env_file: str | None,
    fs_mode: "FilesMode | None",
    fs_read_only: tuple[re.Pattern[str], ...],
    fs_read_write: tuple[re.Pattern[str], ...],
    fs_local: tuple[re.Pattern[str], ...],
    fs_not_found: tuple[re.Pattern[str], ...],
    fs_mapping: tuple[tuple[re.Pattern[str], str], ...],
    fs_tree: "TreeKind",
    no_outgoing: bool,
    no_tcp_outgoing: bool,
    no_udp_outgoing: bool,
    ignore_localhost: bool,
    unix_streams: tuple[re.Pattern[str], ...],
    incoming: "IncomingMode | None",
    steal: bool,
    incoming_ports: tuple[tuple[int, int], ...],
    ignored_ports: tuple[int, ...],
    header_filter: str | None,
    all_pods: bool | None,
    connect_hold: float,
    delivery: "Delivery",
    quiet: bool,
    verbose: bool,
    command: tuple[str, ...],
    **cluster: Unpack[ClusterFlags],
) -> int:
    """Run COMMAND on this machine as if it were inside TARGET.

    It gets the target's environment variables, reads the target's files, resolves the target's names, talks from the
    target's network and hears what comes there; so do all processes that it starts. What it writes, the programs that
    it executes, its terminal and its user stay yours. Signals, Ctrl-C and Ctrl-Z included, work as usual.

    \b
    Look around in the demo pod:
        mirrord-trace run -- bash
        mirrord-trace run -- curl http://shop:8080/
    Run a server that you just compiled in place of one in your cluster, as its pod would see the world:
        mirrord-trace run -t deployment/web -- ./server --verbose
        mirrord-trace run -n shop -t pod/web-0/container/app -- dlv exec ./server
    Let it answer instead of the pod, all requests or only those that your browser marks:
        mirrord-trace run -t deployment/web --steal -p 8080:80 -- ./server
        mirrord-trace run -t deployment/web --steal --header-filter '^x-me: yes' --all-pods -- ./server
    Look at what a pod has mounted; let the server write where the pod would:
        mirrord-trace run -t deployment/web -- ls -l /var/run/secrets/kubernetes.io/serviceaccount
        mirrord-trace run -t deployment/web --fs-read-write ^/data/ -- ./server
    Reach what a cluster's pods can reach, without a pod of your own there:
        mirrord-trace run -n shop -- psql -h database
    Run it inside a local container's world, and take its network but not its variables:
        mirrord-trace run -t pid/$(docker inspect -f {{.State.Pid}} web) --sudo -- ./server
        mirrord-trace run -t pid/4711 --no-env -- ./server

    `mirrord-trace ls` lists what can be a target. The exit code is COMMAND's, or 128 plus the number of the signal that
    ended it; 127 if it is not found, 126 if it cannot be executed, 2 for a mistake in the options or the configuration
    file and 1 when mirrord-trace cannot do what it is asked to.
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told
    from mirrord_trace.config import document as documents

    def configuration() -> "RunConfiguration":
        environment = documents.EnvironmentSection(
            enabled=False if no_env else None,
            include=include_env or None,
            exclude=exclude_env or None,
            env_file=env_file,
        ).decided()
        files = documents.FilesSection(
            mode=fs_mode,
            read_only=fs_read_only or None,
            read_write=fs_read_write or None,
            local=fs_local or None,
            not_found=fs_not_found or None,
            mapping=fs_mapping or None,
        )
        outgoing = documents.OutgoingSection(
            tcp=False if no_outgoing or no_tcp_outgoing else None,
            udp=False if no_outgoing or no_udp_outgoing else None,
            ignore_localhost=ignore_localhost or None,
            unix_streams=unix_streams or None,
        )
        arriving = incoming_section(incoming, steal, incoming_ports, ignored_ports, header_filter, all_pods)
        flags = documents.Document(
            target=documents.TargetSection(path=target),
            agent=documents.AgentSection(
                ephemeral=is_ephemeral(agent_mode, ephemeral_container),
                image=agent_image,
                namespace=agent_namespace,
                ttl=agent_ttl,
                startup_timeout=agent_startup_timeout,
            ),
            feature=documents.FeatureSection(
                env=environment,
                fs=files,
                network=documents.NetworkSection(incoming=arriving, outgoing=outgoing),
            ),
        )
        if target is not None and on_this_machine(target):
            refuse_flags_of_a_cluster(target)
        chosen = configured(flags, reporter, **cluster).run_configuration(
            command, connect_hold_s=connect_hold, delivery=delivery, tree=fs_tree, sudo=sudo, trace=trace
        )
        if sudo and not on_this_machine(chosen.target):
            raise UsageFailure(f"--sudo is for targets on this machine, which {chosen.target} is not")
        return _with_env_file(chosen)

    def start() -> int:
        try:
            chosen = configuration()
        except ValueError as error:
            raise UsageFailure(str(error)) from error
        from mirrord_trace.run import run as run_configuration

        return run_configuration(chosen, reporter)

    reporter = reporter_for(open_stderr(), quiet=quiet, verbose=verbose)
    return told(reporter, start)
