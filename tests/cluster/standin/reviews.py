"""What a user may ask about itself: who it is, and what it may do (authorization.k8s.io, authentication.k8s.io)."""

from __future__ import annotations

from mirrord_trace.cluster.resources import Resource

from .identities import Identity
from .kinds import Kind
from .rbac import Authorizer
from .requests import Attributes
from .status import FieldError, bad_request, invalid_object
from .store import Object

ACCESS_REVIEWS = Kind(
    Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    "SelfSubjectAccessReview",
    "V1SelfSubjectAccessReview",
    namespaced=False,
)
IDENTITY_REVIEWS = Kind(
    Resource("authentication.k8s.io", "v1", "selfsubjectreviews"),
    "SelfSubjectReview",
    "V1SelfSubjectReview",
    namespaced=False,
)
REVIEWS = {kind.resource: kind for kind in (ACCESS_REVIEWS, IDENTITY_REVIEWS)}
"""Kinds that are only ever created, and not kept."""


def reviewed(kind: Kind, value: Object, identity: Identity, authorizer: Authorizer) -> Object:
    """The review with its answer. Raises Refused."""
    metadata = value.get("metadata", {})
    if metadata.get("name") or metadata.get("namespace"):
        raise bad_request("metadata must be empty except for managedFields")
    answered = {**value, "kind": kind.name, "apiVersion": kind.api_version, "metadata": {}}
    if kind is IDENTITY_REVIEWS:
        return {**answered, "status": {"userInfo": identity.described()}}
    reason = authorizer.reason(_asked(value, identity))
    allowed: Object = {"allowed": reason is not None}
    return {**answered, "status": {**allowed, "reason": reason} if reason else allowed}


def _asked(value: Object, identity: Identity) -> Attributes:
    spec = value.get("spec", {})
    about, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (about is None) == (path is None):
        told = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        error = FieldError("FieldValueInvalid", "spec.resourceAttributes", f"Invalid value: {{…}}: {told}")
        raise invalid_object(ACCESS_REVIEWS, "", [error])
    user, groups = identity.user, identity.groups
    if about is None:
        return Attributes(user, groups, path.get("verb", ""), None, None, "", path.get("path", ""))
    resource = Resource(
        about.get("group", ""), about.get("version", ""), about.get("resource", ""), about.get("subresource", "")
    )
    namespace = about.get("namespace") or None
    return Attributes(user, groups, about.get("verb", ""), resource, namespace, about.get("name", ""), "")
