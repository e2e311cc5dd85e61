"""family.py HOST ECHO: a tree with children, threads, a daemon of its own session and open connections; then sleeps.

Says "ready" when all of it is there.
"""

import os
import signal
import socket
import sys
import threading

HOST, ECHO = sys.argv[1], int(sys.argv[2])


def stay(*keep):
    while True:
        signal.pause()
    return keep


def connected():
    client = socket.create_connection((HOST, ECHO))
    client.sendall(b"x")
    client.recv(1)
    return client


alive, living = os.pipe()
connection = connected()
for kind in ("child", "daemon", "ignores signals"):
    if os.fork() == 0:
        if kind == "daemon":
            os.setsid()
            if os.fork():
                os._exit(0)
        if kind == "ignores signals":
            for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(each, signal.SIG_IGN)
        kept = connected()
        os.write(living, b"x")
        stay(kept)
for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
for _ in range(3):
    os.read(alive, 1)
print("ready", flush=True)
stay(connection)
