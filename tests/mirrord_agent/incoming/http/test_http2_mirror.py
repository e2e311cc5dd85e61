from __future__ import annotations

import tracemalloc

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.http2_mirror import MAX_HELD
from tests.mirrord_agent.incoming.http import support
from tests.mirrord_agent.incoming.http.http2_peers import MINE, Peer, get
from tests.mirrord_agent.incoming.http.support import CLIENT, PROCESS, split
from tests.mirrord_agent.incoming.http.test_mirror import JSON, Watcher


class Scene:
    """A client that talks with its server, of which only the client is heard, and the process."""

    def __init__(self, accepts: Filter = support.MINE) -> None:
        self.watcher = Watcher(accepts)
        self.client = Peer(is_client=True)
        self.server = Peer(is_client=False)
        self.processes: list[Peer] = []
        self.cuts: list[int] = []
        """Where the client's bytes are cut."""
        self._heard = 0
        self.is_deaf = False
        """Whether the process is given nothing."""

    def exchange(self) -> None:
        while self._carry():
            pass

    def _carry(self) -> bool:
        said = self.client.sent()
        if said:
            self.server.receive(said)
            self.watcher.receive(*split(said, self.cuts))
        answer = self.server.sent()
        if answer:
            self.client.receive(answer)
        return self._carry_process() or bool(said or answer)

    def _carry_process(self) -> bool:
        if len(self.watcher.connections) > len(self.processes):
            self.processes.append(Peer(is_client=False))
            self._heard = 0
        if not self.watcher.is_open or self.is_deaf:
            return False
        data = bytes(self.watcher.connections[-1].sent[self._heard :])
        self._heard += len(data)
        if data:
            self.processes[-1].receive(data)
        said = self.processes[-1].sent()
        if said:
            self.watcher.do(self.watcher.mirror.receive(PROCESS, said, self.watcher.now))
        return bool(data or said)

    def request(self, *headers: tuple[bytes, bytes], body: bytes | None = None) -> int:
        stream = self.client.h2.get_next_available_stream_id()
        self.client.h2.send_headers(stream, get(b"/", *headers, method=b"POST"), end_stream=body is None)
        if body is not None:
            self.client.h2.send_data(stream, body, end_stream=True)
        self.exchange()
        return stream

    def answer(self, peer: Peer, stream: int, body: bytes = b"answer") -> None:
        peer.h2.send_headers(stream, [(b":status", b"200")])
        peer.h2.send_data(stream, body, end_stream=True)
        self.exchange()

    @property
    def process(self) -> Peer:
        return self.processes[-1]


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("cuts", [[], list(range(2000))])
def test_streams_that_match_are_given_to_the_process(scene: Scene, cuts: list[int]) -> None:
    scene.cuts = cuts
    for number in range(1, 20):
        stream = scene.request(*([MINE] if number % 3 == 0 else []), body=b"body %d" % number)
        scene.answer(scene.server, stream)
    assert [message.body for stream, message in scene.process.messages.items() if stream] == [
        b"body %d" % number for number in range(3, 20, 3)
    ]
    assert len(scene.processes) == 1
    assert not scene.watcher.notices


def test_without_a_stream_that_matches_there_is_no_connection(scene: Scene) -> None:
    scene.request()
    assert not scene.processes


def test_trailers_come_along(scene: Scene) -> None:
    scene.client.h2.send_headers(1, get(b"/", MINE, method=b"POST"))
    scene.client.h2.send_data(1, b"body", pad_length=20)
    scene.client.h2.send_headers(1, [(b"x-last", b"1")], end_stream=True)
    scene.exchange()
    assert scene.process.messages[1].trailers == [(b"x-last", b"1")]
    assert scene.process.messages[1].body == b"body"


def test_what_the_process_answers_is_nobodys_and_does_not_pile_up(scene: Scene) -> None:
    stream = scene.request(MINE)
    process = scene.process.h2
    process.send_headers(1, [(b":status", b"200")])
    for _ in range(1000):
        process.send_data(1, bytes(min(16384, process.local_flow_control_window(1))))
        scene.exchange()
    process.end_stream(1)
    scene.answer(scene.server, stream)
    assert scene.client.messages[stream].body == b"answer"


def test_many_streams_whose_answers_are_not_seen_are_forgotten(scene: Scene) -> None:
    for _ in range(1500):
        scene.answer(scene.server, scene.request())
    for _ in range(1500):
        stream = scene.request(MINE)
        scene.answer(scene.server, stream)
        scene.answer(scene.process, max(scene.process.messages))
    assert not scene.watcher.notices
    mirror = scene.watcher.mirror._mirror
    assert mirror is not None
    assert len(mirror._client._h2.streams) < 10  # type: ignore[attr-defined]


