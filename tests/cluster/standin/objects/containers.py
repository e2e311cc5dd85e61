"""What containers must be (validateContainerCommon and its kin in kubernetes/pkg/apis/core/validation)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ..formats import dns_label, in_range, qualified_name
from ..status import FieldError, absent, duplicate, forbidden_field, invalid, not_supported, required
from ..store import Object
from .quantities import PATTERN, amount

_STANDARD_RESOURCES = {"cpu", "memory", "ephemeral-storage"}
_EPHEMERAL_FIELDS = {
    "name",
    "image",
    "command",
    "args",
    "workingDir",
    "envFrom",
    "env",
    "volumeMounts",
    "volumeDevices",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "imagePullPolicy",
    "securityContext",
    "stdin",
    "stdinOnce",
    "tty",
    "targetContainerName",
}
"""All that an ephemeral container may have (allowedEphemeralContainerFields)."""
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"


def container_errors(containers: list[Object], path: str, volumes: Collection[str]) -> Iterator[FieldError]:
    """What is wrong with a pod's containers, apart from names that others have."""
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        yield from _name_errors(container, here)
        if not container.get("image"):
            yield required(f"{here}.image")
        elif container["image"] != container["image"].strip():
            yield invalid(f"{here}.image", container["image"], "must not have leading or trailing whitespace")
        yield from _one_of(container, "imagePullPolicy", here, ("Always", "IfNotPresent", "Never"))
        yield from _one_of(container, "terminationMessagePolicy", here, ("File", "FallbackToLogsOnError"))
        yield from _port_errors(container.get("ports", []), f"{here}.ports")
        yield from _environment_errors(container.get("env", []), f"{here}.env")
        yield from _mount_errors(container.get("volumeMounts", []), f"{here}.volumeMounts", volumes)
        yield from _resource_errors(container.get("resources", {}), f"{here}.resources")
        yield from _security_errors(container.get("securityContext", {}), f"{here}.securityContext")


def duplicate_names(containers: list[Object], path: str, taken: set[str]) -> Iterator[FieldError]:
    """Names that are already taken; adds those that are not."""
    for index, container in enumerate(containers):
        name = container.get("name", "")
        if name and name in taken:
            yield duplicate(f"{path}[{index}].name", name)
        taken.add(name)


def ephemeral_errors(containers: list[Object], path: str, targets: Collection[str]) -> Iterator[FieldError]:
    """What is wrong with ephemeral containers beyond what is wrong with any."""
    for index, container in enumerate(containers):
        here = f"{path}[{index}]"
        target = container.get("targetContainerName", "")
        if target and target not in targets:
            yield absent(f"{here}.targetContainerName", target)
        for name, value in container.items():
            if name not in _EPHEMERAL_FIELDS and value not in ({}, [], "", 0, False):
                yield forbidden_field(f"{here}.{name}", _NOT_EPHEMERAL)
        for number, mount in enumerate(container.get("volumeMounts", [])):
            for name in ("subPath", "subPathExpr"):
                if mount.get(name):
                    yield forbidden_field(f"{here}.volumeMounts[{number}].{name}", _NOT_EPHEMERAL)


def quantity_errors(value: Any, name: str = "") -> Iterator[str]:
    """Quantities anywhere in an object that cannot be read; the server tells them as it decodes the object."""
    if isinstance(value, dict):
        for key, part in value.items():
            if name in ("limits", "requests", "hard", "capacity", "allocatable") and isinstance(part, str):
                if amount(part) is None:
                    yield f"quantities must match the regular expression '{PATTERN}'"
            else:
                yield from quantity_errors(part, key)
    elif isinstance(value, list):
        for part in value:
            yield from quantity_errors(part)


def _name_errors(container: Object, here: str) -> Iterator[FieldError]:
    name = container.get("name", "")
    if not name:
        yield required(f"{here}.name")
    else:
        for problem in dns_label(name):
            yield invalid(f"{here}.name", name, problem)


def _one_of(value: Mapping[str, Any], name: str, here: str, known: Collection[str]) -> Iterator[FieldError]:
    if value.get(name) and value[name] not in known:
        yield not_supported(f"{here}.{name}", value[name], sorted(known))


def _port_errors(ports: list[Object], path: str) -> Iterator[FieldError]:
    for index, port in enumerate(ports):
        here = f"{path}[{index}]"
        if not port.get("containerPort"):
            yield required(f"{here}.containerPort")
        else:
            for problem in in_range(port["containerPort"], 1, 65535):
                yield invalid(f"{here}.containerPort", port["containerPort"], problem)
        yield from _one_of(port, "protocol", here, ("TCP", "UDP", "SCTP"))


def _environment_errors(variables: list[Object], path: str) -> Iterator[FieldError]:
    for index, variable in enumerate(variables):
        here = f"{path}[{index}]"
        name = variable.get("name", "")
        if not name:
            yield required(f"{here}.name")
        elif not re.fullmatch(r"[ -<>-~]+", name):
            told = "a valid environment variable name must consist only of printable ASCII characters other than '='"
            yield invalid(f"{here}.name", name, told)
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid(f"{here}.valueFrom", "", "may not be specified when `value` is not empty")


def _mount_errors(mounts: list[Object], path: str, volumes: Collection[str]) -> Iterator[FieldError]:
    places = set()
    for index, mount in enumerate(mounts):
        here = f"{path}[{index}]"
        if not mount.get("name"):
            yield required(f"{here}.name")
        elif mount["name"] not in volumes:
            yield absent(f"{here}.name", mount["name"])
        place = mount.get("mountPath", "")
        if not place:
            yield required(f"{here}.mountPath")
        elif place in places:
            yield invalid(f"{here}.mountPath", place, "must be unique")
        places.add(place)


def _resource_errors(resources: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for part, amounts in (("limits", limits), ("requests", requests)):
        for name, text in amounts.items():
            here = f"{path}.{part}[{name}]"
            for problem in qualified_name(name):
                yield invalid(f"{path}.{part}", name, problem)
            if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
                yield invalid(here, name, "must be a standard resource type or fully qualified")
                yield invalid(here, name, "must be a standard resource for containers")
            if (amount(text) or 0) < 0:
                yield invalid(here, text, "must be greater than or equal to 0")
    for name, text in requests.items():
        least, most = amount(text), amount(limits.get(name, ""))
        if least is not None and most is not None and least > most:
            told = f"must be less than or equal to {name} limit of {limits[name]}"
            yield invalid(f"{path}.requests", text, told)


def _security_errors(context: Mapping[str, Any], path: str) -> Iterator[FieldError]:
    for name in ("runAsUser", "runAsGroup"):
        for problem in in_range(context.get(name, 0), 0, 2**31 - 1):
            yield invalid(f"{path}.{name}", context[name], problem)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            told = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            yield FieldError("FieldValueInvalid", path, f"Invalid value: {{…}}: {told}")
        if "CAP_SYS_ADMIN" in context.get("capabilities", {}).get("add", []):
            told = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            yield FieldError("FieldValueInvalid", path, f"Invalid value: {{…}}: {told}")
    yield from _one_of(context, "procMount", path, ("Default", "Unmasked"))
    profile = context.get("seccompProfile", {})
    yield from _one_of(profile, "type", f"{path}.seccompProfile", ("RuntimeDefault", "Localhost", "Unconfined"))
