"""What a configuration file holds, as a `Document`: which values are taken, and what is said of others.

Types are checked strictly: nothing is converted into what it might have meant. All faults are told together, each with
the path of its field, what was expected, and the nearest name that exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, Literal, NewType, get_origin

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from mirrord_trace import __version__
from mirrord_trace.config import document as documents
from mirrord_trace.config.document import Document
from mirrord_trace.config.fields import ABSENT, without_absent
from mirrord_trace.config.incoming import as_http_filter, as_port_pairs, as_ports
from mirrord_trace.config.model import Capability
from mirrord_trace.config.patterns import name_pattern, replacement
from mirrord_trace.config.values import (
    LONG_NUMBER,
    Fault,
    as_boolean,
    as_choice,
    as_label,
    as_list,
    as_object,
    as_path_pattern,
    as_pattern,
    as_seconds,
    as_text,
    as_whole_seconds,
    described,
    nearest,
    refuse_others,
    sendable,
)

_IMAGE_REPOSITORY: Final = "mirrord-trace-agent"
_TARGET_KINDS: Final = ("pod", "deployment", "rollout", "stateful_set", "replica_set", "job", "cron_job", "service")
"""How a target's path is written as an object: its kind is the name of a field."""
_MAXIMUM_DEPTH: Final = 50
"""How deeply a file's values may be nested; the deepest that means anything, in a toleration, is far less."""


class Faults(Exception):
    """Values that cannot be taken. `args` are texts, one for each, that begin with the field's path."""


def structured(content: dict[str, Any]) -> Document:
    """What a file's content says. Raises Faults."""
    if endless := _endless(content, "", ()):
        raise Faults(endless)
    try:
        return _CONVERTER.structure(without_absent(content), Document)
    except (cattrs.BaseValidationError, Fault) as error:
        raise Faults(*_faults(error, "")) from error


def _endless(value: object, path: str, parents: tuple[int, ...]) -> str | None:
    """The first fault of a value's shape: what YAML makes a part of itself, or is too deep to be looked through."""
    if not isinstance(value, dict | list):
        return None
    if id(value) in parents:
        return f"{path}: is a part of itself"
    if len(parents) == _MAXIMUM_DEPTH:
        return f"{path}: nested too deeply"
    parents = (*parents, id(value))
    if isinstance(value, list):
        inner = ((f"{path}[{index}]", element) for index, element in enumerate(value))
    else:
        inner = ((f"{path}.{name}" if path else str(name), element) for name, element in value.items())
    return next((fault for where, element in inner if (fault := _endless(element, where, parents))), None)


# Fields that can be written in more than one way, or need more than their type says

_SecretName = NewType("_SecretName", str)
_Label = NewType("_Label", str)
_Quantity = NewType("_Quantity", str)
_Quantities = NewType("_Quantities", dict[str, str])
_Toleration = NewType("_Toleration", dict[str, Any])
_PathPattern = NewType("_PathPattern", re.Pattern[str])


def _target_path(value: object, _type: object = None) -> str:
    if not isinstance(value, dict):
        return as_text(value)
    kinds = [name for name in value if name in _TARGET_KINDS or name == "labels"]
    if len(kinds) != 1:
        raise Fault(
            f"expected a text such as 'deployment/web', or an object with one of {', '.join(_TARGET_KINDS)}, labels"
        )
    [kind] = kinds
    refuse_others(value, kind, "container")
    if kind == "labels":
        path = "label/" + ",".join(f"{name}={as_text(text)}" for name, text in as_object(value[kind]).items())
    else:
        path = f"{kind.replace('_', '')}/{as_text(value[kind])}"
    container = value.get("container")
    return path if container is None else f"{path}/container/{as_text(container)}"


def _image(value: object, _type: object = None) -> str:
    if not isinstance(value, dict):
        return as_text(value)
    refuse_others(value, "registry", "tag")
    return f"{as_text(value.get('registry', _IMAGE_REPOSITORY))}:{as_text(value.get('tag', __version__))}"


def _secret_name(value: object, _type: object = None) -> str:
    reference = as_object(value, "an object with a `name`")
    refuse_others(reference, "name")
    return as_text(reference.get("name"))


