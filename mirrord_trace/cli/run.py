"""`mirrord-trace run`: flags in, a `RunConfiguration` out; the exit code of the process back."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mirrord_trace.errors import Failure, UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: attrs would double the time that --help takes.
    from mirrord_trace.config import Delivery


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise click.BadParameter(f"{text!r} is not a regular expression: {error}") from error


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Run a command inside a target's world.",
    options_metavar="[OPTIONS]",
)
@click.option(
    "-t",
    "--target",
    default="demo",
    show_default=True,
    metavar="TARGET",
    help="Where the command shall seem to run: demo, a small pod made for the occasion, or pid/PID, the namespaces of "
    "a process on this machine, such as one in a local container.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Say also what was chosen and why.")
@click.option("--no-env", is_flag=True, help="Keep the local environment variables.")
@click.option(
    "-x",
    "--include-env",
    multiple=True,
    metavar="NAME",
    help="Take only these variables of the target; * and ? are wildcards, a list is separated by semicolons. Naming "
    "one that otherwise stays local, such as PATH, takes it as well. Repeatable.",
)
@click.option(
    "-s",
    "--exclude-env",
    multiple=True,
    metavar="NAME",
    help="Take all variables of the target but these; written as for -x, which it excludes.",
)
@click.option("--no-outgoing", is_flag=True, help="TCP connections and datagrams leave from this machine.")
@click.option("--no-tcp-outgoing", is_flag=True, help="TCP connections leave from this machine.")
@click.option("--no-udp-outgoing", is_flag=True, help="Datagrams, name lookups included, leave from this machine.")
@click.option("--ignore-localhost", is_flag=True, help="Connections to localhost stay on this machine.")
@click.option(
    "--unix-stream",
    "unix_streams",
    multiple=True,
    type=_regex,
    metavar="REGEX",
    help="Reach Unix sockets whose path this finds at the target. Repeatable.",
)
@click.option(
    "--connect-hold",
    type=click.FloatRange(min=0),
    default=0.3,
    show_default=True,
    metavar="SECONDS",
    help="How long a non-blocking connect may wait for the far side's answer before it returns EINPROGRESS.",
)
@click.option(
    "--delivery",
    type=click.Choice(["auto", "notify", "ptrace"]),
    default="auto",
    show_default=True,
    help="How system calls are intercepted: notify is several times faster and lets debuggers work in the command; "
    "ptrace works on older kernels and in more containers. auto tries whether notify works.",
)
@click.option("--sudo", is_flag=True, help="For pid/PID: start the agent through sudo. The command itself never is.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] COMMAND [ARG]...")
def run(
    *,
    target: str,
    quiet: bool,
    verbose: bool,
    no_env: bool,
    include_env: tuple[str, ...],
    exclude_env: tuple[str, ...],
    no_outgoing: bool,
    no_tcp_outgoing: bool,
    no_udp_outgoing: bool,
    ignore_localhost: bool,
    unix_streams: tuple[re.Pattern[str], ...],
    connect_hold: float,
    delivery: "Delivery",
    sudo: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND on this machine as if it were inside TARGET.

    It gets the target's environment variables, resolves the target's names and talks from the target's network; so do
    all processes that it starts. Its files, its terminal and its user stay yours. Signals, Ctrl-C and Ctrl-Z included,
    work as usual.

    \b
    Look around in the demo pod:
        mirrord-trace run -- bash
        mirrord-trace run -- curl http://shop:8080/
    Run a server that you just compiled inside a local container's world:
        mirrord-trace run -t pid/$(docker inspect -f {{.State.Pid}} web) --sudo -- ./server --verbose
    Take the container's network but not its variables:
        mirrord-trace run -t pid/4711 --no-env -- ./server

    The exit code is COMMAND's, or 128 plus the number of the signal that ended it; 127 if it is not found, 126 if it
    cannot be executed, 2 for a mistake in the options and 1 when mirrord-trace cannot do what it is asked to.
    """  # noqa: D301 (click wants the character, not the two that stand for it)
    from mirrord_trace.cli.progress import open_stderr, reporter_for
    from mirrord_trace.config import EnvironmentConfiguration, RunConfiguration

    reporter = reporter_for(open_stderr(), quiet=quiet, verbose=verbose)
    try:
        try:
            configuration = RunConfiguration(
                command=command,
                target=target,
                environment=EnvironmentConfiguration(
                    enabled=not no_env, include=_names(include_env), exclude=_names(exclude_env)
                ),
                outgoing_tcp=not (no_outgoing or no_tcp_outgoing),
                outgoing_udp=not (no_outgoing or no_udp_outgoing),
                ignore_localhost=ignore_localhost,
                unix_streams=unix_streams,
                connect_hold_s=connect_hold,
                delivery=delivery,
                sudo=sudo,
            )
        except ValueError as error:
            raise UsageFailure(str(error)) from error
        from mirrord_trace.run import run as run_configuration

        return run_configuration(configuration, reporter)
    except BaseExceptionGroup as group:
        # Trio wraps what a task raises, once for each nursery on its way.
        leaves = list(_leaves(group))
        if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
            raise click.Abort from group
        failures = [leaf for leaf in leaves if isinstance(leaf, Failure)]
        if len(failures) != len(leaves):
            raise
        reporter.failure(failures[0])
        return failures[0].exit_code
    except Failure as failure:
        reporter.failure(failure)
        return failure.exit_code
    finally:
        reporter.close()


def _names(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for value in values for name in value.split(";") if name)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exception in group.exceptions:
        if isinstance(exception, BaseExceptionGroup):
            yield from _leaves(exception)
        else:
            yield exception
