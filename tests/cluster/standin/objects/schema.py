"""Whether an object has the fields that the API publishes, of the types it publishes.

The official client's models are generated from the API's OpenAPI document: a class for each type, with the names its
fields have in JSON, their types, and which are required. Their module takes 0.3 s to load, so it is loaded with the
first object that is checked, and the class of each kind with the first of that kind.

The models also take the names that Python gives the fields; the API does not. So names are compared here, and types are
left to pydantic. How long an integer may be the models do not say: the few that are int64 in the API are listed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import attrs

from ..status import FieldError, required
from ..store import Object

if TYPE_CHECKING:
    from pydantic import BaseModel

_QUANTITY_MAPS = {"limits", "requests", "capacity", "allocatable", "hard", "used", "overhead"}
"""Fields whose values are quantities: numbers do as well as strings (resource.Quantity.UnmarshalJSON)."""
_INT64 = {
    *("activeDeadlineSeconds", "deletionGracePeriodSeconds", "expirationSeconds", "fsGroup", "generation"),
    *("observedGeneration", "runAsGroup", "runAsUser", "supplementalGroups"),
    *("terminationGracePeriodSeconds", "tolerationSeconds"),
}
"""Integers that are int64 (k8s.io/api, types.go); all others are int32."""
_PLAIN = {"str", "int", "bool", "float", "object", "datetime", "bytes", "List"}
_GO_TYPES = {
    "int32": "int32",
    "int64": "int64",
    "string_type": "string",
    "int_type": "int32",
    "int_from_float": "int32",
    "bool_type": "bool",
}
_JSON_TYPES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}


@attrs.frozen
class Findings:
    """What is wrong with an object, as far as its schema tells."""

    unknown: Sequence[str] = ()
    """Paths of fields that there are not."""
    undecodable: Sequence[str] = ()
    """Values of a wrong type, in the words of Go's JSON decoder."""
    missing: Sequence[FieldError] = ()
    """Fields that must be there."""


@attrs.frozen
class _Field:
    """A field of a model."""

    container: str
    """ "List", "Dict", or "" for a single value."""
    model: type[BaseModel] | None
    """What its values are, if they have fields themselves."""


def normalized(value: Any, name: str = "") -> Any:
    """The object as the server decodes it: fields that are null are absent, numbers as quantities are strings."""
    if isinstance(value, dict):
        parts = {key: part for key, part in value.items() if part is not None}
        if name in _QUANTITY_MAPS:
            return {key: str(part) if type(part) in (int, float) else part for key, part in parts.items()}
        return {key: normalized(part, key) for key, part in parts.items()}
    if isinstance(value, list):
        return [normalized(part) for part in value]
    return value


def examine(model_name: str, value: Object) -> Findings:
    """Compares a normalized object with a model of the official client."""
    from pydantic import ValidationError

    model = _model(model_name)
    unknown = list(_unknown(model, value, ""))
    too_long = list(_too_long(model, value, []))
    try:
        model.model_validate(value)
    except ValidationError as error:
        details = [one for one in error.errors() if one["type"] != "extra_forbidden"]
        missing = [required(_path(one["loc"])) for one in details if one["type"] == "missing"]
        wrong = [one for one in details if one["type"] != "missing"]
        told = [_in_go_words(model, one["loc"], one["type"], one["input"]) for one in wrong]
        return Findings(unknown, told + too_long, missing)
    return Findings(unknown, too_long)


@cache
def _model(name: str) -> type[BaseModel]:
    from kubernetes.client import models

    model: type[BaseModel] = getattr(models, name)
    return model


@cache
def _fields(model: type[BaseModel]) -> dict[str, _Field]:
    """A model's fields by their names in JSON."""
    generated: Any = model
    fields = {}
    for name, json_name in generated.attribute_map.items():
        container, plain = re.findall(r"^(?:(List|Dict)\[(?:str, )?)?(\w+)", generated.openapi_types[name])[0]
        fields[json_name] = _Field(container, None if plain in _PLAIN else _model(plain))
    return fields


def _unknown(model: type[BaseModel], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        return
    fields = _fields(model)
    for key, part in value.items():
        here = f"{path}.{key}" if path else key
        if key not in fields:
            yield here
        elif (inner := fields[key].model) is not None:
            if fields[key].container == "List" and isinstance(part, list):
                for index, one in enumerate(part):
                    yield from _unknown(inner, one, f"{here}[{index}]")
            elif fields[key].container == "Dict" and isinstance(part, dict):
                for name, one in part.items():
                    yield from _unknown(inner, one, f"{here}.{name}")
            elif not fields[key].container:
                yield from _unknown(inner, part, here)


def _too_long(top: type[BaseModel], value: Any, location: list[str], name: str = "") -> Iterator[str]:
    """Integers that do not fit, as Go's decoder tells of them."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _too_long(top, part, [*location, key], key)
    elif isinstance(value, list):
        for part in value:
            yield from _too_long(top, part, location, name)
    elif type(value) is int:
        wanted = "int64" if name in _INT64 else "int32"
        if value.bit_length() >= int(wanted[3:]):
            told = _in_go_words(top, location, wanted, value)
            yield told.replace("unmarshal number into", f"unmarshal number {value} into")


def _path(location: Sequence[int | str]) -> str:
    """A place in an object, as field errors write it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _in_go_words(model: type[BaseModel], location: Sequence[int | str], kind: str, value: object) -> str:
    """A value of a wrong type, as encoding/json tells it: without indexes and keys, with the innermost type's name."""
    names, struct_fields = [part for part in location if isinstance(part, str)], []
    while names:
        name = names.pop(0)
        struct_fields.append(name)
        field = _fields(model).get(name, _Field("", None))
        if field.container == "Dict" and names:
            names.pop(0)
        if names and field.model is not None:
            model = field.model
    struct = re.sub(r"^.*V\d+(alpha\d+|beta\d+)?", "", model.__name__)
    met = _JSON_TYPES[type(value)] if value is not None else "null"
    wanted = _GO_TYPES.get(kind, struct)
    return f"json: cannot unmarshal {met} into Go struct field {struct}.{'.'.join(struct_fields)} of type {wanted}"
