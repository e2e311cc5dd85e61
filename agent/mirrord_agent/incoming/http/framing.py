"""Where the messages of an HTTP/1 connection end, in the bytes as they came (RFC 9112).

Bytes are passed on as they are, so all that matters is which belong together. Whoever finds other ends than the next
reader can be made to route half a request (request smuggling); hence what two readers could understand differently is
`NotHttpError`, and its connection is no longer split: line ends that are not CRLF, folded lines, blanks before a colon,
both Content-Length and Transfer-Encoding or several of one, other codings than chunked, several hosts, and whatever the
grammar does not know. h11 accepts some of these, and keeps to itself where the bytes of a message end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

import attrs

#: Longest head of a message, and longest trailers, in bytes. Servers take 8 kB (Apache) to 1 MB (Go).
MAX_HEAD = 64 << 10
#: Longest line with a chunk's size, in bytes; extensions are seldom.
MAX_CHUNK_LINE = 1024

#: Methods as nginx takes them: other protocols' first words are rarely all capitals with a blank behind.
_METHOD = re.compile(rb"[A-Z_-]{1,32}")
_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
#: The beginning of a status line with its digits made 0.
_STATUS_FORM = b"HTTP/0.0 000"
_DIGITS_TO_0 = bytes.maketrans(b"123456789", b"000000000")
_NOT_IN_TARGET = re.compile(rb"[\x00-\x20\x7f]")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_NOT_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?")


class NotHttpError(Exception):
    """These bytes are not HTTP/1 that everybody reads in the same way; the message says why."""


class BodyScanner(Protocol):
    """Tells how many of the bytes that follow a head belong to its message."""

    @property
    def complete(self) -> bool:
        """Whether the message has ended."""

    def scan(self, data: bytes | bytearray, start: int = 0) -> int:
        """How many bytes from `start` on belong to the message, of those not scanned before. Raises NotHttpError."""


class LengthScanner:
    """A body of known length."""

    def __init__(self, length: int) -> None:
        self._missing = length

    @property
    def complete(self) -> bool:
        """Whether all its bytes were seen."""
        return not self._missing

    def scan(self, data: bytes | bytearray, start: int = 0) -> int:
        """How many bytes belong to it."""
        found = min(self._missing, len(data) - start)
        self._missing -= found
        return found


class EndlessScanner:
    """A body that ends with its connection."""

    complete = False

    def scan(self, data: bytes | bytearray, start: int = 0) -> int:
        """All bytes belong to it."""
        return len(data) - start


class ChunkedScanner:
    """A chunked body with its trailers (RFC 9112 section 7.1).

    An incomplete line is not scanned: its bytes count once it is whole.
    """

    def __init__(self, content: bytearray | None = None) -> None:
        self._content = content
        """Where to collect what the chunks hold."""
        self._missing = 0
        """Bytes of the present chunk with the CRLF behind them."""
        self._trailers: int | None = None
        """Bytes of the trailers so far, once they have begun."""
        self.complete = False

    def scan(self, data: bytes | bytearray, start: int = 0) -> int:
        """How many bytes belong to it, up to the end of the last whole line or the last byte of a chunk."""
        at = start
        while not self.complete:
            if self._missing:
                taken = self._chunk(data, at)
                if not taken:
                    break
                at += taken
                continue
            limit = MAX_CHUNK_LINE if self._trailers is None else MAX_HEAD - self._trailers
            end = line_end(data, at, limit)
            if end is None:
                break
            self._line(bytes(data[at : end - 2]), end - at)
            at = end
        return at - start

    def _chunk(self, data: bytes | bytearray, at: int) -> int:
        taken = min(self._missing - 2, len(data) - at)
        if taken > 0:
            if self._content is not None:
                self._content += data[at : at + taken]
            self._missing -= taken
            return taken
        if len(data) - at < 2:
            if data[at:] not in (b"", b"\r"):
                raise NotHttpError("a chunk does not end with CRLF")
            return 0
        if data[at : at + 2] != b"\r\n":
            raise NotHttpError("a chunk does not end with CRLF")
        self._missing = 0
        return 2

    def _line(self, line: bytes, length: int) -> None:
        if self._trailers is not None:
            self._trailers += length
            if line:
                _header(line)
            self.complete = not line
            return
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise NotHttpError("a chunk's size is not a number")
        size = int(found[1], 16)
        if size:
            self._missing = size + 2
        else:
            self._trailers = 0


def line_end(data: bytes | bytearray, start: int, limit: int) -> int | None:
    """Behind the CRLF of the line that starts there; None if it is still to come.

    Raises NotHttpError for a line that ends otherwise or is too long.
    """
    end = data.find(b"\n", start, start + limit)
    carriage_return = data.find(b"\r", start, end if end >= 0 else start + limit)
    if end < 0:
        if 0 <= carriage_return < len(data) - 1:
            raise NotHttpError("a line has a CR within")
        if len(data) - start >= limit:
            raise NotHttpError("a line is too long")
        return None
    if carriage_return < 0 or carriage_return != end - 1:
        raise NotHttpError("a line ends without CRLF, or has a CR within")
    return end + 1


@attrs.frozen
class RequestLine:
    """How a request begins."""

    method: bytes
    target: bytes
    minor_version: int


@attrs.frozen
class StatusLine:
    """How a response begins."""

    status: int
    minor_version: int


def parse_request_line(line: bytes) -> RequestLine:
    """Reads a whole line, without its end. Raises NotHttpError."""
    check_request_start(line)
    parts = line.split(b" ")
    if len(parts) != 3 or not parts[1] or parts[2] not in _VERSIONS:
        raise NotHttpError("this is no request line")
    return RequestLine(parts[0], parts[1], parts[2][-1] - ord("0"))


def check_request_start(line: bytes) -> None:
    """Raises NotHttpError if no request line begins so: whoever sends that waits for an answer, perhaps."""
    method, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    if (
        not _METHOD.fullmatch(method)
        or _NOT_IN_TARGET.search(target)
        or not any(known.startswith(version.removesuffix(b"\r")) for known in _VERSIONS)
    ):
        raise NotHttpError("no request begins so")


def parse_status_line(line: bytes) -> StatusLine:
    """Reads a whole line, without its end. Raises NotHttpError."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise NotHttpError("this is no status line")
    return StatusLine(int(found[2]), int(found[1]))


