"""The three ways to say how an object shall change: merge, strategic merge, and JSON patches."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from .status import Refused, bad_request, unprocessable
from .store import Object, merge_patch

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"

_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "conditions": "type",
    "ownerReferences": "uid",
    "topologySpreadConstraints": "topologyKey",
}
"""Lists of objects that are merged, and by which field (patchMergeKey in k8s.io/api's types)."""
_MERGED_VALUES = {"finalizers"}
"""Lists of plain values that are merged (patchStrategy without a key)."""


def apply_patch(media_type: str, target: Object, body: bytes) -> Object:
    """The target with a patch applied; it is not altered. Raises Refused where the patch is none, or doesn't fit."""
    try:
        patch = json.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from error
    if media_type == JSON_PATCH:
        return json_patch(target, patch)
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: json: cannot unmarshal array into Go value of type map[string]any")
    merged: Object = merge_patch(target, patch) if media_type == MERGE_PATCH else strategic_merge_patch(target, patch)
    return merged


def shown(media_type: str, body: bytes, after: Object) -> str:
    """What a refusal shows of a patch that makes no object: the patch as Go prints it, or else all that it made."""
    return (
        _printed(json.loads(body)) if media_type == STRATEGIC_MERGE_PATCH else json.dumps(after, separators=(",", ":"))
    )


def _printed(value: Any) -> str:
    """A value as Go's %+v has it."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_printed(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_printed, value))}]"
    return "<nil>" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def strategic_merge_patch(target: Any, patch: Any, name: str = "") -> Any:
    """The target with a strategic merge patch applied: lists of objects are merged where the API has a key for them."""
    if isinstance(patch, dict):
        return _merge_objects(target if isinstance(target, dict) else {}, patch)
    if isinstance(patch, list) and isinstance(target, list):
        if name in _MERGED_VALUES:
            return [*target, *(value for value in patch if value not in target)]
        if key := _merge_key(name, patch):
            return _merge_lists(target, patch, key)
    if isinstance(patch, list):
        return [strategic_merge_patch(None, value) if isinstance(value, dict) else value for value in patch]
    return copy.deepcopy(patch)


def _merge_objects(target: Object, patch: Object) -> Object:
    """With the directives that kubectl uses, those about lists after the lists are merged (strategicpatch's doc)."""
    if patch.get("$patch") == "replace":
        target = {}
    kept = patch.get("$retainKeys", target)
    merged = {key: value for key, value in target.items() if key in kept}
    orders = {}
    for key, value in patch.items():
        directive, _, name = key.partition("/")
        if directive == "$setElementOrder":
            orders[name] = value
        elif directive == "$deleteFromPrimitiveList":
            merged[name] = [one for one in merged.get(name, []) if one not in value]
        elif key in ("$patch", "$retainKeys"):
            pass
        elif key.startswith("$"):
            raise Refused(501, "NotImplemented", f"the stand-in does not know the directive {key}")
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = strategic_merge_patch(merged.get(key), value, key)
    for name, order in orders.items():
        merged[name] = _in_order(merged.get(name, []), order, _merge_key(name, order))
    return merged


def _merge_key(name: str, elements: list[Any]) -> str | None:
    """The field that tells the elements of a list apart: of ports it is another in containers than in services."""
    if name == "ports":
        return "containerPort" if any("containerPort" in one for one in elements) else "port"
    return _MERGE_KEYS.get(name)


def _in_order(values: list[Any], order: list[Any], key: str | None) -> list[Any]:
    """A list whose named elements are in an order; the others stay where they are."""
    names = [one[key] if key else one for one in order]
    by_name = {one[key] if key else one: one for one in values}
    named = iter([by_name[name] for name in names if name in by_name])
    return [next(named) if name in names else one for name, one in by_name.items()]


def _merge_lists(target: list[Object], patch: list[Object], key: str) -> list[Object]:
    merged = list(target)
    for one in patch:
        if key not in one:
            told = f"map: {json.dumps(one)} does not contain declared merge key: {key}"
            raise Refused(500, "InternalError", f"Internal error occurred: {told}")
        place = next((index for index, other in enumerate(merged) if other.get(key) == one[key]), None)
        if one.get("$patch") == "delete":
            if place is not None:
                del merged[place]
        elif place is None:
            merged.append(strategic_merge_patch(None, one))
        else:
            merged[place] = strategic_merge_patch(merged[place], one)
    return merged


def json_patch(target: Object, operations: Any) -> Object:
    """The target with a JSON patch applied (RFC 6902)."""
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    document = {"": copy.deepcopy(target)}
    for operation in operations:
        try:
            _operate(document, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise unprocessable() from error
    return document[""]


def _operate(document: Any, operation: Mapping[str, Any]) -> None:
    parts = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            _add(document, parts, operation["value"])
        case "remove":
            _take(document, parts)
        case "replace":
            _take(document, parts)
            _add(document, parts, operation["value"])
        case "move":
            _add(document, parts, _take(document, _pointer(operation["from"])))
        case "copy":
            _add(document, parts, copy.deepcopy(_at(document, _pointer(operation["from"]))))
        case "test":
            if _at(document, parts) != operation["value"]:
                raise ValueError(operation["path"])
        case other:
            raise ValueError(other)


def _pointer(path: str) -> list[str]:
    """A JSON pointer's parts (RFC 6901), the first for the document itself."""
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]


def _at(document: Any, parts: list[str]) -> Any:
    for part in parts:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _add(document: Any, parts: list[str], value: Any) -> None:
    parent = _at(document, parts[:-1])
    if isinstance(parent, list):
        index = len(parent) if parts[-1] == "-" else int(parts[-1])
        if index > len(parent):
            raise IndexError(index)
        parent.insert(index, value)
    else:
        parent[parts[-1]] = value


def _take(document: Any, parts: list[str]) -> Any:
    parent = _at(document, parts[:-1])
    return parent.pop(int(parts[-1]) if isinstance(parent, list) else parts[-1])
