"""serve_http.py NAME HOST PORT: answers requests with what there was in them, until SIGTERM; prints the same lines.

/quiet is not noted.
"""

import hashlib
import http.server
import signal
import socket
import sys
import threading

signal.alarm(90)
NAME, HOST, PORT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        digest = hashlib.sha256(body).hexdigest()
        own = " ".join(map(str, self.connection.getsockname()[:2]))
        peer = self.connection.getpeername()
        known = "" if peer == self.client_address else f", accepted from {self.client_address}"
        line = f"{NAME}: {self.command} {self.path} from {peer[0]} at {own}{known}, body {len(body)} {digest}\n"
        if self.path != "/quiet":
            sys.stdout.write(line)
            sys.stdout.flush()
        self.send_response(200)
        self.send_header("X-Server", NAME)
        self.send_header("Content-Length", str(len(line)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(line.encode())

    def __getattr__(self, name):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
    request_queue_size = 256

    def handle_error(self, *_):
        """Who leaves is no error: telling of twenty takes longer than a server has to end."""


def end(*_):
    threading.Thread(target=server.shutdown).start()


server = Server((HOST, PORT), Handler)
signal.signal(signal.SIGTERM, end)
print("listens at", *server.socket.getsockname()[:2], "name", server.server_address[:2])
print("ready", flush=True)
server.serve_forever(poll_interval=0.05)
