from __future__ import annotations

import random
import struct

import attrs
import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import HeaderTuple, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrord_agent.incoming.http.actions import BACKLOG_LIMIT, Side
from mirrord_agent.incoming.http.filters import MAX_BODY, Filter, parse_filter
from mirrord_agent.incoming.http.http2 import HARD_LIMIT, WINDOWS, Http2Router
from mirrord_agent.incoming.http.http2_leg import LAST_OF_ALL, MAX_STREAMS, PREFACE
from mirrord_agent.incoming.http.marks import Mark
from tests.mirrord_agent.incoming.http import support
from tests.mirrord_agent.incoming.http.http2_peers import MINE, Message, Peer, get
from tests.mirrord_agent.incoming.http.support import CLIENT, PROCESS, TARGET, Owner

JSON = parse_filter({"body": "json", "query": "$.user", "matches": "^me$"})


class World:
    """A router between a client and servers, all of which h2 plays."""

    def __init__(self, accepts: Filter = support.MINE, mark: Mark | None = None, *, checks: bool = True) -> None:
        self.owner = Owner(Http2Router(accepts, mark))
        self._checks = checks
        self.client = Peer(is_client=True, checks=checks)
        self.servers: dict[Side, Peer] = {TARGET: Peer(is_client=False, checks=checks)}
        self._connections = {TARGET: 1, PROCESS: 0}
        self._preface_left = len(PREFACE)
        self.deaf: set[Side] = set()
        """Who is not given what is sent to it."""
        self.mute: set[Side] = set()
        """Who does not send what it says."""

    @property
    def target(self) -> Peer:
        return self.servers[TARGET]

    @property
    def process(self) -> Peer:
        return self.servers[PROCESS]

    def exchange(self) -> None:
        """Carries bytes to and fro until nobody says anything more."""
        while self._carry():
            pass

    def _carry(self) -> bool:
        moved = False
        said = self.client.sent()
        if said:
            skipped, self._preface_left = self._preface_left, 0
            if said[skipped:]:
                self.owner.receive(CLIENT, said[skipped:])
            moved = True
        for side in (TARGET, PROCESS):
            if len(self.owner.connections[side]) > self._connections[side]:
                self._connections[side] += 1
                self.servers[side] = Peer(is_client=False, checks=self._checks)
            data = b"" if side in self.deaf else self.owner.taken(side)
            if data:
                self.servers[side].receive(data)
                moved = True
            if self._speaks(side) and (said := self.servers[side].sent()):
                self.owner.receive(side, said)
                moved = True
        data = b"" if CLIENT in self.deaf else self.owner.taken(CLIENT)
        if data:
            self.client.receive(data)
        return moved or bool(data)

    def _speaks(self, side: Side) -> bool:
        return side in self.servers and side not in self.mute and self.owner.is_open(side)

    def request(self, *headers: tuple[bytes, bytes], body: bytes | None = None, method: bytes = b"GET") -> int:
        stream = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(stream, get(b"/", *headers, method=method), end_stream=body is None)
        if body is not None:
            self.client.h2.send_data(stream, body, end_stream=True)
        self.exchange()
        return stream

    def answer(self, side: Side, stream: int, body: bytes = b"", status: bytes = b"200") -> None:
        server = self.servers[side].h2
        server.send_headers(stream, [(b":status", status)], end_stream=not body)
        if body:
            server.send_data(stream, body, end_stream=True)
        self.exchange()


@pytest.fixture
def world() -> World:
    world = World()
    world.exchange()
    return world


def test_streams_are_routed_one_by_one(world: World) -> None:
    theirs = world.request()
    mine = world.request(MINE)
    also_theirs = world.request()
    assert list(world.target.messages) == [0, 1, 3]
    assert list(world.process.messages) == [0, 1]
    world.answer(PROCESS, 1, b"mine")
    world.answer(TARGET, 3, b"second")
    world.answer(TARGET, 1, b"first")
    assert {number: message.body for number, message in world.client.messages.items() if number} == {
        mine: b"mine",
        also_theirs: b"second",
        theirs: b"first",
    }
    assert len(world.owner.connections[TARGET]) == len(world.owner.connections[PROCESS]) == 1


def test_the_process_is_connected_to_when_it_is_needed(world: World) -> None:
    world.request()
    assert not world.owner.connections[PROCESS]


