from contextlib import suppress

import attrs
import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.wire import file_frames, frames
from mirrord_agent.wire.codec import MAX_HEADER, Decoder, ProtocolError, encode
from mirrord_agent.wire.fields import MAX_FILTER
from mirrord_agent.wire.file_records import Change, FilesystemStatus, Status
from mirrord_agent.wire.frames import MAX_PAYLOAD, Frame, InetEndpoint, UnixEndpoint
from tests.mirrord_agent.wire.file_strategies import FILE_FRAMES

STREAMS = st.integers(1, 2**63 - 1)
ERRNOS = st.integers(1, 4095)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
PAYLOADS = st.binary(max_size=300)
INETS = st.builds(
    InetEndpoint,
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
)
ENDPOINTS = st.one_of(INETS, st.builds(UnixEndpoint, st.binary(max_size=108)))
FACTS = st.builds(frames.Facts, TEXTS, TEXTS, st.integers(0, 2**22), st.floats(0, 1e6))
FEATURES = st.lists(TEXTS, max_size=5).map(tuple)

FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(frames.Hello, st.integers(0, 2**32 - 1), FEATURES, st.binary(max_size=64)),
    st.builds(frames.Welcome, st.integers(0, 2**32 - 1), FEATURES, FACTS),
    st.builds(frames.Goodbye, st.sampled_from(frames.GoodbyeKind), TEXTS),
    st.builds(frames.GetEnvironment, STREAMS),
    st.builds(frames.Part, STREAMS, PAYLOADS),
    st.builds(frames.Done, STREAMS),
    st.builds(frames.Failed, STREAMS, ERRNOS, TEXTS),
    st.builds(frames.Connect, STREAMS, ENDPOINTS, st.none() | INETS),
    st.builds(frames.Connected, STREAMS, ENDPOINTS, ENDPOINTS),
    st.builds(frames.OpenDatagrams, STREAMS, st.sampled_from(["inet4", "inet6"]), st.none() | INETS, st.none() | INETS),
    st.builds(frames.DatagramsOpened, STREAMS, INETS, st.none() | INETS),
    st.builds(
        frames.Subscribe,
        STREAMS,
        st.integers(1, 65535),
        st.sampled_from(["tcp", "udp"]),
        st.sampled_from(["mirror", "steal"]),
        st.none() | TEXTS,
        st.booleans(),
        st.booleans(),
        st.sampled_from([None, "inet4", "inet6"]),
    ),
    st.builds(frames.Subscribed, STREAMS),
    st.builds(frames.Arrived, STREAMS, STREAMS, INETS, INETS),
    st.builds(frames.Notice, STREAMS, TEXTS),
    st.builds(frames.Data, STREAMS, PAYLOADS),
    st.builds(frames.Eof, STREAMS),
    st.builds(frames.Reset, STREAMS, ERRNOS),
    st.builds(frames.Close, STREAMS),
    st.builds(frames.Credit, STREAMS, st.integers(1, 2**62)),
    st.builds(frames.Datagram, STREAMS, st.none() | INETS, PAYLOADS),
    st.builds(frames.DatagramError, STREAMS, ERRNOS),
    st.builds(frames.Ping, st.integers(0, 2**32 - 1)),
    st.builds(frames.Pong, st.integers(0, 2**32 - 1)),
    FILE_FRAMES,
)


def encoded(*said: Frame) -> bytes:
    return b"".join(piece for frame in said for piece in encode(frame))


def with_filter(length: int) -> frames.Subscribe:
    return frames.Subscribe(1, 80, "tcp", "steal", "ä" * (length // 2), flush=False, mark=False)


def raw(header: bytes, payload: bytes = b"") -> bytes:
    return len(header).to_bytes(2, "big") + len(payload).to_bytes(4, "big") + header + payload


@given(st.lists(FRAMES, max_size=8))
def test_frames_survive_whole(said: list[Frame]) -> None:
    decoder = Decoder()
    assert decoder.feed(encoded(*said)) == said
    assert not decoder.in_frame


@given(st.lists(FRAMES, max_size=3))
def test_frames_survive_byte_by_byte(said: list[Frame]) -> None:
    decoder = Decoder()
    data = encoded(*said)
    assert [frame for i in range(len(data)) for frame in decoder.feed(data[i : i + 1])] == said
    assert not decoder.in_frame


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(1, 200), min_size=1))
def test_frames_survive_any_cut(said: list[Frame], lengths: list[int]) -> None:
    decoder = Decoder()
    data = encoded(*said)
    heard: list[Frame] = []
    position = turn = 0
    while position < len(data):
        length = lengths[turn % len(lengths)]
        heard += decoder.feed(data[position : position + length])
        position += length
        turn += 1
    assert heard == said


