"""Options that several commands share, and help that shows options in groups.

Flags become a `Document`, as `MIRRORD_*` variables and a configuration file do, and are merged over these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import click
from click.core import ParameterSource

from mirrord_trace.cli import completing
from mirrord_trace.cli.output import PrintingCommand
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: attrs would double the time that --help takes.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.config.document import Document

CLUSTER: Final = "Cluster"
AGENT: Final = "Agent in the cluster"
_OTHER: Final = "Options"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class GroupedOption(click.Option):
    """An option that is shown under a heading."""

    def __init__(self, *arguments: Any, group: str = _OTHER, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group


class GroupedCommand(PrintingCommand):
    """A command whose help shows options by their groups, in the order in which these first appear."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Click's, but for the headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                group = parameter.group if isinstance(parameter, GroupedOption) else _OTHER
                groups.setdefault(group, []).append(record)
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def option(*names: str, group: str = _OTHER, **attributes: Any) -> Decorator:
    """`click.option` with a group."""
    return click.option(*names, cls=GroupedOption, group=group, **attributes)


def not_empty(_context: click.Context, _parameter: click.Parameter, text: str | None) -> str | None:
    """A callback: an empty value is a shell variable that is not set, and not meant to mean the default."""
    if text == "":
        raise click.BadParameter("must not be empty")
    return text


def a_name(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """A callback for names, which go into URLs and JSON: neither carries bytes that are no UTF-8."""
    if text is not None and not text.isprintable():
        raise click.BadParameter(f"{text!r} has characters that no name has")
    return not_empty(context, parameter, text)


def together(*decorators: Decorator) -> Decorator:
    """All of them, as if they stood one above the other."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


cluster_options = together(
    option(
        "-n",
        "--target-namespace",
        "--namespace",
        "namespace",
        metavar="NAMESPACE",
        group=CLUSTER,
        callback=a_name,
        shell_complete=completing.namespaces,
        help="The target's namespace, instead of the context's.",
    ),
    option(
        "--context",
        metavar="NAME",
        group=CLUSTER,
        callback=a_name,
        shell_complete=completing.contexts,
        help="A context of the kubeconfig, instead of its current one.",
    ),
    option(
        "--kubeconfig",
        metavar="FILE",
        group=CLUSTER,
        callback=not_empty,
        shell_complete=completing.files,
        help="The kubeconfig, instead of $KUBECONFIG and ~/.kube/config.",
    ),
    option(
        "-c",
        "--accept-invalid-certificates",
        is_flag=True,
        group=CLUSTER,
        help="Do not check the API server's certificate.",
    ),
    option(
        "-f",
        "--config-file",
        metavar="FILE",
        callback=a_name,
        shell_complete=completing.files,
        help="Read a configuration file: .json, .toml or .yaml, with mirrord's names, instead of $MIRRORD_CONFIG_FILE "
        "and the one in .mirrord. Flags have precedence, and variables such as $MIRRORD_AGENT_TTL.",
    ),
)

agent_namespace = option(
    "-a",
    "--agent-namespace",
    metavar="NAMESPACE",
    group=AGENT,
    callback=a_name,
    shell_complete=completing.namespaces,
    help="Where the agent's job is made, instead of the target's namespace.",
)

agent_start = together(
    option(
        "-i",
        "--agent-image",
        metavar="IMAGE",
        group=AGENT,
        callback=a_name,
        help="The agent's image; agent/Dockerfile builds it.",
    ),
    agent_namespace,
    option(
        "--agent-ttl",
        type=click.IntRange(min=0),
        metavar="SECONDS",
        group=AGENT,
        help="How long the cluster keeps the job of an agent that has ended by itself. Default: 1.",
    ),
    option(
        "--agent-startup-timeout",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        group=AGENT,
        help="How long to wait until the agent can serve. Default: 60.",
    ),
)

agent_modes = together(
    option(
        "--agent-mode",
        type=click.Choice(["job", "ephemeral"]),
        group=AGENT,
        help="As what the agent starts: a job of its own on the target's node (the default), or an ephemeral container "
        "in the target's pod, whose spec keeps it.",
    ),
    option("-e", "--ephemeral-container", is_flag=True, group=AGENT, help="The same as --agent-mode ephemeral."),
)


def is_ephemeral(agent_mode: str | None, ephemeral_container: bool) -> bool | None:
    """What the two options of `agent_modes` say together; None if neither is given. Raises UsageFailure."""
    if ephemeral_container and agent_mode == "job":
        raise UsageFailure("--ephemeral-container contradicts --agent-mode job")
    if ephemeral_container:
        return True
    return None if agent_mode is None else agent_mode == "ephemeral"


def on_this_machine(target: str) -> bool:
    """Whether a target needs no cluster."""
    return target == "demo" or target.partition("/")[0] == "pid"


class ClusterFlags(TypedDict):
    """What `cluster_options` hand to a command; None and False if not given."""

    namespace: str | None
    context: str | None
    kubeconfig: str | None
    accept_invalid_certificates: bool
    config_file: str | None


def configured(flags: Document, reporter: LineReporter | None = None, **cluster: Unpack[ClusterFlags]) -> Document:
    """What the flags of a command, those of `cluster_options`, the variables and the file say together.

    Raises UsageFailure for what is wrong with the variables or the file.
    """
    import os
    from pathlib import Path

    import attrs

    from mirrord_trace.config.discovery import found_file
    from mirrord_trace.config.resolution import Source, resolved
    from mirrord_trace.config.variables import CONFIG_FILE, unknown_variables, variables_source

    flags = attrs.evolve(
        flags,
        target=attrs.evolve(flags.target, namespace=cluster["namespace"]),
        kube_context=cluster["context"],
        kubeconfig=cluster["kubeconfig"],
        accept_invalid_certificates=cluster["accept_invalid_certificates"] or None,
    )
    tell = None if reporter is None else reporter.warning
    sources = [Source("the command line", flags), variables_source(os.environ, tell)]
    path = cluster["config_file"] or os.environ.get(CONFIG_FILE)
    if path == "":
        raise UsageFailure(f"{CONFIG_FILE}: expected the name of a file, but it is empty")
    found = found_file(Path()) if path is None else None
    if path is not None or found is not None:
        from mirrord_trace.config.reading import read_document

        file = path or str(found)
        sources.append(Source(file, read_document(file, tell)))
    configuration = resolved(sources)
    if reporter is not None:
        for line in unknown_variables(os.environ):
            reporter.warning(line)
        if found is not None:
            reporter.note(f"the configuration file is {found}")
        for field, origin in configuration.origins.items():
            reporter.explain(f"{field} is set by {origin}")
    return configuration.document


def refuse_flags_of_a_cluster(target: str) -> None:
    """Raises UsageFailure for flags of the command line that do nothing for a target on this machine."""
    context = click.get_current_context()
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if isinstance(parameter, GroupedOption)
        and parameter.group in (CLUSTER, AGENT)
        and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise UsageFailure(f"{', '.join(given)}: not for the target {target}, which is on this machine")
