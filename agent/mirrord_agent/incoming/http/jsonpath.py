"""JSONPath (RFC 9535): what a query is, and what it finds in a value. `jsonpath_parsing` makes one of a text.

Only the values found matter to a filter, so a node is its value and nobody keeps where it was.

A query is its user's, a document is anybody's: within 64 kB it can make an innocent query visit a billion nodes
(`$..a..b` in deep nesting), or have each of thousands of values searched for long. So visits are counted and searches
are timed, and past a limit there is no answer.
"""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Protocol

import attrs

from mirrord_agent.incoming.http.patterns import Pattern, TooSlowError

#: Values that one query may visit in one document: several times all that 64 kB hold, and less than a second's work.
MAX_VISITS = 200_000
#: How long the searches of one query in one document may take together, in seconds of processor time.
MAX_SEARCH_S = 0.5

#: Escapes, classes and dots of an I-Regexp (RFC 9485), which is otherwise a regular expression as it stands.
_DOTS = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\.", re.DOTALL)


class Nothing:
    """There is no value (RFC 9535 section 2.4.1)."""


NOTHING = Nothing()


@attrs.define
class Run:
    """A query at work in one document."""

    root: Any
    _visits: int = 0
    _searched_s: float = 0.0

    def visit(self, count: int = 1) -> None:
        """Counts visited values. Raises TooSlowError when they are too many."""
        self._visits += count
        if self._visits > MAX_VISITS:
            raise TooSlowError(f"a JSONPath query visited more than {MAX_VISITS} values of one document")

    def search(self, begun_s: float) -> None:
        """Counts the time since a search has begun, on the thread's clock. Raises TooSlowError when it is too much."""
        self._searched_s += time.thread_time() - begun_s
        if self._searched_s > MAX_SEARCH_S:
            raise TooSlowError(f"the searches of a JSONPath query in one document took longer than {MAX_SEARCH_S:g} s")


class Selector(Protocol):
    """Finds some of a value's children."""

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """The children, each visited."""


@attrs.frozen
class Name:
    """The member of that name."""

    name: str

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """One child or none."""
        run.visit()
        return (value[self.name],) if isinstance(value, dict) and self.name in value else ()


@attrs.frozen
class Index:
    """The element at that place, from the end if it is negative."""

    index: int

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """One child or none."""
        run.visit()
        return (value[self.index],) if isinstance(value, list) and -len(value) <= self.index < len(value) else ()


@attrs.frozen
class Slice:
    """Elements from one place to another."""

    start: int | None
    end: int | None
    step: int | None

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """The elements, none for a step of 0."""
        if not isinstance(value, list) or self.step == 0:
            return ()
        found = value[self.start : self.end : self.step]
        run.visit(len(found) + 1)
        return found


class Wildcard:
    """All children."""

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """The children."""
        children = _children(value)
        run.visit(len(children) + 1)
        return children


@attrs.frozen
class Filter:
    """The children of which something is true."""

    condition: Condition

    def select(self, value: Any, run: Run) -> Iterable[Any]:
        """The children."""
        for child in _children(value):
            run.visit()
            if self.condition.holds(child, run):
                yield child


def _children(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return list(value.values()) if isinstance(value, dict) else []


@attrs.frozen
class Segment:
    """What is selected of each value, or of each value and all below it."""

    selectors: tuple[Selector, ...]
    descends: bool

    def apply(self, values: Iterable[Any], run: Run) -> Iterator[Any]:
        """The values selected."""
        for value in values:
            for place in _descendants(value, run) if self.descends else (value,):
                for selector in self.selectors:
                    yield from selector.select(place, run)


def _descendants(value: Any, run: Run) -> Iterator[Any]:
    """The value and all containers below it: what is none has nothing to select."""
    places = [value]
    while places:
        place = places.pop()
        yield place
        run.visit()
        places += [child for child in reversed(_children(place)) if isinstance(child, dict | list)]


@attrs.frozen
class Query:
    """A query, from the document's root or, within filters, from the value that is looked at."""

    segments: tuple[Segment, ...]
    is_relative: bool

    @property
    def is_singular(self) -> bool:
        """Whether it finds one value at most, however the document is."""
        return all(
            not segment.descends and len(segment.selectors) == 1 and isinstance(segment.selectors[0], Name | Index)
            for segment in self.segments
        )

    def find(self, current: Any, run: Run) -> Iterator[Any]:
        """The values found. Raises TooSlowError, and RecursionError where a document is nested very deep."""
        values: Iterator[Any] = iter((current if self.is_relative else run.root,))
        for segment in self.segments:
            values = segment.apply(values, run)
        return values


class Condition(Protocol):
    """Something that is true of a value or not."""

    def holds(self, current: Any, run: Run) -> bool:
        """Whether it is true of `current`."""


@attrs.frozen
class Either:
    """Either of two is true."""

    left: Condition
    right: Condition

    def holds(self, current: Any, run: Run) -> bool:
        """Whether either is."""
        return self.left.holds(current, run) or self.right.holds(current, run)


@attrs.frozen
class Both:
    """Both are true."""

    left: Condition
    right: Condition

    def holds(self, current: Any, run: Run) -> bool:
        """Whether both are."""
        return self.left.holds(current, run) and self.right.holds(current, run)


@attrs.frozen
class Not:
    """It is not true."""

    condition: Condition

    def holds(self, current: Any, run: Run) -> bool:
        """Whether it is not."""
        return not self.condition.holds(current, run)


@attrs.frozen
class Exists:
    """The query finds something, whatever it is."""

    query: Query

    def holds(self, current: Any, run: Run) -> bool:
        """Whether it does."""
        return any(True for _ in self.query.find(current, run))


class Comparable(Protocol):
    """Something that has a value, or nothing."""

    def value(self, current: Any, run: Run) -> Any:
        """The value, or NOTHING."""


@attrs.frozen
class Literal:
    """A value that is in the query."""

    literal: Any

    def value(self, current: Any, run: Run) -> Any:
        """This value."""
        return self.literal


@attrs.frozen
class Single:
    """What a singular query finds."""

    query: Query

    def value(self, current: Any, run: Run) -> Any:
        """What it finds, or NOTHING."""
        return next(self.query.find(current, run), NOTHING)


@attrs.frozen
class Comparison:
    """Two values compared."""

    left: Comparable
    operator: str
    right: Comparable

    def holds(self, current: Any, run: Run) -> bool:
        """Whether they compare so."""
        return _COMPARISONS[self.operator](self.left.value(current, run), self.right.value(current, run), run)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(left: Any, right: Any, run: Run) -> bool:
    run.visit()
    if _is_number(left) and _is_number(right):
        return bool(left == right)
    if type(left) is not type(right):
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(_equal, left, right, [run] * len(left)))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_equal(value, right[name], run) for name, value in left.items())
    return bool(left == right)


