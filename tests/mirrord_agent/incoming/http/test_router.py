from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.http2_leg import PREFACE
from mirrord_agent.incoming.http.router import ConnectionRouter
from tests.mirrord_agent.incoming.http.http2_peers import MINE, Peer, get
from tests.mirrord_agent.incoming.http.support import CLIENT, PROCESS, TARGET, Owner, split
from tests.mirrord_agent.incoming.http.support import MINE as MINE_ONLY

GET = b"GET /theirs HTTP/1.1\r\nHost: pod\r\n\r\n"
GET_MINE = b"GET /mine HTTP/1.1\r\nHost: pod\r\nX-Mine: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def owner() -> Owner:
    return Owner(ConnectionRouter(MINE_ONLY))


def call() -> bytes:
    """All that a client of HTTP/2 says for two requests, if it hears nothing."""
    client = Peer(is_client=True)
    client.h2.send_headers(1, get(b"/theirs"), end_stream=True)
    client.h2.send_headers(3, get(b"/mine", MINE, method=b"POST"))
    client.h2.send_data(3, b"body", end_stream=True)
    return client.sent()


def test_http1_is_routed(owner: Owner) -> None:
    owner.receive(CLIENT, GET + GET_MINE)
    owner.receive(TARGET, OK)
    owner.receive(PROCESS, OK)
    assert owner.sent(TARGET) == GET
    assert owner.sent(PROCESS) == GET_MINE
    assert owner.sent(CLIENT) == OK + OK


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_http2_is_routed(owner: Owner, size: int) -> None:
    data = call()
    owner.receive(CLIENT, *(data[at : at + size] for at in range(0, len(data), size)))
    for side, path, body in ((TARGET, b"/theirs", b""), (PROCESS, b"/mine", b"body")):
        server = Peer(is_client=False)
        server.receive(owner.sent(side))
        assert (b":path", path) in server.messages[1].headers
        assert server.messages[1].body == body
        assert server.messages[1].has_ended


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_server_of_http2_may_speak_first(owner: Owner, size: int) -> None:
    server = Peer(is_client=False)
    said = server.sent()
    owner.receive(TARGET, *(said[at : at + size] for at in range(0, len(said), size)))
    assert owner.sent(CLIENT) == b""
    owner.receive(CLIENT, call())
    server.receive(owner.sent(TARGET))
    assert server.messages[1].has_ended
    client = Peer(is_client=True)
    client.receive(owner.sent(CLIENT))


def test_a_server_of_http2_whose_client_speaks_http1_is_heard_as_it_is(owner: Owner) -> None:
    said = Peer(is_client=False).sent()
    owner.receive(TARGET, said)
    owner.receive(CLIENT, GET_MINE)
    assert owner.raw is TARGET
    assert owner.sent(CLIENT) == said
    assert owner.sent(TARGET) == GET_MINE


@pytest.mark.parametrize(
    "words", [b"220 mail\r\n", b"\x4a\0\0\0\x0a8.0", b"\0\0\0\5", b"\0" + b"\x01\0\4" + bytes(20000)]
)
def test_other_servers_that_speak_first_are_heard_at_once(owner: Owner, words: bytes) -> None:
    owner.receive(TARGET, words)
    assert owner.sent(CLIENT) == words
    assert owner.raw is TARGET


def test_what_only_begins_like_http2_is_passed_on(owner: Owner) -> None:
    owner.receive(CLIENT, PREFACE[:10])
    assert owner.sent(TARGET) == b""
    owner.receive(CLIENT, b"x")
    assert owner.sent(TARGET) == PREFACE[:10] + b"x"
    assert owner.raw is TARGET


def test_a_client_that_says_nothing_keeps_its_connection_until_one_of_both_ends_it(owner: Owner) -> None:
    assert owner.router.reads(CLIENT)
    assert owner.router.deadline is None
    owner.end(CLIENT)
    owner.end(TARGET)
    assert owner.last(CLIENT).closed


def test_a_target_that_ends_at_once_is_seen_to(owner: Owner) -> None:
    owner.receive(TARGET, Peer(is_client=False).sent())
    owner.end(TARGET)
    assert owner.last(CLIENT).ended
    assert owner.sent(CLIENT)


@pytest.mark.parametrize("is_http2", [False, True])
def test_a_target_that_is_not_there_keeps_nobody_from_the_process(owner: Owner, is_http2: bool) -> None:
    owner.refuse(TARGET)
    owner.connections[TARGET].clear()
    owner.receive(CLIENT, call() if is_http2 else GET_MINE)
    assert owner.sent(PROCESS).startswith(PREFACE if is_http2 else GET_MINE)


@given(st.binary(max_size=100), st.lists(st.integers(0, 100), max_size=5), st.booleans())
def test_garbage_reaches_the_target_byte_for_byte(data: bytes, places: list[int], begins_like_http2: bool) -> None:
    owner = Owner(ConnectionRouter(MINE_ONLY))
    data = (PREFACE[:12] + b"\0" if begins_like_http2 else b"") + data
    owner.receive(CLIENT, *split(data, places))
    owner.end(CLIENT)
    assert owner.sent(TARGET) == data
