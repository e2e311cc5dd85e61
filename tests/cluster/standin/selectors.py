"""Label and field selectors: which objects a list or a watch is about (apimachinery's labels and fields packages)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs

from mirrord_trace.cluster.resources import EVENTS, JOBS, PODS, ROLLOUTS, Resource

from .kinds import NAMESPACES, NODES, SECRETS
from .label_selectors import Test, label_tests
from .status import bad_request
from .store import Object

_METADATA = ("metadata.name", "metadata.namespace")
_FIELDS: Mapping[Resource, tuple[str, ...]] = {
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    EVENTS: (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion")),
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    JOBS: ("status.successful",),
    NAMESPACES: ("status.phase",),
    NODES: ("spec.unschedulable",),
    SECRETS: ("type",),
}
"""What can be selected by, beside name and namespace (AddFieldLabelConversionFunc of each group)."""
_REFUSED = {
    JOBS: 'field label "{0}" not supported for batchv1.Job',
    NAMESPACES: "field label not supported: {0}",
    NODES: "field label not supported: {0}",
    PODS: "field label not supported: {0}",
    EVENTS: "field label not supported: {0}",
    SECRETS: "field label not supported: {0}",
    ROLLOUTS: "field label not supported: {0}",
}
_OTHERS_REFUSED = '"{0}" is not a known field selector: only "metadata.name", "metadata.namespace"'


@attrs.frozen
class Selection:
    """Which objects of a resource are meant. Without selectors, all."""

    labels: tuple[Test, ...] = ()
    fields: tuple[tuple[str, bool, str], ...] = ()

    def holds(self, value: Object) -> bool:
        """Whether an object is selected."""
        labels = value.get("metadata", {}).get("labels") or {}
        if not all(test(labels) for test in self.labels):
            return False
        return all((_field(value, path) == wanted) is equal for path, equal, wanted in self.fields)


def selection(resource: Resource, label_selector: str, field_selector: str) -> Selection:
    """Reads the selectors of a request. Raises Refused where one cannot be read, or a field can't be selected by."""
    return Selection(tuple(label_tests(label_selector)), tuple(_field_terms(resource, field_selector)))


def exact_name(field_selector: str) -> str:
    """The name that a field selector requires, if it does: authorizers see it as the request's name."""
    for term in field_selector.split(","):
        if match := re.fullmatch(r"metadata\.name==?(.+)", term):
            return match[1]
    return ""


def _field_terms(resource: Resource, text: str) -> list[tuple[str, bool, str]]:
    terms = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"([^=!]+)(==?|!=)(.*)", term)
        if match is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        path, how, wanted = match.groups()
        if path not in _METADATA and path not in _FIELDS.get(resource, ()):
            raise bad_request(_REFUSED.get(resource, _OTHERS_REFUSED).format(path))
        terms.append((path, how != "!=", wanted))
    return terms


def _field(value: Object, path: str) -> str:
    if path == "source":
        return str(value.get("source", {}).get("component") or value.get("reportingComponent", ""))
    if path == "status.successful":
        return str(value.get("status", {}).get("succeeded", 0))
    here: Any = value
    for name in path.split("."):
        here = here.get(name, "") if isinstance(here, dict) else ""
    if isinstance(here, bool) or (here == "" and path in ("spec.hostNetwork", "spec.unschedulable")):
        return str(bool(here)).lower()
    return str(here)
