from collections.abc import Iterable
from itertools import count

import pytest

from mirrord_agent.incoming import families
from mirrord_agent.incoming.events import Cut, Data, Datagram, Eof, Event, Opened, Reset
from mirrord_agent.incoming.packets import ACK, FIN, RST, SYN, Buffer, Undecoded
from mirrord_agent.incoming.reassembly import Limits, Reassembler
from mirrord_agent.incoming.stream import MAX_WINDOW, SEGMENT_OVERHEAD, SEQUENCES
from mirrord_agent.wire.frames import InetEndpoint
from tests.mirrord_agent.incoming.crafted import CLIENT, CLIENT6, LOCAL, LOCAL6, Conversation, ip4, udp

FIN_ACK = FIN | ACK
TALK = Conversation()
OPENED = Opened(1, CLIENT, LOCAL)


def following(limits: Limits | None = None) -> Reassembler:
    reassembler = Reassembler(limits=limits)
    reassembler.subscribe(LOCAL.port)
    return reassembler


def fed(reassembler: Reassembler, packets: Iterable[Buffer], now_s: float = 0.0) -> list[Event]:
    return [event for packet in packets for event in reassembler.feed(packet, now_s)]


def opened(limits: Limits | None = None) -> Reassembler:
    """One that follows a connection already."""
    reassembler = following(limits)
    assert fed(reassembler, TALK.handshake()) == [OPENED]
    return reassembler


def conversation(number: int, client_initial: int = 1000) -> Conversation:
    return Conversation(InetEndpoint("198.18.0.1", 50000 + number), client_initial=client_initial)


@pytest.mark.parametrize(("client", "local"), [(CLIENT, LOCAL), (CLIENT6, LOCAL6)])
@pytest.mark.parametrize("initial", [1000, 0, SEQUENCES - 1, SEQUENCES - 4])
@pytest.mark.parametrize("copies", [1, 2])
def test_a_connection_from_beginning_to_end(
    client: InetEndpoint, local: InetEndpoint, initial: int, copies: int
) -> None:
    talk = Conversation(client, local, initial)
    reassembler = following()
    packets = [
        *talk.handshake(),
        talk.from_client(0, b"hello"),
        talk.from_target(5),
        talk.from_target(5, b"answer"),
        talk.from_client(5, b" world", acknowledged=6),
        talk.from_client(11, flags=FIN_ACK, acknowledged=6),
        talk.from_target(12, flags=FIN_ACK, position=6),
        talk.from_client(12, acknowledged=7),
    ]
    assert fed(reassembler, [packet for packet in packets for _ in range(copies)]) == [
        Opened(1, client, local),
        Data(1, b"hello"),
        Data(1, b" world"),
        Eof(1),
    ]
    assert (reassembler.connections, reassembler.held_bytes) == (0, 0)


def test_data_are_copied_out_of_the_capture_buffer() -> None:
    reassembler = opened()
    buffer = bytearray(TALK.from_client(3, b"def"))
    assert fed(reassembler, [buffer]) == []
    buffer[-3:] = b"xxx"
    buffer = bytearray(TALK.from_client(0, b"abc"))
    events = reassembler.feed(memoryview(buffer), 0.0)
    buffer[-3:] = b"xxx"
    assert events == [Data(1, b"abc"), Data(1, b"def")]


