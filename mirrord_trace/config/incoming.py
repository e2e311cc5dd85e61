"""Ports and HTTP filters of incoming traffic, as a file writes them: see `values` for the manner."""

from __future__ import annotations

import json
from typing import Any, Final

from mirrord_trace.config.model import FILTER_BYTES, HttpFilter
from mirrord_trace.config.values import Fault, as_list, as_object, as_text, described, refuse_others

_MAXIMUM_PORT: Final = 65535
_GROUPS: Final = ("all_of", "any_of")
_SIMPLE: Final = {"header_filter": "header", "path_filter": "path", "method_filter": "method"}
_FORMS: Final = (*_SIMPLE, "body_filter", *_GROUPS)
_ITEMS: Final = "expected an object with one of header, path, method, all_of, any_of, or body with query and matches"


def as_port(value: object, _type: object = None) -> int:
    """A port's number."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MAXIMUM_PORT:
        raise Fault(f"expected a port from 1 to {_MAXIMUM_PORT}, but found {described(value)}")
    return value


def as_ports(value: object, _type: object = None) -> frozenset[int]:
    """A list of ports, or one."""
    return frozenset(map(as_port, as_list(value) if isinstance(value, list) else [value]))


def as_port_pairs(value: object, _type: object = None) -> dict[int, int]:
    """A list of pairs: what each first port stands for."""
    pairs: dict[int, int] = {}
    for pair in as_list(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise Fault(f"expected pairs of ports such as [8080, 80], but found {described(pair)}")
        first, second = map(as_port, pair)
        if pairs.setdefault(first, second) != second:
            raise Fault(f"port {first} is paired with {pairs[first]} and with {second}")
    return pairs


def as_http_filter(value: object, _type: object = None) -> HttpFilter:
    """A filter of HTTP requests, and the ports where it applies. Regular expressions are looked at by the agent."""
    fields = {name: inner for name, inner in as_object(value).items() if inner is not None}
    if "header_filter_jq" in fields:
        raise Fault("header_filter_jq: mirrord-trace has no jq; write header_filter, a regular expression")
    refuse_others(fields, *_FORMS, "ports")
    forms = [name for name in fields if name != "ports"]
    if len(forms) != 1:
        raise Fault(f"expected exactly one of {', '.join(_FORMS)}, but found {' and '.join(forms) or 'none'}")
    [form] = forms
    try:
        description = _described_requests(form, fields[form])
    except Fault as fault:
        raise Fault(f"{form}: {fault}") from fault
    return HttpFilter(_json(description), as_ports(fields["ports"]) if "ports" in fields else None)


def header_filter(expression: str, ports: frozenset[int] | None) -> HttpFilter:
    """The filter for headers in which an expression finds something. Raises ValueError."""
    return HttpFilter(_json({"header": as_text(expression)}), ports)


def _json(description: dict[str, Any]) -> str:
    text = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) > FILTER_BYTES:
        raise Fault(f"a filter of {len(text.encode())} bytes; at most {FILTER_BYTES} can be taken")
    return text


def _described_requests(form: str, value: object) -> dict[str, Any]:
    if form in _SIMPLE:
        return {_SIMPLE[form]: as_text(value)}
    if form in _GROUPS:
        return {form: _items(value)}
    return _body(as_object(value))


def _items(value: object) -> list[dict[str, Any]]:
    items = as_list(value)
    if not items:
        raise Fault("expected one filter or more, but found an empty list")
    return [_item(as_object(item)) for item in items]


def _item(value: dict[str, Any]) -> dict[str, Any]:
    if "body" in value:
        return _body(value)
    if len(value) != 1:
        raise Fault(f"{_ITEMS}, but found {' and '.join(value) or 'none'}")
    [(name, inner)] = value.items()
    if name in _GROUPS:
        return {name: _items(inner)}
    if name not in _SIMPLE.values():
        raise Fault(f"{_ITEMS}, but found {name!r}")
    return {name: as_text(inner)}


def _body(value: dict[str, Any]) -> dict[str, Any]:
    refuse_others(value, "body", "query", "matches")
    if value.get("body") != "json":
        raise Fault(f"body: expected 'json', but found {described(value.get('body'))}")
    return {"body": "json", "query": as_text(value.get("query")), "matches": as_text(value.get("matches"))}