@given(FRAMES, FRAMES, st.data())
def test_trailing_data_is_kept_for_later(first: Frame, second: Frame, data: st.DataObject) -> None:
    rest = encoded(second)
    cut = data.draw(st.integers(1, len(rest) - 1))
    decoder = Decoder()
    assert decoder.feed(encoded(first) + rest[:cut]) == [first]
    assert decoder.in_frame
    assert decoder.feed(rest[cut:]) == [second]


def test_every_frame_is_exercised() -> None:
    every = {
        cls
        for module in (frames, file_frames)
        for cls in vars(module).values()
        if isinstance(cls, type) and attrs.has(cls)
    }
    values = {frames.InetEndpoint, frames.UnixEndpoint, frames.Facts, Change, FilesystemStatus, Status}
    assert every - values == set(frames.Frame.__args__)


def test_a_long_payload_is_not_copied_on_the_way_out() -> None:
    payload = bytes(MAX_PAYLOAD)
    assert encode(frames.Data(1, payload))[1] is payload


def test_the_longest_filter_fits_a_frame() -> None:
    assert Decoder().feed(encoded(with_filter(MAX_FILTER))) == [with_filter(MAX_FILTER)]
    with pytest.raises(ProtocolError, match="filter is wrong"):
        Decoder().feed(encoded(with_filter(MAX_FILTER + 2)))


@pytest.mark.parametrize("length", [0, 1, 65535, 65536, 262144, MAX_PAYLOAD])
def test_payloads_of_all_lengths(length: int) -> None:
    frame = frames.Data(7, bytes(length))
    decoder = Decoder()
    data = encoded(frame, frame)
    heard = [got for i in range(0, len(data), 100_000) for got in decoder.feed(data[i : i + 100_000])]
    assert heard == [frame, frame]


