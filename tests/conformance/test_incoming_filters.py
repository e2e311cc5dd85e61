"""HTTP filters: requests that match are the process's, all others go to the target as they are.

Both are the same static Go server, which says who it is. The clients send exactly what a case says.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.conformance import build, http2_client
from tests.conformance.harness import nothing_left
from tests.conformance.http_client import Client, connected, request
from tests.conformance.serving import POD, POD_6, PROCESS, TARGET, Server, ServingWorld, needed, started
from tests.conformance.stage import networks
from tests.mirrord_agent.incoming.networks import Network
from tests.waiting import holds_within

PORT = 7340
MINE = "X-User: Ann"
BY_HEADER = {"header_filter": "^x-user: ann$"}
Filter = Mapping[str, Any]


@attrs.define
class Filtered:
    """A target and a process that has some of its requests."""

    target: Server
    process: Server
    clients: Network

    def connect(self, host: str = POD) -> Any:
        return connected(self.clients, host, PORT)


@contextmanager
def filtered(
    serving: ServingWorld,
    directory: Path,
    http_filter: Filter,
    *,
    mode: str = "steal",
    ports: list[int] | None = None,
    agent: Mapping[str, Any] | None = None,
    program: tuple[str, ...] | None = None,
) -> Iterator[Filtered]:
    config = directory / "mirrord.json"
    incoming = {"mode": mode, "http_filter": http_filter, **({} if ports is None else {"ports": ports})}
    config.write_text(json.dumps({"feature": {"network": {"incoming": incoming}}, "agent": agent or {}}))
    server = program or (str(build.go_program("serve_http")), "{name}", f":{PORT}")

    def named(name: str) -> list[str]:
        return [part.replace("{name}", name) for part in server]

    with (
        networks(serving) as (clients, _),
        nothing_left(),
        started(serving.in_pod(named(TARGET))) as target,
        started(serving.tool(named(PROCESS), "--config-file", str(config))) as process,
    ):
        yield Filtered(target, process, clients)


def servers_of(client: Client, *requests: bytes) -> list[str]:
    """Who answers each, one after the other."""
    return [client.ask(each).server for each in requests]


@pytest.mark.parametrize(
    ("http_filter", "mine", "others"),
    [
        (
            BY_HEADER,
            [request("/", MINE), request("/x", "Accept: */*", "x-UsEr: aNN"), request("/", MINE, body=b"some")],
            [request("/"), request("/", "X-User: Anna"), request("/?X-User:Ann"), request("/", body=MINE.encode())],
        ),
        (
            {"header_filter": "^x-user: (?!bob)"},
            [request("/", "X-User: ann")],
            [request("/", "X-User: bob"), request("/")],
        ),
        (
            {"path_filter": "^/api/v[12]/"},
            [request("/api/v1/x"), request("/api/v2/?q=1", method="DELETE")],
            [request("/api/v3/x"), request("/other/api/v1/")],
        ),
        (
            {"path_filter": r"^/find\?.*q=mine"},
            [request("/find?q=mine"), request("/find?a=b&q=mine")],
            [request("/find"), request("/find?q=other")],
        ),
        (
            {"method_filter": "^(PUT|PATCH)$"},
            [request("/", method="PUT", body=b"x"), request("/", method="PATCH", body=b"")],
            [request("/"), request("/", method="POST", body=b"x")],
        ),
        (
            {"body_filter": {"body": "json", "query": "$.user.name", "matches": "^ann$"}},
            [request("/", "Content-Type: application/json", body=b'{"user": {"name": "ann"}, "n": 1}', method="POST")],
            [
                request("/", "Content-Type: application/json", body=b'{"user": {"name": "bob"}}', method="POST"),
                request("/", "Content-Type: application/json", body=b'{"user": broken', method="POST"),
                request("/", "Content-Type: application/json", body=b"x" * 100_000, method="POST"),
                request("/"),
            ],
        ),
        (
            {"all_of": [{"header": "^x-user: ann$"}, {"path": "^/a"}, {"method": "GET"}]},
            [request("/a", MINE)],
            [request("/b", MINE), request("/a"), request("/a", MINE, method="POST", body=b"")],
        ),
        (
            {"any_of": [{"header": "^x-user: ann$"}, {"path": "^/a"}]},
            [request("/a"), request("/b", MINE)],
            [request("/b"), request("/b", "X-User: bob")],
        ),
    ],
)
def test_who_answers(
    serving: ServingWorld, tmp_path: Path, http_filter: Filter, mine: list[bytes], others: list[bytes]
) -> None:
    """On connections of their own, and on one, in turn."""
    with filtered(serving, tmp_path, http_filter) as made:
        for requests, name in ((mine, PROCESS), (others, TARGET)):
            for each in requests:
                with made.connect() as client:
                    assert servers_of(client, each) == [name]
        for host in (POD, POD_6):
            with made.connect(host) as client:
                in_turn = [*others, *mine, *others, *reversed(mine), *others]
                expected = [PROCESS if each in mine else TARGET for each in in_turn]
                assert servers_of(client, *in_turn) == expected


def test_pipelined_requests_are_answered_in_their_order(serving: ServingWorld, tmp_path: Path) -> None:
    with filtered(serving, tmp_path, BY_HEADER) as made, made.connect() as client:
        whose = [number % 3 == 0 for number in range(60)]
        client.send(b"".join(request(f"/{n}", *[MINE] * mine, body=b"b" * n) for n, mine in enumerate(whose)))
        for number, mine in enumerate(whose):
            answer = client.answer()
            assert answer.server == (PROCESS if mine else TARGET)
            assert f" /{number} ".encode() in answer.body
            assert f"body {number} ".encode() in answer.body


@pytest.mark.parametrize("headers", [[], [MINE]], ids=["others", "mine"])
def test_bodies_in_pieces_with_trailers(serving: ServingWorld, tmp_path: Path, headers: list[str]) -> None:
    body = bytes(range(256)) * 500
    with filtered(serving, tmp_path, BY_HEADER) as made, made.connect() as client:
        for _ in range(3):
            client.send(request("/in/pieces", "Transfer-Encoding: chunked", "Trailer: X-Last", *headers, method="POST"))
            for start in range(0, len(body), 1000):
                piece = body[start : start + 1000]
                client.send(b"%x;name=value\r\n" % len(piece), piece + b"\r\n")
            answer = client.ask(b"0\r\nX-Last: the end\r\n\r\n")
            assert answer.server == (PROCESS if headers else TARGET)
            assert f"body {len(body)} {hashlib.sha256(body).hexdigest()}" in answer.body.decode()
            assert b'trailer "the end"' in answer.body


@pytest.mark.parametrize("headers", [[], [MINE]], ids=["others", "mine"])
def test_who_expects_100_gets_it_before_the_body(serving: ServingWorld, tmp_path: Path, headers: list[str]) -> None:
    with filtered(serving, tmp_path, BY_HEADER) as made, made.connect() as client:
        for _ in range(2):
            client.send(request("/", "Expect: 100-continue", "Content-Length: 5", *headers, method="POST"))
            assert client.line() == b"HTTP/1.1 100 Continue\r\n"
            assert client.line() == b"\r\n"
            answer = client.ask(b"12345")
            assert (answer.server, b"body 5 " in answer.body) == (PROCESS if headers else TARGET, True)


@pytest.mark.parametrize("headers", [[], [MINE]], ids=["others", "mine"])
def test_a_large_body_streams(serving: ServingWorld, tmp_path: Path, headers: list[str]) -> None:
    piece, pieces = b"\x5a" * (1 << 20), 200
    with filtered(serving, tmp_path, BY_HEADER) as made, made.connect() as client:
        client.send(request("/large", f"Content-Length: {len(piece) * pieces}", *headers, method="PUT"))
        for _ in range(pieces):
            client.send(piece)
        answer = client.answer()
        assert answer.server == (PROCESS if headers else TARGET)
        assert f"body {len(piece) * pieces} " in answer.body.decode()


@pytest.mark.parametrize(("headers", "name"), [([], TARGET), ([MINE], PROCESS)], ids=["others", "mine"])
def test_web_sockets(serving: ServingWorld, tmp_path: Path, headers: list[str], name: str) -> None:
    server = (*build.python_program("serve_websocket"), "{name}", "0.0.0.0", str(PORT))
    client = [*build.python_program("serve_websocket"), "ask", POD, str(PORT), *headers]
    with filtered(serving, tmp_path, BY_HEADER, program=server):
        told = serving.client(client)
    assert f"first: {name} serves" in told
    assert told.count("is back: True") == 4
    assert "pong: True\nclosed: 1000\n" in told


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: pod\r\nBad Header: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: pod\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: pod\r\nX-User: Ann\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"GET / HTTP/9.9\r\nX-User: Ann\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no real hello of TLS",
        b"POST / HTTP/1.1\r\nHost: pod\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"a" * 200_000,
        b"\0" * 1000,
    ],
    ids=lambda sent: repr(sent[:20]),
)
def test_what_is_no_http_gets_the_targets_answer(serving: ServingWorld, tmp_path: Path, sent: bytes) -> None:
    """The same bytes as without anybody in between, but for when and from whom they came."""
    server = (str(build.go_program("serve_http")), "{name}", f":{PORT}")

    def answered(clients: Network) -> bytes:
        with connected(clients, POD, PORT) as client:
            client.send(sent)
            client.connection.shutdown(1)
            return re.sub(rb"(?<=Date: )[^\r]*|(?<= from )[0-9.]+(?= at )", b"...", client.rest())

    with (
        networks(serving) as (clients, _),
        started(serving.in_pod([server[0], TARGET, server[2]])),
    ):
        native = answered(clients)
    with filtered(serving, tmp_path, BY_HEADER, program=server) as made:
        assert answered(made.clients) == native


def test_a_server_that_speaks_first(serving: ServingWorld, tmp_path: Path) -> None:
    """Its clients wait for it: whoever looks for HTTP may not wait for them."""
    server = (str(build.c_program("serve_tcp", "musl")), "{name}", "0.0.0.0", str(PORT), "100")
    with filtered(serving, tmp_path, BY_HEADER, program=server) as made, made.connect() as client:
        client.connection.settimeout(5)
        assert client.line().startswith(b"target sees ")
        client.send(b"sink first\nthree")
        client.connection.shutdown(1)
        assert client.rest().startswith(b"5 bytes ")


def test_slow_clients_hold_up_nobody(serving: ServingWorld, tmp_path: Path) -> None:
    """Many that never finish their headers; in the end they do."""
    slow = request("/slow", MINE)
    with filtered(serving, tmp_path, BY_HEADER) as made, ExitStack() as resources:
        clients = [resources.enter_context(made.connect()) for _ in range(200)]
        for number, client in enumerate(clients):
            client.send(slow[: 1 + number % (len(slow) - 1)])
        with made.connect() as client:
            assert servers_of(client, request("/"), request("/", MINE)) == [TARGET, PROCESS]
        for number, client in enumerate(clients):
            assert client.ask(slow[1 + number % (len(slow) - 1) :]).server == PROCESS


def test_byte_by_byte(serving: ServingWorld, tmp_path: Path) -> None:
    with filtered(serving, tmp_path, BY_HEADER) as made, made.connect() as client:
        client.connection.setsockopt(6, 1, 1)
        for headers, name in (([MINE], PROCESS), ([], TARGET), ([MINE], PROCESS)):
            client.send(*(bytes([byte]) for byte in request("/", *headers, body=b"0123456789")))
            answer = client.answer()
            assert (answer.server, b"body 10 " in answer.body) == (name, True)


@pytest.mark.parametrize(
    ("ports", "of_process", "whose"),
    [
        ([PORT], None, [TARGET, PROCESS]),
        ([PORT + 1], None, [TARGET, TARGET]),
        ([PORT + 1], [PORT], [PROCESS, PROCESS]),
    ],
)
def test_only_on_chosen_ports(
    serving: ServingWorld, tmp_path: Path, ports: list[int], of_process: list[int] | None, whose: list[str]
) -> None:
    """On another port the process gets everything if that is wished, else nothing."""
    http_filter = {**BY_HEADER, "ports": ports}
    with filtered(serving, tmp_path, http_filter, ports=of_process) as made, made.connect() as client:
        assert servers_of(client, request("/"), request("/", MINE)) == whose


def test_a_header_says_who_answered(serving: ServingWorld, tmp_path: Path) -> None:
    with filtered(serving, tmp_path, BY_HEADER, agent={"inject_headers": True}) as made, made.connect() as client:
        others, mine = client.ask(request("/")), client.ask(request("/", MINE))
    added = mine.headers.keys() - others.headers.keys()
    assert [name for name in added if "mirrord" in name], mine.headers


def test_the_flag(serving: ServingWorld) -> None:
    server = [str(build.go_program("serve_http")), PROCESS, f":{PORT}"]
    with (
        networks(serving) as (clients, _),
        started(serving.in_pod([server[0], TARGET, server[2]])),
        started(serving.tool(server, "--steal", "--header-filter", "^x-user: ann$")),
        connected(clients, POD, PORT) as client,
    ):
        assert servers_of(client, request("/"), request("/", MINE)) == [TARGET, PROCESS]


@pytest.mark.parametrize(("headers", "name"), [([], TARGET), ([MINE], PROCESS)], ids=["others", "mine"])
def test_http2(serving: ServingWorld, tmp_path: Path, headers: list[str], name: str) -> None:
    """curl, h2load and nghttp with prior knowledge; the process serves their streams, or the target does."""
    curl = [needed("curl"), "-s", "--http2-prior-knowledge", "--data-binary", "body", f"http://{POD}:{PORT}/x"]
    h2load = [needed("h2load"), "-n1000", "-c5", "-m20", f"http://{POD}:{PORT}/quiet"]
    nghttp = [needed("nghttp"), "--trailer=x-last: the end", "-d/etc/hostname", f"http://{POD}:{PORT}/trailed"]
    options = [word for header in headers for word in ("-H", header)]
    with filtered(serving, tmp_path, BY_HEADER):
        assert serving.client([*curl, *options]).startswith(f"{name}: POST /x HTTP/2.0 ")
        assert "1000 succeeded, 0 failed, 0 errored" in serving.client([*h2load, *options])
        told = serving.client([*nghttp, *options])
        assert told.startswith(f"{name}: POST /trailed HTTP/2.0 ")
        assert 'trailer "the end"' in told


def test_streams_of_one_connection_go_different_ways(serving: ServingWorld, tmp_path: Path) -> None:
    """As gRPC's do: both sides speak in turn, streams overlap, trailers end them; one is broken off."""
    with filtered(serving, tmp_path, BY_HEADER) as made, made.clients.connect(POD, PORT) as connection:
        client = http2_client.Client(connection)
        whose = [PROCESS if number % 2 else TARGET for number in range(10)]
        streams = [client.open("/stream", [("x-user", "Ann")] if name == PROCESS else []) for name in whose]
        for turn in range(20):
            for number, (stream, name) in enumerate(zip(streams, whose, strict=True)):
                text = f"turn {turn} of {number};".encode()
                client.send(stream, text)
                expected = name.encode() + b":" + text
                assert client.receive(stream, len(expected)) == expected
        client.reset(streams[0])
        client.reset(streams[1])
        for stream, name in list(zip(streams, whose, strict=True))[2:]:
            ended = client.end(stream)
            assert (ended.headers[b"x-server"], ended.trailers, ended.body) == (
                name.encode(),
                {b"x-done": name.encode()},
                b"",
            )
        late = client.open("/stream", [("x-user", "Ann")])
        client.send(late, b"late")
        assert client.end(late).body == b"process:late"


