"""Single values of a configuration file: what is taken for what, strictly, and what is said of others.

Each function takes what was read, and answers with the value or raises Fault. The second parameter of some is what
cattrs hands to a hook.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, Final, get_args

from mirrord_trace.config.model import MAXIMUM_S
from mirrord_trace.config.patterns import path_pattern

LONG_NUMBER: Final = 10**30
"""Numbers from here on are not written out, which Python refuses above 4300 digits."""


class Fault(ValueError):
    """A value is not what it must be; the message goes on after the field's path."""


def described(value: object) -> str:
    """The value in a few words, for errors."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"{value!r}"
        case int() if abs(value) >= LONG_NUMBER:
            return "a number of more than 30 digits"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"{value} (a {type(value).__name__})"


def as_text(value: object, _type: object = None) -> str:
    """A text that is not empty."""
    if not isinstance(value, str):
        quote = "; put it into quotes" if isinstance(value, bool | int | float) else ""
        raise Fault(f"expected a text, but found {described(value)}{quote}")
    if not value:
        raise Fault("expected a text, but it is empty")
    return sendable(value)


def sendable(text: str) -> str:
    """What neither UTF-8 nor a system call can carry would fail only where it is used."""
    for letter in text:
        if letter == "\0" or "\ud800" <= letter <= "\udfff":
            raise Fault(f"expected a text, but {text!r} has {letter!a} in it, which no text can have")
    return text


def as_label(value: object, _type: object = None) -> str:
    """Those of labels and annotations may be empty."""
    return "" if value == "" else as_text(value)


def as_boolean(value: object, _type: object = None) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Fault(f"expected true or false, but found {described(value)}")
    return value


def as_seconds(value: object, _type: object = None) -> float:
    """A duration that is not 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MAXIMUM_S:
        raise Fault(f"expected a number of seconds above 0 and at most {MAXIMUM_S}, but found {described(value)}")
    return float(value)


def as_whole_seconds(value: object, _type: object = None) -> int:
    """A duration that may be 0."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAXIMUM_S:
        raise Fault(f"expected a whole number of seconds, at most {MAXIMUM_S}, but found {described(value)}")
    return value


def as_choice(value: object, kind: Any) -> Any:
    """One of the values of `kind`, a Literal."""
    choices = get_args(kind)
    if value not in choices:
        hint = nearest(str(value), choices)
        raise Fault(f"expected one of {', '.join(choices)}, but found {described(value)}{hint}")
    return value


def as_pattern(value: object, _type: object = None) -> re.Pattern[str]:
    """A regular expression."""
    try:
        return re.compile(as_text(value))
    except (re.error, OverflowError, RecursionError) as error:
        raise Fault(f"{value!r} is not a regular expression: {error}") from error


def as_path_pattern(value: object, _type: object = None) -> re.Pattern[str]:
    """A regular expression on paths: see `patterns`."""
    text = as_text(value)
    try:
        return path_pattern(text)
    except ValueError as error:
        raise Fault(str(error)) from error


def as_object(value: object, expected: str = "an object") -> dict[str, Any]:
    """An object, whose names are texts."""
    if not isinstance(value, dict):
        raise Fault(f"expected {expected}, but found {described(value)}")
    for name in value:
        if not isinstance(name, str):
            raise Fault(f"expected names that are texts, but found {described(name)}; put it into quotes")
        sendable(name)
    return value


def as_list(value: object) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise Fault(f"expected a list, but found {described(value)}")
    return value


def refuse_others(value: dict[str, Any], *known: str) -> None:
    """Raises Fault for an object that has names besides the known ones."""
    for name in value:
        if name not in known:
            raise Fault(f"unknown field {name!r}{nearest(name, known)}; known: {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was perhaps meant, as the end of a sentence; nothing where none is near."""
    lowered = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lowered, n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""
