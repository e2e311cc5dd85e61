"""Text on stdout: what cannot be written is told in words, and nothing is tried again at the end.

Python's own stdout is None when it was closed from the start, and click then prints nothing, and says nothing of it.
"""

from __future__ import annotations

import os
import sys

import click

from mirrord_trace.errors import Failure


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout is not None and sys.stdout.isatty()


def print_text(text: str) -> None:
    """Print a text on stdout, and a newline. Raises Failure when it cannot be written, not when nobody reads it."""
    if sys.stdout is None:
        raise Failure("cannot write to standard output: it is closed")
    try:
        click.echo(text)
    except BrokenPipeError:
        raise  # click ends the command
    except OSError as error:
        # What is still in Python's buffer would be tried again at the end, and spoil the exit code.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise Failure(f"cannot write to standard output: {error.strerror}") from error


class PrintingCommand(click.Command):
    """A command whose help is printed by `print_text`."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Click's, but for what it does."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = _show_help
        return option


class PrintingGroup(PrintingCommand, click.Group):
    """Commands below such a command; theirs are such, too."""

    command_class = PrintingCommand


def _show_help(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        print_text(context.get_help())
        context.exit()
