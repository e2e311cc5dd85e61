"""`mirrord-trace port-forward`: connections from this machine into a target's network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

import click

from mirrord_trace.cli.options import GroupedCommand, option
from mirrord_trace.cli.session import SessionFlags, configuration_of, reported, session_options, target_of

if TYPE_CHECKING:
    # Loaded when the command runs: --help and mistakes are answered without them.
    from mirrord_trace.cli.progress import LineReporter
    from mirrord_trace.forwarding.forwards import Forward


def _forwards(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Forward, ...]:
    """A callback: what -L is given."""
    if not values:
        return ()
    from mirrord_trace.forwarding.forwards import Forward

    try:
        return tuple(Forward.parse(value) for value in values)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("port-forward", cls=GroupedCommand, short_help="Forward ports into a target's network.")
@option(
    "-L",
    "--port-mapping",
    "forwards",
    multiple=True,
    metavar="[[BIND:]LOCAL_PORT:]HOST:PORT",
    callback=_forwards,
    help="Listen on this machine, and connect to HOST from the target, which also resolves it. Without LOCAL_PORT "
    "it is PORT; 0 is any that is free. Without BIND it is 127.0.0.1 and ::1; * is all addresses. Repeatable.",
)
@session_options
def port_forward(*, forwards: tuple[Forward, ...], **flags: Unpack[SessionFlags]) -> int:
    """Forward TCP connections from ports of this machine into TARGET's network, until Ctrl-C.

    \b
    Reach a service as the demo pod does, at http://localhost:9000/:
        mirrord-trace port-forward -L 9000:shop:8080
    A database that only the cluster's pods reach, and the pod's own debug port:
        mirrord-trace port-forward -t deployment/web -L 5432:database:5432 -L localhost:6060
    Without a pod of one's own, from the cluster's network:
        mirrord-trace port-forward -n shop -L 0:web.other-namespace:80

    A connection that cannot be had from the target is reset. The exit code is 130 after Ctrl-C, 128 plus the signal's
    number after another one, 2 for a mistake in the options or the configuration file, and 1 when mirrord-trace cannot
    do what it is asked to, or the agent is lost.
    """  # noqa: D301 (click wants the character, not the two that stand for it)

    def forward(reporter: LineReporter) -> int:
        if not forwards:
            raise click.UsageError("nothing to forward: give -L")
        configuration = configuration_of(flags, reporter)
        from mirrord_trace.forwarding import command

        return command.port_forward(target_of(configuration), forwards, reporter)

    return reported(flags, forward)
