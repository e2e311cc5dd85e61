"""The forms that names and labels must have, and what the server says of others (apimachinery/pkg/util/validation)."""

from __future__ import annotations

import re

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE = rf"({_QUALIFIED})?"


def _told(what: str, pattern: str, *examples: str) -> str:
    shown = ",  or ".join(f"'{example}'" for example in examples)
    return f"{what} (e.g. {shown}, regex used for validation is '{pattern}')"


_LABEL_TOLD = _told(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TOLD = _told(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_QUALIFIED_TOLD = _told(
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_VALUE_TOLD = _told(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character",
    _VALUE,
    "MyValue",
    "my_value",
    "12345",
)


def dns_label(text: str) -> list[str]:
    """What keeps a text from being an RFC 1123 label, such as a container's name."""
    return _checked(text, 63, _LABEL, _LABEL_TOLD)


def dns_subdomain(text: str) -> list[str]:
    """What keeps a text from being an RFC 1123 subdomain, such as a pod's name."""
    return _checked(text, 253, _SUBDOMAIN, _SUBDOMAIN_TOLD)


def label_value(text: str) -> list[str]:
    """What keeps a text from being a label's value."""
    return _checked(text, 63, _VALUE, _VALUE_TOLD)


def qualified_name(text: str) -> list[str]:
    """What keeps a text from being a label's or an annotation's key: a name, or a domain, "/" and a name."""
    prefix, slash, name = text.rpartition("/")
    problems = []
    if "/" in prefix:
        wanted = _told(
            "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
            " alphanumeric character",
            _QUALIFIED,
            "MyName",
            "my.name",
            "123-abc",
        )
        return [f"{wanted} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"]
    if slash and not prefix:
        problems.append("prefix part must be non-empty")
    elif slash:
        problems += [f"prefix part {one}" for one in dns_subdomain(prefix)]
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 bytes")
    if not re.fullmatch(_QUALIFIED, name):
        problems.append(_QUALIFIED_TOLD)
    return problems


def in_range(value: int, least: int, most: int) -> list[str]:
    """What keeps a number from being within limits."""
    return [] if least <= value <= most else [f"must be between {least} and {most}, inclusive"]


def _checked(text: str, most: int, pattern: str, told: str) -> list[str]:
    problems = [f"must be no more than {most} bytes"] if len(text.encode()) > most else []
    return problems if re.fullmatch(pattern, text) else [*problems, told]
