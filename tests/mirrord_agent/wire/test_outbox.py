from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.wire import Decoder, Outbox
from mirrord_agent.wire.frames import Close, Data, Eof, Frame, Ping, Reset
from mirrord_agent.wire.outbox import BATCH_BYTES, ROOM_BYTES


def written(outbox: Outbox, step: int = 1 << 30) -> list[Frame]:
    """Writes everything, at most `step` bytes at a time, as a socket would take it."""
    decoder = Decoder()
    heard: list[Frame] = []
    while buffers := outbox.buffers():
        data = b"".join(buffers)[:step]
        outbox.sent(len(data))
        heard += decoder.feed(data)
    assert outbox.empty
    assert outbox.has_room
    assert not decoder.in_frame
    return heard


def test_an_empty_outbox_has_nothing_to_write() -> None:
    outbox = Outbox()
    assert outbox.empty
    assert not outbox.buffers()


def test_control_frames_overtake_data() -> None:
    outbox = Outbox()
    outbox.put_ordered(Data(1, b"data"))
    outbox.put(Ping(1))
    assert written(outbox) == [Ping(1), Data(1, b"data")]


def test_control_frames_wait_for_no_more_than_what_is_being_written() -> None:
    outbox = Outbox()
    for _ in range(20):
        outbox.put_ordered(Data(1, bytes(BATCH_BYTES // 4)))
    first = sum(map(len, outbox.buffers()))
    assert first < 2 * BATCH_BYTES
    outbox.put(Ping(1))
    outbox.sent(first)
    assert Decoder().feed(b"".join(outbox.buffers()))[0] == Ping(1)


def test_streams_take_turns_and_each_keeps_its_order() -> None:
    outbox = Outbox()
    for payload in (b"a", b"b", b"c"):
        outbox.put_ordered(Data(1, payload))
    outbox.put_ordered(Eof(1))
    outbox.put_ordered(Data(3, b"x"))
    outbox.put_ordered(Close(3))
    assert written(outbox) == [
        Data(1, b"a"),
        Data(3, b"x"),
        Data(1, b"b"),
        Close(3),
        Data(1, b"c"),
        Eof(1),
    ]


def test_a_stream_can_be_discarded_and_used_again() -> None:
    outbox = Outbox()
    outbox.put_ordered(Data(1, bytes(ROOM_BYTES)))
    outbox.put_ordered(Data(3, b"kept"))
    assert not outbox.has_room
    outbox.discard(1)
    outbox.put_ordered(Reset(1, 104))
    assert written(outbox) == [Reset(1, 104), Data(3, b"kept")]


def test_discarding_the_only_stream_empties_the_outbox() -> None:
    outbox = Outbox()
    outbox.put_ordered(Data(1, b"x"))
    outbox.discard(1)
    assert outbox.empty
    assert not outbox.buffers()


def test_many_tiny_frames_fill_the_outbox_too() -> None:
    outbox = Outbox()
    count = 0
    while outbox.has_room:
        outbox.put_ordered(Eof(1))
        count += 1
    assert count < 20_000
    assert len(written(outbox)) == count


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=50)), max_size=30), st.integers(1, 40))
def test_partial_writes_lose_nothing(puts: list[tuple[int, bytes]], step: int) -> None:
    outbox = Outbox()
    for stream, payload in puts:
        if stream:
            outbox.put_ordered(Data(stream, payload))
        else:
            outbox.put(Ping(len(payload)))
    heard = written(outbox, step)
    assert len(heard) == len(puts)
    for stream in (1, 2, 3):
        ours = [Data(stream, payload) for number, payload in puts if number == stream]
        assert [frame for frame in heard if isinstance(frame, Data) and frame.stream == stream] == ours
