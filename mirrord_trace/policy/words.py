"""What a regular expression cannot do without: a word that is in every text in which the expression finds something.

With it whoever has no engine for expressions can tell most texts that none of them concerns.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      \\ (?: (?P<escaped> [^0-9A-Za-z]) | (?P<kind> [dDsSwWbBAZ]) )
    | (?P<set> \[ \^? \]? (?: \\. | [^]\\] )* \] )
    | (?P<repeated> (?: [*+?] | \{ [0-9]* (?: , [0-9]* )? \} ) [?+]? )
    | (?P<bracket> [()] )
    | (?P<or> \| )
    | (?P<any> [.^$] )
    | (?P<plain> [^\\\[{] )
    """,
    re.DOTALL | re.VERBOSE,
)
"""A piece of an expression. What begins none (`\\x41`, a brace that repeats nothing) is beyond us."""
_BEYOND_US: Final = re.compile(r"\(\?\#|\(\?[a-zA-Z-]*x")
"""Comments, in which brackets need not be closed, and what makes comments possible."""


@cache
def necessary_word(pattern: re.Pattern[str]) -> bytes | None:
    """In ASCII and lower case: it is in what the pattern finds, once that is in lower case, if that is all ASCII.

    None where none can be told: any text may concern the pattern then.
    """
    text = pattern.pattern
    if pattern.flags & re.VERBOSE or _BEYOND_US.search(text):
        return None
    words = [""]
    depth = position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        position = token.end()
        character = token["escaped"] or token["plain"] or ""
        match token.lastgroup:
            case "bracket":
                depth += 1 if token[0] == "(" else -1
                words.append("")
            case "or" if not depth:
                return None
            case "repeated" if not depth:
                if not token[0].startswith("+"):
                    words[-1] = words[-1][:-1]
                words.append("")
            case "escaped" | "plain" if not depth and character.isascii():
                words[-1] += character
            case _:
                words.append("")
    return max(words, key=len).lower().encode() or None
