"""What the API server says when it says no: Status objects, in the words of k8s.io/apimachinery/pkg/api/errors."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from mirrord_trace.cluster.resources import Resource

from .kinds import Kind
from .store import Object


class Refused(Exception):
    """A request ends with an error; `body` is its Status object."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        """The Retry-After header, where there is one."""
        shown = {name: value for name, value in (details or {}).items() if value}
        if retry_after_s is not None:
            shown["retryAfterSeconds"] = retry_after_s
        self.body: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            **({"reason": reason} if reason else {}),
            **({"details": shown} if shown or details is not None else {}),
            "code": code,
        }


def quoted(value: object) -> str:
    """A value as field errors show it: strings as Go's %q, the rest as JSON (field.Error.ErrorBody)."""
    return json.dumps(value, ensure_ascii=False)


@attrs.frozen
class FieldError:
    """What is wrong with one field (k8s.io/apimachinery/pkg/util/validation/field)."""

    type: str
    field: str
    body: str
    """What is said after the field's path."""

    def __str__(self) -> str:
        return f"{self.field}: {self.body}"


def required(field: str, detail: str = "") -> FieldError:
    """A value is missing."""
    return FieldError("FieldValueRequired", field, "Required value" + (f": {detail}" if detail else ""))


def invalid(field: str, value: object, detail: str) -> FieldError:
    """A value cannot be."""
    return FieldError("FieldValueInvalid", field, f"Invalid value: {quoted(value)}: {detail}")


def forbidden_field(field: str, detail: str) -> FieldError:
    """A value must not be given."""
    return FieldError("FieldValueForbidden", field, f"Forbidden: {detail}")


def duplicate(field: str, value: object) -> FieldError:
    """A value is there twice."""
    return FieldError("FieldValueDuplicate", field, f"Duplicate value: {quoted(value)}")


def absent(field: str, value: object) -> FieldError:
    """A value names something that is not there."""
    return FieldError("FieldValueNotFound", field, f"Not found: {quoted(value)}")


def too_long(field: str, detail: str) -> FieldError:
    """A value is too long; it is not shown."""
    return FieldError("FieldValueTooLong", field, f"Too long: {detail}")


def not_supported(field: str, value: object, supported: Sequence[str]) -> FieldError:
    """A value is none of the known ones."""
    known = ", ".join(quoted(one) for one in sorted(supported))
    return FieldError("FieldValueNotSupported", field, f"Unsupported value: {quoted(value)}: supported values: {known}")


def not_found(resource: Resource, name: str) -> Refused:
    """There is no such object."""
    return _about(404, "NotFound", resource, name, f'{_group_resource(resource)} "{name}" not found')


def path_not_found() -> Refused:
    """There is no such resource: the path is none."""
    return Refused(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(resource: Resource, name: str) -> Refused:
    """The name is taken."""
    return _about(409, "AlreadyExists", resource, name, f'{_group_resource(resource)} "{name}" already exists')


def conflict(resource: Resource, name: str, why: str) -> Refused:
    """The object is no longer what the request thinks."""
    message = f'Operation cannot be fulfilled on {_group_resource(resource)} "{name}": {why}'
    return _about(409, "Conflict", resource, name, message)


def forbidden(resource: Resource, name: str, why: str) -> Refused:
    """RBAC or admission says no."""
    subject = f'{_group_resource(resource)} "{name}"' if name else _group_resource(resource)
    return _about(403, "Forbidden", resource, name, f"{subject} is forbidden: {why}")


def unauthorized() -> Refused:
    """Nobody we know."""
    return Refused(401, "Unauthorized", "Unauthorized")


def bad_request(message: str) -> Refused:
    """The request cannot be understood."""
    return Refused(400, "BadRequest", message)


def method_not_allowed() -> Refused:
    """The path is there, but not for this."""
    return Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def unprocessable() -> Refused:
    """The request is understood, and cannot be carried out; the real server does not say why either."""
    return Refused(422, "Invalid", "the server rejected our request due to an error in our request", {})


def unsupported_media_type(accepted: Sequence[str]) -> Refused:
    """The body is of a kind that isn't read here."""
    told = f"accepted media types include: {', '.join(accepted)}"
    return Refused(415, "UnsupportedMediaType", f"the body of the request was in an unknown format - {told}")


def expired(message: str) -> Refused:
    """What is asked for was there, and no longer is: a version, or the rest of a list."""
    return Refused(410, "Expired", message)


def invalid_patch(shown: str, told: str) -> Refused:
    """A patch makes something that is no object of its kind."""
    error = invalid("patch", shown, told)
    causes = [{"reason": error.type, "message": error.body, "field": error.field}]
    return Refused(422, "Invalid", f' "" is invalid: {error}', {"causes": causes})


def invalid_object(kind: Kind, name: str, errors: Sequence[FieldError]) -> Refused:
    """The object breaks rules; all of them are told."""
    distinct = list(dict.fromkeys(map(str, errors)))
    told = distinct[0] if len(distinct) == 1 else f"[{', '.join(distinct)}]"
    qualified = f"{kind.name}.{kind.resource.group}" if kind.resource.group else kind.name
    causes = [{"reason": error.type, "message": error.body, "field": error.field} for error in errors]
    details = {"name": name, "group": kind.resource.group, "kind": kind.name, "causes": causes}
    return Refused(422, "Invalid", f'{qualified} "{name}" is invalid: {told}', details)


def _about(code: int, reason: str, resource: Resource, name: str, message: str) -> Refused:
    return Refused(code, reason, message, {"name": name, "group": resource.group, "kind": resource.plural})


def _group_resource(resource: Resource) -> str:
    return f"{resource.plural}.{resource.group}" if resource.group else resource.plural
