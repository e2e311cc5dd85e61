"""Servers for what no API server does on purpose: answers that a test writes, byte by byte, and a proxy before them."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
import trustme
import yaml

from mirrord_trace.config import ClusterConfiguration

PATIENCE_S = 10.0


class Handler(BaseHTTPRequestHandler):
    """One connection, and the request that it carries now."""

    protocol_version = "HTTP/1.1"
    server: _HTTPServer

    def log_message(self, *_arguments: object) -> None:
        pass

    def answer_any(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(length)
        with self.server.lock:
            self.server.seen.append(Seen(self.command, self.path, dict(self.headers.items()), self.body))
            self.number = len(self.server.seen)
        self.server.answer(self)

    do_GET = do_POST = do_PATCH = do_DELETE = answer_any  # noqa: N815 (http.server's names)

    def reply(self, status: int, body: bytes | dict[str, Any], **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, reason: str = "", message: str = "", **headers: str) -> None:
        self.reply(status, {"kind": "Status", "code": status, "reason": reason, "message": message}, **headers)

    def begin_chunks(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data: bytes) -> None:
        """Sends one chunk; an empty one is the end."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


@attrs.frozen
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class _HTTPServer(ThreadingHTTPServer):
    def __init__(self, answer: Callable[[Handler], None], tls: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.tls = tls
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        self.connections: list[socket.socket] = []

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.lock:
            self.connections.append(request)
        with contextlib.suppress(OSError):
            if self.tls is None:
                super().finish_request(request, client_address)
            else:
                with self.tls.wrap_socket(request, server_side=True) as wrapped:
                    with self.lock:
                        self.connections.append(wrapped)
                    super().finish_request(wrapped, client_address)


class Server:
    """A server of the test's own, whose certificate is for `names`; `answer` is called in a thread per connection."""

    def __init__(
        self,
        directory: Path,
        answer: Callable[[Handler], None],
        *,
        names: tuple[str, ...] = ("127.0.0.1",),
        tls: bool = True,
        certificate: trustme.LeafCert | None = None,
    ) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        context = None
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            (certificate or self.authority.issue_cert(*names)).configure_cert(context)
            self.authority.configure_trust(context)
            context.verify_mode = ssl.CERT_OPTIONAL
        self._server = _HTTPServer(answer, context)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.port = self._server.server_port
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self.drop_all()
        self._server.server_close()

    def close_listener(self) -> None:
        """Take no more connections; those that there are go on."""
        self._server.shutdown()
        self._server.socket.close()

    def drop_all(self) -> None:
        """Cut all connections, as a network or a balancer may."""
        with self._server.lock:
            for connection in self._server.connections:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @property
    def seen(self) -> list[Seen]:
        with self._server.lock:
            return list(self._server.seen)

    def configuration(
        self, user: dict[str, Any] | None = None, cluster: dict[str, Any] | None = None, **more: Any
    ) -> ClusterConfiguration:
        """A kubeconfig for this server, whose authority it trusts unless `cluster` says otherwise."""
        (self.directory / "ca.crt").write_bytes(self.authority.cert_pem.bytes())
        described = {"server": self.url, "certificate-authority": "ca.crt"} | (cluster or {})
        path = self.directory / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig(user or {}, {k: v for k, v in described.items() if v is not None})))
        return ClusterConfiguration(kubeconfig=str(path), **more)


def kubeconfig(user: dict[str, Any], cluster: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "there", "user": "dev"}}],
        "clusters": [{"name": "there", "cluster": cluster}],
        "users": [{"name": "dev", "user": user}],
    }


class Proxy:
    """A proxy that speaks CONNECT, to 127.0.0.1 whatever the name. `seen` has the heads of the requests."""

    def __init__(self, *, refuse: bool = False) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._refuse = refuse
        self.port = self._listener.getsockname()[1]
        self.seen: list[str] = []
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (*self._sockets, self._listener):
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                self._start(self._serve, client)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        self.seen.append(head.decode())
        if self._refuse:
            with contextlib.suppress(OSError):  # who is refused may be gone before we are done
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                client.shutdown(socket.SHUT_RDWR)
            return
        port = int(head.split()[1].rpartition(b":")[2])
        server = socket.create_connection(("127.0.0.1", port))
        self._sockets.append(server)
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        self._start(self._pump, server, client)
        self._pump(client, server)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which nothing listens within the block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
