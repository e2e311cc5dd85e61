"""Options of commands that serve a session with a target's agent and run no process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mirrord_trace.cli import completing
from mirrord_trace.cli.options import (
    ClusterFlags,
    agent_modes,
    agent_start,
    cluster_options,
    configured,
    is_ephemeral,
    on_this_machine,
    option,
    refuse_flags_of_a_cluster,
    together,
)
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.config.model import SessionConfiguration
    from mirrord_trace.targets.base import Target


session_options = together(
    option(
        "-t",
        "--target",
        metavar="TARGET",
        shell_complete=completing.targets,
        help="As -t of `run` takes it: KIND/NAME in a cluster, or demo or pid/PID on this machine.",
    ),
    cluster_options,
    agent_modes,
    agent_start,
    option("--sudo", is_flag=True, help="For pid/PID: start the agent through sudo."),
    option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors."),
    option("-v", "--verbose", is_flag=True, help="Say also what was chosen and why."),
)


class SessionFlags(ClusterFlags):
    """What `session_options` hand to a command."""

    target: str | None
    agent_mode: str | None
    ephemeral_container: bool
    agent_image: str | None
    agent_namespace: str | None
    agent_ttl: int | None
    agent_startup_timeout: float | None
    sudo: bool
    quiet: bool
    verbose: bool


def configuration_of(flags: SessionFlags, reporter: LineReporter) -> SessionConfiguration:
    """What the flags and the configuration file say together. Raises UsageFailure."""
    from mirrord_trace.config import document as documents

    if flags["target"] is not None and on_this_machine(flags["target"]):
        refuse_flags_of_a_cluster(flags["target"])
    document = documents.Document(
        target=documents.TargetSection(path=flags["target"]),
        agent=documents.AgentSection(
            ephemeral=is_ephemeral(flags["agent_mode"], flags["ephemeral_container"]),
            image=flags["agent_image"],
            namespace=flags["agent_namespace"],
            ttl=flags["agent_ttl"],
            startup_timeout=flags["agent_startup_timeout"],
        ),
    )
    try:
        chosen = configured(
            document,
            reporter,
            namespace=flags["namespace"],
            context=flags["context"],
            kubeconfig=flags["kubeconfig"],
            accept_invalid_certificates=flags["accept_invalid_certificates"],
            config_file=flags["config_file"],
        ).session_configuration(sudo=flags["sudo"])
    except ValueError as error:
        raise UsageFailure(str(error)) from error
    if chosen.sudo and not on_this_machine(chosen.target):
        raise UsageFailure(f"--sudo is for targets on this machine, which {chosen.target} is not")
    return chosen


def target_of(configuration: SessionConfiguration) -> Target:
    """The target of a configuration. Raises UsageFailure."""
    from mirrord_trace.targets import parse_target

    return parse_target(
        configuration.target,
        sudo=configuration.sudo,
        cluster=configuration.cluster,
        agent=configuration.agent,
    )


def reported(flags: SessionFlags, command: Callable[[LineReporter], int]) -> int:
    """The exit code of a command that tells on stderr what happens, as loudly as the flags say."""
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.cli.telling import told

    reporter = reporter_for(open_stderr(), quiet=flags["quiet"], verbose=flags["verbose"])
    return told(reporter, lambda: command(reporter))
