"""What the API server refused, and how to say it to the user.

An `ApiRefusal` is an answer with a status of 400 or more, as the code that asked can act on it. What it means depends
on what was being done; who knows that, turns it into a `Failure` with `failure`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from mirrord_trace.cluster.resources import Resource


@attrs.frozen
class Request:
    """What was asked for, in the words of RBAC."""

    verb: str
    """get, list, watch, create, patch or delete."""
    resource: Resource
    namespace: str | None = None
    """None for all namespaces, and for what is in none."""
    name: str = ""

    def __str__(self) -> str:
        """Such as "get pods web-1 in namespace shop"."""
        words = [self.verb, str(self.resource), self.name, f"in namespace {self.namespace}" if self.namespace else ""]
        return " ".join(filter(None, words))


class ApiRefusal(Exception):
    """The API server said no: to which request, and why."""

    def __init__(
        self,
        request: Request,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        repeated: bool = False,
    ) -> None:
        super().__init__(f"cannot {request}: {status} {reason}: {message}")
        self.verb = request.verb
        self.resource = request.resource
        self.namespace = request.namespace
        self.name = request.name
        self.status = status
        """The status of HTTP, 400 or more."""
        self.reason = reason
        """One word of the API's, such as NotFound, AlreadyExists, Forbidden, Invalid; "" where it gave none."""
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        """As in the API's Status object: name, kind, causes, retryAfterSeconds."""
        self.repeated = repeated
        """True: the answer to an earlier attempt was lost, which may have done what was asked."""

    @classmethod
    def from_answer(cls, request: Request, status: int, body: bytes, *, repeated: bool = False) -> ApiRefusal:
        """From an answer whose body is a Status object, or whatever a proxy on the way has to say."""
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or answer.get("kind") != "Status":
            return cls(request, status, "", body.decode(errors="replace").strip()[:500], repeated=repeated)
        reason, message, details = (answer.get(name) for name in ("reason", "message", "details"))
        return cls(request, status, reason or "", message or "", details, repeated=repeated)
