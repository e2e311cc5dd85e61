"""Tells on standard error how far things are: one line that changes on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import attrs


@attrs.define(eq=False)
class Progress:
    """`steps` of a section are announced by `step`; what must be read stays, through `say`."""

    stream: TextIO = attrs.field(factory=lambda: sys.stderr)
    _began: float = attrs.field(init=False, factory=time.monotonic)
    _section: str = attrs.field(init=False, default="")
    _pending: bool = attrs.field(init=False, default=False)

    def section(self, name: str) -> None:
        """A new section begins."""
        self._section = name
        if not self._on_terminal():
            self._write(f"{self._elapsed()} {name}\n")

    def step(self, text: str) -> None:
        """What is measured now; shown on terminals only, where it takes the place of the step before."""
        if self._on_terminal():
            width = 100
            line = f"{self._elapsed()} {self._section}: {text}"[:width]
            self._write(f"\r\x1b[K\x1b[2m{line}\x1b[0m")
            self._pending = True

    def say(self, text: str) -> None:
        """Something that stays to be read."""
        self._write(("\r\x1b[K" if self._pending else "") + f"{self._elapsed()} {text}\n")
        self._pending = False

    def close(self) -> None:
        """Leaves no half line behind."""
        if self._pending:
            self._write("\r\x1b[K")
            self._pending = False

    def _on_terminal(self) -> bool:
        return self.stream.isatty()

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._began)
        return f"{seconds // 60}:{seconds % 60:02}"

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()
