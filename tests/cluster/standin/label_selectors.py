"""Label selectors: read and refused as apimachinery's labels package does it (k8s.io/apimachinery/pkg/labels).

A selector is cut into symbols and words first; "in" and "notin" are words that mean something only after a key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import attrs

from .formats import label_value, qualified_name
from .status import bad_request, invalid

Test = Callable[[Mapping[str, str]], bool]
"""Whether labels are as one requirement of a selector wants them."""

_TOKEN = re.compile(r"==|!=|[=!(),<>]|[^=!(),<> \t\r\n]+")
_SYMBOLS = {"==", "!=", "=", "!", "(", ")", ",", "<", ">"}
_OPERATORS = ("in", "notin", "=", "==", "!=", ">", "<")
_OPERATORS_TOLD = "in, notin, =, ==, !=, gt, lt"
_INTEGER = re.compile(r"[+-]?\d+")


class _Unreadable(Exception):
    """The selector is none."""


def label_tests(text: str) -> list[Test]:
    """The requirements of a selector, all of which have to be met. Raises Refused."""
    try:
        return _tests(_Tokens(_TOKEN.findall(text)))
    except _Unreadable as error:
        raise bad_request(str(error)) from error


@attrs.define
class _Tokens:
    """What is still to be read. At the end there is "" for ever."""

    left: list[str]

    @property
    def next(self) -> str:
        return self.left[0] if self.left else ""

    def take(self) -> str:
        return self.left.pop(0) if self.left else ""

    def take_word(self) -> str:
        token = self.take()
        if not _is_word(token):
            raise _Unreadable(f"found '{token}', expected: identifier")
        return token


def _is_word(token: str) -> bool:
    return bool(token) and token not in _SYMBOLS


def _tests(tokens: _Tokens) -> list[Test]:
    tests = []
    while tokens.next:
        if not _begins(tokens.next):
            raise _Unreadable(f"found '{tokens.next}', expected: !, identifier, or 'end of string'")
        try:
            tests.append(_requirement(tokens))
        except _Unreadable as error:
            raise _Unreadable(f"unable to parse requirement: {error}") from error
        separator = tokens.take()
        if separator not in ("", ","):
            raise _Unreadable(f"found '{separator}', expected: ',' or 'end of string'")
        if separator and not _begins(tokens.next):
            raise _Unreadable(f"found '{tokens.next}', expected: identifier after ','")
    return tests


def _begins(token: str) -> bool:
    """Whether a requirement can begin so."""
    return _is_word(token) or token == "!"


def _requirement(tokens: _Tokens) -> Test:
    is_absence = tokens.next == "!"
    if is_absence:
        tokens.take()
    key = tokens.take_word()
    if told := qualified_name(key):
        raise _Unreadable(str(invalid("<nil>", key, "; ".join(told))))
    if is_absence:
        return lambda labels: key not in labels
    if tokens.next in ("", ","):
        return lambda labels: key in labels
    operator = tokens.take()
    if operator not in _OPERATORS:
        raise _Unreadable(f"found '{operator}', expected: {_OPERATORS_TOLD}")
    values = _values(tokens) if operator in ("in", "notin") else _value(tokens)
    _check(key, operator, sorted(values))
    if operator in (">", "<"):
        bound = int(values.pop())
        return lambda labels: _is_beyond(labels.get(key, ""), operator, bound)
    if operator in ("notin", "!="):
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values


def _value(tokens: _Tokens) -> set[str]:
    return {"" if tokens.next in ("", ",") else tokens.take_word()}


def _values(tokens: _Tokens) -> set[str]:
    """A list in parentheses. Nothing between two commas, or a comma and a parenthesis, is the empty value."""
    opening = tokens.take()
    if opening != "(":
        raise _Unreadable(f"found '{opening}' expected: '('")
    values: set[str] = set()
    if tokens.next not in (",", ")") and not _is_word(tokens.next):
        raise _Unreadable(f"found '{tokens.next}', expected: ',', ')' or identifier")
    while True:
        values.add(tokens.take() if _is_word(tokens.next) else "")
        if tokens.next not in (",", ")"):
            raise _Unreadable(f"found '{tokens.next}', expected: ',' or ')'")
        if tokens.take() == ")":
            return values


def _check(key: str, operator: str, values: list[str]) -> None:
    errors = []
    for index, value in enumerate(values):
        if operator in (">", "<") and not _INTEGER.fullmatch(value):
            told = "for 'Gt', 'Lt' operators, the value must be an integer"
            errors.append(str(invalid(f"values[{index}]", value, told)))
        if told_of_value := label_value(value):
            errors.append(str(invalid(f"values[{index}][{key}]", value, "; ".join(told_of_value))))
    if errors:
        raise _Unreadable(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")


def _is_beyond(value: str, operator: str, bound: int) -> bool:
    if not _INTEGER.fullmatch(value):
        return False
    return int(value) > bound if operator == ">" else int(value) < bound
