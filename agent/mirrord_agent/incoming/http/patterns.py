r"""Regular expressions that users write and strangers' requests are searched with.

They are written for mirrord, whose dialect is Rust's with look-ahead: `regex` in its version 1 reads that
(`(?<name>…)`, `\p{…}`, `[a-z&&[^x]]`, flags within a pattern), and unlike `re` it can be told how long it may take: a
pattern that backtracks without end would stop the agent for everybody.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import regex  # type: ignore[import-untyped]

#: Longest pattern, in characters.
MAX_PATTERN = 4096
#: How long a search may take, in seconds of processor time. Usual ones take microseconds.
SEARCH_S = 0.1


class TooSlowError(Exception):
    """To tell whether something matches would take too long; the message says what it was."""


def _compile(pattern: Pattern) -> Any:
    if len(pattern.text) > MAX_PATTERN:
        raise ValueError(f"a pattern of {len(pattern.text)} characters, and {MAX_PATTERN} are allowed: shorten it")
    flags = regex.VERSION1 | (0 if pattern.case_matters else regex.IGNORECASE)
    try:
        return regex.compile(pattern.text, flags)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern.text!r:.80} is not a regular expression: {error}") from error


@attrs.frozen
class Pattern:
    """A regular expression. Raises ValueError for what is none."""

    text: str
    case_matters: bool = True
    _compiled: Any = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_compile, takes_self=True))

    def is_found_in_any(self, texts: Iterable[str]) -> bool:
        """Whether some part of one of the texts matches. Raises TooSlowError, be it for one of them or for all."""
        left_s = SEARCH_S
        for text in texts:
            begun = time.thread_time()
            if self._run(self._compiled.search, text, left_s):
                return True
            left_s -= time.thread_time() - begun
        return False

    def is_whole(self, text: str) -> bool:
        """Whether the text matches from its beginning to its end. Raises TooSlowError."""
        return self._run(self._compiled.fullmatch, text, SEARCH_S)

    def _run(self, search: Callable[..., object], text: str, limit_s: float) -> bool:
        try:
            if limit_s <= 0:
                raise TimeoutError
            return search(text, timeout=limit_s) is not None
        except (TimeoutError, MemoryError) as error:
            raise TooSlowError(
                f"to search for {self.text!r:.80} took longer than {SEARCH_S:g} s in one request, or too much memory"
            ) from error