@pytest.mark.parametrize("mode", ["steal", "mirror"])
def test_what_either_has_seen(serving: ServingWorld, tmp_path: Path, mode: str) -> None:
    """In a mirror the target answers all, and the process sees what matches."""
    with filtered(serving, tmp_path, BY_HEADER, mode=mode) as made:
        with made.connect() as client:
            for number in range(20):
                answer = client.ask(request(f"/{number:02}", *[MINE] * (number % 2), body=b"x" * number))
                assert answer.server == (PROCESS if mode == "steal" and number % 2 else TARGET)
        for number in (1, 3):
            told = serving.client(
                [needed("curl"), "-s", "--http2-prior-knowledge", "-H", MINE, f"http://{POD}:{PORT}/h2/{number}"]
            )
            assert told.startswith(PROCESS if mode == "steal" else TARGET)

        def seen(server: Server) -> list[str]:
            return sorted(re.findall(r"\S+: (?:GET|POST) (\S+) ", "\n".join(server.said)))

        expected = ["/h2/1", "/h2/3", *(f"/{number:02}" for number in range(1, 20, 2))]
        made.process.say_lines(2 + len(expected))
        assert holds_within(1.0, lambda: seen(made.process) == sorted(expected))
        everything = made.target.ended(signal.SIGTERM).stdout
        others = [f"/{number:02}" for number in range(0, 20, 2)]
        assert sorted(re.findall(r"target: GET (\S+) ", everything)) == sorted(
            others if mode == "steal" else [*others, *expected]
        )
