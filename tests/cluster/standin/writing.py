"""Requests that change what the cluster holds: create, patch and delete, by all the rules.

The order of a create is the real server's: decode, fill in, mutate, validate, admit, store. Where the real server only
warns of unknown fields by default, this one refuses them unless the request says otherwise (fieldValidation): a client
that sends what the API has no name for is a client with a mistake.
"""

from __future__ import annotations

import copy
import json
import secrets
import uuid
from collections.abc import Iterable

import attrs

from mirrord_trace.cluster.resources import CRON_JOBS, JOBS, PODS

from .admission import Admission
from .http import Request
from .kinds import KINDS, NAMESPACES, Kind
from .objects.containers import quantity_errors
from .objects.defaults import fill_in, fill_in_container, first_status
from .objects.jobs import job_changes, job_errors, job_spec_errors
from .objects.metadata import metadata_changes, metadata_errors
from .objects.pods import ephemeral_changes, pod_changes, pod_errors, pod_spec_errors, template_errors
from .objects.schema import Findings, examine, normalized
from .patches import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, apply_patch, shown
from .status import (
    FieldError,
    already_exists,
    bad_request,
    conflict,
    invalid_object,
    invalid_patch,
    not_found,
    unsupported_media_type,
)
from .store import Object, Store, now

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Of which generated names end in five (k8s.io/apimachinery/pkg/util/rand)."""
_PREFIX = 58
"""So much of generateName is used (maxGeneratedNameLength)."""

_ORPHANS = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set"
    " propagationPolicy=Orphan to suppress this warning"
)

_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"


@attrs.frozen
class Written:
    """What became of an object, and what the client is warned of."""

    value: Object
    warnings: list[str]


@attrs.define
class Writer:
    """Changes the store."""

    store: Store
    admission: Admission

    def decoded(self, kind: Kind, request: Request) -> tuple[Object, list[str]]:
        """The object in a request's body, checked against its schema, and warnings. Raises Refused."""
        media_type = request.headers.get("content-type", "application/json").partition(";")[0]
        if media_type != "application/json":
            raise unsupported_media_type(["application/json"])
        value = _parsed(kind, request.body)
        return value, self._decoding_warnings(kind, value, request.parameter("fieldValidation"))

    def create(self, kind: Kind, namespace: str | None, value: Object, *, dry_run: bool = False) -> Written:
        """Creates an object. Raises Refused."""
        metadata = value.setdefault("metadata", {})
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        if metadata.get("namespace", namespace) != namespace:
            raise bad_request(_OTHER_NAMESPACE)
        if namespace is not None:
            metadata["namespace"] = namespace
        if not metadata.get("name") and metadata.get("generateName"):
            suffix = "".join(secrets.choice(_ALPHABET) for _ in range(5))
            metadata["name"] = metadata["generateName"][:_PREFIX] + suffix
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            metadata.pop(name, None)
        value["kind"], value["apiVersion"] = kind.name, kind.api_version
        metadata["uid"], metadata["creationTimestamp"] = str(uuid.uuid4()), now()
        fill_in(kind, value)
        self.admission.mutate(kind, namespace, value)
        status = first_status(kind, value)
        if status is not None:
            value["status"] = status
        _refuse(kind, value, [*_schema_errors(kind, value), *_creation_errors(kind, value)])
        warnings = self.admission.validate(kind, namespace, value)
        if self.store.find(kind.resource, namespace, metadata["name"]) is not None:
            raise already_exists(kind.resource, metadata["name"])
        return Written(value if dry_run else self.store.put(kind.resource, value), warnings)

    def patch(self, kind: Kind, namespace: str | None, name: str, subresource: str, request: Request) -> Written:
        """Patches an object, or a pod's ephemeral containers. Raises Refused."""
        media_type = request.headers.get("content-type", "").partition(";")[0]
        accepted = [JSON_PATCH, MERGE_PATCH, *([STRATEGIC_MERGE_PATCH] if kind.model else [])]
        if media_type not in accepted:
            raise unsupported_media_type([*accepted, "application/apply-patch+yaml"])
        before = self.store.find(kind.resource, namespace, name)
        if before is None:
            raise not_found(kind.resource, name)
        after = normalized(apply_patch(media_type, before, request.body))
        if kind.model is not None:
            found = examine(kind.model, after)
            if told := _decoding_errors(found, after):
                raise invalid_patch(shown(media_type, request.body, after), told)
        _check_name(after.get("metadata", {}), namespace, name)
        if after["metadata"].get("resourceVersion") != before["metadata"]["resourceVersion"]:
            why = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(kind.resource, name, why)
        if "status" in before:
            after["status"] = before["status"]
        warnings: list[str] = []
        if subresource == "ephemeralcontainers":
            after = _only_ephemeral(before, after)
            _refuse(kind, after, [*ephemeral_changes(before, after), *pod_spec_errors(after["spec"], "spec")])
            warnings = self.admission.check_security(kind, namespace, after)
        else:
            errors = [*metadata_changes(before, after), *metadata_errors(kind, after)]
            _refuse(kind, after, [*errors, *_change_errors(kind, before, after)])
        written = self.store.put(kind.resource, after)
        if _was_kept_by_finalizers(before) and not after["metadata"].get("finalizers"):
            self.store.delete(kind.resource, namespace, name)
        return Written(written, warnings)

    def delete(self, kind: Kind, namespace: str | None, name: str, request: Request, *, gracefully: bool) -> Written:
        """Deletes an object, or begins to; `gracefully`: a pod's node ends it. Raises Refused."""
        value = self.store.find(kind.resource, namespace, name)
        if value is None:
            raise not_found(kind.resource, name)
        options = _delete_options(request)
        _check_preconditions(kind, value, options)
        metadata = value["metadata"]
        policy, warnings = options.get("propagationPolicy"), []
        if policy is None and kind.resource == JOBS:
            warnings.append(_ORPHANS)
        if policy == "Orphan" or (policy is None and kind.resource == JOBS):
            self._orphan(metadata["uid"])
        grace = _grace_s(kind, value, options) if gracefully else 0
        if grace > 0 or metadata.get("finalizers"):
            if not metadata.get("deletionTimestamp") or grace < metadata.get("deletionGracePeriodSeconds", 0):
                metadata["deletionTimestamp"] = now(grace)
                metadata["deletionGracePeriodSeconds"] = grace
                value = self.store.put(kind.resource, value)
            return Written(value, warnings)
        value = self.store.delete(kind.resource, namespace, name)
        if kind.resource == NAMESPACES:
            self._empty(name)
        if kind.resource == PODS:
            return Written(value, warnings)
        details = {"name": name, "group": kind.resource.group, "kind": kind.resource.plural, "uid": metadata["uid"]}
        shown = {key: part for key, part in details.items() if part}
        success = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": shown}
        return Written(success, warnings)

    def _decoding_warnings(self, kind: Kind, value: Object, validation: str) -> list[str]:
        if kind.model is None:
            return []
        found = examine(kind.model, value)
        strict = validation not in ("Warn", "Ignore")
        if told := _decoding_errors(found if strict else attrs.evolve(found, unknown=()), value):
            version = kind.resource.version
            raise bad_request(f'{kind.name} in version "{version}" cannot be handled as a {kind.name}: {told}')
        return [f'unknown field "{path}"' for path in found.unknown] if validation == "Warn" else []

    def _empty(self, namespace: str) -> None:
        """Removes all that is in a namespace."""
        for resource in KINDS:
            for one in self.store.list(resource, namespace):
                self.store.delete(resource, namespace, one["metadata"]["name"])

    def _orphan(self, owner: str) -> None:
        """Takes an owner away from its pods, so that they outlive it."""
        for pod in self.store.list(PODS):
            owners = pod["metadata"].get("ownerReferences", [])
            if any(one["uid"] == owner for one in owners):
                pod["metadata"]["ownerReferences"] = [one for one in owners if one["uid"] != owner]
                self.store.put(PODS, pod)