@pytest.mark.parametrize("side", [TARGET, PROCESS])
def test_headers_keep_their_order_their_copies_and_their_secrets(side: Side) -> None:
    world = World(checks=False)
    headers = [
        *get(b"/\xff", (b"x-b", b"1"), (b"x-a", b"2"), (b"cookie", b"a=1"), (b"X-b", b" 3\xff"), (b"cookie", b"b=2")),
        NeverIndexedHeaderTuple(b"authorization", b"secret"),
        *([MINE] if side is PROCESS else []),
        (b"x-empty", b""),
    ]
    world.client.h2.send_headers(1, headers, end_stream=True)
    world.exchange()
    received = world.servers[side].messages[1].headers
    assert [tuple(header) for header in received] == [tuple(header) for header in headers]
    assert [isinstance(header, HeaderTuple) and header.indexable for header in received] == [
        getattr(header, "indexable", True) for header in headers
    ]


def test_headers_longer_than_a_frame_are_passed_on(world: World) -> None:
    headers = [(b"x-%d" % number, bytes([97 + number % 26]) * 1000) for number in range(40)]
    world.client.h2.send_headers(1, get(b"/", MINE, *headers), end_stream=True)
    world.exchange()
    assert world.process.messages[1].headers[-40:] == headers


@pytest.mark.parametrize("side", [TARGET, PROCESS])
def test_a_grpc_call_passes_both_ways(world: World, side: Side) -> None:
    marks = [MINE] if side is PROCESS else []
    headers = get(b"/Echo/Chat", (b"te", b"trailers"), (b"content-type", b"application/grpc"), *marks, method=b"POST")
    client = world.client.h2
    client.send_headers(1, headers)
    client.send_data(1, b"\0\0\0\0\1a", pad_length=10)
    world.exchange()
    server = world.servers[side].h2
    server.send_headers(1, [(b":status", b"200"), (b"content-type", b"application/grpc")])
    server.send_data(1, b"\0\0\0\0\1A", pad_length=0)
    world.exchange()
    assert world.client.messages[1].body == b"\0\0\0\0\1A"
    client.send_data(1, b"\0\0\0\0\1b", end_stream=True)
    world.exchange()
    assert world.servers[side].messages[1].body == b"\0\0\0\0\1a\0\0\0\0\1b"
    assert world.servers[side].messages[1].has_ended
    server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    world.exchange()
    assert world.client.messages[1].trailers == [(b"grpc-status", b"0")]
    assert world.client.messages[1].has_ended


def test_trailers_of_requests_and_hints_of_responses_are_passed_on(world: World) -> None:
    client = world.client.h2
    client.send_headers(1, get(b"/", method=b"POST"))
    client.send_data(1, b"body")
    client.send_headers(1, [(b"x-sum", b"1")], end_stream=True)
    world.exchange()
    assert world.target.messages[1].body == b"body"
    assert world.target.messages[1].trailers == [(b"x-sum", b"1")]
    server = world.target.h2
    server.send_headers(1, [(b":status", b"103"), (b"link", b"x")])
    server.send_headers(1, [(b":status", b"204")], end_stream=True)
    world.exchange()
    assert world.client.messages[1].hints == [[(b":status", b"103"), (b"link", b"x")]]
    assert world.client.messages[1].headers == [(b":status", b"204")]


def test_pings_are_answered_and_priorities_ignored(world: World) -> None:
    world.client.h2.ping(b"12345678")
    world.client.h2.send_headers(1, get(), end_stream=True, priority_weight=10, priority_depends_on=0)
    world.client.h2.prioritize(3, weight=5)
    world.target.h2.ping(b"abcdefgh")
    world.exchange()
    assert world.target.messages[1].has_ended
    assert not world.client.gone


