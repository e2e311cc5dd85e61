"""The API server without its network: a request goes in, an answer comes out, and a record stays.

In the real one's order: who is it, what does it ask, may it, and then the verb's own work. Faults strike before the
request is served, or after.
"""

from __future__ import annotations

import json
import traceback
import uuid
from collections.abc import Mapping, Sequence
from functools import partial

import attrs
import trio

from mirrord_trace.cluster.resources import PODS, ROLLOUTS, Resource

from . import discovery
from .admission import Admission
from .faults import Faults
from .http import Connection, Dropped, Request, Response
from .identities import ANONYMOUS, Identities, Identity
from .interfaces import Kubelet, PortForward
from .kinds import KINDS, Kind
from .listing import Lister
from .logs import pod_log
from .objects.schema import normalized
from .rbac import Authorizer
from .requests import Attributes, question
from .reviews import REVIEWS, reviewed
from .status import Refused, forbidden, method_not_allowed, not_found, path_not_found
from .store import Object, Store
from .watching import Watch
from .writing import Writer, Written

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
"""What /version says: the release whose behaviour this is."""
_NO_PATH = Response(404, [("content-type", "text/plain; charset=utf-8")], b"404 page not found\n")
"""What the real server answers where no API group begins."""


@attrs.define
class Recorded:
    """A request that was made, as a test looks at it."""

    user: str
    verb: str
    resource: Resource | None
    namespace: str | None
    name: str
    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes
    status: int = 0
    """0 until it is answered, and for ever where the connection ended instead; 101 after one that was handed over."""

    def object(self) -> Object:
        """The request's body as JSON."""
        value: Object = json.loads(self.body)
        return value