def _parsed(kind: Kind, body: bytes) -> Object:
    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise TypeError("json: cannot unmarshal array into Go value of type struct")
    except (ValueError, TypeError) as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from error
    named = (value.get("apiVersion", kind.api_version), value.get("kind", kind.name))
    if named[0] != kind.api_version:
        told = f"the API version in the data ({named[0]}) does not match the expected API version ({kind.api_version})"
        raise bad_request(told)
    if named[1] != kind.name:
        version = kind.resource.version
        told = f"converting ({named[1]}) to ({kind.name}): unknown conversion"
        raise bad_request(f'{named[1]} in version "{version}" cannot be handled as a {kind.name}: {told}')
    parsed: Object = normalized(value)
    return parsed


def _decoding_errors(found: Findings, value: Object) -> str:
    """What keeps the server from reading an object as one of its kind; "" for nothing."""
    if found.undecodable:
        return found.undecodable[0]
    if quantities := list(quantity_errors(value)):
        return quantities[0]
    unknown = ", ".join(f'unknown field "{path}"' for path in found.unknown)
    return f"strict decoding error: {unknown}" if unknown else ""


def _schema_errors(kind: Kind, value: Object) -> Iterable[FieldError]:
    return examine(kind.model, value).missing if kind.model is not None else ()


