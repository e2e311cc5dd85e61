"""Files of environment variables, as dotenv's implementations read them.

A line is empty, a comment, or `NAME=VALUE`, perhaps with `export` in front and spaces around the equals sign. The
syntax of values is dotenvy's, which is nearly a shell's: single quotes keep everything, others know backslashes and
`$NAME`, `${NAME}` and `${NAME:-DEFAULT}`; what is quoted may go on over several lines. A name is looked up in the
environment of this machine first, then in what the file has said so far; what is in neither is empty. Where dotenvy
differs from the others, those are followed: names behind a dollar sign may have underscores, and a value without quotes
may have spaces in it.

What no process could be given is refused here, so that no file makes us hold more than that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Final

import attrs

from mirrord_trace.errors import UsageFailure

FILE_BYTES: Final = 1 << 20
VALUE_BYTES: Final = 131_071
"""MAX_ARG_STRLEN without its NUL (execve(2))."""
TOGETHER_BYTES: Final = 6 << 20
"""Three quarters of _STK_LIM: what arguments and environment may take at most (execve(2))."""

_START: Final = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.]*)[ \t]*=")
_BLANK: Final = re.compile(r"[ \t\r]*(?:#[^\n]*)?(?:\n|\Z)")
_INDENTATION: Final = re.compile(r"[ \t]*")
_PLAIN: Final = re.compile(r"[^\\$'\"\s]+")
_REST: Final = re.compile(r"[^\n]*\n?")
_SPACES: Final = re.compile(r"[ \t\r\f\v]+")
_SINGLE: Final = re.compile(r"'([^']*)'")
_CLOSING: Final = re.compile('"')
_IN_DOUBLE: Final = re.compile(r'[^\\$"]+')
_REFERENCE: Final = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_.]*)(?::-([^}\n]*))?\})")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", **{letter: letter for letter in "\\'\"$ #"}}


class _LineFault(Exception):
    """What is wrong; the message goes on after the line's number."""


def read_env_file(path: str, local: Mapping[str, str]) -> dict[bytes, bytes]:
    """The variables of a file, as an environment has them. `local` is this machine's environment.

    Raises UsageFailure that names the file, and the line where one is at fault.
    """
    try:
        with open(os.path.expanduser(path), "rb") as file:
            data = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise UsageFailure(f"cannot read the file of variables {path}: {error.strerror}") from error
    if len(data) > FILE_BYTES:
        raise UsageFailure(f"{path}: more than {FILE_BYTES} bytes, which is too much for a file of variables")
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape").replace("\r\n", "\n")
    reading = _Reading(text, local)
    try:
        variables = reading.variables()
    except _LineFault as fault:
        raise UsageFailure(f"{path}: line {reading.line()}: {fault}") from fault
    return {name.encode(): value.encode(errors="surrogateescape") for name, value in variables.items()}


@attrs.define
class _Reading:
    """How far a text has been read."""

    text: str
    local: Mapping[str, str]
    position: int = 0
    said: dict[str, str] = attrs.Factory(dict)
    _left: int = VALUE_BYTES
    """How long the rest of the value that is read may be."""

    def line(self) -> int:
        """The number of the line that is read."""
        return self.text.count("\n", 0, self.position) + 1

    def variables(self) -> dict[str, str]:
        """All that the text says; the last line on a variable counts. Raises _LineFault."""
        together = 0
        while self.position < len(self.text):
            if self._next(_BLANK):
                continue
            self._next(_INDENTATION)
            start = self._next(_START)
            if not start:
                raise _LineFault("expected NAME=VALUE")
            self.said[start[1]] = value = self._value()
            together += len(value)
            if together > TOGETHER_BYTES:
                raise _LineFault("the values are more than what a process can be given")
            self._next(_REST)
        return self.said

    def _next(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What the pattern finds here; goes on behind it."""
        if found := pattern.match(self.text, self.position):
            self.position = found.end()
        return found

    def _value(self) -> str:
        """The value of the line, up to its end or a comment."""
        self._left = VALUE_BYTES
        pieces: list[str] = []
        is_quoted = False
        while True:
            spaces = self._next(_SPACES)
            letter = self.text[self.position : self.position + 1]
            if letter in ("", "\n") or (spaces and letter == "#"):
                return "".join(pieces)
            if spaces and is_quoted:
                raise _LineFault("expected nothing but a comment after the closing quote")
            if spaces and pieces:
                pieces.append(self._taken(spaces[0]))
            if letter in "'\"":
                is_quoted = True
                pieces += [self._single()] if letter == "'" else self._double()
            else:
                pieces.append(self._special(_PLAIN))

    def _single(self) -> str:
        found = self._next(_SINGLE)
        if not found:
            raise _LineFault("a single quote is not closed")
        return self._taken(found[1])

    def _double(self) -> list[str]:
        begun = self.position
        self.position += 1
        pieces: list[str] = []
        while not self._next(_CLOSING):
            if self.position == len(self.text):
                self.position = begun
                raise _LineFault("a double quote is not closed")
            pieces.append(self._special(_IN_DOUBLE))
        return pieces

    def _special(self, plain: re.Pattern[str]) -> str:
        """What stands for itself, or a backslash and what follows, or what stands for a variable."""
        if found := self._next(plain):
            return self._taken(found[0])
        letter, following = self.text[self.position], self.text[self.position + 1 : self.position + 2]
        if letter == "\\":
            if following not in _ESCAPES:
                raise _LineFault(f"a backslash before {following!r} means nothing; write two of them, or single quotes")
            self.position += 2
            return self._taken(_ESCAPES[following])
        if found := self._next(_REFERENCE):
            name = found[1] or found[2]
            value = self.local[name] if name in self.local else self.said.get(name)
            return self._taken(value or found[3] or "")
        if letter == "$" and following == "{":
            raise _LineFault("expected ${NAME} or ${NAME:-DEFAULT}; a dollar sign itself is \\$")
        self.position += 1
        return self._taken(letter)

    def _taken(self, text: str) -> str:
        """The text, as a part of the value."""
        if "\0" in text:
            raise _LineFault("a value has a zero byte in it, which none can have")
        self._left -= len(text.encode(errors="surrogateescape"))
        if self._left < 0:
            raise _LineFault("the value is longer than what a process can be given")
        return text