@pytest.mark.parametrize(
    "packets",
    [
        [TALK.syn(), TALK.syn_ack()],
        [TALK.from_client(0, b"abc"), TALK.from_target(3)],
        [TALK.syn_ack(), TALK.from_client(0), TALK.from_client(0, b"abc")],
        [TALK.syn(), TALK.from_target(0, flags=RST | ACK), TALK.from_client(0)],
        [TALK.syn(), TALK.syn_ack(), TALK.from_client(0, flags=RST), TALK.from_client(0)],
        [TALK.syn(), TALK.syn_ack(), TALK.from_client(0, acknowledged=-1)],
        [TALK.syn(), TALK.syn_ack(), TALK.syn(), TALK.from_client(0, acknowledged=-1)],
        [TALK.syn(), TALK.syn_ack(), TALK.from_client(-1)],
        [TALK.syn(), TALK.syn_ack(), TALK.from_client(0, flags=0)],
        [TALK.from_client(-1, flags=SYN | FIN), TALK.syn_ack(), TALK.from_client(0)],
        [TALK.from_client(-1, flags=SYN | ACK), TALK.syn_ack(), TALK.from_client(0)],
        Conversation(local=InetEndpoint(LOCAL.host, 81)).handshake(),
        Conversation(LOCAL, CLIENT).handshake(),
    ],
)
def test_what_is_no_connection_to_the_target(packets: list[bytes]) -> None:
    reassembler = following()
    assert fed(reassembler, packets) == []
    assert reassembler.connections == 0


@pytest.mark.parametrize(
    "packets",
    [
        [TALK.syn(), TALK.from_client(0)],
        [TALK.syn(), TALK.syn(), TALK.syn_ack(), TALK.syn_ack(), TALK.syn(), TALK.from_client(0), TALK.syn_ack()],
        [Conversation(client_initial=77).syn(b"old"), *TALK.handshake()],
        [*Conversation(client_initial=77).handshake()[:2], *TALK.handshake()],
        [TALK.syn(), TALK.from_target(-5, flags=RST | ACK), TALK.syn_ack(), TALK.from_client(0)],
        [TALK.syn(), TALK.syn_ack(), TALK.from_client(7, flags=RST), TALK.from_client(0)],
        [*TALK.handshake(), TALK.syn(), TALK.syn_ack()],
    ],
)
def test_beginnings(packets: list[bytes]) -> None:
    reassembler = following()
    assert fed(reassembler, packets) == [OPENED]
    assert reassembler.held_bytes == 0
    assert fed(reassembler, [TALK.from_client(0, b"abc")]) == [Data(1, b"abc")]


def test_a_beginning_of_which_only_later_segments_are_seen() -> None:
    reassembler = following()
    assert fed(reassembler, [TALK.syn(), TALK.syn_ack(), TALK.from_client(3, b"def", acknowledged=9)]) == [OPENED]
    assert fed(reassembler, [TALK.from_client(0, b"abc")]) == [Data(1, b"abc"), Data(1, b"def")]


@pytest.mark.parametrize("accepted", [0, 2, 5])
def test_data_in_a_syn_are_the_beginning_of_the_stream(accepted: int) -> None:
    reassembler = following()
    assert fed(reassembler, [TALK.syn(b"hello"), TALK.syn(b"hello"), TALK.syn_ack(accepted)]) == []
    packets = [TALK.from_client(accepted, b"hello"[accepted:]), TALK.from_client(5, b" world")]
    assert fed(reassembler, packets) == [OPENED, Data(1, b"hello"), Data(1, b" world")]
    assert reassembler.held_bytes == 0


def test_data_in_a_syn_that_there_is_no_room_for_are_a_gap() -> None:
    reassembler = following(Limits(all_held_bytes=4))
    assert fed(reassembler, [TALK.syn(b"hello"), TALK.syn_ack(5), TALK.from_client(5, b" world")])[0] == OPENED
    reassembler = following(Limits(all_held_bytes=4))
    packets = [TALK.syn(b"hello"), TALK.syn_ack(5), TALK.from_client(5), TALK.from_target(5)]
    assert fed(reassembler, packets) == [
        OPENED,
        Cut(1, "packets were lost here: 5 bytes are missing after the first 0"),
    ]