def _creation_errors(kind: Kind, value: Object) -> Iterable[FieldError]:
    yield from metadata_errors(kind, value)
    if kind.resource == PODS:
        yield from pod_errors(value)
    elif kind.resource == JOBS:
        yield from job_errors(value)
    elif kind.resource == CRON_JOBS:
        yield from job_spec_errors(value["spec"].get("jobTemplate", {}).get("spec", {}), "spec.jobTemplate.spec")
    elif kind.model is not None and "template" in value.get("spec", {}):
        yield from template_errors(value["spec"]["template"], "spec.template")


def _change_errors(kind: Kind, before: Object, after: Object) -> Iterable[FieldError]:
    if kind.resource == PODS:
        yield from pod_changes(before, after)
        yield from pod_spec_errors(after["spec"], "spec")
    elif kind.resource == JOBS:
        yield from job_changes(before, after)
        yield from job_errors(after)


def _refuse(kind: Kind, value: Object, errors: Iterable[FieldError]) -> None:
    """Raises Refused if there are errors. What is told of one field is told once."""
    distinct = list({(error.type, error.field, error.body): error for error in errors}.values())
    if distinct:
        raise invalid_object(kind, value["metadata"].get("name", ""), distinct)


def _only_ephemeral(before: Object, after: Object) -> Object:
    """The pod as it was, with the ephemeral containers that it shall have."""
    pod = copy.deepcopy(before)
    pod["spec"]["ephemeralContainers"] = after["spec"].get("ephemeralContainers", [])
    for container in pod["spec"]["ephemeralContainers"]:
        fill_in_container(container)
    return pod


def _check_name(metadata: Object, namespace: str | None, name: str) -> None:
    """A patch cannot make another object of one (checkName in k8s.io/apiserver/pkg/endpoints/handlers)."""
    if metadata.get("namespace", namespace) != namespace:
        raise bad_request(_OTHER_NAMESPACE)
    named = metadata.get("name")
    if not named:
        told = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        raise bad_request(told)
    if named != name:
        raise bad_request(f"the name of the object ({named}) does not match the name on the URL ({name})")


def _was_kept_by_finalizers(value: Object) -> bool:
    """Whether an object is deleted as soon as nothing waits for it any more. A pod's node may still have to end it."""
    metadata = value["metadata"]
    return bool("deletionTimestamp" in metadata and not metadata["deletionGracePeriodSeconds"])


def _delete_options(request: Request) -> Object:
    options: Object = normalized(json.loads(request.body)) if request.body else {}
    if options and (unknown := examine("V1DeleteOptions", options).unknown):
        told = f'strict decoding error: unknown field "{unknown[0]}"'
        raise bad_request(f'DeleteOptions in version "v1" cannot be handled as a DeleteOptions: {told}')
    if request.parameter("propagationPolicy"):
        options["propagationPolicy"] = request.parameter("propagationPolicy")
    if request.parameter("gracePeriodSeconds"):
        options["gracePeriodSeconds"] = int(request.parameter("gracePeriodSeconds"))
    return options


def _check_preconditions(kind: Kind, value: Object, options: Object) -> None:
    uid = options.get("preconditions", {}).get("uid")
    if uid is not None and uid != value["metadata"]["uid"]:
        told = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {value['metadata']['uid']}"
        raise conflict(kind.resource, value["metadata"]["name"], told)


def _grace_s(kind: Kind, value: Object, options: Object) -> int:
    """How long a pod has to end by itself: no time where it runs nowhere, or no longer."""
    if kind.resource != PODS or not value["spec"].get("nodeName"):
        return 0
    if value.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds", value["spec"].get("terminationGracePeriodSeconds", 30))
    return max(int(asked), 0)
