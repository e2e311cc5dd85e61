"""A configuration file as a `Document`: JSON, TOML or YAML, by the file's name.

The libraries for these are loaded when a file needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mirrord_trace.config.document import Document
from mirrord_trace.config.fields import passed_over
from mirrord_trace.config.structure import Faults, structured
from mirrord_trace.config.templates import rendered
from mirrord_trace.config.values import Fault, described
from mirrord_trace.errors import UsageFailure


class _SyntaxFault(Exception):
    """The text is not what the file's name promises; the message says where and why."""


def read_document(path: str | os.PathLike[str], tell: Callable[[str], None] | None = None) -> Document:
    """What a configuration file says; fields that are passed over are told.

    Raises UsageFailure that names the file, and each field that is at fault.
    """
    content = _parsed(Path(path))
    if content is None:
        return Document()
    if not isinstance(content, dict):
        raise UsageFailure(f"{path}: expected fields such as `target` and `agent`, but found {described(content)}")
    try:
        document = structured(content)
    except Faults as faults:
        raise UsageFailure("\n".join(f"{path}: {fault}" for fault in faults.args)) from faults
    if tell is not None:
        for line in passed_over(content):
            tell(f"{path}: {line}")
    return document


def _parsed(path: Path) -> Any:
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise UsageFailure(f"{path}: the name must end in one of {', '.join(_PARSERS)}, which says how it is written")
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise UsageFailure(f"cannot read the configuration file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageFailure(f"{path}: not text in UTF-8 (byte {error.start})") from error
    try:
        text = rendered(text)
    except Fault as fault:
        raise UsageFailure(f"{path}: {fault}") from fault
    try:
        return parse(text)
    except _SyntaxFault as fault:
        raise UsageFailure(f"{path}: {fault}") from fault
    except RecursionError as error:
        raise UsageFailure(f"{path}: nested too deeply") from error


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _SyntaxFault(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except ValueError as error:  # a number with more digits than Python reads
        raise _SyntaxFault(str(error)) from error


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or a number with more digits than Python reads
        raise _SyntaxFault(str(error)) from error


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise _SyntaxFault(f"{place}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise _SyntaxFault(" ".join(str(error).split())) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # PyYAML lets through what Python says of values that are not what they look like, such as 2024-02-30.
        raise _SyntaxFault(f"a value cannot be read: {error}") from error


_PARSERS: Final[dict[str, Callable[[str], Any]]] = {".json": _json, ".toml": _toml, ".yaml": _yaml, ".yml": _yaml}
