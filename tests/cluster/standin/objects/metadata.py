"""What the metadata of any object must be (apimachinery/pkg/api/validation/objectmeta.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mirrord_trace.cluster.resources import SERVICES

from ..formats import dns_label, dns_subdomain, label_value, qualified_name
from ..kinds import NAMESPACES, Kind
from ..status import FieldError, forbidden_field, invalid, required, too_long
from ..store import Object

LARGEST_ANNOTATIONS = 256 << 10
"""Bytes of all keys and values (TotalAnnotationSizeLimitB)."""
_LABELLED = {NAMESPACES, SERVICES}
"""Kinds whose names are DNS labels."""
_PATH_NAMED = {"roles", "rolebindings"}
"""Kinds whose names need only fit into a path."""


def metadata_errors(kind: Kind, value: Object) -> Iterator[FieldError]:
    """What is wrong with an object's metadata."""
    metadata = value.get("metadata", {})
    if not metadata.get("name"):
        yield required("metadata.name", "name or generateName is required")
    elif kind.resource.plural not in _PATH_NAMED:
        form = dns_label if kind.resource in _LABELLED else dns_subdomain
        for problem in form(metadata["name"]):
            yield invalid("metadata.name", metadata["name"], problem)
    yield from label_errors(metadata.get("labels", {}), "metadata.labels")
    yield from annotation_errors(metadata.get("annotations", {}), "metadata.annotations")
    for index, owner in enumerate(metadata.get("ownerReferences", [])):
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                yield invalid(f"metadata.ownerReferences[{index}].{name}", "", f"{name} must not be empty")


def label_errors(labels: Mapping[str, str], path: str) -> Iterator[FieldError]:
    """What is wrong with labels, or with what is matched with labels."""
    for key, value in labels.items():
        for problem in qualified_name(key):
            yield invalid(path, key, problem)
        for problem in label_value(value):
            yield invalid(path, value, problem)


def annotation_errors(annotations: Mapping[str, str], path: str) -> Iterator[FieldError]:
    """What is wrong with annotations; the case of their keys does not matter."""
    for key in annotations:
        for problem in qualified_name(key.lower()):
            yield invalid(path, key, problem)
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > LARGEST_ANNOTATIONS:
        yield too_long(path, f"may not be more than {LARGEST_ANNOTATIONS} bytes")


def metadata_changes(before: Object, after: Object) -> Iterator[FieldError]:
    """What a change of metadata must leave alone."""
    old, new = before["metadata"], after["metadata"]
    for name in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if new.get(name) != old.get(name):
            yield invalid(f"metadata.{name}", new.get(name), "field is immutable")
    added: list[Any] = [one for one in new.get("finalizers", []) if one not in old.get("finalizers", [])]
    if old.get("deletionTimestamp") and added:
        told = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        yield forbidden_field("metadata.finalizers", told)