def check_status_start(line: bytes) -> None:
    """Raises NotHttpError if no status line begins so."""
    form = line[: len(_STATUS_FORM)].translate(_DIGITS_TO_0)
    if not _STATUS_FORM.startswith(form):
        raise NotHttpError("no response begins so")


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name):
        raise NotHttpError("this is no header")
    value = value.strip(b" \t")
    if _NOT_IN_VALUE.search(value):
        raise NotHttpError("a header has control characters")
    return name, value


_Line = TypeVar("_Line", RequestLine, StatusLine)


class HeadScanner(Generic[_Line]):
    """Reads a head line by line as it comes, and so finds at once what is none."""

    def __init__(
        self, check_start: Callable[[bytes], None], parse_start: Callable[[bytes], _Line], skips_blank: bool = False
    ) -> None:
        self._check_start = check_start
        self._parse_start: Callable[[bytes], _Line] = parse_start
        self._skips_blank = skips_blank
        """Whether empty lines may come first, as after the bodies of some clients (RFC 9112 section 2.2)."""
        self._start: _Line | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self.length = 0
        """Bytes of the whole lines."""

    def scan(self, data: bytearray) -> tuple[_Line, Sequence[tuple[bytes, bytes]]] | None:
        """First line and headers once all are there. `data` is the same as before, or grown. Raises NotHttpError."""
        while (end := line_end(data, self.length, MAX_HEAD - self.length)) is not None:
            line = bytes(data[self.length : end - 2])
            self.length = end
            if self._start is None:
                if line or not self._skips_blank:
                    self._start = self._parse_start(line)
            elif line:
                self._headers.append(_header(line))
            else:
                return self._start, self._headers
        rest = bytes(data[self.length :]) if self._start is None else b""
        if rest and not (self._skips_blank and rest == b"\r"):
            self._check_start(rest)
        return None


