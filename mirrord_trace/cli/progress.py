"""How what happens is told on stderr: with colours on a terminal, as plain lines elsewhere, hardly at all with --quiet.

The terminal is shared with the user's process, so
- no thread draws anything: a fork of a process with threads is asking for trouble, and steps are short. A step under
  way is one line that is wiped before anything else is written;
- after `ready` only whole lines are written, and they start and end with a carriage return, because the process may
  have put the terminal into raw mode;
- writing never fails: the process may make the shared stderr non-blocking or close its other end, which must not end
  its supervision. Lines that nobody can read are dropped.
"""

from __future__ import annotations

import enum
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import attrs

from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Step

_PREFIX = "mirrord-trace: "


class Mark(enum.Enum):
    """What kind of line it is: the sign before it, the same in plain ASCII, and its colour."""

    DONE = ("✓", "ok", "green")
    FAILED = ("x", "x", "red")
    WARNING = ("!", "!", "yellow")
    ERROR = ("x", "x", "bold red")
    NOTE = ("-", "-", "cyan")
    WAITING = ("…", "..", "cyan")
    EXPLANATION = (" ", " ", "bright_black")

    def __init__(self, sign: str, ascii_sign: str, style: str) -> None:
        self.sign = sign
        self.ascii_sign = ascii_sign
        self.style = style


_QUIET = frozenset({Mark.WARNING, Mark.ERROR})
_NORMAL = frozenset(Mark) - {Mark.EXPLANATION}
_VERBOSE = frozenset(Mark)


@attrs.define(eq=False)
class _Step:
    text: str
    changed: Callable[[_Step], None]
    """Called when there is another reason to wait."""
    details: list[str] = attrs.Factory(list)
    reason: str = ""

    def detail(self, text: str) -> None:
        self.details.append(text)

    def waiting(self, reason: str) -> None:
        if reason != self.reason:
            self.reason = reason
            self.changed(self)

    @property
    def under_way(self) -> str:
        """How it is shown before it ends."""
        return f"{self}: {self.reason}" if self.reason else str(self)

    def __str__(self) -> str:
        return f"{self.text}: {', '.join(self.details)}" if self.details else self.text


class LineReporter:
    """A `Reporter` that writes a line for each thing that is worth one. Steps get theirs when they end."""

    def __init__(self, stream: TextIO, shown: frozenset[Mark] = _NORMAL) -> None:
        self._stream = stream
        self._shown = shown
        self._started = time.monotonic()
        self._under_way: list[_Step] = []
        self._process_runs = False

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        """See `Reporter.step`. Steps may be nested and may overlap."""
        step = _Step(text, self._waits)
        self._under_way.append(step)
        self._show_under_way()
        mark = Mark.FAILED
        try:
            yield step
            mark = Mark.DONE
        finally:
            if step in self._under_way:  # not after close
                self._under_way.remove(step)
                self._line(mark, str(step))

    def _waits(self, step: _Step) -> None:
        """A step has another reason to wait: where lines cannot be taken back, it gets one."""
        self._line(Mark.WAITING, step.under_way)

    def warning(self, text: str) -> None:
        """See `Reporter.warning`."""
        self._line(Mark.WARNING, text)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._line(Mark.NOTE, text)

    def explain(self, text: str) -> None:
        """See `Reporter.explain`."""
        self._line(Mark.EXPLANATION, text)

    def failure(self, failure: Failure) -> None:
        """Say why the command ends, and what to do about it."""
        self._line(Mark.ERROR, failure.message if failure.advice is None else f"{failure.message}\n{failure.advice}")

    def ready(self) -> None:
        """See `Reporter.ready`."""
        self._line(Mark.DONE, f"ready after {time.monotonic() - self._started:.2f} s")
        self._wipe()
        self._process_runs = True

    def close(self) -> None:
        """See `Reporter.close`."""
        self._wipe()
        self._under_way.clear()

    def _line(self, mark: Mark, text: str) -> None:
        if mark not in self._shown:
            return
        self._wipe()
        sign = mark.sign if self._can_write(mark.sign) else mark.ascii_sign
        for line in text.splitlines():
            self._write_line(mark, sign, printable(line))
            sign = " "
        self._show_under_way()

    def _can_write(self, sign: str) -> bool:
        try:
            sign.encode(self._stream.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def _write_line(self, mark: Mark, sign: str, text: str) -> None:
        self._write(f"{_PREFIX}{sign} {text}\n")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except OSError:
            # Nobody reads it any more; see the top of the module.
            pass

    def _show_under_way(self) -> None:
        """Show the step that is under way, where lines can be taken back."""

    def _wipe(self) -> None:
        """Take back what `_show_under_way` wrote."""


class TerminalReporter(LineReporter):
    """A `Reporter` for a terminal: coloured marks, and the step under way is visible."""

    def __init__(self, stream: TextIO, shown: frozenset[Mark] = _NORMAL) -> None:
        super().__init__(stream, shown)
        # Loaded here because it takes as long as an agent needs to start, and only terminals need it.
        from rich.console import Console
        from rich.text import Text

        self._text = Text
        self._console = Console(file=stream, force_terminal=True, highlight=False, soft_wrap=True)
        self._drawn = False

    def _write_line(self, mark: Mark, sign: str, text: str) -> None:
        prefix = _PREFIX if self._process_runs or mark is Mark.ERROR else ""
        line = self._text.assemble((sign, mark.style), " ", prefix, text)
        if mark is Mark.EXPLANATION:
            line.stylize(mark.style)
        end = "\r\n" if self._process_runs else "\n"
        self._write(("\r" if self._process_runs else "") + self._rendered(line) + end)

    def _waits(self, step: _Step) -> None:
        self._show_under_way()

    def _show_under_way(self) -> None:
        if not self._under_way or self._process_runs or Mark.DONE not in self._shown:
            return
        line = self._text.assemble(("…", "cyan"), " ", printable(self._under_way[-1].under_way))
        # A line that wraps could not be wiped.
        line.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        self._wipe()
        self._write(self._rendered(line))
        self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _rendered(self, line: object) -> str:
        with self._console.capture() as capture:
            self._console.print(line, end="")
        return capture.get()


def printable(text: str) -> str:
    """The text with control characters spelled out: names that come from a target must not steer the terminal."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def open_stderr() -> TextIO:
    """File descriptor 2 as text without a buffer: what could not be written is forgotten instead of tried again later.

    Python exits with 120 if its own buffered stderr cannot be flushed at the end. A closed stderr becomes /dev/null.
    """
    try:
        raw = io.FileIO(2, "w", closefd=False)
    except OSError:
        raw = io.FileIO(os.devnull, "w")
    return io.TextIOWrapper(raw, errors="backslashreplace", write_through=True)


def reporter_for(stream: TextIO, *, quiet: bool = False, verbose: bool = False) -> LineReporter:
    """The reporter that suits the stream and the flags; `verbose` wins over `quiet`."""
    shown = _VERBOSE if verbose else _QUIET if quiet else _NORMAL
    if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        return TerminalReporter(stream, shown)
    return LineReporter(stream, shown)
