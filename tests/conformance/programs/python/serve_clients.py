"""serve_clients.py HOST PORT CASE...: clients of serve_tcp, one after the other; tells what each was told."""

import errno
import signal
import socket
import struct
import sys
import threading

signal.alarm(150)
HOST, PORT = sys.argv[1], int(sys.argv[2])
PATTERN = bytes(range(256)) * 256
GIGABYTE = 1 << 30


def say(*words):
    print(*words, flush=True)


def received_until_end(client):
    """What comes until the end, and what end that is."""
    received = bytearray()
    try:
        while chunk := client.recv(1 << 16):
            received += chunk
    except OSError as error:
        return bytes(received), errno.errorcode[error.errno]
    return bytes(received), "the end"


def read_line(client):
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def greeted(label, verb, port=PORT):
    """A connection that has been greeted; the greeting with "my port" for what only this connection has."""
    client = socket.create_connection((HOST, port), timeout=60)
    greeting = read_line(client)
    mine = f" {client.getsockname()[1]} "
    client.sendall(f"{verb} {label}\n".encode())
    return client, greeting.replace(mine, " my port ", 1)


def echo():
    client, greeting = greeted("plain", "echo")
    say("echo:", greeting)
    for text in (b"one", b"two" * 1000, PATTERN):
        client.sendall(text)
        got = bytearray()
        while len(got) < len(text):
            chunk = client.recv(1 << 16)
            if not chunk:
                break
            got += chunk
        say("echo:", len(text), "bytes came back" if got == text else f"became {len(got)}")
    client.shutdown(socket.SHUT_WR)
    say("echo: then", *received_until_end(client))


def half():
    client, _greeting = greeted("server ends first", "half")
    text, end = received_until_end(client)
    say("half:", len(text), end)
    client.sendall(PATTERN)
    client.shutdown(socket.SHUT_WR)
    client.close()


def half_of_client():
    client, _ = greeted("client ends first", "sink")
    client.sendall(PATTERN)
    client.shutdown(socket.SHUT_WR)
    say("half of client:", *received_until_end(client))


def source():
    client, _ = greeted("download", "source")
    text, end = received_until_end(client)
    say("source:", len(text), hash_of(text), end)


def hash_of(text):
    import hashlib

    return hashlib.sha256(text).hexdigest()[:16]


def reset():
    client, _ = greeted("by the server", "reset")
    say("reset:", received_until_end(client)[1])


def client_resets():
    client, _ = greeted("by the client", "echo")
    client.sendall(b"x" * 5000)
    got = b""
    while len(got) < 5000:
        got += client.recv(5000)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    client.close()
    say("client resets")


def client_goes():
    """Leaves without a word, with the greeting unread."""
    client, _ = greeted("leaves", "sink")
    client.close()
    say("client goes")


def silent():
    client = socket.create_connection((HOST, PORT), timeout=60)
    read_line(client)
    client.shutdown(socket.SHUT_WR)
    say("silent:", *received_until_end(client))


def slow():
    """Byte by byte; then it reads nothing for as long as the server can go on without that."""
    client, _ = greeted("byte by byte", "echo")
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for each in range(200):
        client.sendall(bytes([each]))
    client.shutdown(socket.SHUT_WR)
    text, end = received_until_end(client)
    say("slow:", text == bytes(range(200)), end)


def crowd(number=1000):
    """All are open before the first goes on."""
    clients = [socket.create_connection((HOST, PORT), timeout=60) for _ in range(number)]
    right = 0
    for each, client in enumerate(clients):
        greeting = read_line(client)
        right += f" {client.getsockname()[1]} " in greeting
        client.sendall(b"echo crowd %d\n" % each)
    for each, client in enumerate(clients):
        client.sendall(b"%d" % each * 100)
        client.shutdown(socket.SHUT_WR)
    echoed = sum(received_until_end(client) == (b"%d" % each * 100, "the end") for each, client in enumerate(clients))
    say(f"crowd: {right} of {number} greeted by their own port, {echoed} echoed")


def gigabyte():
    client, _ = greeted("a gigabyte", "sink")
    for _ in range(GIGABYTE // len(PATTERN)):
        client.sendall(PATTERN)
    client.shutdown(socket.SHUT_WR)
    say("gigabyte:", *received_until_end(client))


def threads(number=50):
    """Each echoes half a megabyte while the others do."""
    right = []

    def one(each):
        client, _ = greeted(f"thread {each}", "echo")
        text = bytes([each]) * (1 << 19)
        sender = threading.Thread(target=lambda: (client.sendall(text), client.shutdown(socket.SHUT_WR)))
        sender.start()
        right.append(received_until_end(client) == (text, "the end"))
        sender.join()

    running = [threading.Thread(target=one, args=[each]) for each in range(number)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    say(f"threads: {sum(right)} of {number} echoed")


for case in sys.argv[3:]:
    globals()[case]()
