from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.actions import Action, Close, End, Notice, Open, Send
from mirrord_agent.incoming.http.filters import Filter, parse_filter
from mirrord_agent.incoming.http.mirror import ConnectionMirror
from tests.mirrord_agent.incoming.http.support import CLIENT, EVERYTHING, MINE, PROCESS, Connection, split

GET = b"GET /theirs HTTP/1.1\r\nHost: pod\r\n\r\n"
GET_MINE = b"GET /mine HTTP/1.1\r\nHost: pod\r\nX-Mine: 1\r\n\r\n"
JSON = parse_filter({"body": "json", "query": "$.user", "matches": "^me$"})


@attrs.define
class Watcher:
    """Carries a mirror's actions out on paper."""

    accepts: Filter
    connections: list[Connection] = attrs.Factory(list)
    notices: list[str] = attrs.Factory(list)
    now: float = 0.0
    mirror: ConnectionMirror = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.mirror = ConnectionMirror(self.accepts)

    def receive(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.do(self.mirror.receive(CLIENT, piece, self.now))

    def do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Notice(message):
                    self.notices.append(message)
                    continue
                case Open():
                    assert not self.is_open
                    self.connections.append(Connection())
                case Send(data=data):
                    assert self.is_open
                    assert not self.connections[-1].ended
                    self.connections[-1].sent += data
                    self.do(self.mirror.written(len(data), self.now))
                case End():
                    assert self.is_open
                    self.connections[-1].ended = True
                case Close():
                    assert self.is_open
                    self.connections[-1].closed = True
                case _:
                    raise AssertionError(action)
            assert action.side is PROCESS

    @property
    def is_open(self) -> bool:
        return bool(self.connections) and not self.connections[-1].closed

    @property
    def sent(self) -> bytes:
        return b"".join(connection.sent for connection in self.connections)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher(MINE)


def test_requests_that_match_are_given_on_one_connection(watcher: Watcher) -> None:
    watcher.receive(GET + GET_MINE + GET, GET_MINE)
    assert watcher.sent == GET_MINE + GET_MINE
    assert len(watcher.connections) == 1


def test_without_a_request_that_matches_there_is_no_connection(watcher: Watcher) -> None:
    watcher.receive(GET)
    watcher.do(watcher.mirror.ended(CLIENT, 0.0))
    assert not watcher.connections


@given(st.lists(st.booleans()), st.lists(st.integers(0, 2000), max_size=20))
def test_however_the_bytes_are_cut_the_same_is_given(mine: list[bool], places: list[int]) -> None:
    body = b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    requests = [b"POST / HTTP/1.1\r\n" + (b"X-Mine: 1\r\n" if each else b"") + body for each in mine]
    watcher = Watcher(MINE)
    watcher.receive(*split(b"".join(requests), places))
    assert watcher.sent == b"".join(request for request, each in zip(requests, mine, strict=True) if each)


def test_large_bodies_are_given_piece_by_piece(watcher: Watcher) -> None:
    watcher.receive(b"PUT / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1000000\r\n\r\n", *[bytes(1000)] * 1000, GET)
    assert len(watcher.sent) == 1_000_000 + len(b"PUT / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1000000\r\n\r\n")


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"PING\r\n", b"GET / HTTP/1.1\nX-Mine: 1\n\n"])
def test_what_is_not_http_is_not_given(watcher: Watcher, data: bytes) -> None:
    watcher.receive(data, GET_MINE)
    assert not watcher.connections


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_garbage_is_not_given(data: bytes, places: list[int]) -> None:
    watcher = Watcher(EVERYTHING)
    watcher.receive(*split(b"\0" + data, places))
    assert not watcher.connections


@pytest.mark.parametrize("mine", [False, True])
def test_what_follows_a_switch_goes_where_it_was_asked_for(watcher: Watcher, mine: bool) -> None:
    upgrade = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + (b"X-Mine: 1\r\n" if mine else b"")
    watcher.receive(upgrade + b"\r\n", b"\x81\x85", GET_MINE)
    assert watcher.sent == (upgrade + b"\r\n\x81\x85" + GET_MINE if mine else b"")


def test_a_switch_that_was_refused_is_followed_by_requests(watcher: Watcher) -> None:
    upgrade = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Mine: 1\r\n\r\n"
    watcher.receive(upgrade, GET, GET_MINE)
    assert watcher.sent == upgrade + GET_MINE


def test_a_body_decides_and_is_not_waited_for_longer_than_it_may_take() -> None:
    post = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n"
    watcher = Watcher(JSON)
    watcher.receive(post)
    assert watcher.mirror.deadline == 1.0
    watcher.receive(b'{"user":"me"}', post)
    assert watcher.sent == post + b'{"user":"me"}'
    watcher.do(watcher.mirror.expire(1.0))
    watcher.receive(b'{"user":"me"}')
    assert watcher.sent == post + b'{"user":"me"}'


def test_a_process_that_closes_misses_the_rest_of_a_request_and_gets_the_next_on_another_connection(
    watcher: Watcher,
) -> None:
    watcher.receive(b"PUT / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 4\r\n\r\nab")
    watcher.do(watcher.mirror.receive(PROCESS, b"HTTP/1.1 400 No\r\n\r\n", 0.0))
    watcher.do(watcher.mirror.ended(PROCESS, 0.0))
    assert watcher.connections[0].closed
    watcher.receive(b"cd", GET_MINE)
    assert watcher.connections[1].sent == GET_MINE


def test_a_process_that_is_not_there_is_asked_again_for_the_next_request(watcher: Watcher) -> None:
    watcher.receive(GET_MINE)
    watcher.do(watcher.mirror.unreachable(0.0))
    watcher.connections[-1].closed = True
    watcher.receive(GET_MINE)
    assert len(watcher.connections) == 2


@pytest.mark.parametrize("reset", [False, True])
def test_the_clients_end_is_the_processs(watcher: Watcher, reset: bool) -> None:
    watcher.receive(GET_MINE)
    watcher.do(watcher.mirror.ended(CLIENT, 0.0, reset=reset))
    assert watcher.connections[0].closed == reset
    assert watcher.connections[0].ended == (not reset)
