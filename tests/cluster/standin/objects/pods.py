"""What pods and pod templates must be, and what of a pod may change (kubernetes/pkg/apis/core/validation)."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from ..formats import dns_label, dns_subdomain, in_range, label_value, qualified_name
from ..status import FieldError, forbidden_field, invalid, not_supported, required
from ..store import Object
from .containers import container_errors, duplicate_names, ephemeral_errors
from .metadata import annotation_errors, label_errors

_CHANGEABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")


def pod_errors(pod: Object) -> Iterator[FieldError]:
    """What is wrong with a new pod."""
    yield from pod_spec_errors(pod.get("spec", {}), "spec")
    if pod.get("spec", {}).get("ephemeralContainers"):
        yield forbidden_field("spec.ephemeralContainers", "cannot be set on create")


def template_errors(template: Object, path: str) -> Iterator[FieldError]:
    """What is wrong with a workload's pod template."""
    metadata = template.get("metadata", {})
    yield from label_errors(metadata.get("labels", {}), f"{path}.labels")
    yield from annotation_errors(metadata.get("annotations", {}), f"{path}.annotations")
    yield from pod_spec_errors(template.get("spec", {}), f"{path}.spec")
    if template.get("spec", {}).get("ephemeralContainers"):
        yield forbidden_field(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def pod_spec_errors(spec: Object, path: str) -> Iterator[FieldError]:
    """What is wrong with a pod's specification, defaults filled in."""
    volumes = {volume.get("name", "") for volume in spec.get("volumes", [])}
    yield from _volume_errors(spec.get("volumes", []), f"{path}.volumes")
    containers, initial = spec.get("containers", []), spec.get("initContainers", [])
    ephemeral = spec.get("ephemeralContainers", [])
    if not containers:
        yield required(f"{path}.containers")
    taken: set[str] = set()
    for name, group in (("containers", containers), ("initContainers", initial), ("ephemeralContainers", ephemeral)):
        yield from container_errors(group, f"{path}.{name}", volumes)
        yield from duplicate_names(group, f"{path}.{name}", taken)
    targets = {one.get("name", "") for one in (*containers, *initial)}
    yield from ephemeral_errors(ephemeral, f"{path}.ephemeralContainers", targets)
    yield from _choices(spec, path)
    yield from _number_errors(spec, path)
    yield from _naming_errors(spec, path)
    yield from label_errors(spec.get("nodeSelector", {}), f"{path}.nodeSelector")
    for index, toleration in enumerate(spec.get("tolerations", [])):
        yield from _toleration_errors(toleration, f"{path}.tolerations[{index}]")
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        told = "ShareProcessNamespace and HostPID cannot both be enabled"
        yield invalid(f"{path}.shareProcessNamespace", True, told)


def pod_changes(before: Object, after: Object) -> Iterator[FieldError]:
    """What an update of a pod may not do: nearly all of its specification stands."""
    allowed = copy.deepcopy(after["spec"])
    for group in ("containers", "initContainers"):
        pairs = zip(allowed.get(group, []), before["spec"].get(group, []), strict=False)
        for new, old in pairs:
            new["image"] = old["image"]
    for name in ("activeDeadlineSeconds", "tolerations"):
        if name in before["spec"]:
            allowed[name] = before["spec"][name]
        else:
            allowed.pop(name, None)
    if allowed != before["spec"]:
        yield forbidden_field("spec", _CHANGEABLE)
    elif any(one not in _untimed(after["spec"]) for one in _untimed(before["spec"])):
        yield forbidden_field(
            "spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"
        )


def _untimed(spec: Object) -> list[Object]:
    """The tolerations without their times, which may change."""
    return [
        {key: value for key, value in one.items() if key != "tolerationSeconds"} for one in spec.get("tolerations", [])
    ]


def ephemeral_changes(before: Object, after: Object) -> Iterator[FieldError]:
    """What an update of a pod's ephemeral containers may not do: these are only added."""
    new = {container.get("name"): container for container in after["spec"].get("ephemeralContainers", [])}
    for container in before["spec"].get("ephemeralContainers", []):
        name = container["name"]
        if name not in new:
            told = f'existing ephemeral containers "{name}" may not be removed\n'
            yield forbidden_field("spec.ephemeralContainers", told)
        elif new[name] != container:
            changed = sorted(key for key in {*container, *new[name]} if container.get(key) != new[name].get(key))
            told = f'existing ephemeral containers "{name}" may not be changed\n{", ".join(changed)}'
            yield forbidden_field("spec.ephemeralContainers", told)


def _choices(spec: Object, path: str) -> Iterator[FieldError]:
    for name, known in (
        ("restartPolicy", ("Always", "OnFailure", "Never")),
        ("dnsPolicy", ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")),
        ("preemptionPolicy", ("PreemptLowerPriority", "Never")),
    ):
        if spec.get(name) and spec[name] not in known:
            yield not_supported(f"{path}.{name}", spec[name], known)


def _number_errors(spec: Object, path: str) -> Iterator[FieldError]:
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        yield invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0")
    for problem in in_range(spec.get("activeDeadlineSeconds", 1), 1, 2**31 - 1):
        yield invalid(f"{path}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], problem)


def _naming_errors(spec: Object, path: str) -> Iterator[FieldError]:
    for name in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName", "hostname", "subdomain"):
        form = dns_label if name in ("hostname", "subdomain") else dns_subdomain
        if spec.get(name):
            for problem in form(spec[name]):
                yield invalid(f"{path}.{name}", spec[name], problem)


def _volume_errors(volumes: list[Object], path: str) -> Iterator[FieldError]:
    taken: set[str] = set()
    for index, volume in enumerate(volumes):
        here = f"{path}[{index}]"
        name = volume.get("name", "")
        if not name:
            yield required(f"{here}.name")
        else:
            for problem in dns_label(name):
                yield invalid(f"{here}.name", name, problem)
        if len(volume) > 2:
            sources = sorted(set(volume) - {"name"})
            yield forbidden_field(f"{here}.{sources[1]}", "may not specify more than 1 volume type")
    yield from duplicate_names(volumes, path, taken)


def _toleration_errors(toleration: Object, here: str) -> Iterator[FieldError]:
    key, operator = toleration.get("key", ""), toleration.get("operator", "")
    effect, value = toleration.get("effect", ""), toleration.get("value", "")
    if key:
        for problem in qualified_name(key):
            yield invalid(f"{here}.key", key, problem)
    elif operator != "Exists":
        told = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        yield invalid(f"{here}.operator", operator, told)
    if "tolerationSeconds" in toleration and effect != "NoExecute":
        yield invalid(f"{here}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")
    if operator in ("", "Equal"):
        for problem in label_value(value):
            yield invalid(f"{here}.operator", value, problem)
    elif operator == "Exists":
        if value:
            told = "value must be empty when `operator` is 'Exists'"
            yield FieldError("FieldValueInvalid", f"{here}.operator", f"Invalid value: {{…}}: {told}")
    else:
        yield not_supported(f"{here}.operator", operator, ("Equal", "Exists"))
    if effect and effect not in _EFFECTS:
        yield not_supported(f"{here}.effect", effect, _EFFECTS)
