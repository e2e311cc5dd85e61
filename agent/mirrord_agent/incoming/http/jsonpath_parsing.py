"""The text of a JSONPath query (RFC 9535) made a query, by recursive descent along the grammar of its appendix A."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import attrs

from mirrord_agent.incoming.http.jsonpath import (
    FUNCTIONS,
    Both,
    Call,
    Comparable,
    Comparison,
    Condition,
    Either,
    Exists,
    Filter,
    Index,
    Literal,
    Name,
    Not,
    Query,
    Segment,
    Selector,
    Single,
    Slice,
    Wildcard,
)

#: Longest query, in characters, and most segments of one.
MAX_QUERY = 4096
MAX_SEGMENTS = 100
#: Numbers beyond are not exact everywhere (RFC 9535 section 2.1).
_MAX_INTEGER = (1 << 53) - 1

_BLANK = re.compile(r"[ \t\n\r]*")
_SHORTHAND = re.compile(r"[A-Za-z_\x80-\uD7FF\uE000-\U0010FFFF][0-9A-Za-z_\x80-\uD7FF\uE000-\U0010FFFF]*")
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"(?:-0|0|-?[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"(true|false|null)(?![0-9a-z_(])")
_FUNCTION = re.compile(r"([a-z][a-z0-9_]*)\(")
_OPERATOR = re.compile(r"==|!=|<=|>=|<|>")
_STRING = {
    '"': re.compile(r'"((?:[^\x00-\x1f"\\\uD800-\uDFFF]|\\(?:["bfnrt/\\]|u[0-9A-Fa-f]{4}))*)"'),
    "'": re.compile(r"'((?:[^\x00-\x1f'\\\uD800-\uDFFF]|\\(?:['bfnrt/\\]|u[0-9A-Fa-f]{4}))*)'"),
}
_QUOTES = re.compile(r"\\.|\"", re.DOTALL)
_LONE_SURROGATE = re.compile(r"[\uD800-\uDFFF]")


def parse_query(text: str) -> Query:
    """The query that a text is. Raises ValueError, which says where it is none."""
    if len(text) > MAX_QUERY:
        raise ValueError(f"a query of {len(text)} characters, and {MAX_QUERY} are allowed: shorten it")
    parser = _Parser(text)
    try:
        return parser.whole()
    except RecursionError:
        raise ValueError(f"the query {text!r:.80} is nested too deep: flatten it") from None


@attrs.define
class _Parser:
    _text: str
    _at: int = 0

    def whole(self) -> Query:
        if not self._text.startswith("$"):
            self._fail("$")
        query = self._query()
        if self._at < len(self._text):
            self._fail("a segment, such as .name or [0], or the end")
        return query

    def _fail(self, wanted: str) -> NoReturn:
        found = repr(self._text[self._at]) if self._at < len(self._text) else "the end"
        raise ValueError(
            f"not a JSONPath query (RFC 9535): expected {wanted}, found {found} at character {self._at + 1} "
            f"of {self._text!r:.80}"
        )

    def _blank(self) -> None:
        found = _BLANK.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _next(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """What comes next, if it is that."""
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _has(self, text: str) -> bool:
        """Whether that comes next."""
        found = self._text.startswith(text, self._at)
        if found:
            self._at += len(text)
        return found

    def _want(self, text: str) -> None:
        if not self._has(text):
            self._fail(text)

    def _query(self) -> Query:
        """From its `$` or `@` on."""
        is_relative = self._text[self._at] == "@"
        self._at += 1
        segments: list[Segment] = []
        while True:
            before = self._at
            self._blank()
            segment = self._segment()
            if segment is None:
                self._at = before
                return Query(tuple(segments), is_relative)
            segments.append(segment)
            if len(segments) > MAX_SEGMENTS:
                raise ValueError(f"a query of more than {MAX_SEGMENTS} segments: {self._text!r:.80}")

    def _segment(self) -> Segment | None:
        if self._has("["):
            return Segment(self._bracketed(), False)
        descends = self._has("..")
        if descends and self._has("["):
            return Segment(self._bracketed(), True)
        if not descends and not self._has("."):
            return None
        if self._has("*"):
            return Segment((Wildcard(),), descends)
        name = self._next(_SHORTHAND)
        if name is None:
            self._fail("a name or *")
        return Segment((Name(name[0]),), descends)

    def _bracketed(self) -> tuple[Selector, ...]:
        selectors = []
        while True:
            self._blank()
            selectors.append(self._selector())
            self._blank()
            if not self._has(","):
                self._want("]")
                return tuple(selectors)

    def _selector(self) -> Selector:
        if self._has("*"):
            return Wildcard()
        if self._has("?"):
            self._blank()
            return Filter(self._either())
        name = self._string()
        if name is not None:
            return Name(name)
        start = self._integer()
        before = self._at
        self._blank()
        if self._has(":"):
            return self._slice(start)
        self._at = before
        if start is None:
            self._fail("a name in quotes, a number, a slice, * or ?")
        return Index(start)

    def _slice(self, start: int | None) -> Slice:
        """After its first colon."""
        self._blank()
        end = self._integer()
        before = self._at
        self._blank()
        if not self._has(":"):
            self._at = before
            return Slice(start, end, None)
        before = self._at
        self._blank()
        step = self._integer()
        if step is None:
            self._at = before
        return Slice(start, end, step)

    def _integer(self) -> int | None:
        found = self._next(_INTEGER)
        if found is None:
            return None
        if len(found[0]) > 17 or abs(int(found[0])) > _MAX_INTEGER:
            raise ValueError(f"the number {found[0]:.40} is out of range in {self._text!r:.80}")
        return int(found[0])

    def _string(self) -> str | None:
        quote = self._text[self._at : self._at + 1]
        if quote not in _STRING:
            return None
        found = self._next(_STRING[quote])
        if found is None:
            self._fail("a text with quotes at both its ends")
        # What is between single quotes differs from JSON in the quotes alone.
        content = found[1] if quote == '"' else _QUOTES.sub(_requoted, found[1])
        text: str = json.loads(f'"{content}"')
        if _LONE_SURROGATE.search(text):
            raise ValueError(f"half a surrogate pair in {self._text!r:.80}")
        return text

    def _either(self) -> Condition:
        condition = self._both()
        while self._operator("||"):
            condition = Either(condition, self._both())
        return condition

    def _both(self) -> Condition:
        condition = self._basic()
        while self._operator("&&"):
            condition = Both(condition, self._basic())
        return condition

    def _operator(self, text: str) -> bool:
        before = self._at
        self._blank()
        if self._has(text):
            self._blank()
            return True
        self._at = before
        return False

    def _basic(self) -> Condition:
        if self._text.startswith("!", self._at):
            self._at += 1
            self._blank()
            return Not(self._parenthesized() if self._has("(") else self._test())
        if self._has("("):
            return self._parenthesized()
        operand = self._operand()
        before = self._at
        self._blank()
        found = self._next(_OPERATOR)
        if found is None:
            self._at = before
            return self._as_test(operand)
        left = self._as_comparable(operand)
        self._blank()
        return Comparison(left, found[0], self._as_comparable(self._operand()))

    def _parenthesized(self) -> Condition:
        self._blank()
        condition = self._either()
        self._blank()
        self._want(")")
        return condition

    def _test(self) -> Condition:
        return self._as_test(self._operand())

    def _operand(self) -> Literal | Query | Call:
        """A literal, a query or a call of a function."""
        if self._text[self._at : self._at + 1] in ("@", "$"):
            return self._query()
        text = self._string()
        if text is not None:
            return Literal(text)
        word = self._next(_WORD)
        if word is not None:
            return Literal(json.loads(word[0]))
        name = self._next(_FUNCTION)
        if name is not None:
            return self._call(name[1])
        number = self._next(_NUMBER)
        if number is None:
            self._fail("a query from @ or $, a function, a text, a number, true, false or null")
        return Literal(_number(number))

    def _call(self, name: str) -> Call:
        """After its opening parenthesis."""
        function = FUNCTIONS.get(name)
        if function is None:
            raise ValueError(f"no function is named {name!r:.40}; there are {', '.join(FUNCTIONS)}")
        arguments: list[Query | Comparable] = []
        self._blank()
        for takes_nodes in function.takes_nodes:
            if arguments:
                self._blank()
                self._want(",")
                self._blank()
            arguments.append(self._argument(takes_nodes))
        self._blank()
        self._want(")")
        return Call(function, tuple(arguments))

    def _argument(self, takes_nodes: bool) -> Query | Comparable:
        before = self._at
        operand = self._operand()
        if not takes_nodes:
            return self._as_comparable(operand)
        if not isinstance(operand, Query):
            self._at = before
            self._fail("a query from @ or $")
        return operand

    def _as_test(self, operand: Literal | Query | Call) -> Condition:
        match operand:
            case Query():
                return Exists(operand)
            case Call(function) if function.is_truth:
                return operand
            case _:
                return self._fail("an operator to compare with: a value by itself is no condition")

    def _as_comparable(self, operand: Literal | Query | Call) -> Comparable:
        match operand:
            case Query() if operand.is_singular:
                return Single(operand)
            case Query():
                raise ValueError(f"what may find several values is no value, in {self._text!r:.80}; try value(…)")
            case Call(function) if function.is_truth:
                raise ValueError(f"match and search give no value to compare, in {self._text!r:.80}")
            case _:
                return operand


def _requoted(found: re.Match[str]) -> str:
    return {r"\'": "'", '"': r"\""}.get(found[0], found[0])


def _number(found: re.Match[str]) -> Any:
    """An integer unless it has a fraction or an exponent."""
    return float(found[0]) if found[1] or found[2] else int(found[0])
