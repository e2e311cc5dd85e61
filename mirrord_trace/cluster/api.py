"""The API server: objects as plain JSON, fetched, listed, watched, made, changed and deleted.

All is async and can be cancelled at once. Every method raises `ApiRefusal` when the server says no, and `Failure` when
it cannot be reached or there are no credentials for it; `mirrord_trace.cluster.refusals.failure` turns the first into
the second.
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from urllib.parse import urlencode

import attrs
import trio

from mirrord_trace.cluster.credentials import Credentials, find_credentials
from mirrord_trace.cluster.exchange import USER_AGENT, Exchange, Object
from mirrord_trace.cluster.logs import log_lines
from mirrord_trace.cluster.refusals import ApiRefusal, Request
from mirrord_trace.cluster.resources import POD_LOGS, Resource
from mirrord_trace.cluster.unreachable import Unreachable
from mirrord_trace.cluster.watching import Event, events
from mirrord_trace.config import ClusterConfiguration

__all__ = ["ApiRefusal", "ApiServer", "Object", "Unreachable", "WebSocketRequest", "open_api"]

Objects = list[Object]
Warnings = list[str]

_PAGE = 500
"""How many objects a list asks for at once, as kubectl does."""


@attrs.frozen(kw_only=True)
class WebSocketRequest:
    """What is needed to open a WebSocket to the API server."""

    uri: str
    """wss://… or ws://…, with the query."""
    tls: ssl.SSLContext | None
    """With the authority and the client's certificate; None for ws."""
    server_hostname: str | None
    """The name that the server's certificate must have, where it is not the URI's."""
    headers: list[tuple[str, str]]
    """Who we are, and User-Agent."""
    proxy: str | None
    """A URL, with user and password if need be; None: no proxy, whatever the environment says."""
    server: str
    """The server's URL, for messages."""


class ApiServer:
    """A cluster's API server, as one user."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        """Renewed as needed; for who opens connections of their own."""
        self._exchange = Exchange(credentials)
        self.namespace = credentials.namespace
        """The one that was asked for, else the context's, else "default"."""
        self.context = credentials.context
        """The kubeconfig's context; None in a pod."""

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return self._exchange.requests

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """One object."""
        return (await self._exchange.send(Request("get", resource, namespace, name), "GET")).object()

    async def list(
        self, resource: Resource, namespace: str | None, *, label_selector: str = "", field_selector: str = ""
    ) -> Objects:
        """All objects of a kind, of one namespace or of all (None), that the selectors choose."""
        request = Request("list", resource, namespace)
        selectors = _selectors(label_selector, field_selector)
        query = {**selectors, "limit": str(_PAGE)}
        objects: Objects = []
        while True:
            try:
                page = (await self._exchange.send(request, "GET", query)).object()
            except ApiRefusal as refusal:
                if refusal.status != 410 or "continue" not in query:
                    raise
                # The pages took too long, and what they go on from is forgotten. Once more, in one go.
                query, objects = selectors, []
                continue
            objects += page.get("items") or []
            token = page.get("metadata", {}).get("continue")
            if not token:
                return objects
            query = {**query, "continue": token}

    async def create(
        self, resource: Resource, namespace: str | None, body: Object, *, name: str = ""
    ) -> tuple[Object, Warnings]:
        """Make an object, or with `name` what a subresource of that object makes.

        Returns it as the server has it and the server's warnings. The body should name it: then, when the answer was
        lost and the request had to be repeated, the object is known to be ours. Where it may have been made although
        this raises, `ApiRefusal.repeated` or `Unreachable.sent` says so.
        """
        request = Request("create", resource, namespace, name)
        own_name = body.get("metadata", {}).get("name", "")
        try:
            answer = await self._exchange.send(request, "POST", body=json.dumps(body).encode())
        except ApiRefusal as refusal:
            if refusal.reason == "AlreadyExists" and refusal.repeated and own_name:
                return await self._made_before(resource, namespace, own_name), []
            raise
        return answer.object(), answer.warnings

    async def _made_before(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object that a create whose answer was lost has made; where that is not to be had, the error says so."""
        try:
            return await self.get(resource, namespace, name)
        except ApiRefusal as refusal:
            refusal.repeated = True
            raise
        except Unreachable as failure:
            failure.sent = True
            raise

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        body: Object,
        *,
        content_type: str = "application/merge-patch+json",
    ) -> Object:
        """Change an object, and return it as it is then."""
        request = Request("patch", resource, namespace, name)
        answer = await self._exchange.send(request, "PATCH", body=json.dumps(body).encode(), content_type=content_type)
        return answer.object()

    async def delete(self, resource: Resource, namespace: str | None, name: str) -> bool:
        """Delete an object and, in the background, what belongs to it. False: it was not there, which is fine."""
        request = Request("delete", resource, namespace, name)
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        try:
            await self._exchange.send(request, "DELETE", body=json.dumps(options).encode())
        except ApiRefusal as refusal:
            if refusal.status != 404:
                raise
            return False
        return True

    def watch(
        self, resource: Resource, namespace: str | None, *, label_selector: str = "", field_selector: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        """What happens to objects from now on, after an ADDED for each that is there.

        Yields ("ADDED" | "MODIFIED" | "DELETED", object). Goes on when connections end; what was missed meanwhile is
        made up for, so an object may come as MODIFIED without having changed.
        """
        selectors = _selectors(label_selector, field_selector)
        return contextlib.aclosing(events(self._exchange, resource, namespace, selectors))

    def log(
        self, namespace: str, pod: str, container: str, *, follow: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """The lines that a container has written; with `follow` also those to come, until it ends."""
        request = Request("get", POD_LOGS, namespace, pod)
        return contextlib.aclosing(log_lines(self._exchange, request, container, follow=follow))

    async def websocket(
        self, resource: Resource, namespace: str, name: str, query: Mapping[str, str]
    ) -> WebSocketRequest:
        """How to open a WebSocket to a subresource, with credentials that are valid now."""
        access = await self.credentials.access()
        headers = await trio.to_thread.run_sync(access.headers, abandon_on_cancel=True)
        return WebSocketRequest(
            uri=f"ws{access.server.removeprefix('http')}{resource.path(namespace, name)}?{urlencode(query)}",
            tls=access.tls,
            server_hostname=access.server_hostname,
            headers=[("User-Agent", USER_AGENT), *headers],
            proxy=access.proxy,
            server=access.server,
        )

    async def renew_credentials(self) -> None:
        """Load credentials anew, after a WebSocket was refused with 401."""
        await self.credentials.access(refused=await self.credentials.access())

    def count_request(self) -> None:
        """Count a request that was made without us, such as a WebSocket's."""
        self._exchange.requests += 1


@contextlib.asynccontextmanager
async def open_api(configuration: ClusterConfiguration, *, interactive: bool = True) -> AsyncIterator[ApiServer]:
    """The API server that the configuration means. No request is made yet.

    `interactive` says whether an exec plugin may ask at the terminal, until a first request has succeeded. Raises
    `Failure` when there is no kubeconfig or it is of no use, and when an exec plugin gives no credentials.
    """
    credentials = find_credentials(configuration)
    credentials.interactive = interactive
    await credentials.access()
    try:
        yield ApiServer(credentials)
    finally:
        credentials.close()


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: selector for name, selector in selectors.items() if selector}