class TestResets:
    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_the_clients_reach_the_server(self, world: World, side: Side) -> None:
        world.client.h2.send_headers(1, get(b"/", *([MINE] if side is PROCESS else []), method=b"POST"))
        world.exchange()
        world.client.h2.reset_stream(1, ErrorCodes.CANCEL)
        world.exchange()
        assert world.servers[side].messages[1].reset == ErrorCodes.CANCEL

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_the_servers_reach_the_client(self, world: World, side: Side) -> None:
        world.request(*([MINE] if side is PROCESS else []))
        world.servers[side].h2.reset_stream(1, ErrorCodes.ENHANCE_YOUR_CALM)
        world.exchange()
        assert world.client.messages[1].reset == ErrorCodes.ENHANCE_YOUR_CALM

    def test_a_server_that_has_answered_and_wants_no_more_of_the_request_is_heard_in_full(self, world: World) -> None:
        world.client.takes = False
        world.client.h2.send_headers(1, get(b"/", method=b"POST"))
        world.client.h2.send_data(1, b"x" * 1000)
        world.exchange()
        server = world.target.h2
        server.send_headers(1, [(b":status", b"413")])
        sent = 0
        while (room := server.local_flow_control_window(1)) and sent < 200_000:
            server.send_data(1, b"y" * min(room, 16384))
            sent += min(room, 16384)
            world.exchange()
        server.end_stream(1)
        server.reset_stream(1, ErrorCodes.NO_ERROR)
        world.exchange()
        message = world.client.messages[1]
        assert len(message.body) == 65535
        assert message.reset is None
        while not message.has_ended:
            world.client.take()
            world.exchange()
        assert len(message.body) == sent
        assert message.reset == ErrorCodes.NO_ERROR

    def test_what_comes_for_a_stream_that_was_reset_costs_nothing(self, world: World) -> None:
        client = world.client.h2
        client.send_headers(1, get(b"/", method=b"POST"))
        world.exchange()
        world.target.h2.reset_stream(1, ErrorCodes.CANCEL)
        said = world.target.sent()
        for _ in range(4):
            client.send_data(1, bytes(16000))
        world.owner.receive(TARGET, said)
        world.exchange()
        assert world.owner.router.reads(CLIENT)
        for _ in range(40):
            world.request(body=bytes(16000), method=b"POST")
        assert sum(message.has_ended for message in world.target.messages.values()) == 40


def send_all_that_may_be_sent(peer: H2Connection, world: World) -> int:
    """On its first stream; how much that was."""
    sent = 0
    while room := peer.local_flow_control_window(1):
        size = min(room, 16384)
        peer.send_data(1, bytes(size))
        sent += size
        world.exchange()
    return sent


class TestFlow:
    def test_a_server_that_takes_nothing_stops_its_own_streams_only(self, world: World) -> None:
        world.target.takes = False
        client = world.client.h2
        client.send_headers(1, get(b"/", method=b"POST"))
        world.exchange()
        sent = send_all_that_may_be_sent(client, world)
        assert WINDOWS[CLIENT].stream <= sent <= 65535 + WINDOWS[CLIENT].stream
        assert len(world.target.messages[1].body) == 65535
        mine = world.request(MINE, body=bytes(16000), method=b"POST")
        world.answer(PROCESS, 1, b"mine")
        assert world.client.messages[mine].body == b"mine"
        world.target.takes = True
        world.target.take()
        world.exchange()
        assert len(world.target.messages[1].body) == sent
        assert client.local_flow_control_window(1)

    def test_a_client_that_takes_nothing_stops_its_server(self, world: World) -> None:
        world.client.takes = False
        world.request()
        server = world.target.h2
        server.send_headers(1, [(b":status", b"200")])
        sent = send_all_that_may_be_sent(server, world)
        assert WINDOWS[TARGET].stream <= sent <= 65535 + WINDOWS[TARGET].stream
        world.client.takes = True
        world.client.take()
        server.end_stream(1)
        world.exchange()
        assert len(world.client.messages[1].body) == sent
        assert world.client.messages[1].has_ended

    def test_a_socket_that_takes_nothing_is_given_so_much_and_no_more(self, world: World) -> None:
        world.target.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: LAST_OF_ALL})
        world.target.h2.increment_flow_control_window(LAST_OF_ALL - 65535)
        world.exchange()
        world.deaf.add(TARGET)
        world.owner.writes = False
        client = world.client.h2
        client.send_headers(1, get(b"/", method=b"POST"))
        world.exchange()
        sent = send_all_that_may_be_sent(client, world)
        assert sum(len(data) for side, data in world.owner.order if side is TARGET) < BACKLOG_LIMIT + 20000
        assert sent < BACKLOG_LIMIT + WINDOWS[CLIENT].stream + 20000
        assert world.owner.router.reads(CLIENT)
        mine = world.request(MINE)
        world.answer(PROCESS, 1, b"mine")
        assert world.client.messages[mine].body == b"mine"
        world.deaf.clear()
        world.owner.writes = True
        world.owner.do(world.owner.router.written(TARGET, BACKLOG_LIMIT, 0.0))
        world.exchange()
        assert len(world.target.messages[1].body) == sent
        assert client.local_flow_control_window(1)

    def test_a_client_that_opens_streams_which_nobody_takes_is_not_read_from(self, world: World) -> None:
        world.deaf.add(TARGET)
        world.owner.writes = False
        client = world.client.h2
        client.encoder.header_table_size = 0
        count = 0
        while world.owner.router.reads(CLIENT):
            stream = client.get_next_available_stream_id()
            client.send_headers(stream, get(b"/", (b"x-large", b"{}" * 5000)))
            client.reset_stream(stream)
            world.exchange()
            count += 1
        assert sum(len(data) for side, data in world.owner.order if side is TARGET) < HARD_LIMIT + 40000
        assert count > 50

    def test_a_gigabyte_passes_piece_by_piece(self, world: World) -> None:
        client, total = world.client.h2, 1 << 25
        client.send_headers(1, get(b"/", MINE, method=b"POST"))
        world.exchange()
        server, sent, received = world.process, 0, 0
        while sent < total:
            while (room := min(client.local_flow_control_window(1), 16384)) and sent < total:
                client.send_data(1, bytes(min(room, total - sent)))
                sent += min(room, total - sent)
            world.exchange()
            received += len(server.messages[1].body)
            server.messages[1].body = b""
        assert received == total


