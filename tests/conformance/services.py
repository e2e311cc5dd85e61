"""What a conformance pod runs: one process with every service that the programs talk to.

Arguments: `near` (in the pod: its addresses, its loopback, names, Unix sockets) or `far` (behind the veth pair, so that
a source address differs from the destination). Says "ready" once all of it listens.

Each service exists to make one kind of mistake visible, so it looks at what arrives, and tells: who called, how the
connection ended (the ledger), whether 200 requests were really there at once (the barrier), whether each of a hundred
million bytes was the right one (the pattern's digest).
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.conformance import places

Handler = Callable[[trio.SocketStream], Awaitable[None]]

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
PATTERN = bytes(hashlib.sha256(b"conformance").digest() * 32768)[: (1 << 20) - 7]
"""Repeated, it makes the bulk data: of odd length, so that no chunk can take another's place unseen."""

LATE_S = 0.7
"""How long a late service hears no SYN: more than the time a connect is held, less than the first retransmission."""

ledger: dict[str, str] = {}
ledger_changed = trio.Condition()
barriers: dict[str, tuple[list[None], trio.Event]] = {}


def host_of(address: tuple[str, int]) -> str:
    return address[0].removeprefix("::ffff:")


async def read_line(stream: trio.SocketStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = await stream.receive_some(1)
        if not chunk:
            break
        line += chunk
    return line.rstrip(b"\r\n")


def reset(stream: trio.SocketStream) -> None:
    """Closing it now sends RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def hear_nothing(listener: socket.socket) -> None:
    """A classic BPF program of one instruction, `ret 0`: every segment for the socket is dropped, SYNs included."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)
    listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(program)))


async def echo(stream: trio.SocketStream) -> None:
    """Sends back what comes, and when that has ended how much it was."""
    total = 0
    while chunk := await stream.receive_some(65536):
        total += len(chunk)
        await stream.send_all(chunk)
    await stream.send_all(b"%d bytes in all\n" % total)


async def reset_after_line(stream: trio.SocketStream) -> None:
    """ "data": answers, and resets when that has been read, as far as one can know. Else resets at once."""
    if await read_line(stream) == b"data":
        await stream.send_all(b"some data\n")
        await trio.sleep(0.1)
    reset(stream)


async def who(stream: trio.SocketStream) -> None:
    """Speaks first: who called. The port only where it is no ephemeral one."""
    host, port = stream.socket.getpeername()[:2]
    named = f"{host} {port}" if port in places.SOURCE_PORTS else host
    await stream.send_all(f"you are {named}\n".encode())
    await stream.send_eof()
    await stream.receive_some(1)


async def half_close(stream: trio.SocketStream) -> None:
    """Ends its own half first, then tells the ledger what came over the other and how that ended."""
    name = (await read_line(stream)).decode()
    await stream.send_all(b"banner\n")
    received = 0
    try:
        with trio.fail_after(10):
            await stream.send_eof()
            while chunk := await stream.receive_some(65536):
                received += len(chunk)
        ending = f"{received} bytes and end of file"
    except trio.BrokenResourceError as error:
        ending = "reset" if isinstance(error.__cause__, ConnectionResetError) else repr(error.__cause__)
    except trio.TooSlowError:
        ending = "nothing for 10 s"
    async with ledger_changed:
        ledger[name] = ending
        ledger_changed.notify_all()