@attrs.define
class _Fields:
    """What headers say about where their message ends."""

    length: int | None = None
    is_chunked: bool = False
    connection: set[bytes] = attrs.Factory(set)
    has_upgrade: bool = False
    has_host: bool = False
    expects_continue: bool = False

    @classmethod
    def of(cls, headers: Sequence[tuple[bytes, bytes]], minor_version: int) -> _Fields:
        fields = cls()
        for name, value in headers:
            match name.lower():
                case b"content-length":
                    if fields.length is not None or not _LENGTH.fullmatch(value):
                        raise NotHttpError("several content lengths, or one that is no number")
                    fields.length = int(value)
                case b"transfer-encoding":
                    if fields.is_chunked or value.lower() != b"chunked":
                        raise NotHttpError("other transfer codings than chunked")
                    fields.is_chunked = True
                case b"connection":
                    fields.connection.update(option.strip(b" \t") for option in value.lower().split(b","))
                case b"upgrade":
                    fields.has_upgrade = True
                case b"host":
                    if fields.has_host:
                        raise NotHttpError("several hosts")
                    fields.has_host = True
                case b"expect":
                    fields.expects_continue = value.lower() == b"100-continue"
        if fields.is_chunked and fields.length is not None:
            raise NotHttpError("both a content length and chunks")
        if fields.is_chunked and minor_version == 0:
            raise NotHttpError("chunks in HTTP/1.0")
        return fields

    def closes(self, minor_version: int) -> bool:
        """Whether the connection ends with this message."""
        return b"close" in self.connection or (minor_version == 0 and b"keep-alive" not in self.connection)


@attrs.frozen
class RequestHead:
    """A request up to its body."""

    line: RequestLine
    headers: Sequence[tuple[bytes, bytes]]
    body_length: int | None
    """None if it is chunked."""
    closes: bool
    """Whether it is the last on its connection."""
    may_switch: bool
    """Whether other than HTTP may follow it, if the answer is so."""
    expects_continue: bool
    """Whether the body comes only when it is asked for."""

    def body_scanner(self, content: bytearray | None = None) -> BodyScanner:
        """A scanner of the body, which collects the content of chunks if there is where."""
        return ChunkedScanner(content) if self.body_length is None else LengthScanner(self.body_length)


def request_head(line: RequestLine, headers: Sequence[tuple[bytes, bytes]]) -> RequestHead:
    """What a request says of itself. Raises NotHttpError where that is ambiguous."""
    fields = _Fields.of(headers, line.minor_version)
    return RequestHead(
        line,
        headers,
        body_length=None if fields.is_chunked else fields.length or 0,
        closes=fields.closes(line.minor_version),
        may_switch=fields.has_upgrade or line.method == b"CONNECT",
        expects_continue=fields.expects_continue and line.minor_version == 1,
    )


@attrs.frozen
class ResponseHead:
    """A response up to its body."""

    status: int
    body: BodyScanner
    closes: bool
    """Whether its connection ends with it."""

    @property
    def is_final(self) -> bool:
        """Whether this is the response, not word that it takes a while (1xx)."""
        return self.status >= 200

    def switches(self, method: bytes) -> bool:
        """Whether what follows is not HTTP any more."""
        return self.status == 101 or (method == b"CONNECT" and 200 <= self.status < 300)


def response_head(line: StatusLine, headers: Sequence[tuple[bytes, bytes]], method: bytes) -> ResponseHead:
    """What a response to that method says of itself (RFC 9112 section 6.3). Raises NotHttpError if it is ambiguous."""
    fields = _Fields.of(headers, line.minor_version)
    body: BodyScanner
    if method == b"HEAD" or line.status < 200 or line.status in (204, 304):
        body = LengthScanner(0)
    elif fields.is_chunked:
        body = ChunkedScanner()
    elif fields.length is not None:
        body = LengthScanner(fields.length)
    else:
        body = EndlessScanner()
    return ResponseHead(line.status, body, fields.closes(line.minor_version) or isinstance(body, EndlessScanner))
