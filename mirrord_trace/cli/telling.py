"""How commands end: with an exit code, and what went wrong told in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from mirrord_trace.errors import Failure

if TYPE_CHECKING:
    from mirrord_trace.cli.progress import LineReporter


def told(reporter: LineReporter, command: Callable[[], int]) -> int:
    """The exit code of a command, or of the `Failure` that it raised, which is told.

    Raises click.Abort for Ctrl-C. What is neither is a fault of ours and keeps its traceback.
    """
    try:
        return command()
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


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for exception in group.exceptions:
        if isinstance(exception, BaseExceptionGroup):
            yield from _leaves(exception)
        else:
            yield exception
