"""What a request asks, read from its method, path and query, as the real server does before anything else.

After k8s.io/apiserver/pkg/endpoints/request/requestinfo.go: the same verbs, in the same cases.
"""

from __future__ import annotations

import attrs

from mirrord_trace.cluster.resources import Resource

from .http import Request
from .selectors import exact_name

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@attrs.frozen
class Attributes:
    """Who wants to do what, as authorizers see it."""

    user: str
    groups: tuple[str, ...]
    verb: str
    resource: Resource | None
    """None for a path that is no resource's, such as /version."""
    namespace: str | None
    name: str
    path: str


@attrs.frozen
class Question:
    """What a request asks, apart from who asks it."""

    verb: str
    resource: Resource | None
    namespace: str | None
    name: str


def question(request: Request) -> Question:
    """Reads a request's method, path and query."""
    parts = [part for part in request.path.split("/") if part]
    verb = _VERBS.get(request.method, "")
    match parts:
        case ["api", version, *rest] if rest:
            group = ""
        case ["apis", group, version, *rest] if rest:
            pass
        case _:
            return Question(request.method.lower(), None, None, "")
    namespace = None
    if rest[0] == "namespaces" and len(rest) > 2:
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) == 2:
        namespace = rest[1]
    plural, name, subresource = (*rest, "", "")[:3]
    resource = Resource(group, version, plural, subresource)
    if verb == "get" and not name:
        verb = "watch" if request.flag("watch") else "list"
        name = exact_name(request.parameter("fieldSelector"))
    elif verb == "delete" and not name:
        verb = "deletecollection"
    return Question(verb, resource, namespace, name)