def test_what_a_generous_server_allows_is_understood(scene: Scene) -> None:
    scene.server.h2.update_settings(
        {
            SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1,
            SettingCodes.MAX_FRAME_SIZE: 1 << 20,
            SettingCodes.HEADER_TABLE_SIZE: 1 << 16,
        }
    )
    scene.server.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
    scene.server.h2.max_inbound_frame_size = 1 << 20
    scene.client.receive(scene.server.sent())
    scene.client.h2.send_headers(1, get(b"/", MINE, *[(b"x-%d" % number, b"y" * 100) for number in range(100)]))
    for _ in range(4):
        scene.client.h2.send_data(1, bytes(900_000))
        scene.exchange()
    scene.client.h2.end_stream(1)
    scene.request(MINE, *[(b"x-%d" % number, b"y" * 100) for number in range(100)])
    assert len(scene.process.messages[1].body) == 3_600_000
    assert scene.process.messages[3].has_ended
    assert not scene.watcher.notices


def test_a_stream_that_the_process_takes_too_slowly_is_cut_and_others_are_not(scene: Scene) -> None:
    slow = scene.client.h2
    scene.request(MINE)
    scene.process.takes = False
    slow.send_headers(3, get(b"/", MINE))
    scene.exchange()
    sent = 0
    while sent < MAX_HELD + 200_000:
        size = min(16384, slow.local_flow_control_window(3))
        slow.send_data(3, bytes(size))
        sent += size
        scene.exchange()
    assert any("was cut" in notice for notice in scene.watcher.notices)
    assert scene.process.messages[3].reset == ErrorCodes.CANCEL
    scene.request(MINE)
    assert scene.process.messages[5].has_ended


def test_a_client_that_gives_up_is_followed_even_after_its_request(scene: Scene) -> None:
    stream = scene.request(MINE)
    scene.client.h2.reset_stream(stream, ErrorCodes.CANCEL)
    scene.exchange()
    assert scene.process.messages[1].reset == ErrorCodes.CANCEL


def test_a_process_that_gives_up_a_stream_gets_the_next(scene: Scene) -> None:
    scene.client.h2.send_headers(1, get(b"/", MINE))
    scene.exchange()
    scene.process.h2.reset_stream(1)
    scene.exchange()
    scene.client.h2.send_data(1, b"more", end_stream=True)
    scene.request(MINE)
    assert scene.process.messages[3].has_ended
    assert scene.process.messages[1].body == b""


def test_a_process_that_closes_gets_another_connection_for_the_next(scene: Scene) -> None:
    scene.request(MINE)
    scene.watcher.do(scene.watcher.mirror.ended(PROCESS, 0.0))
    scene.request(MINE)
    assert len(scene.processes) == 2
    assert scene.process.messages[1].has_ended


def test_a_process_that_does_not_speak_http2_is_left_alone(scene: Scene) -> None:
    scene.is_deaf = True
    scene.request(MINE)
    scene.watcher.do(scene.watcher.mirror.receive(PROCESS, b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.0))
    assert not scene.watcher.is_open
    assert "this is no HTTP/2" in scene.watcher.notices[0]


def test_a_process_that_is_not_there_is_asked_again_for_the_next(scene: Scene) -> None:
    scene.request(MINE)
    scene.watcher.do(scene.watcher.mirror.unreachable(0.0))
    scene.watcher.connections[-1].closed = True
    scene.request(MINE)
    assert len(scene.processes) == 2


def test_a_body_decides() -> None:
    scene = Scene(JSON)
    scene.request(body=b'{"user":"you"}')
    scene.request(body=b'{"user":"me"}')
    scene.client.h2.send_headers(5, get(method=b"POST"))
    scene.exchange()
    assert scene.watcher.mirror.deadline == 1.0
    scene.watcher.do(scene.watcher.mirror.expire(1.0))
    scene.client.h2.send_data(5, b'{"user":"me"}', end_stream=True)
    scene.exchange()
    assert [message.body for stream, message in scene.process.messages.items() if stream] == [b'{"user":"me"}']


@pytest.mark.parametrize("reset", [False, True])
def test_the_clients_end_ends_the_processs_connection_when_it_has_all(scene: Scene, reset: bool) -> None:
    scene.request(MINE, body=b"all")
    scene.client.h2.send_headers(3, get(b"/", MINE))
    scene.exchange()
    scene.watcher.do(scene.watcher.mirror.ended(CLIENT, 0.0, reset=reset))
    scene.exchange()
    assert scene.watcher.is_open == (not reset)
    if not reset:
        assert scene.process.messages[3].reset == ErrorCodes.CANCEL
        scene.answer(scene.process, 1)
    assert not scene.watcher.is_open


def test_a_client_that_breaks_the_protocol_is_not_followed_any_further(scene: Scene) -> None:
    scene.request(MINE)
    scene.watcher.receive(b"\xff" * 100)
    scene.exchange()
    assert "cannot be mirrored any further" in scene.watcher.notices[0]


def test_of_a_connection_that_is_not_followed_any_further_nothing_is_kept(scene: Scene) -> None:
    scene.request(MINE)
    piece = b"\xff" * 65536
    tracemalloc.start()
    try:
        for _ in range(64):
            scene.watcher.receive(piece)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < len(piece)


@given(st.binary(max_size=100), st.booleans())
def test_garbage_never_raises(data: bytes, is_clients: bool) -> None:
    scene = Scene()
    scene.request(MINE)
    scene.watcher.do(scene.watcher.mirror.receive(CLIENT if is_clients else PROCESS, data, 0.0))
