import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.stream import MAX_WINDOW, SEGMENT_OVERHEAD, SEQUENCES, Stream, distance

SIZE = 40
"""Positions that the segments of a test have."""

segments = st.lists(st.tuples(st.integers(-8, SIZE), st.binary(max_size=12)), max_size=30)
initials = st.sampled_from([0, 1, (1 << 31) - 9, (1 << 31) - 1, SEQUENCES - 9, SEQUENCES - 1])


@given(initials, segments)
def test_the_first_bytes_seen_for_a_position_stay(initial: int, sent: list[tuple[int, bytes]]) -> None:
    stream, seen, came_out = Stream(initial), dict[int, int](), b""
    known = 0
    for offset, payload in sent:
        start = stream.nearest((initial + 1 + offset) % SEQUENCES)
        assert start is not None
        came_out += b"".join(stream.add(start, len(payload), payload, fin=False))
        for index, value in enumerate(payload):
            seen.setdefault(offset + index, value)
        expected: list[int] = []
        while len(expected) in seen:
            expected.append(seen[len(expected)])
        assert came_out == bytes(expected)
        assert stream.passed_on == len(expected)
        held = [position for position in seen if position > len(expected)]
        assert stream.cost == len(held) + SEGMENT_OVERHEAD * stream.held_segments
        known = max(known, offset + len(payload))
        assert stream.has_gap == (known > len(expected))
        assert not stream.has_gap or stream.missing == min([*held, known]) - len(expected)
        assert stream.held_segments <= len(held)


@given(initials, st.binary(max_size=SIZE), st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE))))
def test_a_stream_ends_behind_its_last_byte_and_nothing_comes_after_it(
    initial: int, data: bytes, cuts: list[tuple[int, int]]
) -> None:
    stream, came_out = Stream(initial), b""
    for start, size in [*cuts, (0, SIZE)]:
        piece = data[start : start + size]
        fin = start + size >= len(data) >= start
        came_out += b"".join(stream.add(initial + 1 + start, len(piece), piece, fin=fin))
        assert stream.has_ended == (fin and came_out == data) or stream.has_ended
    assert stream.has_ended
    assert came_out == data
    assert stream.passed_on == len(data)
    assert stream.add(stream.position, 3, b"abc", fin=True) == []
    assert (stream.cost, stream.has_gap) == (0, False)


def test_what_is_behind_the_end_is_not_part_of_the_stream() -> None:
    stream = Stream(0)
    assert stream.add(4, 1, b"d", fin=True) == []
    assert stream.add(3, 9, b"cdefghijk", fin=False) == []
    assert stream.add(1, 2, b"ab", fin=True) == [b"ab", b"c", b"d"]
    assert stream.has_ended


def test_an_end_before_bytes_that_were_seen_is_none() -> None:
    stream = Stream(0)
    assert stream.add(4, 3, b"def", fin=False) == []
    assert stream.add(3, 1, b"c", fin=True) == []
    assert stream.add(1, 2, b"ab", fin=False) == [b"ab", b"c", b"def"]
    assert (stream.has_ended, stream.has_gap) == (False, False)
    assert stream.add(7, 1, b"g", fin=True) == [b"g"]
    assert stream.has_ended


def test_a_part_that_was_not_captured_is_a_gap() -> None:
    stream = Stream(0)
    assert stream.add(1, 10, b"abc", fin=True) == [b"abc"]
    assert (stream.has_gap, stream.missing, stream.passed_on, stream.cost) == (True, 7, 3, 0)
    assert stream.add(4, 7, b"defghij", fin=False) == [b"defghij"]
    assert stream.has_ended


@pytest.mark.parametrize(
    ("known_up_to", "held_at", "missing"), [(101, None, 100), (101, 51, 50), (0, 51, 50), (2, None, 1)]
)
def test_size_of_the_gap(known_up_to: int, held_at: int | None, missing: int) -> None:
    stream = Stream(0)
    stream.sent_up_to(known_up_to)
    if held_at is not None:
        stream.add(held_at, 3, b"abc", fin=False)
    assert stream.has_gap
    assert stream.missing == missing


def test_a_lost_end_is_a_gap() -> None:
    stream = Stream(0)
    stream.add(1, 3, b"abc", fin=False)
    assert not stream.has_gap
    stream.sent_up_to(5)
    assert (stream.has_gap, stream.missing) == (True, 1)


@pytest.mark.parametrize(
    ("position", "taken"), [(3, False), (4, True), (5, False), (9, False), (10, True), (11, False), (1000, False)]
)
def test_a_reset_counts_where_the_receiver_is_sure_of_it(position: int, taken: bool) -> None:
    stream = Stream(0)
    stream.add(1, 3, b"abc", fin=False)
    stream.add(7, 3, b"ghi", fin=False)
    assert stream.is_reset_at(position) is taken


@pytest.mark.parametrize(("position", "taken"), [(3, False), (4, True), (5, True), (6, False)])
def test_a_reset_behind_the_end(position: int, taken: bool) -> None:
    stream = Stream(0)
    stream.add(1, 3, b"abc", fin=True)
    assert stream.is_reset_at(position) is taken


@pytest.mark.parametrize("passed", [0, 5, SEQUENCES - 2, 3 * SEQUENCES + 17])
@pytest.mark.parametrize("ahead", [0, 1, -1, 5000, MAX_WINDOW - 1, 1 - MAX_WINDOW])
@pytest.mark.parametrize("initial", [0, SEQUENCES - 1])
def test_positions_go_on_where_sequence_numbers_wrap_around(initial: int, passed: int, ahead: int) -> None:
    stream = Stream(initial)
    stream.position += passed
    assert stream.nearest((initial + 1 + passed + ahead) % SEQUENCES) == initial + 1 + passed + ahead


@pytest.mark.parametrize("ahead", [MAX_WINDOW, -MAX_WINDOW, 1 << 31])
def test_what_is_farther_off_than_any_window_belongs_elsewhere(ahead: int) -> None:
    assert Stream(7).nearest((8 + ahead) % SEQUENCES) is None


@pytest.mark.parametrize(
    ("sequence", "position", "expected"),
    [(5, 3, 2), (3, 5, -2), (1, SEQUENCES - 1, 2), (SEQUENCES - 1, SEQUENCES + 1, -2), (0, 1 << 31, -(1 << 31))],
)
def test_distance_is_the_shorter_way(sequence: int, position: int, expected: int) -> None:
    assert distance(sequence, position) == expected