async def visit(stream: trio.SocketStream) -> None:
    """Visits a server for each line "tcp HOST PORT TEXT" or "udp HOST PORT TEXT", and tells what came of it.

    The first line of an answer is who the visitor is, or why there was no visit; the second what the server said. A
    line's end is written as | within a text.
    """
    while line := (await read_line(stream)).decode():
        protocol, host, port, text = line.split(" ", 3)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with trio.socket.socket(family, kind) as visitor:
            try:
                await visitor.connect((host, int(port)))
                name = visitor.getsockname()
                await stream.send_all(f"from {name[0]} {name[1]}\n".encode())
                await visitor.send(text.replace("|", "\r\n").encode())
                answer = await (_all_of(visitor) if protocol == "tcp" else visitor.recv(65536))
                await stream.send_all(b"got %s\n" % answer.replace(b"\r", b"").replace(b"\n", b"|"))
            except OSError as error:
                await stream.send_all(f"{errno.errorcode[error.errno or 0]}\n".encode())
            if protocol == "tcp":  # so that the same addresses can be used again at once
                visitor.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _all_of(visitor: trio.socket.SocketType) -> bytes:
    visitor.shutdown(socket.SHUT_WR)
    answer = b""
    while chunk := await visitor.recv(65536):
        answer += chunk
    return answer


async def tell_ledger(stream: trio.SocketStream) -> None:
    name = (await read_line(stream)).decode()
    with trio.move_on_after(10):
        async with ledger_changed:
            while name not in ledger:
                await ledger_changed.wait()
    await stream.send_all(ledger.get(name, "nothing").encode() + b"\n")


async def bulk(stream: trio.SocketStream) -> None:
    """ "get N": N bytes of the pattern. "put": answers with count and digest of what comes."""
    verb, *rest = (await read_line(stream)).decode().split()
    if verb == "get":
        left = int(rest[0])
        while left:
            chunk = PATTERN[:left]
            await stream.send_all(chunk)
            left -= len(chunk)
    else:
        digest, count = hashlib.sha256(), 0
        while data := await stream.receive_some(1 << 18):
            digest.update(data)
            count += len(data)
        await stream.send_all(f"{count} {digest.hexdigest()}\n".encode())


async def http(stream: trio.SocketStream) -> None:
    """HTTP/1.1, GET only, kept alive: /who, /barrier/NAME/N (answers when N are waiting), else a greeting."""
    while request := await read_line(stream):
        host = ""
        while header := await read_line(stream):
            if header.lower().startswith(b"host:"):
                host = header[5:].decode().strip()
        path = request.decode().split()[1]
        body = f"hello from {socket.gethostname()}: you asked {host} for {path}\n"
        if path == "/who":
            body = f"you are {host_of(stream.socket.getpeername())}\n"
        elif path.startswith("/barrier/"):
            name, count = path.split("/")[2:4]
            waiting, full = barriers.setdefault(name, ([], trio.Event()))
            waiting.append(None)
            if len(waiting) == int(count):
                full.set()
                del barriers[name]
            with trio.move_on_after(20) as limit:
                await full.wait()
            body = f"all {count} were here\n" if not limit.cancelled_caught else f"only {len(waiting)} came\n"
        data = body.encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(data)}\r\n\r\n"
        await stream.send_all(head.encode() + data)


async def control(nursery: trio.Nursery, stream: trio.SocketStream) -> None:
    """ "accept" or "refuse": a new port that hears nothing for a moment, and then accepts (echo) or is gone."""
    order = await read_line(stream)
    listener = listening_socket(stream.socket.getsockname()[0], 0)
    hear_nothing(listener)

    async def serve() -> None:
        await trio.sleep(LATE_S)
        if order == b"refuse":
            listener.close()
            return
        listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        with trio.move_on_after(20):
            await trio.serve_listeners(partial(tolerant, echo), [trio_listener(listener)])

    nursery.start_soon(serve)
    await stream.send_all(b"%d\n" % listener.getsockname()[1])


async def udp_echo(datagrams: trio.socket.SocketType) -> None:
    """Sends back what comes; to "who" the caller's address."""
    while True:
        data, source = await datagrams.recvfrom(65536)
        await datagrams.sendto(f"you are {source[0]}".encode() if data == b"who" else data, source)


async def udp_elsewhere(datagrams: trio.socket.SocketType, answering: trio.socket.SocketType) -> None:
    """Sends back what comes, from another port."""
    while True:
        data, source = await datagrams.recvfrom(65536)
        await answering.sendto(data, source)


