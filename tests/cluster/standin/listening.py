"""Where the API server is reached: TLS on ports of 127.0.0.1, each with a certificate of its own.

The ports lead to the same server. Their certificates differ: valid for the address, only for another name, or expired.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Literal

import attrs
import trio
import trustme

from .http import Connection, Handler

Certificate = Literal["valid", "other-name", "expired"]
OTHER_NAME = "kubernetes.cluster.test"
"""The name for which the certificate "other-name" is: the one to give as `tls-server-name`."""
_DAY = timedelta(days=1)


@attrs.define
class _Endpoint:
    port: int
    context: ssl.SSLContext
    listener: trio.SocketListener
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)


@attrs.define
class Listening:
    """The ports of an API server. All methods are for the stand-in's loop."""

    authority: trustme.CA
    handle: Handler
    nursery: trio.Nursery
    connections: set[Connection]
    _endpoints: dict[Certificate, _Endpoint] = attrs.field(factory=dict)

    def port(self, certificate: Certificate) -> int:
        """The port with that certificate, opened when it is first asked for."""
        if certificate not in self._endpoints:
            listener = _listener(0)
            endpoint = _Endpoint(listener.socket.getsockname()[1], self._context(certificate), listener)
            self._endpoints[certificate] = endpoint
            self.nursery.start_soon(self._accept, endpoint)
        return self._endpoints[certificate].port

    def go_away(self) -> None:
        """Closes the ports and cuts all connections, as a server that is killed."""
        for endpoint in self._endpoints.values():
            endpoint.scope.cancel()
            endpoint.listener.socket.close()
        for connection in self.connections:
            connection.cut()

    def come_back(self) -> None:
        """Listens again, on the same ports."""
        for endpoint in self._endpoints.values():
            endpoint.scope = trio.CancelScope()
            endpoint.listener = _listener(endpoint.port)
            self.nursery.start_soon(self._accept, endpoint)

    def serve_plainly(self, serve: Callable[[trio.SocketStream], Awaitable[object]]) -> int:
        """Opens a port for something else, without TLS, and returns it."""
        listener = _listener(0)
        self.nursery.start_soon(partial(trio.serve_listeners, serve, [listener], handler_nursery=self.nursery))
        port: int = listener.socket.getsockname()[1]
        return port

    async def _accept(self, endpoint: _Endpoint) -> None:
        serve = partial(self._serve, endpoint.context)
        with endpoint.scope:
            await trio.serve_listeners(serve, [endpoint.listener], handler_nursery=self.nursery)

    async def _serve(self, context: ssl.SSLContext, stream: trio.SocketStream) -> None:
        connection = Connection(trio.SSLStream(stream, context, server_side=True, https_compatible=True))
        self.connections.add(connection)
        try:
            await connection.serve(self.handle)
        finally:
            self.connections.discard(connection)

    def _context(self, certificate: Certificate) -> ssl.SSLContext:
        now = datetime.now(UTC)
        issued = {
            "valid": lambda: self.authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc"),
            "other-name": lambda: self.authority.issue_cert(OTHER_NAME),
            "expired": lambda: self.authority.issue_cert("127.0.0.1", not_before=now - 2 * _DAY, not_after=now - _DAY),
        }[certificate]()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        issued.configure_cert(context)
        self.authority.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        return context


def _listener(port: int) -> trio.SocketListener:
    opened = socket.create_server(("127.0.0.1", port), backlog=128)
    opened.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(opened))