def _quantity(value: object, _type: object = None) -> str:
    """Numbers will do, as for kubectl."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Fault(f"expected a quantity such as '100Mi', but found {described(value)}")
    if isinstance(value, str):
        return as_text(value)
    if not abs(value) < LONG_NUMBER:  # which no NaN is
        raise Fault(f"expected a quantity such as '100Mi', but found {described(value)}")
    return str(value)


def _toleration(value: object, _type: object = None) -> dict[str, Any]:
    """Its fields are the API server's affair, but it must be possible to send them as JSON."""
    for name, inner in as_object(value).items():
        try:
            _as_json(inner)
        except Fault as fault:
            raise Fault(f"{name}: {fault}") from fault
    return as_object(value)


def _as_json(value: object) -> None:
    """Raises Fault for what JSON does not have, such as the dates of YAML and TOML."""
    match value:
        case None | bool():
            pass
        case str():
            sendable(value)
        case int() | float() if abs(value) < LONG_NUMBER:  # which no NaN is
            pass
        case list():
            for element in value:
                _as_json(element)
        case dict():
            for inner in as_object(value).values():
                _as_json(inner)
        case _:
            raise Fault(f"expected a text, a number, true or false, but found {described(value)}")


def _names(value: object, _type: object = None) -> tuple[str, ...]:
    """A list, or a text in which semicolons separate. None at all would mean all variables, which nobody meant."""
    texts = sendable(value).split(";") if isinstance(value, str) else [as_text(text) for text in as_list(value)]
    names = tuple(text for text in texts if text)
    if not names:
        raise Fault(f"expected names of variables, but found {described(value)} without any")
    return names


def _mapping(value: object, _type: object = None) -> tuple[tuple[re.Pattern[str], str], ...]:
    """An object: patterns, and what replaces what they find, which may be nothing."""
    pairs = []
    for text, replacing in as_object(value, "an object of regular expressions and replacements").items():
        pattern = as_path_pattern(text)
        try:
            pairs.append((pattern, replacement(pattern, as_label(replacing))))
        except ValueError as error:
            raise Fault(f"{text!r}: {error}") from error
    return tuple(pairs)


def _values_by_pattern(value: object, _type: object = None) -> tuple[tuple[re.Pattern[str], str], ...]:
    """An object: patterns on names of variables, and values, which may be empty."""
    pairs = []
    for text, replacing in as_object(value, "an object of regular expressions and values").items():
        try:
            pairs.append((name_pattern(text), as_label(replacing)))
        except Fault as fault:
            raise Fault(f"{text!r}: {fault}") from fault
        except ValueError as error:
            raise Fault(str(error)) from error
    return tuple(pairs)


def _variables(value: object, _type: object = None) -> dict[str, str]:
    """An object: names of variables, and values, which may be empty."""
    variables = {}
    for name, text in as_object(value, "an object of variables and values").items():
        if not name or "=" in name:
            raise Fault(f"{name!r} is no name of a variable")
        try:
            variables[name] = as_label(text)
        except Fault as fault:
            raise Fault(f"{name}: {fault}") from fault
    return variables


_Hook = Callable[[Any, Any], Any]


def _field_hooks(converter: cattrs.Converter) -> dict[type, dict[str, _Hook]]:
    """For each class its fields whose type alone does not tell how they are written, or would be taken too loosely."""

    def listed(kind: Any) -> _Hook:
        return lambda value, _: converter.structure(as_list(value), kind)

    def mapped(kind: Any) -> _Hook:
        return lambda value, _: converter.structure(as_object(value), kind)

    texts = mapped(dict[str, _Label])
    converter.register_structure_hook(_Quantities, mapped(dict[str, _Quantity]))

    def one_or_more(kind: Any) -> _Hook:
        several = listed(kind)
        return lambda value, _: several([value] if isinstance(value, str) else value, kind)

    path_patterns = one_or_more(tuple[_PathPattern, ...])
    return {
        documents.TargetSection: {"path": _target_path},
        documents.AgentSection: {
            "image": _image,
            "image_pull_secrets": listed(tuple[_SecretName, ...]),
            "labels": texts,
            "annotations": texts,
            "tolerations": listed(tuple[_Toleration, ...]),
            "node_selector": texts,
            "resources": mapped(dict[Literal["requests", "limits"], _Quantities]),
            "ttl": as_whole_seconds,
            "startup_timeout": as_seconds,
            "communication_timeout": as_seconds,
            "disabled_capabilities": listed(frozenset[Capability]),
        },
        documents.FilesSection: {
            **dict.fromkeys(("read_write", "read_only", "local", "not_found"), path_patterns),
            "mapping": _mapping,
        },
        documents.OutgoingSection: {"unix_streams": one_or_more(tuple[re.Pattern[str], ...])},
        documents.IncomingSection: {
            **dict.fromkeys(("ports", "ignore_ports"), as_ports),
            **dict.fromkeys(("port_mapping", "listen_ports"), as_port_pairs),
            "http_filter": as_http_filter,
        },
        documents.NetworkSection: {},
        documents.MagicSection: {},
        documents.FeatureSection: {
            "env": lambda value, kind: converter.structure(value, documents.EnvironmentSection).decided(),
        },
        documents.EnvironmentSection: {
            **dict.fromkeys(("include", "exclude", "unset"), _names),
            "mapping": _values_by_pattern,
            "override": _variables,
        },
        Document: {},
    }


