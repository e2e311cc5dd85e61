"""Takes a stream of HTTP/1 apart into messages as its bytes come, and hands these on as they were."""

from __future__ import annotations

from functools import partial
from typing import NoReturn

import attrs

from mirrord_agent.incoming.http.filters import BODY_WAIT_S, MAX_BODY, Body, Filter, Request
from mirrord_agent.incoming.http.framing import (
    MAX_HEAD,
    BodyScanner,
    HeadScanner,
    NotHttpError,
    RequestHead,
    RequestLine,
    ResponseHead,
    StatusLine,
    check_request_start,
    check_status_start,
    parse_request_line,
    parse_status_line,
    request_head,
    response_head,
)
from mirrord_agent.incoming.http.patterns import TooSlowError

#: Most bytes of a body with its chunks' sizes that are kept for a filter: small chunks are mostly sizes.
_MAX_RAW_BODY = 2 * MAX_BODY
#: Bytes at which a reader wants no more before it has handed some on: a head and a body fit.
HELD_LIMIT = MAX_HEAD + _MAX_RAW_BODY

_request_scanner = partial(HeadScanner[RequestLine], check_request_start, parse_request_line)
_response_scanner = partial(HeadScanner[StatusLine], check_status_start, parse_status_line)


class _Reader:
    """Bytes that came and were not handed on, and the body that they belong to, if it is one."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._body: BodyScanner | None = None

    @property
    def held(self) -> int:
        """Bytes that were not handed on."""
        return len(self._held)

    def is_in_body(self) -> bool:
        """Whether the next bytes are of the body of the last message."""
        return self._body is not None

    def feed(self, data: bytes) -> None:
        """Takes in what has come."""
        self._held += data

    def take_body(self) -> bytes:
        """What there is of the body. Raises NotHttpError where its end cannot be told."""
        assert self._body is not None
        data = self._take(self._body.scan(self._held))
        if self._body.complete:
            self._body = None
        return data

    def take_rest(self) -> bytes:
        """All that is held."""
        return self._take(len(self._held))

    def _take(self, amount: int) -> bytes:
        data = bytes(self._held[:amount])
        del self._held[:amount]
        return data

    def _begin_body(self, body: BodyScanner) -> None:
        self._body = None if body.complete else body


@attrs.frozen
class Judged:
    """A request, and what the filter says of it."""

    head: RequestHead
    matches: bool
    notice: str | None = None
    """What the filter could not do."""


@attrs.define
class _Undecided:
    """A request of which only its body will tell."""

    head: RequestHead
    request: Request
    body: BodyScanner
    content: bytearray
    scanned: int
    """Bytes of head and body that were looked at."""
    begun: int
    """Bytes of the head."""


class RequestReader(_Reader):
    """Reads what a client sends, and has each request judged as soon as that can be done."""

    def __init__(self, accepts: Filter) -> None:
        super().__init__()
        self._filter = accepts
        self._head = _request_scanner()
        self._undecided: _Undecided | None = None
        self._judged: Judged | None = None
        self._failure: NotHttpError | None = None
        self._has_ended = False
        self._deadline: float | None = None
        self._must_ask = False

    @property
    def deadline(self) -> float | None:
        """Until when a body is awaited."""
        return self._deadline

    @property
    def must_ask(self) -> bool:
        """Whether a body is awaited that the client sends only when it is asked to (Expect: 100-continue)."""
        return self._must_ask

    def asked(self, now: float) -> None:
        """The client has been asked for the body."""
        self._must_ask = False
        self._deadline = now + BODY_WAIT_S

    def end(self) -> None:
        """No more will come: no body is awaited."""
        self._has_ended = True

    def next(self, now: float) -> Judged | None:
        """The next request, once it is judged; the same until its head is taken.

        Raises NotHttpError for what is none, then and ever after.
        """
        if self._failure is not None:
            raise self._failure
        try:
            if self._judged is None:
                self._judged = self._read(now)
        except NotHttpError as failure:
            self._fail(failure)
        return self._judged

    def take_head(self) -> bytes:
        """The head of the request that `next` gave; its body follows."""
        assert self._judged is not None
        self._begin_body(self._judged.head.body_scanner())
        data = self._take(self._head.length)
        self._judged = None
        self._head = _request_scanner(skips_blank=True)
        return data

    def _fail(self, failure: NotHttpError) -> NoReturn:
        self._failure = failure
        self._decided()
        raise failure

    def _decided(self) -> None:
        self._undecided = None
        self._deadline = None
        self._must_ask = False

    def _read(self, now: float) -> Judged | None:
        if self._undecided is not None:
            return self._look_into(self._undecided, now)
        found = self._head.scan(self._held)
        if found is None:
            return None
        line, headers = found
        head = request_head(line, headers)
        request = Request(line.method, line.target, headers)
        judged = self._judge(head, request, Body.AWAITED)
        if judged is not None:
            return judged
        content = bytearray()
        begun = self._head.length
        self._undecided = _Undecided(head, request, head.body_scanner(content), content, begun, begun)
        judged = self._look_into(self._undecided, now)
        if judged is None:
            if head.expects_continue:
                self._must_ask = True
            else:
                self._deadline = now + BODY_WAIT_S
        return judged

    def _look_into(self, undecided: _Undecided, now: float) -> Judged | None:
        length = undecided.head.body_length
        body: bytes | Body = Body.AWAITED
        if length is None or length <= MAX_BODY:
            undecided.scanned += undecided.body.scan(self._held, undecided.scanned)
            if undecided.body.complete and len(undecided.content) <= MAX_BODY:
                chunked = length is None
                body = bytes(undecided.content if chunked else self._held[undecided.begun : undecided.scanned])
        if body is Body.AWAITED and (
            self._has_ended
            or (length is not None and length > MAX_BODY)
            or undecided.body.complete
            or len(undecided.content) > MAX_BODY
            or len(self._held) - undecided.begun > _MAX_RAW_BODY
            or (self._deadline is not None and now >= self._deadline)
        ):
            body = Body.UNKNOWN
        judged = None if body is Body.AWAITED else self._judge(undecided.head, undecided.request, body)
        if judged is not None:
            self._decided()
        return judged

    def _judge(self, head: RequestHead, request: Request, body: bytes | Body) -> Judged | None:
        try:
            matches = self._filter.judge(request, body)
        except TooSlowError as error:
            return Judged(head, False, f"a filter gave up on a request, which was taken to match nothing: {error}")
        return None if matches is None else Judged(head, matches)


class ResponseReader(_Reader):
    """Reads what a server sends."""

    def __init__(self) -> None:
        super().__init__()
        self._head = _response_scanner()

    def next(self, method: bytes) -> tuple[ResponseHead, bytes] | None:
        """The next response and its head's bytes, which are taken; `method` is what it answers. Raises NotHttpError."""
        found = self._head.scan(self._held)
        if found is None:
            return None
        head = response_head(*found, method)
        self._begin_body(head.body)
        data = self._take(self._head.length)
        self._head = _response_scanner()
        return head, data