def answer(query: dns.message.Message, *, datagram: bool) -> bytes:
    """What the zone says; a long answer to a datagram is cut, so that the resolver must come back over TCP."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    question = query.question[0]
    name = question.name
    known = {dns.name.from_text(each) for each in places.ZONE}
    while True:
        records = places.ZONE.get(name.to_text().lower().rstrip("."), {})
        kind = dns.rdatatype.to_text(question.rdtype)
        if texts := records.get(kind) or records.get("CNAME"):
            kind = kind if kind in records else "CNAME"
            response.answer.append(dns.rrset.from_text_list(name, 60, "IN", kind, texts))
            if kind == "CNAME" and question.rdtype != dns.rdatatype.CNAME:
                name = dns.name.from_text(texts[0])
                continue
        elif name not in known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        break
    wire = response.to_wire(max_size=65535)
    if datagram and len(wire) > 512:
        short = dns.message.make_response(query)
        short.flags |= dns.flags.TC | dns.flags.RA
        return short.to_wire()
    return wire


async def dns_datagrams(datagrams: trio.socket.SocketType) -> None:
    while True:
        data, source = await datagrams.recvfrom(4096)
        await datagrams.sendto(answer(dns.message.from_wire(data), datagram=True), source)


async def dns_stream(stream: trio.SocketStream) -> None:
    received = b""
    while chunk := await stream.receive_some(4096):
        received += chunk
        while len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
            size = 2 + int.from_bytes(received[:2], "big")
            wire = answer(dns.message.from_wire(received[2:size]), datagram=False)
            received = received[size:]
            await stream.send_all(len(wire).to_bytes(2, "big") + wire)


STREAMS: dict[int, Handler] = {
    places.ECHO: echo,
    places.RESET: reset_after_line,
    places.BULK: bulk,
    places.WHO: who,
    places.HALF: half_close,
    places.LEDGER: tell_ledger,
    places.HTTP: http,
    places.VISITOR: visit,
}


async def tolerant(handler: Handler, stream: trio.SocketStream) -> None:
    """A client that goes away ends its own connection only."""
    try:
        async with stream:
            await handler(stream)
    except trio.BrokenResourceError:
        pass


def listening_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=512)


def trio_listener(made: socket.socket) -> trio.SocketListener:
    made.setblocking(False)
    return trio.SocketListener(trio.socket.from_stdlib_socket(made))


async def bound_datagrams(host: str, port: int) -> trio.socket.SocketType:
    made = trio.socket.socket(trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET, trio.socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    await made.bind((host, port))
    return made


def unix_listening_socket(name: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind("\0" + name[1:] if name.startswith("@") else name)
    made.listen(64)
    return made


async def main(side: str) -> None:
    hosts = {"near": [*places.NEAR, "127.0.0.1", "::1"], "far": list(places.FAR)}[side]
    unserved: list[socket.socket] = []
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_listeners, handler_nursery=nursery)
        for host in hosts:
            handlers: dict[int, Handler] = {**STREAMS, places.CONTROL: partial(control, nursery)}
            for port, handler in handlers.items():
                nursery.start_soon(serve, partial(tolerant, handler), [trio_listener(listening_socket(host, port))])
            unserved += [listening_socket(host, places.SILENT), listening_socket(host, places.UNACCEPTED)]
            hear_nothing(unserved[-2])
            nursery.start_soon(udp_echo, await bound_datagrams(host, places.UDP_ECHO))
            nursery.start_soon(
                udp_elsewhere,
                await bound_datagrams(host, places.UDP_ELSEWHERE),
                await bound_datagrams(host, places.UDP_ANSWERING),
            )
        if side == "near":
            for host in places.NAME_SERVERS:
                nursery.start_soon(serve, partial(tolerant, dns_stream), [trio_listener(listening_socket(host, 53))])
                nursery.start_soon(dns_datagrams, await bound_datagrams(host, 53))
            for name in places.UNIX_STREAMS:
                nursery.start_soon(serve, partial(tolerant, echo), [trio_listener(unix_listening_socket(name))])
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await trio.sleep_forever()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
