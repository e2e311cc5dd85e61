"""witness.py HOST ECHO SILENT NAME: is there when the connection to the pod is lost.

Opens what can be open, says "ready", and then tells what each becomes. Each observation ends by itself or is "hangs".
"""

import errno
import os
import signal
import socket
import sys
import threading

signal.alarm(60)
HOST, ECHO, SILENT, NAME = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
results = {}


def outcome(action):
    try:
        return action() or "end"
    except socket.gaierror:
        return "gaierror"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def observe(name, action):
    def work():
        results[name] = outcome(action)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return name, thread


reading = socket.create_connection((HOST, ECHO))
idle = socket.create_connection((HOST, ECHO))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.connect((HOST, 7020))
datagrams.send(b"before")
datagrams.recv(100)
datagrams.settimeout(3)
silent = socket.socket()
observations = [
    observe("a blocked read", lambda: reading.recv(1)),
    observe("a connect under way", lambda: silent.connect((HOST, SILENT))),
]
print("ready", flush=True)
sys.stdin.readline()
observations += [
    observe("an idle connection", lambda: idle.recv(1)),
    observe("a new connection", lambda: socket.create_connection((HOST, ECHO))),
    observe("a datagram", lambda: datagrams.send(b"after") and datagrams.recv(100)),
    observe("a lookup", lambda: socket.getaddrinfo(NAME, 80)),
    observe("a Unix socket pair", lambda: [pair.close() for pair in socket.socketpair()] and "works"),
]
for name, thread in observations:
    thread.join(20)
    print(f"{name}:", results.get(name, "hangs"), flush=True)
print("working directory:", os.path.isdir(os.getcwd()), flush=True)
os._exit(21)