@attrs.define
class Api:
    """Answers requests from a store."""

    store: Store
    faults: Faults
    port_forward: PortForward
    kubelet: Kubelet | None = None
    identities: Identities = attrs.field(factory=Identities)
    authorizer: Authorizer = attrs.field(factory=Authorizer)
    requests: list[Recorded] = attrs.field(factory=list)
    absent: set[Resource] = attrs.field(factory=lambda: {ROLLOUTS})
    """Resources that are not installed."""
    failures: list[str] = attrs.field(factory=list)
    """Tracebacks of what the stand-in itself did wrong."""
    admission: Admission = attrs.field(default=attrs.Factory(lambda self: Admission(self.store), takes_self=True))
    writer: Writer = attrs.field(
        default=attrs.Factory(lambda self: Writer(self.store, self.admission), takes_self=True)
    )
    lister: Lister = attrs.field(default=attrs.Factory(lambda self: Lister(self.store), takes_self=True))

    async def handle(self, request: Request, connection: Connection) -> Response | None:
        """Answers one request. None: the connection was upgraded and has ended. Raises Dropped."""
        asked, refusal = self._attributes(request, connection)
        connection.serving = asked
        record = Recorded(
            asked.user,
            asked.verb,
            asked.resource,
            asked.namespace,
            asked.name,
            request.method,
            request.path,
            request.query,
            request.headers,
            request.body,
        )
        self.requests.append(record)
        try:
            response = await self.faults.before(asked)
            if response is None:
                if refusal is not None:
                    raise refusal
                self._authorize(asked)
                response = await self._serve(request, asked, connection)
                self.faults.after(asked)
        except Refused as refused:
            response = _refusal(refused)
        except (Dropped, trio.Cancelled):
            raise
        except Exception:
            self.failures.append(f"{request.method} {request.path}\n{traceback.format_exc()}")
            response = Response.of(500, Refused(500, "InternalError", "the stand-in failed").body)
        record.status = response.status if response is not None else 101
        if response is None:
            return None
        common = [("audit-id", str(uuid.uuid4())), ("cache-control", "no-cache, private")]
        return attrs.evolve(response, headers=[*common, *response.headers])

    def create(self, resource: Resource, namespace: str | None, value: Object, *, user: str) -> Object:
        """Creates an object in a component's name. Raises Refused."""
        return self.writer.create(KINDS[resource], namespace, normalized(value)).value

    def _attributes(self, request: Request, connection: Connection) -> tuple[Attributes, Refused | None]:
        """What is asked and by whom, and why that cannot be believed, if so."""
        refusal, identity = None, ANONYMOUS
        try:
            identity = self.identities.of(request, connection)
        except Refused as refused:
            refusal = refused
        asked = question(request)
        return (
            Attributes(
                "" if refusal else identity.user,
                identity.groups,
                asked.verb,
                asked.resource,
                asked.namespace,
                asked.name,
                request.path,
            ),
            refusal,
        )

    def _authorize(self, asked: Attributes) -> None:
        """Raises Refused. Upgrades need the right to create, too (since Kubernetes 1.35).

        That it is missing is told with the authorizer's reason alone, and RBAC gives none for what it doesn't allow
        (ensureAuthorizedForVerb in kubernetes/pkg/registry/core/pod/rest).
        """
        self.authorizer.check(asked)
        is_upgrade = asked.resource is not None and asked.resource.subresource == "portforward"
        if is_upgrade and self.authorizer.reason(attrs.evolve(asked, verb="create")) is None:
            raise forbidden(PODS, asked.name, "")

    async def _serve(self, request: Request, asked: Attributes, connection: Connection) -> Response | None:
        resource = asked.resource
        if resource is None:
            if asked.path == "/version":
                return Response.of(200, VERSION)
            if asked.path in ("/healthz", "/livez", "/readyz"):
                return Response(200, [("content-type", "text/plain; charset=utf-8")], b"ok")
            described = discovery.described(asked.path, self._served(), request.headers["host"])
            return Response.of(200, described) if asked.verb == "get" and described is not None else _NO_PATH
        plain = attrs.evolve(resource, subresource="")
        if plain in REVIEWS:
            return self._review(REVIEWS[plain], request, asked)
        kind = KINDS.get(plain)
        if kind is None or plain in self.absent:
            groups = {(one.resource.group, one.resource.version) for one in self._served()}
            if (plain.group, plain.version) not in groups:
                return _NO_PATH
            raise path_not_found()
        if resource.subresource:
            return await self._subresource(kind, resource.subresource, request, asked, connection)
        return self._object(kind, request, asked)

    def _served(self) -> list[Kind]:
        return [kind for kind in (KINDS | REVIEWS).values() if kind.resource not in self.absent]

    def _object(self, kind: Kind, request: Request, asked: Attributes) -> Response:
        namespace = asked.namespace if kind.namespaced else None
        match asked.verb:
            case "get":
                return Response.of(200, self._found(kind, namespace, asked.name))
            case "list":
                return Response.of(200, self.lister.serve(kind, namespace, request))
            case "watch":
                watch = Watch.of(kind, namespace, request)
                return Response(200, [("content-type", "application/json")], watch.events(self.store))
            case "create" if kind.namespaced is (namespace is not None) and not _names_an_object(request, kind):
                value, warnings = self.writer.decoded(kind, request)
                dry_run = bool(request.query.get("dryRun"))
                written = self.writer.create(kind, namespace, value, dry_run=dry_run)
                return _written(201, attrs.evolve(written, warnings=[*warnings, *written.warnings]))
            case "patch":
                return _written(200, self.writer.patch(kind, namespace, asked.name, "", request))
            case "delete":
                gracefully = self.kubelet is not None
                deleted = self.writer.delete(kind, namespace, asked.name, request, gracefully=gracefully)
                return _written(200, deleted)
        raise method_not_allowed()

    async def _subresource(
        self, kind: Kind, subresource: str, request: Request, asked: Attributes, connection: Connection
    ) -> Response | None:
        if kind.resource != PODS or subresource not in ("log", "portforward", "ephemeralcontainers"):
            raise path_not_found()
        if subresource == "ephemeralcontainers" and asked.verb == "patch":
            return _written(200, self.writer.patch(kind, asked.namespace, asked.name, subresource, request))
        pod = self._found(kind, asked.namespace, asked.name)
        match subresource, asked.verb:
            case "ephemeralcontainers", "get":
                return Response.of(200, pod)
            case "log", "get":
                return pod_log(self._node(), pod, request)
            case "portforward", "get" | "create":
                return await self.port_forward(connection, request, pod, partial(self._node().dial, pod))
        raise method_not_allowed()

    def _review(self, kind: Kind, request: Request, asked: Attributes) -> Response:
        if asked.verb != "create":
            raise method_not_allowed()
        value, warnings = self.writer.decoded(kind, request)
        answered = reviewed(kind, value, Identity(asked.user, asked.groups), self.authorizer)
        return _written(201, Written(answered, warnings))

    def _found(self, kind: Kind, namespace: str | None, name: str) -> Object:
        value = self.store.find(kind.resource, namespace, name)
        if value is None:
            raise not_found(kind.resource, name)
        return value

    def _node(self) -> Kubelet:
        if self.kubelet is None:
            told = "dial tcp 198.18.0.1:10250: connect: connection refused"
            raise Refused(500, "InternalError", f"Internal error occurred: error dialing backend: {told}")
        return self.kubelet


def _names_an_object(request: Request, kind: Kind) -> bool:
    """Whether a path goes on after the resource."""
    return not request.path.rstrip("/").endswith(f"/{kind.resource.plural}")


def _written(status: int, written: Written) -> Response:
    warnings = [("warning", f"299 - {json.dumps(warning)}") for warning in written.warnings]
    return Response.of(status, written.value, warnings)


def _refusal(refused: Refused) -> Response:
    headers = [] if refused.retry_after_s is None else [("retry-after", str(refused.retry_after_s))]
    return Response.of(refused.code, refused.body, headers)