def _written_out(section: type, value: object) -> object:
    """What a section is as an object if a single value stands for it."""
    match value:
        case None:
            return {}
        case str() if section is documents.TargetSection:
            return {"path": value}
        case str() if section in (documents.FilesSection, documents.IncomingSection):
            return {"mode": value}
        case bool() if section is documents.IncomingSection:
            return {"mode": "mirror" if value else "off"}
        case bool() if section is documents.FilesSection:
            return {"mode": "read" if value else "local"}
        case bool() if section is documents.OutgoingSection:
            return {"tcp": value, "udp": value}
        case bool() if section is documents.NetworkSection:
            return {"outgoing": value, "incoming": value}
        case bool() if section is documents.EnvironmentSection:
            return {"enabled": value}
    return value


def _is_made_of(generic: object, kind: Any) -> bool:
    origin: object = get_origin(kind)
    return origin is generic


def _section_hook(converter: cattrs.Converter, section: type, hooks: dict[str, _Hook]) -> _Hook:
    overrides = {name: override(struct_hook=hook) for name, hook in hooks.items()}
    structure: Callable[[dict[str, Any], Any], Any] = make_dict_structure_fn(section, converter, **overrides)  # type: ignore[arg-type]

    def structure_section(value: Any, _type: object) -> Any:
        fields = as_object(_written_out(section, value))
        # null is as good as not written.
        return structure({name: inner for name, inner in fields.items() if inner is not None}, section)

    return structure_section


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, as_text)
    converter.register_structure_hook(bool, as_boolean)
    converter.register_structure_hook_func(partial(_is_made_of, re.Pattern), as_pattern)
    converter.register_structure_hook(_SecretName, _secret_name)
    converter.register_structure_hook(_Label, as_label)
    converter.register_structure_hook(_Quantity, _quantity)
    converter.register_structure_hook(_Toleration, _toleration)
    converter.register_structure_hook(_PathPattern, as_path_pattern)
    converter.register_structure_hook_func(partial(_is_made_of, Literal), as_choice)
    for section, hooks in _field_hooks(converter).items():
        converter.register_structure_hook(section, _section_hook(converter, section, hooks))
    return converter


_CONVERTER: Final = _converter()


# Faults, as people read them


def _faults(error: Exception, path: str) -> Iterator[str]:
    match error:
        case cattrs.ClassValidationError():
            named, others = error.group_exceptions()
            for inner, note in named:
                yield from _faults(inner, f"{path}.{note.name}" if path else note.name)
            for inner in others:
                yield from _faults(inner, path)
        case cattrs.IterableValidationError():
            elements, others = error.group_exceptions()
            for inner, element in elements:
                yield from _faults(inner, f"{path}[{element.index!r}]")
            for inner in others:
                yield from _faults(inner, path)
        case cattrs.ForbiddenExtraKeysError():
            for name in sorted(error.extra_fields):
                yield _unknown(path, name, error.cl)
        case _:
            yield f"{path}: {error}" if path else str(error)


def _unknown(section_path: str, name: str, section: type) -> str:
    path = f"{section_path}.{name}" if section_path else name
    if path in ABSENT:
        return f"{path}: {ABSENT[path].reason}"
    known = [field.name for field in attrs.fields(section)]
    hint = nearest(name, known)
    if not hint:
        elsewhere = [other for other in _paths(Document, "") if other.rpartition(".")[2] == name]
        hint = f"; did you mean {elsewhere[0]!r}?" if elsewhere else f"; known: {', '.join(known)}"
    return f"{path}: unknown field{hint}"


def _paths(section: type, prefix: str) -> Iterator[str]:
    """The paths of all fields below a section."""
    for field in attrs.fields(section):
        yield f"{prefix}{field.name}"
        if isinstance(field.default, documents.Section):
            yield from _paths(type(field.default), f"{prefix}{field.name}.")
