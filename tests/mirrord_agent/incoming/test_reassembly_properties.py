"""What holds for any traffic: bytes come out as they were sent or not at all, and memory is bounded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.events import Cut, Data, Datagram, Eof, Event, Opened, Reset
from mirrord_agent.incoming.packets import ACK, FIN, RST, SYN
from mirrord_agent.incoming.reassembly import Limits, Reassembler
from mirrord_agent.incoming.stream import SEQUENCES
from mirrord_agent.wire.frames import InetEndpoint
from tests.mirrord_agent.incoming.crafted import CLIENT, CLIENT6, LOCAL, LOCAL6, Conversation, tcp, udp

LATER_S = 10_000.0


@attrs.frozen
class Sent:
    """A segment that a client sends."""

    start: int
    end: int
    at_target: bool
    """Whether it reaches the target; else it is lost on the way there, and not seen here either."""
    is_captured: bool
    """Whether the capture has it; only what reaches the target can be there."""
    is_acknowledged: bool
    """Whether the target's answer to it is captured."""
    has_garbage: bool = False
    """Whether a keep-alive probe goes before it: one byte that the target has already, with any value."""


@attrs.define
class Target:
    """What a target has received, from which follows what it acknowledges."""

    size: int
    received: set[int] = attrs.Factory(set)
    """Positions of bytes; the FIN's is behind the last one."""
    acknowledged: int = 0

    def take(self, sent: Sent) -> None:
        self.received.update(range(sent.start, sent.end))
        if sent.end == self.size:
            self.received.add(self.size)
        while self.acknowledged in self.received:
            self.acknowledged += 1


@attrs.frozen
class Exchange:
    talk: Conversation
    data: bytes
    sent: list[Sent]
    copies: int
    target_ends_at: int
    """How many segments the client has sent when the target ends its half."""

    def packets(self) -> list[bytes]:
        """What is captured of it."""
        target = Target(len(self.data))
        packets = self.talk.handshake()
        for index, sent in enumerate(self.sent):
            if index == self.target_ends_at:
                packets.append(self.talk.from_target(target.acknowledged, flags=FIN | ACK))
            if sent.has_garbage:
                packets.append(self.talk.from_client(target.acknowledged - 1, b"?"))
            if not sent.at_target:
                continue
            target.take(sent)
            if sent.is_captured:
                is_last = sent.end == len(self.data)
                payload = self.data[sent.start : sent.end]
                packets.append(self.talk.from_client(sent.start, payload, FIN | ACK if is_last else ACK))
            if sent.is_acknowledged:
                packets.append(self.talk.from_target(target.acknowledged))
        packets.append(self.talk.from_target(target.acknowledged))
        return [packet for packet in packets for _ in range(self.copies)]


initials = st.integers(0, SEQUENCES - 1) | st.integers(SEQUENCES - 2000, SEQUENCES - 1)
ways = st.sampled_from([(CLIENT, LOCAL), (CLIENT6, LOCAL6)])


