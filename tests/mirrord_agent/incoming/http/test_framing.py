"""What is framed one way here is framed the same way by h11, or not split at all."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirrord_agent.incoming.http.framing import (
    MAX_CHUNK_LINE,
    MAX_HEAD,
    ChunkedScanner,
    EndlessScanner,
    LengthScanner,
    NotHttpError,
    check_request_start,
    check_status_start,
    line_end,
    parse_request_line,
    parse_status_line,
)
from mirrord_agent.incoming.http.readers import RequestReader
from tests.mirrord_agent.incoming.http.support import NOTHING

LINES = [
    b"GET / HTTP/1.1",
    b"POST /x HTTP/1.1",
    b"POST /x HTTP/1.0",
    b"Host: pod",
    b"Content-Length: 3",
    b"Content-Length: 0",
    b"content-length:10",
    b"Content-Length: 1x",
    b"Content-Length: 3, 3",
    b"Content-Length : 3",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding:\tchunked ",
    b"Transfer-Encoding: chunked, chunked",
    b"X-Content-Length: 5",
    b" folded",
    b"3",
    b"03;x=y",
    b"3 ",
    b"0",
    b"abc",
    b"X: y",
    b"",
    b"",
]
ENDS = [b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]


def first_request(data: bytes) -> int | None:
    """How many bytes the first request has here, if it is whole and not ambiguous."""
    reader = RequestReader(NOTHING)
    reader.feed(data)
    try:
        if reader.next(0.0) is None:
            return None
        length = len(reader.take_head())
        while reader.is_in_body():
            part = len(reader.take_body())
            if not part:
                return None
            length += part
    except NotHttpError:
        return None
    return length


def first_request_of_h11(data: bytes) -> int | None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    while True:
        match connection.next_event():
            case h11.EndOfMessage():
                return len(data) - len(connection.trailing_data[0])
            case h11.NEED_DATA:
                return None
            case _:
                pass


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(ENDS)), max_size=12))
@settings(max_examples=1000)
def test_a_request_ends_where_h11_says(lines: list[tuple[bytes, bytes]]) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(line + end for line, end in lines)
    length = first_request(data)
    if length is not None:
        assert first_request_of_h11(data) == length


@given(st.binary(max_size=30), st.binary(max_size=100))
def test_a_head_of_any_bytes_ends_where_h11_says(headers: bytes, rest: bytes) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n\r\n" + rest
    length = first_request(data)
    if length is not None:
        assert first_request_of_h11(data) == length


class TestChunks:
    WHOLE = b'5\r\nhello\r\nA;x="y"\r\n0123456789\r\n1 ; z\r\n!\r\n000\r\nX: 1\r\nY: 2\r\n\r\n'

    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    @pytest.mark.parametrize("behind", [b"", b"GET"])
    def test_they_are_scanned_however_they_come(self, size: int, behind: bytes) -> None:
        content, held, scanned = bytearray(), bytearray(), 0
        scanner = ChunkedScanner(content)
        for at in range(0, len(self.WHOLE + behind), size):
            held += (self.WHOLE + behind)[at : at + size]
            scanned += scanner.scan(held, scanned)
        assert scanner.complete
        assert scanned == len(self.WHOLE)
        assert content == b"hello0123456789!"

    @pytest.mark.parametrize(
        "data",
        [
            b"\n",
            b"\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\r\r\n",
            b"1;\0\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"1000000000000000\r\n",
            b"1" * MAX_CHUNK_LINE,
            b"0\r\n folded\r\n",
            b"0\r\nno header\r\n",
            b"0\r\nX: 1\n",
            b"0\r\n" + b"X: 1\r\n" * (MAX_HEAD // 6 + 1),
        ],
    )
    @pytest.mark.parametrize("size", [1, 100_000])
    def test_what_can_be_read_in_two_ways_is_not_read(self, data: bytes, size: int) -> None:
        with pytest.raises(NotHttpError):
            scan_chunks(data, size)


def scan_chunks(data: bytes, size: int) -> int:
    scanner, held, scanned = ChunkedScanner(), bytearray(), 0
    for at in range(0, len(data), size):
        held += data[at : at + size]
        scanned += scanner.scan(held, scanned)
    return scanned


def test_a_body_of_known_length_ends_there() -> None:
    scanner = LengthScanner(5)
    assert (scanner.scan(b"abc"), scanner.complete) == (3, False)
    assert (scanner.scan(b"xdefg", 1), scanner.complete) == (2, True)
    assert scanner.scan(b"x") == 0


def test_a_body_that_ends_with_its_connection_has_all() -> None:
    scanner = EndlessScanner()
    assert scanner.scan(b"abc", 1) == 2
    assert not scanner.complete


@pytest.mark.parametrize(
    ("data", "end"), [(b"", None), (b"ab", None), (b"ab\r", None), (b"ab\r\n", 4), (b"\r\nx", 2), (b"ab\r\n\r\n", 4)]
)
def test_a_line_ends_with_crlf(data: bytes, end: int | None) -> None:
    assert line_end(data, 0, 10) == end


@pytest.mark.parametrize("data", [b"a\n", b"\n", b"a\rb", b"a\r\r\n", b"a\rb\r\n", b"0123456789", b"012345678\r\n"])
def test_a_line_that_does_not_is_none(data: bytes) -> None:
    with pytest.raises(NotHttpError):
        line_end(data, 0, 10)


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/1.1", b"M-SEARCH * HTTP/1.0", b"CONNECT x:1 HTTP/1.1", b"A \xff HTTP/1.1"]
)
def test_request_lines_are_known_from_their_first_byte_on(line: bytes) -> None:
    for length in range(1, len(line) + 1):
        check_request_start(line[:length])
    check_request_start(line + b"\r")
    parsed = parse_request_line(line)
    assert b"%b %b HTTP/1.%d" % (parsed.method, parsed.target, parsed.minor_version) == line


@pytest.mark.parametrize(
    "line", [b"", b"GET", b"GET /", b"GET  HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/1.1 ", b"A" * 33]
)
def test_other_lines_are_none(line: bytes) -> None:
    with pytest.raises(NotHttpError):
        parse_request_line(line)


@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK", b"HTTP/1.0 599", b"HTTP/1.1 100 ", b"HTTP/1.1 404 N\xf6 \t x"])
def test_status_lines_are_known_from_their_first_byte_on(line: bytes) -> None:
    for length in range(1, len(line) + 1):
        check_status_start(line[:length])
    parsed = parse_status_line(line)
    assert line.startswith(b"HTTP/1.%d %d" % (parsed.minor_version, parsed.status))


@pytest.mark.parametrize("line", [b"HTTP/1.1", b"HTTP/1.2 200 OK", b"HTTP/1.1 20", b"HTTP/1.1 2000", b"HTTP/1.1 099 X"])
def test_other_lines_begin_no_response(line: bytes) -> None:
    with pytest.raises(NotHttpError):
        parse_status_line(line)
