"""The three ways to say how an object shall change: merge, strategic merge, and JSON patches."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from .status import Refused, bad_request
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


def strategic_merge_patch(target: Any, patch: Any, name: str = "") -> Any:
    """The target with a strategic merge patch applied: lists of objects are merged where the API has a key for them."""
    if isinstance(patch, dict):
        directive = patch.get("$patch")
        others = {key: value for key, value in patch.items() if key != "$patch"}
        if unknown := [key for key in others if key.startswith("$")]:
            raise Refused(501, "NotImplemented", f"the stand-in does not know the directive {unknown[0]}")
        if directive == "replace" or not isinstance(target, dict):
            target = {}
        merged = dict(target)
        for key, value in others.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = strategic_merge_patch(merged.get(key), value, key)
        return merged
    if isinstance(patch, list) and isinstance(target, list):
        if name in _MERGED_VALUES:
            return [*target, *(value for value in patch if value not in target)]
        if name in _MERGE_KEYS:
            return _merge_lists(target, patch, _MERGE_KEYS[name])
    if isinstance(patch, list):
        return [strategic_merge_patch(None, value) if isinstance(value, dict) else value for value in patch]
    return copy.deepcopy(patch)


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
            told = f"{operation.get('op')} operation does not apply: doc is missing path: {operation.get('path')!r}"
            raise Refused(
                422, "Invalid", f"the server rejected our request due to an error in our request: {told}"
            ) from (error)
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