@st.composite
def pieces(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """A way to cut a stream into segments, in order."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=12)))
    edges = [0, *(cut for cut in cuts if cut < size), size]
    return list(pairwise(edges))


@st.composite
def exchanges(draw: st.DrawFn, *, lossy_capture: bool) -> Exchange:
    data = draw(st.randoms(use_true_random=False)).randbytes(draw(st.integers(0, 1500)))
    size = len(data)
    fates = st.booleans()
    anywhere = st.tuples(st.integers(0, size), st.integers(0, size)).map(lambda edges: (min(edges), max(edges)))
    first = draw(pieces(size)) + draw(st.lists(anywhere, max_size=8))
    order = sorted(range(len(first)), key=lambda index: index + draw(st.integers(0, 6)))
    captured = fates if lossy_capture else st.just(True)
    # Such a byte cannot be told from one that was sent and lost here.
    garbage = st.just(False) if lossy_capture else fates
    sent = [Sent(*first[index], draw(fates), draw(captured), draw(fates), draw(garbage)) for index in order]
    # The client repeats itself until the target has it all.
    sent += [Sent(*piece, True, draw(captured), draw(fates)) for piece in draw(pieces(size))]
    talk = Conversation(*draw(ways), client_initial=draw(initials), target_initial=draw(initials))
    return Exchange(talk, data, sent, draw(st.integers(1, 2)), draw(st.integers(0, len(sent) + 9)))


def replay(exchange: Exchange) -> tuple[bytes, list[Event]]:
    """What came out of a connection: its bytes, and what followed them."""
    reassembler = Reassembler()
    reassembler.subscribe(exchange.talk.local.port)
    events: list[Event] = []
    for packet in exchange.packets():
        events += reassembler.feed(memoryview(packet), 0.0)
    events += reassembler.expire(LATER_S)
    assert (reassembler.held_bytes, reassembler.connections) == (0, 0)
    assert events[0] == Opened(1, exchange.talk.client, exchange.talk.local)
    chunks = [event.payload for event in events if isinstance(event, Data)]
    assert all(isinstance(event, Data) for event in events[1 : 1 + len(chunks)])
    return b"".join(chunks), events[1 + len(chunks) :]


@given(exchanges(lossy_capture=False))
def test_what_the_target_receives_comes_out_here(exchange: Exchange) -> None:
    assert replay(exchange) == (exchange.data, [Eof(1)])


@given(exchanges(lossy_capture=True))
def test_what_is_lost_here_ends_in_a_cut(exchange: Exchange) -> None:
    came_out, endings = replay(exchange)
    assert exchange.data.startswith(came_out)
    assert len(endings) == 1
    if isinstance(endings[0], Cut):
        assert f"missing after the first {len(came_out)}" in endings[0].reason
        assert not all(sent.is_captured for sent in exchange.sent)
    else:
        assert endings == [Eof(1)]
        assert came_out == exchange.data


LIMITS = Limits(connections=2, handshakes=2, held_bytes=900, held_segments=4, all_held_bytes=1200)
OTHER = InetEndpoint("198.18.0.9", 7)
BASE = SEQUENCES - 5
SIDES = [(CLIENT, LOCAL), (LOCAL, CLIENT), (OTHER, LOCAL), (LOCAL, OTHER), (CLIENT6, LOCAL6)]


@st.composite
def segments(draw: st.DrawFn) -> bytes:
    """Segments that have to do with each other more often than by chance, some not captured as a whole."""
    near = st.integers(BASE - 3, BASE + 12) | st.integers(0, SEQUENCES - 1)
    flags = st.sampled_from([SYN, SYN | ACK, ACK, ACK, FIN | ACK, RST]) | st.integers(0, 63)
    payload = draw(st.binary(max_size=6) | st.integers(0, 1000).map(bytes))
    packet = tcp(*draw(st.sampled_from(SIDES)), draw(near), draw(near), draw(flags), payload)
    return packet[: len(packet) - draw(st.just(0) | st.integers(0, 30))]


datagrams = st.builds(lambda side, payload: udp(side[0], side[1], payload), st.sampled_from(SIDES), st.binary())
beginnings = st.sampled_from([Conversation(*side, BASE, BASE).handshake() for side in SIDES])
bursts = st.lists(segments() | datagrams | st.binary(max_size=70), min_size=1, max_size=3) | beginnings


def check_order(events: Sequence[Event]) -> None:
    """Fails unless events come in the order that they promise."""
    state: dict[int, type[Event]] = {}
    for event in events:
        if isinstance(event, Datagram):
            continue
        former = state.get(event.connection)
        if isinstance(event, Opened):
            assert event.connection == len(state) + 1
        elif isinstance(event, Reset):
            assert former in (Opened, Data, Eof)
        else:
            assert former in (Opened, Data)
        state[event.connection] = type(event)


@given(st.lists(st.tuples(bursts, st.integers(0, 60), st.booleans()), max_size=30))
def test_whatever_comes_memory_is_bounded(traffic: list[tuple[list[bytes], int, bool]]) -> None:
    reassembler = Reassembler(limits=LIMITS)
    reassembler.subscribe(LOCAL.port)
    reassembler.subscribe_datagrams(LOCAL.port)
    events: list[Event] = []
    now_s = 0.0
    for burst, pause_s, expires in traffic:
        for packet in burst:
            events += reassembler.feed(packet, now_s)
            held = sum(each.stream.cost for each in reassembler._connections.values())
            assert reassembler.held_bytes == held + reassembler._handshakes.held_bytes
            assert reassembler.held_bytes <= LIMITS.all_held_bytes
            assert reassembler.connections <= LIMITS.connections
            assert len(reassembler._handshakes._by_flow) == len(reassembler._handshakes._by_back) <= LIMITS.handshakes
            for connection in reassembler._connections.values():
                assert connection.stream.cost <= LIMITS.held_bytes
                assert connection.stream.held_segments <= LIMITS.held_segments
                assert (connection.number in reassembler._gaps) == connection.stream.has_gap
        now_s += pause_s
        if expires:
            events += reassembler.expire(now_s)
    check_order(events)
    reassembler.expire(now_s + LATER_S)
    assert reassembler.held_bytes == 0
