"""Patterns on paths and names, as mirrord writes them: regular expressions of Rust's kind, nearly those of Python.

A named group is `(?<name>...)`, and what replaces a match names groups as `$1`, `${name}` or `$name`. Where Python
would take something for what it is not in Rust (a set within a set), it is refused.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

_TOKEN: Final = re.compile(r"\\. | \[\^?\]? (?:\\. | [^]\\])* \] | (\(\?) < (?![=!]) | .", re.DOTALL | re.VERBOSE)
"""A piece of an expression that cannot be torn apart: what is escaped, a set, the beginning of a named group."""
_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{([^}]*)\}|([0-9A-Za-z_]+))|(\\)")


def path_pattern(text: str) -> re.Pattern[str]:
    """An expression to search in paths, without regard to case. Raises ValueError that says what is wrong with it."""
    if not text:
        raise ValueError("an empty regular expression would find every path")
    return _compiled(text, re.IGNORECASE)


def name_pattern(text: str) -> re.Pattern[str]:
    """An expression to search in names of variables. Raises ValueError that says what is wrong with it."""
    if not text:
        raise ValueError("an empty regular expression would find every name")
    return _compiled(text, re.NOFLAG)


def _compiled(text: str, flags: re.RegexFlag) -> re.Pattern[str]:
    pieces: list[str] = []
    inserted: list[int] = []
    for token in _TOKEN.finditer(text):
        if token[1]:
            inserted.append(token.start() + len(inserted) + len(token[1]))
            pieces.append(f"{token[1]}P<")
        else:
            pieces.append(token[0])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            return re.compile("".join(pieces), flags)
    except re.error as error:
        where = ""
        if error.pos is not None:
            where = f" at position {error.pos - sum(position < error.pos for position in inserted)}"
        raise ValueError(f"{text!r} is not a regular expression: {error.msg}{where}") from error
    except (FutureWarning, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression that can be taken: {error}") from error


def replacement(pattern: re.Pattern[str], text: str) -> str:
    """What replaces a match of the pattern, in Python's words: for `re.Match.expand`.

    Raises ValueError for a group that the pattern does not have.
    """

    def translated(found: re.Match[str]) -> str:
        dollar, braced, bare, backslash = found.groups()
        if dollar:
            return "$"
        if backslash:
            return r"\\"
        name = bare if braced is None else braced
        is_number = name.isascii() and name.isdecimal()
        known = int(name) <= pattern.groups if is_number else name in pattern.groupindex
        if not known:
            raise ValueError(f"{text!r} names the group {name!r}, which {pattern.pattern!r} does not have")
        return rf"\g<{name}>"

    return _REFERENCE.sub(translated, text)
