"""What the layers below the command line may say to the person at the terminal.

They report events; how these look (a terminal, a log file, hardly at all with --quiet) is decided in
`mirrord_trace.cli.progress`. Everything goes to stderr: stdout belongs to the user's process.
"""

from contextlib import AbstractContextManager
from typing import Protocol


class Step(Protocol):
    """A step that is under way."""

    def detail(self, text: str) -> None:
        """Say what came of the step in a few words, such as a name or a count; shown beside it when it is done."""

    def waiting(self, reason: str) -> None:
        """Say what the step waits for now, in a few words; replaces what was said before. Cheap when repeated."""


class Reporter(Protocol):
    """Tells the user what happens. No method blocks for long or raises; all are called from the main thread."""

    def step(self, text: str) -> AbstractContextManager[Step]:
        """Announce a step ("starting the agent"). Leaving the block ends it: well, or failed with an exception."""

    def warning(self, text: str) -> None:
        """Tell of something that the user should know and may have to act on; shown with --quiet as well."""

    def note(self, text: str) -> None:
        """Tell of something that the user will want to know."""

    def explain(self, text: str) -> None:
        """Say what was chosen and why; shown with --verbose only."""

    def ready(self) -> None:
        """The user's process owns the terminal from now on: nothing live is drawn and lines are kept to a minimum."""

    def close(self) -> None:
        """Leave the terminal as it was found. May be called more than once, also in the middle of a step."""
