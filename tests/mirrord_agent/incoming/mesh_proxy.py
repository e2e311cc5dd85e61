"""A service mesh's proxy beside a target, as far as redirects are concerned: `python -m … STYLE`.

It listens where the mesh's rules lead connections from outside, unseals what they carry (every bit is turned over), and
seals what the target answers. STYLE is how it connects to the target: `loopback`, to 127.0.0.1 or ::1, or `own-source`,
from 127.0.0.6 or ::6 to where the client wanted to go. Those are the two ways that Istio's proxy has had.
"""

from __future__ import annotations

import socket
import sys
import threading

from mirrord_agent.incoming.destinations import original_destination

INBOUND_PORT = 15006
SOURCES = {socket.AF_INET: "127.0.0.6", socket.AF_INET6: "::6"}
LOOPBACKS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def turned_over(data: bytes) -> bytes:
    """Sealed or unsealed."""
    return bytes(byte ^ 0xFF for byte in data)


def serve(client: socket.socket, style: str) -> None:
    destination = original_destination(client)
    assert destination is not None, "a client connected to the proxy itself"
    target = socket.socket(client.family)
    host = destination.host
    if style == "loopback":
        host = LOOPBACKS[client.family]
    else:
        target.bind((SOURCES[client.family], 0))
    target.connect((host, destination.port))
    threading.Thread(target=carry, args=(target, client), daemon=True).start()
    carry(client, target)


def carry(source: socket.socket, sink: socket.socket) -> None:
    while data := source.recv(65536):
        sink.sendall(turned_over(data))
    sink.shutdown(socket.SHUT_WR)


def accept_all(listener: socket.socket, style: str) -> None:
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, style), daemon=True).start()


def main() -> None:
    style = sys.argv[1]
    for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        listener = socket.create_server((host, INBOUND_PORT), family=family)
        threading.Thread(target=accept_all, args=(listener, style), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