def _less(left: Any, right: Any) -> bool:
    """False for what has no order."""
    comparable = (_is_number(left) and _is_number(right)) or (isinstance(left, str) and isinstance(right, str))
    return comparable and bool(operator.lt(left, right))


_COMPARISONS: dict[str, Callable[[Any, Any, Run], bool]] = {
    "==": _equal,
    "!=": lambda left, right, run: not _equal(left, right, run),
    "<": lambda left, right, run: _less(left, right),
    ">": lambda left, right, run: _less(right, left),
    "<=": lambda left, right, run: _less(left, right) or _equal(left, right, run),
    ">=": lambda left, right, run: _less(right, left) or _equal(left, right, run),
}


@attrs.frozen
class Function:
    """A function (section 2.4): which kinds of arguments it takes, and whether it gives a truth or a value."""

    takes_nodes: tuple[bool, ...]
    """Of each argument, whether it is the nodes that a query finds; else it is a value."""
    is_truth: bool
    call: Callable[..., Any]


@attrs.frozen
class Call:
    """A function with its arguments: a condition if it gives a truth, else a comparable."""

    function: Function
    arguments: tuple[Query | Comparable, ...]

    def value(self, current: Any, run: Run) -> Any:
        """What the function gives."""
        return self.function.call(*self._values(current, run))

    def _values(self, current: Any, run: Run) -> list[Any]:
        return [
            list(argument.find(current, run)) if isinstance(argument, Query) else argument.value(current, run)
            for argument in self.arguments
        ]

    def holds(self, current: Any, run: Run) -> bool:
        """The truth that the function gives, by a search."""
        values = self._values(current, run)
        begun_s = time.thread_time()
        found = bool(self.function.call(*values))
        run.search(begun_s)
        return found


def _length(value: Any) -> Any:
    return len(value) if isinstance(value, str | list | dict) else NOTHING


def _value(nodes: list[Any]) -> Any:
    return nodes[0] if len(nodes) == 1 else NOTHING


def _match(text: Any, pattern: Any) -> bool:
    compiled = _pattern(pattern)
    return isinstance(text, str) and compiled is not None and compiled.is_whole(text)


def _search(text: Any, pattern: Any) -> bool:
    compiled = _pattern(pattern)
    return isinstance(text, str) and compiled is not None and compiled.is_found_in_any([text])


def _pattern(text: Any) -> Pattern | None:
    return _compiled(text) if isinstance(text, str) else None


@lru_cache(64)
def _compiled(text: str) -> Pattern | None:
    """As in mirrord, it need not be an I-Regexp."""
    try:
        return Pattern(_DOTS.sub(lambda found: r"[^\n\r]" if found[0] == "." else found[0], text))
    except ValueError:
        return None


def _type_of(nodes: list[Any]) -> Any:
    types = {_NAMES[type(node)] for node in nodes}
    return types.pop() if len(types) == 1 else NOTHING


_NAMES = {
    type(None): "null",
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}

FUNCTIONS = {
    "length": Function((False,), False, _length),
    "count": Function((True,), False, len),
    "value": Function((True,), False, _value),
    "match": Function((False, False), True, _match),
    "search": Function((False, False), True, _search),
    # mirrord's own: the type of all nodes, or nothing where they differ.
    "typeof": Function((True,), False, _type_of),
}