def test_what_is_beyond_the_limits_is_not_encoded() -> None:
    with pytest.raises(ValueError, match="limits"):
        encode(frames.Data(1, bytes(MAX_PAYLOAD + 1)))
    with pytest.raises(ValueError, match="limits"):
        encode(file_frames.Look(1, bytes(MAX_HEADER), False, 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\xff\0\0\0\0", "header of 65535 bytes"),
        (b"\0\1\xff\xff\xff\xff", "payload of 4294967295 bytes"),
        (b"\0\1\0\x10\0\1", "payload of 1048577 bytes"),
        (raw(b""), "not msgpack"),
        (raw(b"\xc1"), "not msgpack"),
        (raw(b"\x93\x30"), "not msgpack"),
        (raw(b"\x92\x30\x01\x01"), "not msgpack"),
        (raw(b"\x01"), "not a list"),
        (raw(b"\x90"), "not a list"),
        (raw(b"\x81\x01\x01"), "not msgpack"),
        (raw(b"\xdd\xff\xff\xff\xff"), "not msgpack"),
        (raw(b"\x91" * 600 + b"\x01"), "unknown number"),
        (raw(b"\x91" * 9000), "not msgpack"),
        (raw(msgpack.packb([0])), "unknown number 0"),
        (raw(msgpack.packb([True, 1])), "unknown number True"),
        (raw(msgpack.packb(["Data", 1])), "unknown number"),
        (raw(msgpack.packb([48])), "Data with 0 fields"),
        (raw(msgpack.packb([48, 1, 2])), "Data with 2 fields"),
        (raw(msgpack.packb([48, 0])), "stream is wrong"),
        (raw(msgpack.packb([48, -1])), "stream is wrong"),
        (raw(msgpack.packb([48, 2**63])), "stream is wrong"),
        (raw(msgpack.packb([48, "1"])), "stream is wrong"),
        (raw(msgpack.packb([48, True])), "stream is wrong"),
        (raw(msgpack.packb([49, 1]), b"x"), "Eof with a payload"),
        (raw(msgpack.packb([50, 1, 0])), "errno is wrong"),
        (raw(msgpack.packb([52, 1, 0])), "amount_bytes is wrong"),
        (raw(msgpack.packb([3, "nonsense", "x"])), "kind is wrong"),
        (raw(msgpack.packb([3, 5, "x"])), "kind is wrong"),
        (raw(msgpack.packb([18, 1, ["localhost", 80, 0], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, ["fe80::1%2", 80, 0], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, ["10.0.0.1", 65536, 0], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, ["10.0.0.1", 80, -1], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, [167772161, 80, 0], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, ["10.0.0.1", 80], None])), "remote is wrong"),
        (raw(msgpack.packb([18, 1, None, None])), "remote is wrong"),
        (raw(msgpack.packb([19, 1, "inet5", None, None])), "family is wrong"),
        (raw(msgpack.packb([19, 1, [], None, None])), "family is wrong"),
        (raw(msgpack.packb([20, 1, 0, "tcp", "steal", None, False, False, None])), "port is wrong"),
        (raw(msgpack.packb([20, 1, 65536, "tcp", "steal", None, False, False, None])), "port is wrong"),
        (raw(msgpack.packb([20, 1, 80, "sctp", "steal", None, False, False, None])), "protocol is wrong"),
        (raw(msgpack.packb([20, 1, 80, "tcp", "off", None, False, False, None])), "mode is wrong"),
        (raw(msgpack.packb([20, 1, 80, "tcp", "steal", b"{}", False, False, None])), "filter is wrong"),
        (raw(msgpack.packb([20, 1, 80, "tcp", "steal", None, 1, False, None])), "flush is wrong"),
        (raw(msgpack.packb([20, 1, 80, "tcp", "steal", None, False, None, None])), "mark is wrong"),
        (raw(msgpack.packb([39, 2, 1, None, ["10.0.0.1", 80, 0]])), "peer is wrong"),
        (raw(msgpack.packb([39, 2, 0, ["10.0.0.1", 80, 0], ["10.0.0.1", 80, 0]])), "subscription is wrong"),
        (raw(msgpack.packb([40, 1, "x" * 5000])), "message is wrong"),
        (raw(msgpack.packb([65, 1, "text", 5, 5, 0])), "path is wrong"),
        (raw(msgpack.packb([65, 1, bytes(5000), 5, 5, 0])), "path is wrong"),
        (raw(msgpack.packb([64, 1, b"/", 1, 5, 0])), "follow is wrong"),
        (raw(msgpack.packb([80, 1, b"/", [None] * 5])), "change is wrong"),
        (raw(msgpack.packb([80, 1, b"/", [None, None, None, None, "then", None]])), "change is wrong"),
        (raw(msgpack.packb([80, 1, b"/", [0o10000, None, None, None, None, None]])), "change is wrong"),
        (raw(msgpack.packb([81, 1, 1, -1, 5])), "offset is wrong"),
        (raw(msgpack.packb([81, 1, 1, 0, (1 << 20) + 1])), "length is wrong"),
        (raw(msgpack.packb([97, 1, True, bytes(100)])), "status is wrong"),
        (raw(msgpack.packb([102, 1, bytes(100)])), "status is wrong"),
        (raw(msgpack.packb([1, 1, "features", b""])), "features is wrong"),
        (raw(msgpack.packb([1, 1, [1], b""])), "features is wrong"),
        (raw(msgpack.packb([2, 1, [], ["h", "d", 1]])), "facts is wrong"),
        (raw(msgpack.packb([2, 1, [], ["h", "d", -1, 0.0]])), "facts is wrong"),
        (raw(msgpack.packb([2, 1, [], ["h", "d", 1, 0]])), "facts is wrong"),
        (raw(msgpack.packb([2, 1, [], ["h", "d", 1, float("nan")]])), "facts is wrong"),
        (raw(msgpack.packb([3, "shutdown", "x" * 5000])), "message is wrong"),
        (raw(b"\x93\x03\xa8shutdown\xa2\xff\xff"), "not msgpack"),
    ],
)
def test_malformed_frames_are_refused_with_a_reason(data: bytes, reason: str) -> None:
    decoder = Decoder()
    with pytest.raises(ProtocolError, match=reason):
        decoder.feed(data)
    with pytest.raises(ProtocolError, match=reason):
        decoder.feed(encoded(frames.Ping(1)))


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_frames_or_a_protocol_error(data: bytes) -> None:
    decoder = Decoder()
    with suppress(ProtocolError):
        decoder.feed(data)


@given(FRAMES, st.data())
def test_a_damaged_frame_does_nothing_worse(frame: Frame, data: st.DataObject) -> None:
    damaged = bytearray(encoded(frame))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    decoder = Decoder()
    with suppress(ProtocolError):
        decoder.feed(bytes(damaged))


def test_secrets_are_not_printed() -> None:
    assert "\\x07" not in repr(frames.Hello(1, (), b"\x07" * 32))