@pytest.mark.parametrize(
    "packet",
    [
        TALK.from_client(2, b"?"),
        TALK.from_client(2),
        TALK.from_client(-1, b"?"),
        TALK.from_client(0, b"xyz"),
        TALK.from_client(1, b"yz"),
        TALK.from_client(3, b"def", flags=0),
        TALK.from_client(3 + MAX_WINDOW, b"?"),
        TALK.from_client(3 - MAX_WINDOW, b"?"),
        TALK.from_client(2, flags=RST),
        TALK.from_client(3 + MAX_WINDOW, flags=RST),
        TALK.from_target(0),
        TALK.from_target(3 + MAX_WINDOW),
        TALK.from_target(3, flags=RST, position=MAX_WINDOW),
        TALK.from_target(5, position=-MAX_WINDOW - 1),
        TALK.syn(),
        TALK.syn_ack(),
        Conversation(client_initial=77).syn(),
        TALK.from_client(3, flags=SYN | ACK),
    ],
    ids=count(),
)
def test_what_changes_nothing(packet: bytes) -> None:
    reassembler = opened()
    assert fed(reassembler, [TALK.from_client(0, b"abc"), packet]) == [Data(1, b"abc")]
    assert reassembler.expire(29) == []
    assert fed(reassembler, [TALK.from_client(3, b"def"), TALK.from_target(6)]) == [Data(1, b"def")]
    assert reassembler.expire(1000) == []


def test_segments_out_of_order_and_in_other_pieces() -> None:
    reassembler = opened()
    assert (
        fed(reassembler, [TALK.from_client(6, b"ghi"), TALK.from_client(2, b"cd"), TALK.from_client(3, b"XefX")]) == []
    )
    assert reassembler.held_bytes == 7 + 3 * SEGMENT_OVERHEAD
    assert fed(reassembler, [TALK.from_client(9, flags=FIN_ACK), TALK.from_target(0)]) == []
    events = fed(reassembler, [TALK.from_client(0, b"abX")])
    assert events[-1] == Eof(1)
    assert b"".join(event.payload for event in events if isinstance(event, Data)) == b"abcdefghi"
    assert reassembler.held_bytes == 0


@pytest.mark.parametrize("target_ends_first", [True, False])
def test_both_sides_end(target_ends_first: bool) -> None:
    reassembler = opened()
    ends = [TALK.from_target(0, flags=FIN_ACK), TALK.from_client(0, b"late", flags=FIN_ACK)]
    events = fed(reassembler, ends if target_ends_first else reversed(ends))
    assert events == [Data(1, b"late"), Eof(1)]
    assert reassembler.connections == 0


def test_the_client_goes_on_when_the_target_has_ended() -> None:
    reassembler = opened()
    packets = [TALK.from_target(0, flags=FIN_ACK), TALK.from_client(0, b"abc"), TALK.from_client(3, b"def")]
    assert fed(reassembler, packets) == [Data(1, b"abc"), Data(1, b"def")]


def test_the_target_goes_on_when_the_client_has_ended() -> None:
    reassembler = opened()
    assert fed(reassembler, [TALK.from_client(0, flags=FIN_ACK)]) == [Eof(1)]
    assert fed(reassembler, [TALK.from_target(1, b"x" * 100)], 100.0) == []
    assert reassembler.expire(200.0) == []
    assert reassembler.connections == 1
    assert reassembler.expire(220.0) == []
    assert reassembler.connections == 0


def test_a_client_that_ends_may_still_reset() -> None:
    reassembler = opened()
    assert fed(reassembler, [TALK.from_client(0, flags=FIN_ACK)]) == [Eof(1)]
    nothing = [TALK.from_client(0, b"?", flags=FIN_ACK), TALK.from_client(1, b"?"), TALK.from_target(9)]
    assert fed(reassembler, [*nothing, TALK.from_client(1, flags=RST)]) == [Reset(1, by_target=False)]


