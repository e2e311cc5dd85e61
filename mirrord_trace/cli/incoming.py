"""Options about incoming traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from mirrord_trace.cli.options import option, together
from mirrord_trace.errors import UsageFailure

if TYPE_CHECKING:
    # Loaded when the command runs: attrs would double the time that --help takes.
    from mirrord_trace.config import IncomingMode
    from mirrord_trace.config.document import IncomingSection

_INCOMING: Final = "Whose connections the command gets"


def _ports(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """A callback: ports, each with the target's port that it stands for."""
    pairs = []
    for value in values:
        numbers = value.split(":")
        if len(numbers) > 2 or not all(number.isdecimal() and 0 < int(number) < 65536 for number in numbers):
            raise click.BadParameter(f"{value!r} is neither PORT nor LOCAL:REMOTE, of numbers from 1 to 65535")
        pairs.append((int(numbers[0]), int(numbers[-1])))
    if len(dict(pairs)) < len(set(pairs)):
        raise click.BadParameter("a port of the command stands for two ports of the target")
    return tuple(pairs)


incoming_options = together(
    option(
        "--incoming",
        type=click.Choice(["mirror", "steal", "off"]),
        group=_INCOMING,
        help="What becomes of traffic to a port of the target on which the command listens. mirror: both get it, and "
        "what the command answers is dropped (the default). steal: only the command gets it, and answers it. off: it "
        "stays with the target.",
    ),
    option("--steal", is_flag=True, group=_INCOMING, help="The same as --incoming steal."),
    option(
        "-p",
        "--incoming-port",
        "incoming_ports",
        multiple=True,
        metavar="[LOCAL:]REMOTE",
        callback=_ports,
        group=_INCOMING,
        help="Only traffic to these ports of the target; the others on which the command listens are this machine's. "
        "LOCAL is the command's port, where it is another. Repeatable.",
    ),
    option(
        "--ignore-incoming-port",
        "ignored_ports",
        multiple=True,
        type=click.IntRange(1, 65535),
        metavar="PORT",
        group=_INCOMING,
        help="Ports on which the command listens on this machine only. Repeatable.",
    ),
    option(
        "--header-filter",
        metavar="REGEX",
        group=_INCOMING,
        help="Only HTTP requests with a header in which this finds something, searched in 'Name: value' without regard "
        "to case; the others go to the target as before.",
    ),
)


def incoming_section(
    mode: IncomingMode | None,
    steal: bool,
    ports: tuple[tuple[int, int], ...],
    ignored: tuple[int, ...],
    header: str | None,
) -> IncomingSection:
    """What the flags about incoming traffic say. Raises ValueError, UsageFailure."""
    from mirrord_trace.config.document import IncomingSection
    from mirrord_trace.config.incoming import header_filter

    if steal and mode not in (None, "steal"):
        raise UsageFailure(f"--steal contradicts --incoming {mode}")
    mapping = {local: remote for local, remote in ports if local != remote}
    return IncomingSection(
        mode="steal" if steal else mode,
        ports=frozenset(remote for _, remote in ports) or None,
        port_mapping=mapping or None,
        ignore_ports=frozenset(ignored) or None,
        http_filter=None if header is None else header_filter(header, None),
    )
