"""serve_websocket.py NAME HOST PORT: echoes messages of WebSockets, until SIGTERM.

With "ask" for NAME it is a client: says what came back, and whether the library knows the server's address.
"""

import signal
import sys

from websockets.sync.client import connect
from websockets.sync.server import serve

signal.alarm(90)
NAME, HOST, PORT, *HEADERS = sys.argv[1:]


def echo(connection):
    connection.send(f"{NAME} serves {connection.remote_address[0]} {connection.request.path}")
    for message in connection:
        connection.send(message)


def ask():
    address = f"[{HOST}]" if ":" in HOST else HOST
    headers = dict(header.split(": ") for header in HEADERS)
    with connect(f"ws://{address}:{PORT}/chat", additional_headers=headers, max_size=1 << 24) as client:
        print("first:", client.recv(timeout=20))
        print("protocol:", client.response.status_code)
        for message in ("short", "ü" * 70000, b"\0\xff" * 1000, b"z" * (1 << 20)):
            client.send(message)
            print(len(message), "is back:", client.recv(timeout=20) == message)
        print("pong:", client.ping().wait(20))
    print("closed:", client.close_code)


if NAME == "ask":
    ask()
else:
    with serve(echo, HOST, int(PORT), max_size=1 << 24) as server:
        signal.signal(signal.SIGTERM, lambda *_: __import__("os")._exit(0))
        print("ready", flush=True)
        server.serve_forever()
