"""Which requests are the process's: a filter as a value, made from plain data, and what it says of a request.

A filter is one of these, each a map as mirrord's configuration nests them:

    {"header": PATTERN}                                   some header as "Name: value" has a match; case does not matter
    {"path": PATTERN}                                     the path or the path with its query has; case does not matter
    {"method": PATTERN}                                   the whole method matches; case does not matter
    {"body": "json", "query": JSONPATH, "matches": PATTERN}    a value that the query finds has a match; case matters
    {"all_of": [FILTER, …]}, {"any_of": [FILTER, …]}

Bytes are read as Latin-1, of which every sequence of bytes is a text.
"""

from __future__ import annotations

import enum
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar

import attrs

from mirrord_agent.incoming.http.json_bodies import JsonQuery
from mirrord_agent.incoming.http.patterns import Pattern

#: Longest body that a filter reads, in bytes; a longer one matches nothing. mirrord's default.
MAX_BODY = 65535
#: Longest that the body of one request is waited for, in seconds. mirrord's default.
BODY_WAIT_S = 1.0
#: Most filters within one filter, and deepest nesting.
MAX_FILTERS = 256
MAX_DEPTH = 8

#: Scheme and authority of a request target in absolute form (RFC 9112 section 3.2.2).
_ORIGIN = re.compile(r"^[a-z][a-z0-9+.-]*://[^/?]*", re.IGNORECASE)

Headers = Sequence[tuple[bytes, bytes]]


class FilterError(ValueError):
    """What was given is no filter; the message says what is wrong, where, and what would be right."""


class Body(enum.Enum):
    """Why there are no bytes of a body."""

    AWAITED = enum.auto()
    """They may still come."""
    UNKNOWN = enum.auto()
    """They were too many, or too slow."""


@attrs.frozen
class Request:
    """What filters see of a request besides its body."""

    method: bytes
    target: bytes
    """Path and query, or what else the client asked for (RFC 9112 section 3.2)."""
    headers: Headers


class Filter(ABC):
    """Says of a request whether it is the process's."""

    needs_body = False
    """Whether there are requests of which only the body tells."""

    @abstractmethod
    def judge(self, request: Request, body: bytes | Body) -> bool | None:
        """Whether the request matches; None if that depends on a body that is awaited.

        A body that is unknown matches nothing. Raises TooSlowError.
        """


@attrs.frozen
class HeaderFilter(Filter):
    """Looks at each header."""

    pattern: Pattern

    def judge(self, request: Request, body: bytes | Body) -> bool:
        """Whether some header matches."""
        return self.pattern.is_found_in_any(
            f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in request.headers
        )


@attrs.frozen
class PathFilter(Filter):
    """Looks at the path, and then at the path with its query."""

    pattern: Pattern

    def judge(self, request: Request, body: bytes | Body) -> bool:
        """Whether either matches."""
        target = _ORIGIN.sub("", request.target.decode("latin-1")) or "/"
        path, question_mark, _ = target.partition("?")
        return self.pattern.is_found_in_any((path, target) if question_mark else (path,))


@attrs.frozen
class MethodFilter(Filter):
    """Looks at the method."""

    pattern: Pattern

    def judge(self, request: Request, body: bytes | Body) -> bool:
        """Whether it matches, all of it: `GET` is not `TARGET`."""
        return self.pattern.is_whole(request.method.decode("latin-1"))


@attrs.frozen
class JsonBodyFilter(Filter):
    """Looks at what a query finds in a body of JSON."""

    query: JsonQuery
    pattern: Pattern
    needs_body = True

    def judge(self, request: Request, body: bytes | Body) -> bool | None:
        """Whether some value matches."""
        match body:
            case Body.AWAITED:
                return None
            case Body.UNKNOWN:
                return False
            case _:
                return self.pattern.is_found_in_any(self.query.found_in(body))


