"""A client and two servers made of h11, which knows HTTP as we do not, talk through the router."""

from __future__ import annotations

import random

import attrs
import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrord_agent.incoming.http.actions import Side
from mirrord_agent.incoming.http.http1 import Http1Router
from mirrord_agent.incoming.http.marks import Mark
from tests.mirrord_agent.incoming.http.support import CLIENT, MINE, PROCESS, TARGET, Owner


@attrs.frozen
class Exchange:
    is_mine: bool
    method: str
    body: bytes
    is_chunked: bool
    answer: bytes
    answer_is_chunked: bool
    hints: int
    """1xx responses before the answer."""


exchanges = st.builds(
    Exchange,
    is_mine=st.booleans(),
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    body=st.binary(max_size=40),
    is_chunked=st.booleans(),
    answer=st.binary(max_size=40),
    answer_is_chunked=st.booleans(),
    hints=st.integers(0, 2),
)


def framing(is_chunked: bool, body: bytes) -> list[tuple[str, str]]:
    return [("Transfer-Encoding", "chunked")] if is_chunked else [("Content-Length", str(len(body)))]


def send_request(connection: h11.Connection, number: int, exchange: Exchange) -> bytes:
    mine = [("X-Mine", "1")] if exchange.is_mine else []
    headers = [("Host", "pod"), *mine, *framing(exchange.is_chunked, exchange.body)]
    sent = connection.send(h11.Request(method=exchange.method, target=f"/{number}", headers=headers))
    sent += connection.send(h11.Data(exchange.body)) or b""
    sent += connection.send(h11.EndOfMessage(headers=[("X-Last", "1")] if exchange.is_chunked else [])) or b""
    return sent


class Server:
    """Answers each request with what its number asks for."""

    def __init__(self, exchanges: list[Exchange]) -> None:
        self._exchanges = exchanges
        self._connection = h11.Connection(h11.SERVER)
        self.served: list[tuple[int, bytes]] = []
        self._number = 0
        self._body = b""

    def receive(self, data: bytes) -> bytes:
        self._connection.receive_data(data)
        sent = b""
        while True:
            event = self._connection.next_event()
            match event:
                case h11.Request():
                    self._number, self._body = int(event.target[1:]), b""
                case h11.Data():
                    self._body += event.data
                case h11.EndOfMessage():
                    self.served.append((self._number, self._body))
                    sent += self._answer(self._exchanges[self._number])
                    self._connection.start_next_cycle()
                case _:
                    return sent

    def _answer(self, exchange: Exchange) -> bytes:
        sent = b""
        for _ in range(exchange.hints):
            sent += self._connection.send(h11.InformationalResponse(status_code=103, headers=[("Link", "x")])) or b""
        headers = framing(exchange.answer_is_chunked, exchange.answer)
        sent += self._connection.send(h11.Response(status_code=200, headers=headers)) or b""
        if exchange.method != "HEAD":
            sent += self._connection.send(h11.Data(exchange.answer)) or b""
        return sent + (self._connection.send(h11.EndOfMessage()) or b"")


def read_answers(data: bytes, exchanges: list[Exchange]) -> list[tuple[bytes, str | None]]:
    """The bodies of the answers, and who says to have served them."""
    connection = h11.Connection(h11.CLIENT)
    if data:
        connection.receive_data(data)
    answers = []
    for number, exchange in enumerate(exchanges):
        send_request(connection, number, exchange)
        body, server, hints = b"", None, 0
        while True:
            event = connection.next_event()
            match event:
                case h11.InformationalResponse():
                    hints += 1
                case h11.Response():
                    server = dict(event.headers).get(b"served-by", b"").decode() or None
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    break
                case _:
                    raise AssertionError(f"{event} instead of an answer to {exchange}")
        assert hints == exchange.hints
        answers.append((body, server))
        connection.start_next_cycle()
    assert not connection.trailing_data[0]
    return answers


@given(st.lists(exchanges, max_size=8), st.integers(0, 2**32), st.integers(1, 60))
@settings(max_examples=100)
def test_requests_reach_their_servers_and_answers_come_in_order(
    exchanges: list[Exchange], seed: int, longest: int
) -> None:
    chance = random.Random(seed)
    client = h11.Connection(h11.CLIENT)
    requests = []
    for number, exchange in enumerate(exchanges):
        client = h11.Connection(h11.CLIENT)
        requests.append(send_request(client, number, exchange))
    owner = Owner(Http1Router(MINE, Mark(b"served-by", {PROCESS: b"process"})))
    servers = {TARGET: Server(exchanges), PROCESS: Server(exchanges)}
    wires: dict[Side, bytes] = {CLIENT: b"".join(requests), TARGET: b"", PROCESS: b""}
    """What each has sent and the router has not heard."""
    while any(wires.values()):
        side = chance.choice([side for side in wires if wires[side]])
        amount = chance.randint(1, longest)
        piece, wires[side] = wires[side][:amount], wires[side][amount:]
        owner.receive(side, piece)
        for server_side, server in servers.items():
            if data := owner.taken(server_side):
                wires[server_side] += server.receive(data)
    assert owner.raw is None
    for side, server in servers.items():
        theirs = [number for number, exchange in enumerate(exchanges) if exchange.is_mine == (side is PROCESS)]
        assert server.served == [(number, exchanges[number].body) for number in theirs]
        assert owner.sent(side) == b"".join(requests[number] for number in theirs)
    assert read_answers(owner.sent(CLIENT), exchanges) == [
        (b"" if exchange.method == "HEAD" else exchange.answer, "process" if exchange.is_mine else None)
        for exchange in exchanges
    ]