@pytest.mark.parametrize(
    ("packets", "by_target"),
    [
        ([TALK.from_client(3, flags=RST)], False),
        ([TALK.from_client(3, flags=RST | ACK)], False),
        ([TALK.from_client(9, b"jkl"), TALK.from_client(12, flags=RST)], False),
        ([TALK.from_client(7, flags=RST), TALK.from_client(3, flags=RST)], False),
        ([TALK.from_target(3, flags=RST)], True),
        ([TALK.from_target(3, flags=RST | ACK, position=500)], True),
        ([TALK.from_target(9, flags=RST | ACK)], True),
    ],
)
def test_resets(packets: list[bytes], by_target: bool) -> None:
    reassembler = opened()
    events = fed(reassembler, [TALK.from_client(0, b"abc"), *packets, *packets, TALK.from_client(3, b"def")])
    assert events == [Data(1, b"abc"), Reset(1, by_target)]
    assert (reassembler.connections, reassembler.held_bytes) == (0, 0)


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_reset_behind_more_than_one_window_that_only_the_client_tells_of(is_plain: bool) -> None:
    reassembler = opened()
    if not is_plain:
        assert fed(reassembler, [TALK.from_client(1, b"b")]) == []
    sent = range(0, 3 * MAX_WINDOW, MAX_WINDOW // 2)
    assert fed(reassembler, [TALK.from_client(0, acknowledged=position) for position in sent]) == []
    assert fed(reassembler, [TALK.from_target(0, flags=RST, position=sent[-1])]) == [Reset(1, by_target=True)]


def test_a_reset_behind_more_than_one_window_of_the_targets() -> None:
    reassembler = opened()
    ahead = [TALK.from_target(0, position=step * (MAX_WINDOW - 1)) for step in (1, 2)]
    events = fed(reassembler, [*ahead, TALK.from_target(0, flags=RST, position=2 * MAX_WINDOW)])
    assert events == [Reset(1, by_target=True)]


@pytest.mark.parametrize(
    ("packets", "reason"),
    [
        ([TALK.from_client(103, b"x"), TALK.from_target(104)], "100 bytes are missing after the first 3"),
        ([TALK.from_target(103)], "100 bytes are missing after the first 3"),
        ([TALK.from_client(4, b"e"), TALK.from_target(5)], "1 byte is missing after the first 3"),
        ([TALK.from_target(4)], "1 byte, or the end, is missing after the first 3"),
        ([TALK.from_target(103, flags=FIN_ACK)], "100 bytes are missing after the first 3"),
        ([TALK.from_client(3, b"x" * 100)[:-60], TALK.from_target(103)], "60 bytes are missing after the first 43"),
    ],
)
def test_what_the_target_acknowledges_and_was_not_seen_was_lost_here(packets: list[bytes], reason: str) -> None:
    reassembler = opened()
    events = fed(reassembler, [TALK.from_client(0, b"abc"), *packets, TALK.from_client(3, b"def")])
    assert events[-1] == Cut(1, f"packets were lost here: {reason}")
    assert (reassembler.connections, reassembler.held_bytes) == (0, 0)


@pytest.mark.parametrize(
    ("packet", "missing"),
    [
        (TALK.from_client(10, b"xyz"), "7 bytes are"),
        (TALK.from_client(10), "17 bytes are"),
        (TALK.from_client(10, flags=FIN_ACK), "7 bytes are"),
        (TALK.from_client(10, flags=RST), "17 bytes are"),
    ],
    ids=count(),
)
def test_a_gap_may_not_stay(packet: bytes, missing: str) -> None:
    reassembler = opened()
    assert fed(reassembler, [TALK.from_client(0, b"abc")]) == [Data(1, b"abc")]
    assert fed(reassembler, [packet], 100.0) == []
    assert fed(reassembler, [TALK.from_target(3), TALK.from_client(20, b"z")], 120.0) == []
    assert reassembler.expire(129.9) == []
    reason = f"{missing} missing after the first 3, and did not come within 30 s"
    assert reassembler.expire(130.0) == [Cut(1, reason)]
    assert fed(reassembler, [TALK.from_client(3, b"def")]) == []


def test_a_gap_that_shrinks_may_stay_longer() -> None:
    reassembler = opened()
    assert fed(reassembler, [TALK.from_client(10, b"xyz")], 100.0) == []
    assert fed(reassembler, [TALK.from_client(0, b"abc")], 120.0) == [Data(1, b"abc")]
    assert reassembler.expire(149.9) == []
    assert isinstance(reassembler.expire(150.0)[0], Cut)


@pytest.mark.parametrize(
    ("limits", "sizes", "reason"),
    [
        (Limits(held_bytes=1000), [400, 400], "and too much came behind them"),
        (Limits(held_bytes=3 * SEGMENT_OVERHEAD), [1, 1, 1], "and too much came behind them"),
        (Limits(held_segments=2), [1, 1, 1], "and too much came behind them"),
        (Limits(all_held_bytes=1000), [400, 400], "and too much came behind them and on other connections"),
    ],
)
def test_what_comes_behind_a_gap_is_bounded(limits: Limits, sizes: list[int], reason: str) -> None:
    reassembler = opened(limits)
    for index, size in enumerate(sizes[:-1]):
        assert fed(reassembler, [TALK.from_client(1000 * (index + 1), bytes(size))]) == []
    events = fed(reassembler, [TALK.from_client(1000 * len(sizes), bytes(sizes[-1]))])
    assert events == [Cut(1, f"1000 bytes are missing after the first 0, {reason}")]
    assert reassembler.held_bytes == 0


def test_the_connection_that_holds_most_gives_way() -> None:
    reassembler = following(Limits(all_held_bytes=1000))
    greedy, modest = conversation(1), conversation(2)
    fed(reassembler, [*greedy.handshake(), *modest.handshake()])
    assert fed(reassembler, [greedy.from_client(10, bytes(600)), modest.from_client(5, b"f")]) == []
    assert fed(reassembler, [modest.from_client(50, bytes(100))]) == [
        Cut(1, "10 bytes are missing after the first 0, and too much came behind them and on other connections")
    ]
    assert fed(reassembler, [modest.from_client(0, b"abcde")]) == [Data(2, b"abcde"), Data(2, b"f")]


@pytest.mark.parametrize("ended", [[], [TALK.from_client(0, flags=RST)], [TALK.from_target(0, flags=RST | ACK)]])
def test_the_same_addresses_again_behind_a_reset(ended: list[bytes]) -> None:
    again = Conversation(client_initial=5_000_000, target_initial=70_000)
    reassembler = opened()
    fed(reassembler, ended or [TALK.from_client(0, flags=FIN_ACK), TALK.from_target(1, flags=FIN_ACK)])
    packets = [*again.handshake(), TALK.from_client(0, b"old"), again.from_client(0, b"new")]
    assert fed(reassembler, packets) == [Opened(2, CLIENT, LOCAL), Data(2, b"new")]


def test_the_same_addresses_again_when_only_the_client_has_ended() -> None:
    again = Conversation(client_initial=5_000_000, target_initial=70_000)
    reassembler = opened()
    events = fed(reassembler, [TALK.from_client(0, flags=FIN_ACK), *again.handshake(), again.from_client(0, b"new")])
    assert events == [Eof(1), Opened(2, CLIENT, LOCAL), Data(2, b"new")]
    assert reassembler.connections == 1


def test_the_same_addresses_again_when_only_the_client_is_seen() -> None:
    again = Conversation(client_initial=5_000_000, target_initial=70_000)
    reassembler = following()
    packets = [TALK.syn(), TALK.from_client(0, flags=FIN_ACK), again.syn(), again.from_client(0, b"new")]
    assert fed(reassembler, packets) == [OPENED, Eof(1), Opened(2, CLIENT, LOCAL), Data(2, b"new")]


def test_the_same_addresses_again_when_the_target_agrees() -> None:
    again = Conversation(client_initial=5_000_000, target_initial=70_000)
    reassembler = opened()
    assert fed(reassembler, [again.syn(), TALK.from_client(0, b"abc")]) == [Data(1, b"abc")]
    assert fed(reassembler, [again.syn_ack(), *again.handshake()[2:], again.from_client(0, b"new")]) == [
        Cut(1, "its client has begun another from the same port, and how it ended was not seen here"),
        Opened(2, CLIENT, LOCAL),
        Data(2, b"new"),
    ]


def test_the_same_addresses_again_when_the_client_acknowledges_an_agreement_that_was_not_seen() -> None:
    again = Conversation(client_initial=5_000_000, target_initial=70_000)
    reassembler = opened()
    assert fed(reassembler, [again.syn(), TALK.from_client(0, b"abc")]) == [Data(1, b"abc")]
    assert fed(reassembler, [again.from_client(0), again.from_client(0, b"new")]) == [
        Cut(1, "its client has begun another from the same port, and how it ended was not seen here"),
        Opened(2, CLIENT, LOCAL),
        Data(2, b"new"),
    ]


def test_a_connection_on_which_the_client_has_ended_gives_way_first() -> None:
    reassembler = following(Limits(connections=2))
    talks = [conversation(number) for number in range(3)]
    fed(reassembler, [*talks[0].handshake(), *talks[1].handshake(), talks[1].from_client(0, flags=FIN_ACK)])
    assert fed(reassembler, talks[2].handshake()) == [Opened(3, talks[2].client, LOCAL)]
    assert fed(reassembler, [talks[0].from_client(0, b"abc")]) == [Data(1, b"abc")]


def test_what_there_is_to_hear_the_target_for() -> None:
    reassembler = following()
    heard = []
    for packet in (TALK.syn(), TALK.from_client(0), TALK.from_client(5, b"f"), TALK.from_client(0, b"abcde")):
        fed(reassembler, [packet])
        heard.append((reassembler.is_busy, reassembler.has_gaps))
    assert heard == [(True, False), (True, False), (True, True), (True, False)]
    fed(reassembler, [TALK.from_client(6, flags=RST)])
    assert not reassembler.is_busy


def test_the_longest_idle_connection_gives_way_to_a_new_one() -> None:
    reassembler = following(Limits(connections=3))
    talks = [conversation(number) for number in range(5)]
    for number, talk in enumerate(talks[:3]):
        fed(reassembler, talk.handshake(), float(number))
    assert fed(reassembler, [talks[0].from_client(0, b"abc")], 5.0) == [Data(1, b"abc")]
    events = fed(reassembler, talks[3].handshake(), 6.0)
    assert events == [
        Cut(2, "it was idle when there were more than 3 connections"),
        Opened(4, talks[3].client, LOCAL),
    ]
    assert fed(reassembler, [talks[0].from_client(3, flags=FIN_ACK)], 7.0) == [Eof(1)]
    assert fed(reassembler, talks[4].handshake(), 8.0) == [Opened(5, talks[4].client, LOCAL)]


def test_the_oldest_handshake_gives_way_to_a_new_one() -> None:
    reassembler = following(Limits(handshakes=2))
    talks = [conversation(number) for number in range(3)]
    fed(reassembler, [talk.syn() for talk in talks])
    assert reassembler.forgotten_handshakes == 1
    assert fed(reassembler, [talk.from_client(0) for talk in talks]) == [
        Opened(1, talks[1].client, LOCAL),
        Opened(2, talks[2].client, LOCAL),
    ]


def test_a_handshake_may_not_take_forever() -> None:
    reassembler = following()
    fed(reassembler, [conversation(1).syn(b"abc")], 0.0)
    fed(reassembler, [conversation(2).syn()], 50.0)
    assert reassembler.expire(75.0) == []
    assert reassembler.held_bytes == 0
    events = fed(reassembler, [conversation(number).from_client(0) for number in (1, 2)], 75.0)
    assert events == [Opened(1, conversation(2).client, LOCAL)]


def test_without_a_subscription_open_connections_go_on_and_no_new_ones_begin() -> None:
    reassembler = opened()
    reassembler.subscribe(81)
    other = conversation(1)
    fed(reassembler, [other.syn()])
    reassembler.unsubscribe(LOCAL.port)
    assert fed(reassembler, [other.from_client(0), *conversation(2).handshake()]) == []
    assert fed(reassembler, [TALK.from_client(0, b"abc")]) == [Data(1, b"abc")]
    assert reassembler.tcp_ports == families.ports(81) | {("inet4", LOCAL.port)}
    assert fed(reassembler, [TALK.from_client(3, flags=RST)]) == [Reset(1, by_target=False)]
    assert reassembler.tcp_ports == families.ports(81)


def test_versions_of_ip_come_and_go_by_themselves() -> None:
    reassembler = Reassembler(is_local=lambda address: True)
    reassembler.subscribe(LOCAL.port, "inet6")
    reassembler.subscribe_datagrams(LOCAL.port, "inet4")
    datagrams = [udp(CLIENT, LOCAL, b"abc"), udp(CLIENT6, LOCAL6, b"def")]
    assert fed(reassembler, [*TALK.handshake(), *datagrams]) == [Datagram(CLIENT, LOCAL, b"abc")]
    reassembler.subscribe(LOCAL.port, "inet4")
    fed(reassembler, [TALK.syn()])
    reassembler.unsubscribe(LOCAL.port, "inet6")
    assert OPENED in fed(reassembler, TALK.handshake())
    six = Conversation(CLIENT6, LOCAL6)
    assert fed(reassembler, six.handshake()) == []


def test_payloads_are_of_no_use_before_a_connection_begins_and_behind_the_last() -> None:
    reassembler = following()
    assert not reassembler.needs_payloads
    for packet in (*TALK.handshake(), TALK.from_client(0, b"hello")):
        fed(reassembler, [packet])
        assert reassembler.needs_payloads
    fed(reassembler, [TALK.from_client(5, flags=RST)])
    assert not reassembler.needs_payloads
    reassembler.subscribe_datagrams(53)
    assert reassembler.needs_payloads


def test_a_forgotten_connection_is_not_heard_of_again() -> None:
    reassembler = opened()
    fed(reassembler, [TALK.from_client(5, b"f")])
    reassembler.forget(1)
    reassembler.forget(1)
    assert fed(reassembler, [TALK.from_client(0, b"abcde"), TALK.from_target(5)]) == []
    assert (reassembler.connections, reassembler.held_bytes) == (0, 0)


def test_only_what_is_addressed_to_the_target() -> None:
    reassembler = Reassembler(is_local=lambda address: address == bytes([198, 18, 0, 2]))
    reassembler.subscribe(80)
    reassembler.subscribe_datagrams(80)
    elsewhere = InetEndpoint("198.18.0.3", 80)
    packets = [*Conversation(local=elsewhere).handshake(), udp(CLIENT, elsewhere, b"?")]
    assert fed(reassembler, packets) == []
    assert fed(reassembler, [*TALK.handshake(), udp(CLIENT, LOCAL, b"!")]) == [OPENED, Datagram(CLIENT, LOCAL, b"!")]


def test_datagrams() -> None:
    reassembler = following()
    assert fed(reassembler, [udp(CLIENT, LOCAL, b"too early")]) == []
    reassembler.subscribe_datagrams(LOCAL.port)
    assert reassembler.udp_ports == families.ports(LOCAL.port)
    packets = [udp(CLIENT, LOCAL, b"abc"), udp(CLIENT6, LOCAL6, b""), udp(LOCAL, CLIENT, b"answer")]
    assert fed(reassembler, packets) == [Datagram(CLIENT, LOCAL, b"abc"), Datagram(CLIENT6, LOCAL6, b"")]
    reassembler.unsubscribe_datagrams(LOCAL.port)
    assert fed(reassembler, packets) == []


def test_what_cannot_be_used_is_counted() -> None:
    reassembler = following()
    fragment = ip4(CLIENT.host, LOCAL.host, 17, bytes(20), fragment=0x2000)
    assert fed(reassembler, [fragment, fragment, b""]) == []
    assert reassembler.undecoded == {Undecoded.FRAGMENT: 2, Undecoded.TRUNCATED: 1}
