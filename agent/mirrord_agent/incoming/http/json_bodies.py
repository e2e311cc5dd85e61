"""What a JSONPath query finds in the body of a request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NoReturn

import attrs

from mirrord_agent.incoming.http.jsonpath import Query, Run
from mirrord_agent.incoming.http.jsonpath_parsing import parse_query

#: Characters of a value made a text that cost as much as a visit.
_CHARACTERS_PER_VISIT = 16


def _parse(query: JsonQuery) -> Query:
    return parse_query(query.text)


@attrs.frozen
class JsonQuery:
    """A JSONPath query. Raises ValueError for what is none."""

    text: str
    _query: Query = attrs.field(init=False, eq=False, repr=False, default=attrs.Factory(_parse, takes_self=True))

    def found_in(self, document: bytes) -> Iterator[str]:
        """The values that the query finds, texts as they are and others as compact JSON; none in what is not JSON.

        Raises TooSlowError.
        """
        try:
            root = json.loads(document, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            return
        run = Run(root)
        try:
            for value in self._query.find(root, run):
                if isinstance(value, str):
                    yield value
                else:
                    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
                    run.visit(len(text) // _CHARACTERS_PER_VISIT)
                    yield text
        except RecursionError:
            return


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
