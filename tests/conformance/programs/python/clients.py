"""clients.py HTTP_NAME HTTP_PORT HOST ECHO CLOSED: the ways that Python programs reach services."""

import asyncio
import errno
import multiprocessing
import multiprocessing.reduction
import os
import select
import signal
import socket
import sys
import threading
import urllib.error
import urllib.request

signal.alarm(60)
NAME, HTTP_PORT, HOST, ECHO, CLOSED = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])


def say(*words):
    print(*words, flush=True)


def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno))


def over_http():
    for path in ("/", "/who"):
        with urllib.request.urlopen(f"http://{NAME}:{HTTP_PORT}{path}", timeout=20) as answer:
            say("urllib:", answer.status, answer.read())
    try:
        urllib.request.urlopen(f"http://{HOST}:{CLOSED}/", timeout=20)
    except urllib.error.URLError as error:
        say("urllib, closed port:", name_of(error.reason))
    try:
        urllib.request.urlopen(f"http://unknown.example.com:{HTTP_PORT}/", timeout=20)
    except urllib.error.URLError as error:
        say("urllib, unknown name:", type(error.reason).__name__)


async def one_echo(number):
    reader, writer = await asyncio.open_connection(HOST, ECHO)
    writer.write(b"asyncio %d\n" % number)
    line = await reader.readline()
    writer.write_eof()
    rest = await reader.read()
    peer = writer.get_extra_info("peername")
    writer.close()
    await writer.wait_closed()
    return line == b"asyncio %d\n" % number and rest.endswith(b"bytes in all\n") and peer[:2] == (HOST, ECHO)


async def asynchronously():
    results = await asyncio.gather(*(one_echo(number) for number in range(40)))
    say("asyncio:", sum(results), "of", len(results))
    try:
        await asyncio.open_connection(HOST, CLOSED)
    except OSError as error:
        say("asyncio, closed port:", name_of(error))
    found = await asyncio.get_running_loop().getaddrinfo(NAME, HTTP_PORT, type=socket.SOCK_STREAM)
    say("asyncio, getaddrinfo:", sorted(entry[4][0] for entry in found))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", "import socket; print(socket.gethostname())", stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    say("asyncio, a subprocess:", output, process.returncode)


def with_select():
    poller = select.epoll()
    clients = {}
    for number in range(20):
        client = socket.socket()
        client.setblocking(False)
        poller.register(client, select.EPOLLOUT | select.EPOLLIN)
        result = client.connect_ex((HOST, ECHO))
        if result not in (0, errno.EINPROGRESS):
            say("epoll, connect:", errno.errorcode[result])
        clients[client.fileno()] = (client, number)
    answers = {}
    while len(answers) < len(clients):
        events = poller.poll(20)
        if not events:
            say("epoll: nothing for 20 s")
            return
        for descriptor, event in events:
            client, number = clients[descriptor]
            if event & select.EPOLLIN:
                answers[number] = client.recv(100)
                poller.unregister(descriptor)
            elif event & select.EPOLLOUT:
                client.send(b"number %d\n" % number)
                poller.modify(descriptor, select.EPOLLIN)
    say("epoll:", sum(answers[number] == b"number %d\n" % number for number in answers), "of", len(clients))


def with_threads():
    right = []

    def work(number):
        with socket.create_connection((HOST, ECHO), timeout=20) as client:
            file = client.makefile("rwb")
            for turn in range(10):
                file.write(b"%d %d\n" % (number, turn))
                file.flush()
                right.append(file.readline() == b"%d %d\n" % (number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say("threads:", sum(right), "of", len(right))


def child_connects(channel):
    with socket.create_connection((HOST, ECHO)) as client:
        multiprocessing.reduction.send_handle(channel, client.fileno(), os.getppid())


def with_processes():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        mine, theirs = context.Pipe()
        child = context.Process(target=child_connects, args=(theirs,))
        child.start()
        with socket.socket(fileno=multiprocessing.reduction.recv_handle(mine)) as client:
            child.join()
            client.sendall(b"from a child\n")
            same_peer = client.getpeername()[:2] == (HOST, ECHO)
            say(f"multiprocessing, {method}:", same_peer, client.recv(100), child.exitcode)


def with_timeouts():
    with socket.create_connection((HOST, ECHO), timeout=0.05) as client:
        try:
            client.recv(1)
        except TimeoutError:
            say("timeout: TimeoutError")
        client.settimeout(None)
        client.sendall(b"later\n")
        say("after the timeout:", client.recv(100))
        read_end, write_end = os.pipe()
        with open("/proc/self/exe", "rb") as file:
            sent = os.sendfile(client.fileno(), file.fileno(), 0, 4096)
            received = b""
            while len(received) < sent:
                received += client.recv(sent - len(received))
            file.seek(0)
            say("sendfile:", sent, received == file.read(sent))
        os.write(write_end, b"spliced\n")
        say("splice:", os.splice(read_end, client.fileno(), 8), client.recv(100))


if __name__ == "__main__":
    over_http()
    asyncio.run(asynchronously())
    with_select()
    with_threads()
    with_processes()
    with_timeouts()