class TestSettings:
    def test_the_client_is_told_how_many_streams_the_target_takes(self, world: World) -> None:
        assert world.client.h2.remote_settings.max_concurrent_streams == 100
        world.target.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 7})
        world.exchange()
        assert world.client.h2.remote_settings.max_concurrent_streams == 7
        world.target.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1_000_000})
        world.exchange()
        assert world.client.h2.remote_settings.max_concurrent_streams == MAX_STREAMS

    def test_the_client_is_told_that_websockets_are_possible_and_may_have_them(self, world: World) -> None:
        assert world.client.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 0
        world.target.h2.update_settings({SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
        world.exchange()
        assert world.client.h2.remote_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL] == 1
        headers = get(b"/chat", (b":protocol", b"websocket"), method=b"CONNECT")
        world.client.h2.send_headers(1, headers)
        world.exchange()
        assert (b":protocol", b"websocket") in world.target.messages[1].headers

    def test_a_process_that_takes_fewer_streams_refuses_the_others(self, world: World) -> None:
        world.request(MINE)
        world.process.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        world.exchange()
        refused = world.request(MINE)
        assert world.client.messages[refused].reset == ErrorCodes.REFUSED_STREAM
        world.answer(PROCESS, 1, b"mine")
        again = world.request(MINE)
        world.answer(PROCESS, 3, b"mine")
        assert world.client.messages[again].body == b"mine"

    def test_a_window_that_grows_by_settings_lets_data_go_on(self, world: World) -> None:
        world.client.takes = False
        world.request()
        server = world.target.h2
        server.send_headers(1, [(b":status", b"200")])
        for _ in range(5):
            server.send_data(1, bytes(16384))
            world.exchange()
        assert len(world.client.messages[1].body) == 65535
        world.client.h2.increment_flow_control_window(1 << 20)
        world.client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        world.exchange()
        assert len(world.client.messages[1].body) == 5 * 16384


class TestGoingAway:
    def test_the_targets_reaches_the_client_and_streams_under_way_are_finished(self, world: World) -> None:
        first, second, mine = world.request(), world.request(), world.request(MINE)
        world.owner.receive(TARGET, goaway(1, ErrorCodes.NO_ERROR))
        world.exchange()
        assert [(gone.last_stream_id, gone.error_code) for gone in world.client.gone] == [(mine, 0)]
        assert world.client.messages[second].reset == ErrorCodes.REFUSED_STREAM
        # h2 takes no frames after a GOAWAY, so what follows is looked at as bytes.
        world.deaf.add(CLIENT)
        world.answer(TARGET, 1, b"first")
        world.answer(PROCESS, 1, b"mine")
        world.owner.end(TARGET)
        assert [frame[9:] for frame in frames(world.owner.taken(CLIENT)) if frame[3] == 0] == [b"first", b"mine"]
        assert world.owner.last(CLIENT).closed
        assert first != mine

    def test_one_that_only_announces_is_passed_on_as_it_is(self, world: World) -> None:
        world.request()
        world.owner.receive(TARGET, goaway(LAST_OF_ALL, ErrorCodes.NO_ERROR))
        assert [frame[9:13] for frame in frames(world.owner.taken(CLIENT)) if frame[3] == 7] == [b"\x7f\xff\xff\xff"]
        world.deaf.add(CLIENT)
        world.client.h2.send_headers(3, get(), end_stream=True)
        world.exchange()
        assert world.target.messages[3].has_ended

    def test_one_of_a_target_that_was_not_used_does_not_concern_the_client(self, world: World) -> None:
        mine = world.request(MINE)
        world.owner.receive(TARGET, goaway(0, ErrorCodes.NO_ERROR))
        assert not world.owner.is_open(TARGET)
        world.answer(PROCESS, 1, b"mine")
        assert world.client.messages[mine].has_ended
        theirs = world.request()
        world.answer(TARGET, 1, b"theirs")
        assert world.client.messages[theirs].body == b"theirs"
        assert len(world.owner.connections[TARGET]) == 2
        assert not world.client.gone

    def test_a_process_that_goes_away_finishes_and_gets_a_new_connection(self, world: World) -> None:
        mine = world.request(MINE)
        world.owner.receive(PROCESS, goaway(LAST_OF_ALL, ErrorCodes.NO_ERROR) + goaway(1, ErrorCodes.NO_ERROR))
        refused = world.request(MINE)
        assert world.client.messages[refused].reset == ErrorCodes.REFUSED_STREAM
        world.answer(PROCESS, 1, b"mine")
        assert world.client.messages[mine].body == b"mine"
        assert not world.owner.is_open(PROCESS)
        again = world.request(MINE)
        world.answer(PROCESS, 1, b"again")
        assert world.client.messages[again].body == b"again"
        assert len(world.owner.connections[PROCESS]) == 2
        assert not world.client.gone

    def test_a_process_that_goes_away_may_go_back_on_what_it_would_finish(self, world: World) -> None:
        first, second = world.request(MINE), world.request(MINE)
        world.answer(PROCESS, 1, b"first")
        world.owner.receive(PROCESS, goaway(3, ErrorCodes.NO_ERROR) + goaway(1, ErrorCodes.NO_ERROR))
        world.exchange()
        assert world.client.messages[second].reset == ErrorCodes.REFUSED_STREAM
        assert not world.owner.is_open(PROCESS)
        again = world.request(MINE)
        world.answer(PROCESS, 1, b"again")
        assert [world.client.messages[stream].body for stream in (first, again)] == [b"first", b"again"]

    def test_the_clients_is_nobody_elses(self, world: World) -> None:
        world.request()
        world.owner.receive(CLIENT, goaway(0, ErrorCodes.NO_ERROR))
        world.answer(TARGET, 1, b"theirs")
        assert world.client.messages[1].body == b"theirs"


class TestEnds:
    def test_a_process_that_ends_breaks_its_streams_off_and_gets_a_new_connection(self, world: World) -> None:
        mine, theirs = world.request(MINE), world.request()
        world.owner.end(PROCESS, reset=True)
        world.exchange()
        assert world.client.messages[mine].reset == ErrorCodes.INTERNAL_ERROR
        again = world.request(MINE)
        world.answer(PROCESS, 1, b"again")
        world.answer(TARGET, 1, b"theirs")
        assert world.client.messages[again].body == b"again"
        assert world.client.messages[theirs].body == b"theirs"

    def test_a_target_that_ends_ends_the_connection_when_the_process_is_done(self, world: World) -> None:
        theirs, mine = world.request(), world.request(MINE)
        world.owner.end(TARGET)
        assert world.owner.is_open(CLIENT)
        said = frames(world.owner.taken(CLIENT))
        assert [frame[3] for frame in said] == [3, 7]
        assert struct.unpack(">L", said[0][5:9]) == (theirs,)
        world.deaf.add(CLIENT)
        world.answer(PROCESS, 1, b"mine")
        assert world.owner.last(CLIENT).closed
        assert not world.owner.is_open(PROCESS)
        assert mine in {struct.unpack(">L", frame[5:9])[0] for frame in frames(world.owner.taken(CLIENT))}

    def test_an_unused_target_that_ends_is_connected_to_again(self, world: World) -> None:
        world.owner.end(TARGET)
        assert world.owner.is_open(CLIENT)
        theirs = world.request()
        world.answer(TARGET, 1, b"theirs")
        assert world.client.messages[theirs].body == b"theirs"

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_streams_to_a_server_that_is_not_there_are_refused(self, world: World, side: Side) -> None:
        stream = world.request(*([MINE] if side is PROCESS else []))
        world.owner.refuse(side)
        world.owner.last(side).closed = True
        world.exchange()
        assert world.client.messages[stream].reset == ErrorCodes.REFUSED_STREAM
        assert not world.client.gone

    def test_a_client_that_ends_hears_its_answers(self, world: World) -> None:
        theirs = world.request()
        world.client.h2.send_headers(3, get(b"/", MINE, method=b"POST"))
        world.exchange()
        world.owner.end(CLIENT)
        world.exchange()
        assert world.process.messages[1].reset == ErrorCodes.CANCEL
        world.answer(TARGET, 1, b"theirs")
        assert world.client.messages[theirs].body == b"theirs"
        assert world.owner.last(CLIENT).closed
        assert world.owner.last(TARGET).closed

    def test_a_client_that_resets_is_followed(self, world: World) -> None:
        world.request(MINE)
        world.owner.end(CLIENT, reset=True)
        assert world.owner.last(TARGET).reset
        assert world.owner.last(PROCESS).reset
        assert not world.owner.router.reads(TARGET)

    def test_an_idle_client_that_ends_ends_everything(self, world: World) -> None:
        world.owner.end(CLIENT)
        assert world.owner.last(CLIENT).closed
        assert world.owner.last(TARGET).closed


class TestFaults:
    @pytest.mark.parametrize(
        "data",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\0\0\6\0\0\0\0\0",
            b"\0\0\0\4\0\0\0\0\0" + b"\xff\xff\xff\0\0\0\0\0\1",
            b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\xff",
            b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\7\0\0\0\0\0\0\0\0\0",
        ],
    )
    def test_a_client_that_breaks_the_protocol_is_sent_away(self, data: bytes) -> None:
        owner = Owner(Http2Router(support.MINE))
        owner.receive(CLIENT, data)
        assert frames(owner.sent(CLIENT))[-1][3] == 7
        assert owner.last(CLIENT).closed
        assert owner.last(TARGET).closed

    def test_what_came_before_a_fault_is_not_lost_and_then_broken_off(self) -> None:
        client = Peer(is_client=True)
        client.h2.send_headers(1, get(), end_stream=True)
        owner = Owner(Http2Router(support.MINE))
        owner.receive(CLIENT, client.sent()[len(PREFACE) :] + b"\0\0\4\3\0\0\0\0\0\0\0\0\0")
        target = Peer(is_client=False)
        target.receive(owner.sent(TARGET))
        assert target.messages[1].has_ended
        assert target.messages[1].reset == ErrorCodes.CANCEL
        assert owner.last(TARGET).closed

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_a_server_that_does_not_speak_http2_is_known_by_its_first_bytes(self, side: Side) -> None:
        world = World()
        world.mute.add(side)
        stream = world.request(*([MINE] if side is PROCESS else []))
        world.owner.receive(side, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        world.exchange()
        assert world.client.messages[stream].reset == ErrorCodes.HTTP_1_1_REQUIRED
        assert not world.owner.is_open(side)
        assert "this is no HTTP/2" in world.owner.notices[0]

    @pytest.mark.parametrize("side", [TARGET, PROCESS])
    def test_a_server_that_breaks_the_protocol_breaks_its_streams_off(self, world: World, side: Side) -> None:
        stream = world.request(*([MINE] if side is PROCESS else []))
        world.owner.receive(side, b"\0\0\1\0\0\0\0\0\x63x")
        world.exchange()
        assert world.client.messages[stream].reset == ErrorCodes.INTERNAL_ERROR
        assert bool(world.client.gone) == (side is TARGET)

    def test_headers_that_are_none_are_refused_to_either_side(self, world: World) -> None:
        world.client.h2.highest_outbound_stream_id = 1
        world.owner.receive(CLIENT, headers_frame(1, b"", ends=True))
        assert frames(world.owner.taken(CLIENT))[-1] == struct.pack(">HBBBLL", 0, 4, 3, 0, 1, ErrorCodes.PROTOCOL_ERROR)
        mine = world.request(MINE)
        world.owner.receive(PROCESS, headers_frame(1, b"", ends=True))
        world.exchange()
        assert world.client.messages[mine].reset == ErrorCodes.PROTOCOL_ERROR

    def test_trailers_that_are_none_only_end_a_stream(self, world: World) -> None:
        mine = world.request(MINE)
        world.process.h2.send_headers(1, [(b":status", b"200")])
        world.exchange()
        world.owner.receive(PROCESS, headers_frame(1, b"", ends=True))
        world.exchange()
        assert world.client.messages[mine].has_ended

    @given(st.binary(max_size=200), st.sampled_from(list(Side)))
    def test_garbage_never_raises(self, data: bytes, side: Side) -> None:
        world = World()
        world.request()
        world.request(MINE)
        world.owner.receive(side, data)

    @given(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=20)), max_size=10
        ),
        st.sampled_from(list(Side)),
    )
    @settings(max_examples=300)
    def test_frames_of_all_sorts_never_raise(self, parts: list[tuple[int, int, int, bytes]], side: Side) -> None:
        world = World()
        world.request()
        world.request(MINE, body=b"x")
        world.request(method=b"POST", body=b"x" * 16000)
        for kind, flags, stream, body in parts:
            frame = struct.pack(">HBBBL", 0, len(body), kind, flags, stream) + body
            if world.owner.is_open(side):
                world.owner.receive(side, frame)


