"""Lists, in pages: the rest of a list is kept as it was when the first page was asked for."""

from __future__ import annotations

import secrets

import attrs

from .http import Request
from .kinds import Kind
from .selectors import selection
from .status import Refused, bad_request, expired
from .store import Object, Objects, Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without"
    " the continue parameter, or use the continue token in this response to retrieve the remainder of the results."
    " Continuing with the provided token results in an inconsistent list - objects that were created, modified, or"
    " deleted between the time the first chunk was returned and now may show up in the list."
)


@attrs.frozen
class _Rest:
    """What is left of a list, and the version that it shows."""

    values: Objects
    version: int


@attrs.define
class Lister:
    """Serves lists."""

    store: Store
    _rests: dict[str, _Rest] = attrs.field(factory=dict)

    def serve(self, kind: Kind, namespace: str | None, request: Request) -> Object:
        """The list that a request asks for, or its next page. Raises Refused."""
        token = request.parameter("continue")
        if token:
            rest = self._rests.get(token)
            if rest is None:
                raise expired(_TOO_OLD)
        else:
            label_selector, field_selector = request.parameter("labelSelector"), request.parameter("fieldSelector")
            selected = selection(kind.resource, label_selector, field_selector)
            values = [value for value in self.store.list(kind.resource, namespace) if selected.holds(value)]
            rest = _Rest(values, self.store.version)
        limit = _limit(request) or len(rest.values)
        page, left = rest.values[:limit], rest.values[limit:]
        metadata: Object = {"resourceVersion": str(rest.version)}
        if left:
            metadata["continue"] = secrets.token_urlsafe(12)
            self._rests[metadata["continue"]] = _Rest(left, rest.version)
            if not request.parameter("labelSelector") and not request.parameter("fieldSelector"):
                metadata["remainingItemCount"] = len(left)
        return {
            "kind": f"{kind.name}List",
            "apiVersion": kind.api_version,
            "metadata": metadata,
            "items": [_without_type(value) if kind.model else value for value in page],
        }

    def forget(self) -> None:
        """Whoever is in the middle of a list has to begin again."""
        self._rests.clear()


def _without_type(value: Object) -> Object:
    """An object in a list of its kind: built-in kinds are not repeated there."""
    return {name: part for name, part in value.items() if name not in ("kind", "apiVersion")}


def _limit(request: Request) -> int:
    text = request.parameter("limit")
    if text and not text.lstrip("-").isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    if text.startswith("-"):
        raise Refused(400, "BadRequest", "limit must be greater than or equal to 0")
    return int(text or 0)
