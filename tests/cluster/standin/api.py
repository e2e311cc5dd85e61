"""The API server without its network: a request goes in, an answer comes out.

In the real one's order: who is it, what does it ask, may it, and then the verb's own work.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import attrs

from mirrord_trace.cluster.resources import Resource

from .http import Connection, Request, Response
from .kinds import KINDS, Kind
from .requests import Question, question
from .status import Refused, already_exists, bad_request, not_found, path_not_found, unauthorized
from .store import Object, Store


@attrs.frozen
class Identity:
    """Somebody whom the API server knows."""

    user: str
    groups: tuple[str, ...] = ("system:authenticated",)


@attrs.define
class Api:
    """Answers requests from a store."""

    store: Store = attrs.field(factory=Store)
    tokens: dict[str, Identity] = attrs.field(factory=dict)

    async def handle(self, request: Request, connection: Connection) -> Response:
        """Answers one request."""
        try:
            self._authenticate(request, connection)
            return self._serve(request, question(request))
        except Refused as refusal:
            return Response.of(refusal.code, refusal.body)

    def create(self, resource: Resource, namespace: str | None, value: Object, *, user: str) -> Object:
        """Creates an object in a component's name. Raises Refused."""
        kind = KINDS[resource]
        metadata = value["metadata"]
        if kind.namespaced:
            metadata["namespace"] = namespace
        if self.store.find(resource, namespace, metadata["name"]) is not None:
            raise already_exists(resource, metadata["name"])
        return self.store.put(resource, {"kind": kind.name, "apiVersion": kind.api_version, **value})

    def _authenticate(self, request: Request, connection: Connection) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token in self.tokens:
            return self.tokens[token]
        if connection.certificate is not None:
            return _identity_of(connection.certificate)
        raise unauthorized()

    def _serve(self, request: Request, asked: Question) -> Response:
        resource = asked.resource
        if resource is None or resource not in KINDS:
            raise path_not_found()
        kind = KINDS[resource]
        match asked.verb:
            case "get":
                value = self.store.find(resource, asked.namespace if kind.namespaced else None, asked.name)
                if value is None:
                    raise not_found(resource, asked.name)
                return Response.of(200, value)
            case "list":
                return Response.of(200, _list_of(kind, self.store.list(resource, asked.namespace), self.store.version))
            case "create":
                created = self.create(resource, asked.namespace, _body(request), user="")
                return Response.of(201, created)
        raise path_not_found()


def _identity_of(certificate: Mapping[str, object]) -> Identity:
    subject = certificate["subject"]
    assert isinstance(subject, tuple)
    names = dict(pair for part in subject for pair in part)
    return Identity(names["commonName"])


def _body(request: Request) -> Object:
    try:
        value = json.loads(request.body)
    except ValueError as error:
        raise bad_request(f"the body is no JSON: {error}") from error
    assert isinstance(value, dict)
    return value


def _list_of(kind: Kind, values: list[Object], version: int) -> Object:
    return {
        "kind": f"{kind.name}List",
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": str(version)},
        "items": [{key: part for key, part in one.items() if key not in ("kind", "apiVersion")} for one in values],
    }