class TestBodies:
    POST = (b"content-type", b"application/json")

    @pytest.mark.parametrize(
        ("body", "side"), [(b'{"user":"me"}', PROCESS), (b'{"user":"you"}', TARGET), (b"", TARGET)]
    )
    def test_a_body_decides(self, body: bytes, side: Side) -> None:
        world = World(JSON)
        world.client.h2.send_headers(1, get(b"/", self.POST, method=b"POST"))
        for at in range(len(body)):
            world.client.h2.send_data(1, body[at : at + 1])
            world.exchange()
        assert 1 not in world.target.messages
        world.client.h2.end_stream(1)
        world.exchange()
        assert world.servers[side].messages[1].body == body
        assert world.servers[side].messages[1].has_ended
        assert world.owner.router.deadline is None

    def test_a_body_that_does_not_come_in_time_is_not_waited_for(self) -> None:
        world = World(JSON)
        world.client.h2.send_headers(1, get(b"/", self.POST, method=b"POST"))
        world.client.h2.send_data(1, b'{"user":')
        world.exchange()
        assert world.owner.router.deadline == 1.0
        world.owner.wait(1.0)
        world.exchange()
        assert world.target.messages[1].body == b'{"user":'
        world.client.h2.send_data(1, b'"me"}', end_stream=True)
        world.exchange()
        assert world.target.messages[1].body == b'{"user":"me"}'

    @pytest.mark.parametrize("length", [MAX_BODY, MAX_BODY + 1])
    @pytest.mark.parametrize("is_said", [False, True])
    def test_a_body_too_long_is_not_looked_into(self, length: int, is_said: bool) -> None:
        world = World(JSON)
        world.exchange()
        said = [(b"content-length", b"%d" % length)] if is_said else []
        world.client.h2.send_headers(1, get(b"/", *said, method=b"POST"))
        world.exchange()
        assert (1 in world.target.messages) == (is_said and length > MAX_BODY)
        body = b'{"user":"me"}'.ljust(length)
        for at in range(0, length, 16000):
            world.client.h2.send_data(1, body[at : at + 16000])
            world.exchange()
        world.client.h2.end_stream(1)
        world.exchange()
        assert world.servers[PROCESS if length <= MAX_BODY else TARGET].messages[1].body == body

    def test_a_body_that_is_sent_when_asked_for_is_asked_for_once(self) -> None:
        world = World(JSON)
        world.client.h2.send_headers(1, get(b"/", (b"expect", b"100-continue"), method=b"POST"))
        world.exchange()
        assert world.client.messages[1].hints == [[(b":status", b"100")]]
        world.client.h2.send_data(1, b'{"user":"me"}', end_stream=True)
        world.exchange()
        world.process.h2.send_headers(1, [(b":status", b"100")])
        world.answer(PROCESS, 1, b"mine")
        assert world.client.messages[1].hints == [[(b":status", b"100")]]
        assert world.client.messages[1].body == b"mine"

    def test_a_stream_that_is_reset_before_it_is_judged_reaches_nobody(self) -> None:
        world = World(JSON)
        world.client.h2.send_headers(1, get(b"/", method=b"POST"))
        world.client.h2.send_data(1, b"{")
        world.client.h2.reset_stream(1)
        world.exchange()
        assert world.owner.router.deadline is None
        assert 1 not in world.target.messages


