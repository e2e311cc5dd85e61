"""What runs in the shop's containers: answers HTTP on a port, and says in JSON who was asked and by whom.

    shop_service.py [PORT]

A program of its own with what the agent's image has, which is Python without its HTTP server.
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import sys


class Handler(socketserver.StreamRequestHandler):
    """One connection, one request."""

    def handle(self) -> None:
        """Answers a GET."""
        method, path, *_ = self.rfile.readline().decode("latin-1").split() or ["", ""]
        while self.rfile.readline().strip():
            pass
        if method != "GET":
            return
        said = {"service": os.environ.get("SERVICE"), "pod": os.uname().nodename, "path": path}
        body = json.dumps({**said, "caller": self.client_address[0]}).encode() + b"\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.wfile.write(head.encode() + body)


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection, and a backlog for a crowd."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def main() -> None:
    """Serves until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    with Server(("0.0.0.0", port), Handler) as server:
        sys.stdout.write(f"serving on port {port}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    main()
