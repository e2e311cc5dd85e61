"""What is told of agents that start and end beside a command that runs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import attrs

from mirrord_trace.reporting import Reporter, Step


class _SilentStep:
    """A step that nobody sees."""

    def detail(self, text: str) -> None:
        """See `Step.detail`."""

    def waiting(self, reason: str) -> None:
        """See `Step.waiting`."""


@attrs.frozen
class OnlyTrouble:
    """A reporter that tells no more of what goes well than who asks for explanations wants to know."""

    _reporter: Reporter

    def step(self, text: str) -> AbstractContextManager[Step]:
        """See `Reporter.step`."""
        return nullcontext(_SilentStep())

    def warning(self, text: str) -> None:
        """See `Reporter.warning`."""
        self._reporter.warning(text)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._reporter.explain(text)

    def explain(self, text: str) -> None:
        """See `Reporter.explain`."""
        self._reporter.explain(text)

    def ready(self) -> None:
        """See `Reporter.ready`."""

    def close(self) -> None:
        """See `Reporter.close`."""
