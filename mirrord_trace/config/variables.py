"""`MIRRORD_*` variables of the environment as a `Source`: what they say has the same fields and checks as a file.

A variable stands for one field. Lists are separated by semicolons, as mirrord does it, and `true`, `1`, `false` and `0`
are the two truths. The texts are turned into what a file would hold, and then go the way of a file, so that a variable
works as soon as its field does. Faults name the variable instead of the field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from mirrord_trace.config.fields import passed_over
from mirrord_trace.config.resolution import Source, set_fields
from mirrord_trace.config.structure import Faults, structured
from mirrord_trace.config.values import Fault, nearest
from mirrord_trace.errors import UsageFailure

PREFIX: Final = "MIRRORD_"
CONFIG_FILE: Final = f"{PREFIX}CONFIG_FILE"
"""Names the file where no flag does."""
_TRUTHS: Final = {"true": True, "1": True, "false": False, "0": False}


def _text(text: str) -> str:
    return text


def _list(text: str) -> list[str]:
    found = [part for part in text.split(";") if part]
    if not found:
        raise Fault(f"expected a list in which semicolons separate, but found {text!r}, without any element")
    return found


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise Fault(f"expected true, false, 1 or 0, but found {text!r}")
    return _TRUTHS[text.lower()]


def _number(text: str) -> int:
    # Python refuses to read very long ones.
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Fault(f"expected a whole number, but found {text!r}")
    return int(text)


def _numbers(text: str) -> list[int]:
    return [_number(part) for part in _list(text)]


def _incoming_mode(text: str) -> str:
    """As mirrord's: true for steal; the modes themselves are taken as well."""
    truth = _TRUTHS.get(text.lower())
    return text if truth is None else "steal" if truth else "mirror"


@attrs.frozen
class Variable:
    """What a variable stands for."""

    path: str
    """The field, as errors name it."""
    parsed: Callable[[str], Any] = _text
    """What a file would hold for it. Raises Fault."""


_HTTP_FILTER: Final = "feature.network.incoming.http_filter"
_OUTGOING: Final = "feature.network.outgoing"

VARIABLES: Final[Mapping[str, Variable]] = {
    f"{PREFIX}{name}": variable
    for name, variable in {
        "IMPERSONATED_TARGET": Variable("target.path"),
        "TARGET_NAMESPACE": Variable("target.namespace"),
        "KUBECONFIG": Variable("kubeconfig"),
        "KUBE_CONTEXT": Variable("kube_context"),
        "ACCEPT_INVALID_CERTIFICATES": Variable("accept_invalid_certificates", _truth),
        "SKIP_PROCESSES": Variable("skip_processes", _list),
        "SKIP_BUILD_TOOLS": Variable("skip_build_tools", _truth),
        "AGENT_IMAGE": Variable("agent.image"),
        "AGENT_IMAGE_PULL_POLICY": Variable("agent.image_pull_policy"),
        "AGENT_NAMESPACE": Variable("agent.namespace"),
        "AGENT_TTL": Variable("agent.ttl", _number),
        "AGENT_STARTUP_TIMEOUT": Variable("agent.startup_timeout", _number),
        "AGENT_COMMUNICATION_TIMEOUT": Variable("agent.communication_timeout", _number),
        "EPHEMERAL_CONTAINER": Variable("agent.ephemeral", _truth),
        "FILE_MODE": Variable("feature.fs.mode"),
        "FILE_READ_WRITE_PATTERN": Variable("feature.fs.read_write", _list),
        "FILE_READ_ONLY_PATTERN": Variable("feature.fs.read_only", _list),
        "FILE_LOCAL_PATTERN": Variable("feature.fs.local", _list),
        "OVERRIDE_ENV_VARS_INCLUDE": Variable("feature.env.include", _list),
        "OVERRIDE_ENV_VARS_EXCLUDE": Variable("feature.env.exclude", _list),
        "OVERRIDE_ENV_FILE": Variable("feature.env.env_file"),
        "REMOTE_DNS": Variable("feature.network.dns.enabled", _truth),
        "ENABLE_IPV6": Variable("feature.network.ipv6", _truth),
        "TCP_OUTGOING": Variable(f"{_OUTGOING}.tcp", _truth),
        "UDP_OUTGOING": Variable(f"{_OUTGOING}.udp", _truth),
        "OUTGOING_REMOTE_UNIX_STREAMS": Variable(f"{_OUTGOING}.unix_streams", _list),
        "AGENT_TCP_STEAL_TRAFFIC": Variable("feature.network.incoming.mode", _incoming_mode),
        "HTTP_HEADER_FILTER": Variable(f"{_HTTP_FILTER}.header_filter"),
        "HTTP_PATH_FILTER": Variable(f"{_HTTP_FILTER}.path_filter"),
        "HTTP_METHOD_FILTER": Variable(f"{_HTTP_FILTER}.method_filter"),
        "HTTP_FILTER_PORTS": Variable(f"{_HTTP_FILTER}.ports", _numbers),
    }.items()
}
"""By name."""

_DECIDED_TOGETHER: Final = ("feature.env.enabled", "feature.env.include", "feature.env.exclude")


def variables_source(environment: Mapping[str, str], tell: Callable[[str], None] | None = None) -> Source:
    """What the variables say; those of fields that are passed over are told.

    Raises UsageFailure that names each variable that is at fault.
    """
    content: dict[str, Any] = {}
    faults = []
    given = {name: VARIABLES[name].path for name in VARIABLES if name in environment}
    for name in given:
        try:
            _set(content, VARIABLES[name].path, VARIABLES[name].parsed(environment[name]))
        except Fault as fault:
            faults.append(f"{name}: {fault}")
    if faults:
        raise UsageFailure("\n".join(faults))
    try:
        document = structured(content)
    except Faults as error:
        raise UsageFailure("\n".join(_by_variable(text, given) for text in error.args)) from error
    if tell is not None:
        for line in passed_over(content):
            tell(_by_variable(line, given))
    names = {path: ", ".join(_setting(path, given)) for path, _ in set_fields(document)}
    if variable := names.get("feature.env.include") or names.get("feature.env.exclude"):
        names |= dict.fromkeys(_DECIDED_TOGETHER, variable)
    return Source("environment", document, names)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """What to say of variables that look like mirrord's and are none that we know: a line for each."""
    known = (*VARIABLES, CONFIG_FILE)
    return [
        f"the variable {name} means nothing to mirrord-trace{nearest(name, known)}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known
    ]


def _set(content: dict[str, Any], path: str, value: object) -> None:
    *sections, field = path.split(".")
    for section in sections:
        content = content.setdefault(section, {})
    content[field] = value


def _setting(path: str, given: Mapping[str, str]) -> list[str]:
    """The variables that set a field, or a part of it."""
    return [name for name, set_path in given.items() if f"{set_path}.".startswith(f"{path}.")]


def _by_variable(fault: str, given: Mapping[str, str]) -> str:
    """A fault that names the variable: the field's path may go on below what the variable stands for, or end above."""
    path, _, message = fault.partition(": ")
    path = path.partition("[")[0]
    names = [name for name, set_path in given.items() if f"{path}.".startswith(f"{set_path}.")]
    return f"{', '.join(names or _setting(path, given))}: {message}"
