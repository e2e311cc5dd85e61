"""What runs in the demo pod: a name server, a shop, an echo of datagrams, the pod's own website and a visitor to it.

A program of its own, started inside the pod; threads suffice for a handful of clients and import faster than an event
loop. It writes "ready" when all sockets are open. Who lives where is decided in `demo`; the argument is its plan as
JSON: "names" (absolute names to addresses), and "name_server", "echo", "shop" and "web" (address and port).
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

_TIME_TO_LIVE_S = 5
_VISIT_INTERVAL_S = 1.0


def answer(query: bytes, names: Mapping[str, str]) -> bytes | None:
    """The name server's answer to a query, from a table of absolute names; None for what is no query."""
    try:
        message = dns.message.from_wire(query)
        response = dns.message.make_response(message, recursion_available=True)
    except dns.exception.DNSException:
        return None
    response.flags |= dns.flags.AA
    for question in message.question:
        address = names.get(question.name.to_text().lower())
        if address is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            response.answer.append(
                dns.rrset.from_text(question.name, _TIME_TO_LIVE_S, dns.rdataclass.IN, dns.rdatatype.A, address)
            )
    return response.to_wire()


class DatagramServer(socketserver.UDPServer):
    """A name server, or an echo without a table of names."""

    def __init__(self, address: tuple[str, int], names: Mapping[str, str] | None = None) -> None:
        super().__init__(address, DatagramHandler)
        self.names = names


class DatagramHandler(socketserver.BaseRequestHandler):
    """One datagram, one answer."""

    server: DatagramServer

    def handle(self) -> None:
        """Answer a datagram."""
        datagram, connection = self.request
        response = datagram if self.server.names is None else answer(datagram, self.server.names)
        if response is not None:
            connection.sendto(response, self.client_address)


class StreamServer(socketserver.ThreadingTCPServer):
    """A thread for each connection, and a backlog for a crowd."""

    daemon_threads = True
    request_queue_size = 128


class NameStreamServer(StreamServer):
    """The name server over TCP."""

    def __init__(self, address: tuple[str, int], names: Mapping[str, str]) -> None:
        super().__init__(address, NameStreamHandler)
        self.names = names


class NameStreamHandler(socketserver.StreamRequestHandler):
    """Queries preceded by their length in two bytes (RFC 1035, 4.2.2)."""

    server: NameStreamServer

    def handle(self) -> None:
        """Answer the queries of a connection."""
        while len(length := self.rfile.read(2)) == 2:
            response = answer(self.rfile.read(int.from_bytes(length, "big")), self.server.names)
            if response is None:
                return
            self.wfile.write(len(response).to_bytes(2, "big") + response)


class WebServer(StreamServer):
    """A website that knows its name."""

    def __init__(self, address: tuple[str, int], name: str) -> None:
        super().__init__(address, WebHandler)
        self.name = name


class WebHandler(http.server.BaseHTTPRequestHandler):
    """Answers GET with JSON that says who asked whom."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        """Answer a request."""
        said = {"service": self.server.name, "path": self.path, "caller": self.client_address[0]}
        body = json.dumps(said).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the name is http.server's)
        """Keep quiet: the pod's log is for what goes wrong."""


def visit_for_ever(address: tuple[str, int]) -> None:
    """Look at the pod's website regularly, as a customer does, and whoever answers."""
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(*address, timeout=_VISIT_INTERVAL_S)
            connection.request("GET", "/", headers={"User-Agent": "demo-visitor"})
            connection.getresponse().read()
            connection.close()
        time.sleep(_VISIT_INTERVAL_S)


def main() -> None:
    """Serve until the pod ends."""
    plan = json.loads(sys.argv[1])
    name_server, echo, shop, web = (tuple(plan[service]) for service in ("name_server", "echo", "shop", "web"))
    servers: list[socketserver.BaseServer] = [
        DatagramServer(name_server, plan["names"]),
        NameStreamServer(name_server, plan["names"]),
        DatagramServer(echo),
        WebServer(shop, "shop"),
        WebServer(web, "web"),
    ]
    os.write(1, b"ready\n")
    for server in servers:
        threading.Thread(target=server.serve_forever).start()
    visit_for_ever(web)


if __name__ == "__main__":
    main()