def test_a_response_of_the_process_says_so() -> None:
    world = World(mark=Mark(b"served-by", {PROCESS: b"laptop"}))
    theirs, mine = world.request(), world.request(MINE)
    world.answer(TARGET, 1, b"theirs")
    world.answer(PROCESS, 1, b"mine")
    assert world.client.messages[theirs].headers == [(b":status", b"200")]
    assert world.client.messages[mine].headers == [(b":status", b"200"), (b"served-by", b"laptop")]


def goaway(last_stream: int, code: int) -> bytes:
    return struct.pack(">HBBBLLL", 0, 8, 7, 0, 0, last_stream, code)


def headers_frame(stream: int, block: bytes, *, ends: bool) -> bytes:
    return struct.pack(">HBBBL", 0, len(block), 1, 4 | ends, stream) + block


def frames(data: bytes) -> list[bytes]:
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append(data[: 9 + length])
        data = data[9 + length :]
    return found


@attrs.frozen
class Call:
    is_mine: bool
    chunks: list[int]
    answer: list[int]
    has_trailers: bool


calls = st.builds(
    Call,
    is_mine=st.booleans(),
    chunks=st.lists(st.integers(0, 40000), max_size=4),
    answer=st.lists(st.integers(0, 40000), max_size=4),
    has_trailers=st.booleans(),
)


