import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.actions import BACKLOG_LIMIT, Side
from mirrord_agent.incoming.http.filters import MAX_BODY, parse_filter
from mirrord_agent.incoming.http.framing import MAX_HEAD
from mirrord_agent.incoming.http.http1 import MAX_UNANSWERED, Http1Router
from mirrord_agent.incoming.http.marks import Mark
from mirrord_agent.incoming.http.readers import HELD_LIMIT
from tests.mirrord_agent.incoming.http.support import (
    CLIENT,
    EVERYTHING,
    MINE,
    NOTHING,
    PROCESS,
    TARGET,
    Owner,
    split,
)

GET = b"GET /theirs HTTP/1.1\r\nHost: pod\r\n\r\n"
GET_MINE = b"GET /mine HTTP/1.1\r\nHost: pod\r\nX-Mine: 1\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
OK_MINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"
JSON = parse_filter({"body": "json", "query": "$.user", "matches": "^me$"})


@pytest.fixture
def owner() -> Owner:
    return Owner(Http1Router(MINE))


def test_a_request_that_no_filter_matches_goes_to_the_target_and_its_answer_comes_back(owner: Owner) -> None:
    owner.receive(CLIENT, GET)
    assert owner.sent(TARGET) == GET
    owner.receive(TARGET, OK)
    assert owner.sent(CLIENT) == OK
    assert not owner.connections[PROCESS]


def test_a_request_that_matches_goes_to_the_process_on_a_connection_that_it_keeps(owner: Owner) -> None:
    for _ in range(3):
        owner.receive(CLIENT, GET_MINE)
        assert owner.taken(PROCESS) == GET_MINE
        owner.receive(PROCESS, OK_MINE)
        assert owner.taken(CLIENT) == OK_MINE
    assert len(owner.connections[PROCESS]) == 1
    assert owner.sent(TARGET) == b""


def test_requests_alternate_on_one_connection_to_each_side(owner: Owner) -> None:
    for _ in range(3):
        owner.receive(CLIENT, GET)
        owner.receive(TARGET, OK)
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE)
    assert owner.sent(CLIENT) == 3 * (OK + OK_MINE)
    assert owner.sent(TARGET) == 3 * GET
    assert owner.sent(PROCESS) == 3 * GET_MINE
    assert len(owner.connections[TARGET]) == len(owner.connections[PROCESS]) == 1


def test_pipelined_requests_to_one_side_are_passed_on_at_once_and_one_to_the_other_waits(owner: Owner) -> None:
    owner.receive(CLIENT, GET + GET + GET_MINE + GET)
    assert owner.sent(TARGET) == GET + GET
    owner.receive(TARGET, OK)
    assert owner.sent(PROCESS) == b""
    owner.receive(TARGET, OK)
    assert owner.sent(PROCESS) == GET_MINE
    assert owner.sent(TARGET) == GET + GET
    owner.receive(PROCESS, OK_MINE)
    assert owner.sent(TARGET) == GET + GET + GET
    owner.receive(TARGET, OK)
    assert owner.sent(CLIENT) == OK + OK + OK_MINE + OK


def test_of_what_a_client_sends_ahead_only_so_much_is_kept(owner: Owner) -> None:
    owner.receive(CLIENT, GET)
    sent = 0
    while owner.router.reads(CLIENT):
        owner.receive(CLIENT, 1000 * GET_MINE)
        sent += 1000
    assert sent * len(GET_MINE) < HELD_LIMIT + 1000 * len(GET_MINE)
    owner.receive(TARGET, OK)
    assert owner.router.reads(CLIENT) is False
    assert len(owner.sent(PROCESS)) == MAX_UNANSWERED * len(GET_MINE)
    for _ in range(sent):
        owner.receive(PROCESS, OK_MINE)
    assert owner.router.reads(CLIENT)
    assert owner.sent(PROCESS) == sent * GET_MINE