@attrs.frozen
class AllOf(Filter):
    """All of its filters."""

    filters: tuple[Filter, ...]

    @property
    def needs_body(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(inner.needs_body for inner in self.filters)

    def judge(self, request: Request, body: bytes | Body) -> bool | None:
        """Whether all match; that one does not is known before the body is."""
        return _first_of(False, self.filters, request, body)


@attrs.frozen
class AnyOf(Filter):
    """One or more of its filters."""

    filters: tuple[Filter, ...]

    @property
    def needs_body(self) -> bool:  # type: ignore[override]
        """Whether one of them does."""
        return any(inner.needs_body for inner in self.filters)

    def judge(self, request: Request, body: bytes | Body) -> bool | None:
        """Whether one matches; that is known before the body is if another's is not needed."""
        return _first_of(True, self.filters, request, body)


def _first_of(wanted: bool, filters: Iterable[Filter], request: Request, body: bytes | Body) -> bool | None:
    """The wanted judgement if some filter gives it; None if one waits; else the opposite."""
    waits = False
    for inner in filters:
        judgement = inner.judge(request, body)
        if judgement is wanted:
            return wanted
        waits |= judgement is None
    return None if waits else not wanted


def parse_filter(data: object) -> Filter:
    """The filter that plain data describe. Raises FilterError."""
    return _Parser().parse(data, "filter", 1)


_KEYS = {
    frozenset({"header"}): "header",
    frozenset({"path"}): "path",
    frozenset({"method"}): "method",
    frozenset({"body", "query", "matches"}): "body",
    frozenset({"all_of"}): "all_of",
    frozenset({"any_of"}): "any_of",
}
_FORMS = '"header", "path", "method", "all_of", "any_of", or "body" with "query" and "matches"'


@attrs.define
class _Parser:
    _count: int = 0

    def parse(self, data: object, where: str, depth: int) -> Filter:
        self._count += 1
        if self._count > MAX_FILTERS:
            raise FilterError(f"{where}: more than {MAX_FILTERS} filters; join patterns with |")
        if depth > MAX_DEPTH:
            raise FilterError(f"{where}: nested more than {MAX_DEPTH} deep; flatten it")
        if not isinstance(data, dict):
            raise FilterError(f"{where}: expected a map with {_FORMS}, got {data!r:.80}")
        kind = _KEYS.get(frozenset(data))
        match kind:
            case "header":
                return HeaderFilter(_pattern(data["header"], f"{where}.header", case_matters=False))
            case "path":
                return PathFilter(_pattern(data["path"], f"{where}.path", case_matters=False))
            case "method":
                return MethodFilter(_pattern(data["method"], f"{where}.method", case_matters=False))
            case "body":
                return _json_body(data, where)
            case "all_of" | "any_of":
                return self._group(kind, data[kind], f"{where}.{kind}", depth)
            case _:
                keys = ", ".join(sorted(f"{key!r:.40}" for key in data)) or "nothing"
                raise FilterError(f"{where}: expected one of {_FORMS}, and nothing beside it; got {keys}")

    def _group(self, kind: Literal["all_of", "any_of"], data: object, where: str, depth: int) -> Filter:
        if not isinstance(data, list | tuple) or not data:
            raise FilterError(f"{where}: expected a list of one or more filters, got {data!r:.80}")
        inner = tuple(self.parse(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(data))
        return AllOf(inner) if kind == "all_of" else AnyOf(inner)


def _json_body(data: dict[str, Any], where: str) -> Filter:
    if data["body"] != "json":
        raise FilterError(
            f'{where}.body: expected "json", the one kind of body that can be looked into; got {data["body"]!r:.80}'
        )
    query = _made(JsonQuery, data["query"], f"{where}.query", 'a JSONPath query, such as "$.user.name"')
    return JsonBodyFilter(query, _pattern(data["matches"], f"{where}.matches", case_matters=True))


def _pattern(data: object, where: str, *, case_matters: bool) -> Pattern:
    return _made(lambda text: Pattern(text, case_matters), data, where, "a regular expression")


_T = TypeVar("_T")


def _made(make: Callable[[str], _T], data: object, where: str, wanted: str) -> _T:
    if not isinstance(data, str):
        raise FilterError(f"{where}: expected {wanted}, got {data!r:.80}")
    try:
        return make(data)
    except ValueError as error:
        raise FilterError(f"{where}: {error}") from error