@given(st.lists(calls, max_size=6), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_many_calls_at_once_are_served_by_whom_they_are_for_however_their_bytes_are_cut(
    calls: list[Call], seed: int
) -> None:
    chance = random.Random(seed)
    owner = Owner(Http2Router(support.MINE))
    client = Peer(is_client=True)
    servers: dict[Side, Peer] = {TARGET: Peer(is_client=False)}
    wires: dict[Side, bytes] = dict.fromkeys(Side, b"")
    sending: dict[tuple[Peer, int], list[bytes]] = {}
    trailing: dict[tuple[Peer, int], bool] = {}

    def answer(server: Peer, stream: int) -> None:
        number = int(dict(server.messages[stream].headers)[b":path"][1:])
        server.h2.send_headers(stream, [(b":status", b"200")])
        sending[server, stream] = [bytes([number]) * size for size in calls[number].answer]
        trailing[server, stream] = calls[number].has_trailers

    def go_on(peer: Peer, stream: int) -> None:
        """Sends a little of what a stream has to say, as far as there is room."""
        pieces = sending[peer, stream]
        if not pieces:
            del sending[peer, stream]
            if trailing[peer, stream]:
                peer.h2.send_headers(stream, [(b"x-last", b"1")], end_stream=True)
            else:
                peer.h2.end_stream(stream)
            return
        size = min(len(pieces[0]), peer.h2.local_flow_control_window(stream), chance.randint(0, 16384))
        peer.h2.send_data(stream, pieces[0][:size])
        pieces[0] = pieces[0][size:]
        if not pieces[0]:
            del pieces[0]

    for number, call in enumerate(calls):
        headers = get(b"/%d" % number, *([MINE] if call.is_mine else []), method=b"POST")
        client.h2.send_headers(2 * number + 1, headers)
        sending[client, 2 * number + 1] = [bytes([number]) * size for size in call.chunks]
        trailing[client, 2 * number + 1] = call.has_trailers
    skipped = len(PREFACE)
    servers[TARGET].on_end = lambda stream: answer(servers[TARGET], stream)
    while True:
        if PROCESS not in servers and owner.connections[PROCESS]:
            servers[PROCESS] = Peer(is_client=False)
            servers[PROCESS].on_end = lambda stream: answer(servers[PROCESS], stream)
        peers = {CLIENT: client, **servers}
        for side, peer in peers.items():
            if data := owner.taken(side):
                peer.receive(data)
            wires[side] += peer.sent()
        ready = [side for side in peers if wires[side]]
        if sending and (not ready or chance.random() < 0.5):
            go_on(*chance.choice(list(sending)))
        elif ready:
            side = chance.choice(ready)
            size = chance.randint(1, len(wires[side]))
            piece, wires[side] = wires[side][:size], wires[side][size:]
            if side is CLIENT and skipped:
                piece, skipped = piece[skipped:], max(0, skipped - len(piece))
            if piece:
                owner.receive(side, piece)
        elif not sending:
            break
    for number, call in enumerate(calls):
        message = client.messages[2 * number + 1]
        assert message == Message(
            headers=[(b":status", b"200")],
            body=bytes([number]) * sum(call.answer),
            trailers=[(b"x-last", b"1")] if call.has_trailers else None,
            has_ended=True,
        )
    for side, peer in servers.items():
        heard = {
            int(dict(message.headers)[b":path"][1:]): message for stream, message in peer.messages.items() if stream
        }
        expected = {number: call for number, call in enumerate(calls) if call.is_mine == (side is PROCESS)}
        assert {number: len(message.body) for number, message in heard.items()} == {
            number: sum(call.chunks) for number, call in expected.items()
        }
        assert all(set(message.body) <= {number} for number, message in heard.items())