BODIES = [
    b"Content-Length: 11\r\n\r\nhello world",
    b"content-length:0\r\n\r\n",
    b'Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;name="x"\r\n world\r\n0\r\n\r\n',
    b"transfer-encoding: CHUNKED\r\n\r\n000b\r\nhello\r\nworld\r\n0\r\nTrailer: 1\r\nX: y\r\n\r\n".replace(
        b"000b", b"000C"
    ),
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_bodies_belong_to_their_requests_however_they_are_cut(body: bytes, size: int) -> None:
    theirs = b"POST /a HTTP/1.1\r\n" + body
    mine = b"POST /b HTTP/1.1\r\nX-Mine: 1\r\n" + body
    owner = Owner(Http1Router(MINE))
    for request, side in ((theirs, TARGET), (mine, PROCESS), (theirs, TARGET)):
        owner.receive(CLIENT, *(request[at : at + size] for at in range(0, len(request), size)))
        assert owner.taken(side) == request
        owner.receive(side, OK)
        assert owner.taken(CLIENT) == OK
    assert owner.raw is None


@pytest.mark.parametrize(
    "body", [*BODIES, b"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3\r\n\r\n\r\r\n0\r\nX: 1\r\n\r\n"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_next_side_has_its_turn_when_a_response_has_ended(owner: Owner, body: bytes, size: int) -> None:
    response = b"HTTP/1.1 200 Fine\r\n" + body
    for request, side in ((GET, TARGET), (GET_MINE, PROCESS), (GET, TARGET)):
        owner.receive(CLIENT, request)
        assert owner.taken(side) == request
        owner.receive(side, *(response[at : at + size] for at in range(0, len(response), size)))
        assert owner.taken(CLIENT) == response
    assert owner.raw is None


@pytest.mark.parametrize(
    ("request_line", "head"),
    [
        (b"HEAD / HTTP/1.1", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (b"HEAD / HTTP/1.1", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 204 No Content\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 304\r\n\r\n"),
        (b"GET / HTTP/1.1", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", b"HTTP/1.0 204 \r\nConnection: Keep-Alive\r\n\r\n"),
        (b"CONNECT x:1 HTTP/1.1", b"HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno"),
    ],
)
def test_responses_without_a_body_end_with_their_heads(owner: Owner, request_line: bytes, head: bytes) -> None:
    for mine, side in ((b"", TARGET), (b"\r\nX-Mine: 1", PROCESS), (b"", TARGET)):
        owner.receive(CLIENT, request_line + mine + b"\r\n\r\n")
        owner.receive(side, head)
        assert owner.taken(CLIENT) == head
    owner.receive(CLIENT, GET_MINE)
    assert owner.raw is None
    assert owner.sent(PROCESS).endswith(GET_MINE)


def test_a_body_of_a_gigabyte_passes_piece_by_piece(owner: Owner) -> None:
    owner.writes = False
    piece = bytes(256 << 10)
    owner.receive(CLIENT, b"PUT / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
    owner.order.clear()
    for _ in range((1 << 30) // len(piece)):
        assert owner.router.reads(CLIENT)
        actions = owner.router.receive(CLIENT, piece, 0.0)
        assert len(actions) == 1
        assert not owner.router.reads(CLIENT)
        owner.router.written(PROCESS, len(piece), 0.0)
    owner.receive(PROCESS, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
    owner.do(owner.router.written(CLIENT, 1000, 0.0))
    for _ in range((1 << 30) // len(piece)):
        assert owner.router.reads(PROCESS)
        assert len(owner.router.receive(PROCESS, piece, 0.0)) == 1
        assert not owner.router.reads(PROCESS)
        owner.router.written(CLIENT, len(piece), 0.0)
    owner.receive(CLIENT, GET)
    assert owner.sent(TARGET) == GET


def test_a_side_that_does_not_take_its_bytes_stops_its_client_and_no_more(owner: Owner) -> None:
    owner.writes = False
    owner.receive(CLIENT, b"PUT / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n" + bytes(BACKLOG_LIMIT))
    assert not owner.router.reads(CLIENT)
    assert owner.router.reads(TARGET)
    owner.do(owner.router.written(TARGET, 1000, 0.0))
    assert owner.router.reads(CLIENT)


def test_a_client_that_sends_a_head_byte_by_byte_holds_no_more_than_a_head(owner: Owner) -> None:
    owner.receive(CLIENT, b"GET /mine HTTP/1.1\r\nX-Mine: ")
    for _ in range(MAX_HEAD - 1000):
        owner.receive(CLIENT, b"x")
    assert owner.sent(TARGET) == b""
    owner.receive(CLIENT, bytes(1000).replace(b"\0", b"x"))
    assert owner.raw is TARGET
    assert len(owner.sent(TARGET)) == MAX_HEAD + len(b"GET /mine HTTP/1.1\r\nX-Mine: ")


WORDS = [
    *b"GET |/ |HTTP/1.1|\r\n|\n|\r|:| |X-Mine: 1|Content-Length: 3|Transfer-Encoding: chunked".split(b"|"),
    *b"3|0|abc|\0|\xff|;|Connection: close".split(b"|"),
    GET,
    GET_MINE,
]


class TestRaw:
    @pytest.mark.parametrize(
        "data",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"get key\r\n",
            b"ruok",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"OPTIONS rtsp://pod RTSP/1.0\r\n",
            b"GET /\r\n",
            b"GET / HTTP/1.2",
            b"GET / HTTP/2.0",
            b"GET  / HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET / HTTP/1.1\n",
            b"GET /\0 HTTP/1.1",
            b"\r\n",
            b" GET / HTTP/1.1",
            b"\0",
            b"\xff\xfb\x01",
            b"GET / HTTP/1.1\r\nHost: x\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n folded\r\n",
            b"GET / HTTP/1.1\r\n : x\r\n",
            b"GET / HTTP/1.1\r\nHost\r\n",
            b"GET / HTTP/1.1\r\nHost: x\0y\r\n",
            b"GET / HTTP/1.1\r\nHost: x\ry\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX-Mine: 1\r\nHost: y\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1, 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: +1\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nX-Mine: 1\r\nTransfer-Encoding: xchunked\r\n\r\n",
            b"GET / HTTP/1.0\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        ],
    )
    @pytest.mark.parametrize("size", [1, 1000])
    def test_what_is_not_http_or_ambiguous_reaches_the_target_at_once_and_whole(
        self, owner: Owner, data: bytes, size: int
    ) -> None:
        owner.receive(CLIENT, *(data[at : at + size] for at in range(0, len(data), size)))
        assert owner.sent(TARGET) == data
        assert owner.raw is TARGET
        owner.receive(CLIENT, GET_MINE)
        owner.receive(TARGET, b"+PONG\r\n", b"\xff\0")
        assert owner.sent(TARGET) == data + GET_MINE
        assert owner.sent(CLIENT) == b"+PONG\r\n\xff\0"

    def test_a_server_that_speaks_first_is_heard_at_once(self, owner: Owner) -> None:
        owner.receive(TARGET, b"220 ")
        assert owner.sent(CLIENT) == b"220 "
        assert owner.raw is TARGET
        owner.receive(CLIENT, GET_MINE)
        assert owner.sent(TARGET) == GET_MINE

    def test_a_server_that_loses_patience_with_the_first_head_is_heard(self, owner: Owner) -> None:
        owner.receive(CLIENT, b"GET /mine HT")
        owner.receive(TARGET, b"HTTP/1.1 408 Request Timeout\r\n")
        assert owner.sent(CLIENT) == b"HTTP/1.1 408 Request Timeout\r\n"
        owner.end(TARGET)
        assert owner.last(CLIENT).ended

    def test_nonsense_after_a_request_of_the_process_waits_for_its_answer(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE + b"nonsense\r\n" + GET_MINE)
        assert owner.sent(TARGET) == b""
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(TARGET) == b"nonsense\r\n" + GET_MINE
        assert owner.raw is TARGET
        assert owner.last(PROCESS).closed

    @pytest.mark.parametrize("end", [b"\n", b"x\r\n", b"\r\r\n", b"-1\r\n", b" \r\n", b"5\n", b"5\r\nhello\n"])
    def test_chunks_that_cannot_be_told_apart_stay_where_their_request_is(self, owner: Owner, end: bytes) -> None:
        body = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n" + end
        owner.receive(CLIENT, b"POST / HTTP/1.1\r\nX-Mine: 1\r\n" + body, GET)
        assert owner.raw is PROCESS
        assert owner.sent(PROCESS) == b"POST / HTTP/1.1\r\nX-Mine: 1\r\n" + body + GET
        assert owner.last(TARGET).closed

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    @pytest.mark.parametrize(
        "response",
        [
            b"+OK\r\n",
            b"HTTP/1.1 200 OK\nX: y\n\n",
            b"HTTP/1.1 99 No\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + bytes(MAX_HEAD).replace(b"\0", b"x"),
        ],
    )
    def test_an_answer_that_is_not_http_is_passed_on_and_so_is_all_that_follows(
        self, owner: Owner, side: object, response: bytes
    ) -> None:
        side = TARGET if side is TARGET else PROCESS
        request = GET if side is TARGET else GET_MINE
        owner.receive(CLIENT, request)
        owner.receive(side, response)
        assert owner.sent(CLIENT) == response
        assert owner.raw is side
        owner.receive(CLIENT, GET + GET_MINE)
        assert owner.sent(side) == request + GET + GET_MINE

    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5), st.booleans())
    def test_garbage_reaches_the_target_byte_for_byte(self, data: bytes, places: list[int], ends: bool) -> None:
        owner = Owner(Http1Router(NOTHING))
        owner.receive(CLIENT, *split(data, places))
        owner.end(CLIENT, reset=False)
        assert owner.sent(TARGET) == data
        assert owner.last(TARGET).ended

    @given(st.lists(st.sampled_from(WORDS), max_size=30), st.lists(st.integers(0, 1000), max_size=5))
    def test_near_garbage_reaches_somebody_byte_for_byte(self, words: list[bytes], places: list[int]) -> None:
        data = b"".join(words)
        router = Http1Router(MINE)
        owner = Owner(router)
        owner.receive(CLIENT, *split(data, places))
        while router._unanswered and owner.raw is None:
            owner.receive(router._turn, b"HTTP/1.1 204 OK\r\n\r\n")
        owner.end(CLIENT)
        assert b"".join(piece for side, piece in owner.order if side is not CLIENT) == data


SAID_BY_CLIENTS = [
    GET,
    GET_MINE,
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nX-Mine: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nConnection: close\r\nX-Mine: 1\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b"\r\n",
    b"\x81\x85",
]
SAID_BY_SERVERS = [
    OK,
    OK_MINE,
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Fine\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"nonsense\n",
]
events = st.lists(
    st.tuples(st.just(CLIENT), st.sampled_from(SAID_BY_CLIENTS))
    | st.tuples(st.sampled_from([TARGET, PROCESS]), st.sampled_from(SAID_BY_SERVERS))
    | st.tuples(st.sampled_from(list(Side)), st.none()),
    max_size=12,
)


def outcome(events: list[tuple[Side, bytes | None]], size: int) -> tuple[object, ...]:
    """What becomes of a connection; None is its side's end. What no side could have said is left out."""
    owner = Owner(Http1Router(MINE, Mark(b"served-by", {PROCESS: b"laptop"})))
    ended = set()
    for side, data in events:
        connection = (side, len(owner.connections[side]))
        if not owner.is_open(side) or connection in ended:
            continue
        if data is None:
            ended.add(connection)
            owner.end(side)
            continue
        for at in range(0, len(data), size):
            if owner.is_open(side) and connection == (side, len(owner.connections[side])):
                owner.receive(side, data[at : at + size])
    return owner.connections, owner.raw


@given(events, st.integers(1, 20))
def test_however_bytes_are_cut_the_same_comes_of_them(events: list[tuple[Side, bytes | None]], size: int) -> None:
    assert outcome(events, size) == outcome(events, 1000)


class TestSwitching:
    UPGRADE = b"GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_after_101_the_connection_belongs_to_whoever_switched(self, owner: Owner, side: object) -> None:
        side, other = (TARGET, PROCESS) if side is TARGET else (PROCESS, TARGET)
        request = self.UPGRADE + (b"\r\n" if side is TARGET else b"X-Mine: 1\r\n\r\n")
        owner.receive(CLIENT, request)
        owner.receive(side, self.SWITCHED + b"\x81\x02hi")
        assert owner.raw is side
        owner.receive(CLIENT, b"\x81\x85", GET + GET_MINE)
        assert owner.sent(side) == request + b"\x81\x85" + GET + GET_MINE
        assert owner.sent(CLIENT) == self.SWITCHED + b"\x81\x02hi"
        assert not owner.is_open(other)

    def test_what_follows_a_wish_to_switch_waits_for_the_answer(self, owner: Owner) -> None:
        owner.receive(CLIENT, self.UPGRADE + b"\r\n" + GET_MINE)
        assert owner.sent(PROCESS) == b""
        owner.receive(TARGET, OK)
        assert owner.sent(PROCESS) == GET_MINE
        assert owner.raw is None

    def test_a_wish_for_http2_is_the_servers_to_grant(self, owner: Owner) -> None:
        request = (
            b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        )
        owner.receive(CLIENT, request, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert owner.sent(TARGET) == request
        owner.receive(
            TARGET, b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n\0\0\0\4"
        )
        assert owner.raw is TARGET
        assert owner.sent(TARGET) == request + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

    def test_after_connect_succeeds_there_is_a_tunnel(self, owner: Owner) -> None:
        owner.receive(CLIENT, b"CONNECT host:443 HTTP/1.1\r\nX-Mine: 1\r\n\r\n", b"\x16\x03")
        owner.receive(PROCESS, b"HTTP/1.1 200 Connected\r\n\r\n")
        assert owner.raw is PROCESS
        assert owner.sent(PROCESS).endswith(b"\r\n\r\n\x16\x03")


class TestContinue:
    POST = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 13\r\n"
    BODY = b'{"user":"me"}'
    CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_it_is_the_sides_to_say_continue(self, owner: Owner, side: object) -> None:
        side = TARGET if side is TARGET else PROCESS
        head = self.POST + (b"\r\n" if side is TARGET else b"X-Mine: 1\r\n\r\n")
        owner.receive(CLIENT, head)
        assert owner.taken(side) == head
        owner.receive(side, self.CONTINUE)
        assert owner.taken(CLIENT) == self.CONTINUE
        owner.receive(CLIENT, self.BODY)
        assert owner.taken(side) == self.BODY
        owner.receive(side, OK)
        assert owner.taken(CLIENT) == OK

    def test_a_side_that_refuses_is_heard_and_the_body_may_follow_all_the_same(self, owner: Owner) -> None:
        owner.receive(CLIENT, self.POST + b"X-Mine: 1\r\n\r\n")
        refusal = b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n"
        owner.receive(PROCESS, refusal)
        assert owner.sent(CLIENT) == refusal
        owner.receive(CLIENT, self.BODY + GET)
        assert owner.sent(PROCESS).endswith(self.BODY)
        assert owner.sent(TARGET) == GET

    def test_a_body_that_a_filter_needs_is_asked_for_and_the_client_is_told_once(self) -> None:
        owner = Owner(Http1Router(JSON))
        owner.receive(CLIENT, self.POST + b"\r\n")
        assert owner.taken(CLIENT) == self.CONTINUE
        owner.receive(CLIENT, self.BODY)
        assert owner.sent(PROCESS) == self.POST + b"\r\n" + self.BODY
        owner.receive(PROCESS, self.CONTINUE + OK)
        assert owner.taken(CLIENT) == OK

    def test_a_body_is_asked_for_when_those_before_are_answered(self) -> None:
        owner = Owner(Http1Router(JSON))
        owner.receive(CLIENT, GET + self.POST + b"\r\n")
        assert owner.sent(CLIENT) == b""
        assert owner.router.deadline is None
        owner.receive(TARGET, OK)
        assert owner.sent(CLIENT) == OK + self.CONTINUE
        assert owner.router.deadline == 1.0


class TestBodies:
    MINE = b'POST / HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"user":"me"}'
    CHUNKED = b'POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{"user\r\n7\r\n":"me"}\r\n0\r\n\r\n'
    YOURS = b'POST / HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"user":"you"}'

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_a_body_decides(self, size: int) -> None:
        owner = Owner(Http1Router(JSON))
        for request, side in ((self.MINE, PROCESS), (self.YOURS, TARGET), (self.CHUNKED, PROCESS), (GET, TARGET)):
            owner.receive(CLIENT, *(request[at : at + size] for at in range(0, len(request), size)))
            assert owner.taken(side) == request
            owner.receive(side, OK)
        assert owner.router.deadline is None

    def test_a_body_that_does_not_come_in_time_is_not_waited_for(self) -> None:
        owner = Owner(Http1Router(JSON))
        owner.receive(CLIENT, self.MINE[:-1])
        assert owner.router.deadline == 1.0
        owner.wait(0.9)
        assert owner.sent(TARGET) == b""
        owner.wait(0.2)
        assert owner.sent(TARGET) == self.MINE[:-1]
        owner.receive(CLIENT, self.MINE[-1:])
        assert owner.sent(TARGET) == self.MINE

    @pytest.mark.parametrize("length", [MAX_BODY, MAX_BODY + 1])
    def test_a_body_too_long_is_not_looked_into(self, length: int) -> None:
        owner = Owner(Http1Router(JSON))
        head = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length
        owner.receive(CLIENT, head)
        assert bool(owner.sent(TARGET)) == (length > MAX_BODY)
        owner.receive(CLIENT, b'{"user":"me"}'.ljust(length))
        assert len(owner.sent(PROCESS if length <= MAX_BODY else TARGET)) == len(head) + length

    @pytest.mark.parametrize(("count", "side"), [(MAX_BODY // 10, PROCESS), (MAX_BODY // 10 + 1, TARGET)])
    def test_a_chunked_body_too_long_is_not_looked_into(self, count: int, side: object) -> None:
        owner = Owner(Http1Router(JSON))
        head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunks = b'a\r\n{"user":  \r\n' + b'a\r\n"me"     }\r\n' + (count - 2) * b"a\r\n          \r\n" + b"0\r\n\r\n"
        owner.receive(CLIENT, head, chunks)
        assert owner.sent(TARGET if side is TARGET else PROCESS) == head + chunks

    def test_a_body_of_tiny_chunks_is_not_kept_for_ever(self) -> None:
        owner = Owner(Http1Router(JSON))
        owner.receive(CLIENT, b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not owner.sent(TARGET):
            assert owner.router.reads(CLIENT)
            owner.receive(CLIENT, 1000 * b"1\r\n \r\n")
        assert len(owner.sent(TARGET)) < HELD_LIMIT

    def test_a_body_that_its_client_breaks_off_is_passed_on(self) -> None:
        owner = Owner(Http1Router(JSON))
        owner.receive(CLIENT, self.MINE[:-1])
        owner.end(CLIENT)
        assert owner.sent(TARGET) == self.MINE[:-1]
        assert owner.last(TARGET).ended

    def test_chunks_that_make_no_sense_are_the_targets(self) -> None:
        owner = Owner(Http1Router(JSON))
        data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        owner.receive(CLIENT, data)
        assert owner.sent(TARGET) == data
        assert owner.raw is TARGET
        assert owner.router.deadline is None

    def test_a_filter_that_takes_too_long_matches_nothing_and_the_user_hears_of_it(self) -> None:
        owner = Owner(Http1Router(parse_filter({"body": "json", "query": "$..[?count($..*) == 0]", "matches": "x"})))
        body = b"[" * 50 + b"1," * 9000 + b"1" + b"]" * 50
        request = b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        owner.receive(CLIENT, request)
        assert owner.sent(TARGET) == request
        assert "visited more than" in owner.notices[0]


class TestEnds:
    def test_the_clients_end_reaches_who_has_its_request_and_the_end_that_answers_it_comes_back(
        self, owner: Owner
    ) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.end(CLIENT)
        assert owner.last(PROCESS).ended
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == OK_MINE
        assert not owner.is_open(TARGET)
        assert not owner.last(CLIENT).ended
        owner.end(PROCESS)
        assert owner.last(CLIENT).closed
        assert owner.last(PROCESS).closed
        assert not owner.last(CLIENT).reset

    def test_what_was_sent_ahead_is_answered_before_the_end(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET + GET_MINE)
        owner.end(CLIENT)
        assert not owner.last(TARGET).ended
        owner.receive(TARGET, OK)
        assert owner.sent(PROCESS) == GET_MINE
        assert owner.last(PROCESS).ended
        owner.receive(PROCESS, OK_MINE)
        owner.end(PROCESS)
        assert owner.sent(CLIENT) == OK + OK_MINE
        assert owner.last(CLIENT).closed

    def test_a_client_that_says_nothing_and_ends_is_the_targets(self, owner: Owner) -> None:
        owner.end(CLIENT)
        assert owner.last(TARGET).ended
        owner.receive(TARGET, b"bye")
        owner.end(TARGET)
        assert owner.sent(CLIENT) == b"bye"
        assert owner.last(CLIENT).closed

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    @pytest.mark.parametrize(
        ("version", "headers"), [(b"1.1", b"Connection: close\r\n"), (b"1.1", b""), (b"1.0", b"Content-Length: 4\r\n")]
    )
    def test_a_response_that_closes_the_connection_closes_it_for_the_client(
        self, owner: Owner, side: object, version: bytes, headers: bytes
    ) -> None:
        side = TARGET if side is TARGET else PROCESS
        owner.receive(CLIENT, GET if side is TARGET else GET_MINE)
        response = b"HTTP/" + version + b" 200 OK\r\n" + headers + b"\r\nrest"
        owner.receive(side, response)
        owner.end(side)
        assert owner.sent(CLIENT) == response
        assert owner.last(CLIENT).ended
        owner.end(CLIENT)
        assert owner.last(CLIENT).closed

    @pytest.mark.parametrize("request_head", [b"GET / HTTP/1.0\r\n", b"GET / HTTP/1.1\r\nConnection: x, Close\r\n"])
    def test_nothing_is_looked_at_behind_a_request_that_is_the_last(self, owner: Owner, request_head: bytes) -> None:
        owner.receive(CLIENT, request_head + b"\r\n", GET_MINE)
        assert owner.sent(PROCESS) == b""
        owner.receive(TARGET, OK)
        assert owner.sent(TARGET) == request_head + b"\r\n" + GET_MINE

    @pytest.mark.parametrize("response", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbroken"])
    @pytest.mark.parametrize("reset", [False, True])
    def test_a_response_that_breaks_off_does_so_for_the_client(
        self, owner: Owner, response: bytes, reset: bool
    ) -> None:
        owner.receive(CLIENT, GET_MINE)
        if response:
            owner.receive(PROCESS, response)
        owner.end(PROCESS, reset=reset)
        if reset:
            assert owner.last(CLIENT).reset
            assert not owner.is_open(TARGET)
        else:
            assert owner.sent(CLIENT) == response
            assert owner.last(CLIENT).ended
            assert not owner.last(CLIENT).closed

    def test_a_process_that_closed_its_idle_connection_gets_another(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE)
        owner.end(PROCESS)
        assert not owner.last(CLIENT).ended
        owner.receive(CLIENT, GET_MINE)
        assert len(owner.connections[PROCESS]) == 2
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == 2 * OK_MINE

    def test_a_process_that_says_what_nobody_asked_for_gets_another_connection(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE + b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        assert owner.last(PROCESS).closed
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == 2 * OK_MINE

    @pytest.mark.parametrize("words", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
    def test_a_target_that_tires_of_an_unused_connection_does_not_disturb_the_process(
        self, owner: Owner, words: bytes
    ) -> None:
        owner.receive(CLIENT, GET_MINE)
        if words:
            owner.receive(TARGET, words)
        else:
            owner.end(TARGET)
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == OK_MINE
        owner.receive(CLIENT, GET)
        assert len(owner.connections[TARGET]) == 2
        owner.receive(TARGET, OK)
        assert owner.sent(CLIENT) == OK_MINE + OK

    def test_a_target_that_closes_a_connection_in_use_closes_the_clients_once_the_process_is_done(
        self, owner: Owner
    ) -> None:
        owner.receive(CLIENT, GET)
        owner.receive(TARGET, OK)
        owner.receive(CLIENT, GET_MINE)
        owner.receive(TARGET, b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        owner.end(TARGET)
        assert owner.sent(CLIENT) == OK
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == OK + OK_MINE + b"HTTP/1.1 408 Request Timeout\r\n\r\n"
        assert owner.last(CLIENT).ended
        assert not owner.is_open(PROCESS)

    def test_when_nobody_wants_an_idle_client_its_connection_is_closed(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE)
        owner.end(TARGET)
        assert owner.is_open(CLIENT)
        owner.end(PROCESS)
        assert owner.last(CLIENT).closed
        assert not owner.last(CLIENT).reset

    def test_a_target_that_closes_at_once_is_seen_to(self, owner: Owner) -> None:
        owner.end(TARGET)
        assert owner.last(CLIENT).ended

    def test_a_target_that_is_not_there_does_not_keep_the_process_from_its_requests(self, owner: Owner) -> None:
        owner.refuse(TARGET)
        assert owner.is_open(CLIENT)
        owner.receive(CLIENT, GET_MINE)
        owner.receive(PROCESS, OK_MINE)
        assert owner.sent(CLIENT) == OK_MINE
        owner.receive(CLIENT, GET)
        assert owner.last(CLIENT).reset
        assert owner.last(PROCESS).reset

    @pytest.mark.parametrize("data", [b"\0", GET])
    def test_who_wants_a_target_that_is_not_there_is_reset(self, owner: Owner, data: bytes) -> None:
        owner.refuse(TARGET)
        owner.receive(CLIENT, data)
        assert owner.last(CLIENT).reset
        assert not owner.router.reads(CLIENT)

    def test_who_wants_a_process_that_is_not_there_is_reset(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.refuse(PROCESS)
        assert owner.last(CLIENT).reset
        assert owner.last(TARGET).reset

    def test_a_reset_of_the_client_reaches_both_sides(self, owner: Owner) -> None:
        owner.receive(CLIENT, GET_MINE)
        owner.end(CLIENT, reset=True)
        assert owner.last(TARGET).reset
        assert owner.last(PROCESS).reset

    @pytest.mark.parametrize("side", [CLIENT, TARGET])
    def test_a_raw_connection_is_reset_from_either_end(self, owner: Owner, side: object) -> None:
        owner.receive(CLIENT, b"\0")
        owner.end(CLIENT if side is CLIENT else TARGET, reset=True)
        assert owner.last(TARGET if side is CLIENT else CLIENT).reset
        assert not owner.is_open(CLIENT)
        assert not owner.is_open(TARGET)

    def test_a_response_before_the_end_of_its_request_lets_the_rest_of_that_pass(self, owner: Owner) -> None:
        owner.receive(CLIENT, b"POST / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 4\r\n\r\nab")
        owner.receive(PROCESS, OK_MINE)
        owner.receive(CLIENT, b"cd" + GET)
        assert owner.sent(PROCESS).endswith(b"abcd")
        assert owner.sent(TARGET) == GET

    def test_a_process_that_answers_and_closes_before_the_end_of_a_request_is_done_with_the_client(
        self, owner: Owner
    ) -> None:
        owner.receive(CLIENT, b"POST / HTTP/1.1\r\nX-Mine: 1\r\nContent-Length: 4\r\n\r\nab")
        owner.receive(PROCESS, OK_MINE)
        owner.end(PROCESS)
        assert owner.last(CLIENT).ended
        assert owner.raw is PROCESS


class TestMarks:
    MARK = Mark(b"served-by", {PROCESS: b"laptop"})

    @pytest.mark.parametrize("size", [1, 5, 1000])
    def test_a_response_of_the_process_says_so(self, size: int) -> None:
        owner = Owner(Http1Router(MINE, self.MARK))
        owner.receive(CLIENT, GET_MINE)
        response = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK_MINE
        owner.receive(PROCESS, *(response[at : at + size] for at in range(0, len(response), size)))
        assert owner.taken(CLIENT) == (
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nserved-by: laptop\r\n\r\nmine"
        )
        owner.receive(CLIENT, GET)
        owner.receive(TARGET, OK)
        assert owner.taken(CLIENT) == OK

    def test_a_switch_says_so_too(self) -> None:
        owner = Owner(Http1Router(EVERYTHING, self.MARK))
        owner.receive(CLIENT, TestSwitching.UPGRADE + b"\r\n")
        owner.receive(PROCESS, TestSwitching.SWITCHED + b"x")
        assert owner.sent(CLIENT) == TestSwitching.SWITCHED[:-2] + b"served-by: laptop\r\n\r\nx"

    def test_those_of_the_target_do_if_asked_to(self) -> None:
        owner = Owner(Http1Router(MINE, Mark(b"served-by", {TARGET: b"pod"})))
        owner.receive(CLIENT, GET)
        owner.receive(TARGET, OK)
        assert owner.sent(CLIENT) == b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nserved-by: pod\r\n\r\nok"

    @pytest.mark.parametrize(
        ("name", "value"), [(b"", b"x"), (b"A", b"x"), (b"a:", b"x"), (b"a", b""), (b"a", b"x\r\n")]
    )
    def test_what_is_no_header_is_refused(self, name: bytes, value: bytes) -> None:
        with pytest.raises(ValueError, match="no header"):
            Mark(name, {PROCESS: value})
