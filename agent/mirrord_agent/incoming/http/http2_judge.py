"""Whose an HTTP/2 stream is, which its body may have to tell."""

from __future__ import annotations

import attrs

from mirrord_agent.incoming.http.filters import BODY_WAIT_S, MAX_BODY, Body, Filter, Headers, Request
from mirrord_agent.incoming.http.http2_flows import Flow
from mirrord_agent.incoming.http.patterns import TooSlowError


@attrs.define
class _Undecided:
    request: Request
    flow: Flow
    deadline: float
    too_long: bool
    """Whether the body is known to be too long."""


class Judge:
    """Says of streams whether a filter matches them, at once or when their bodies have come."""

    def __init__(self, accepts: Filter) -> None:
        self._filter = accepts
        self._undecided: dict[int, _Undecided] = {}
        self.notices: list[str] = []
        """What the filter could not do."""

    @property
    def deadline(self) -> float | None:
        """When the first body has been awaited long enough."""
        return next((undecided.deadline for undecided in self._undecided.values()), None)

    def begin(self, stream: int, headers: Headers, flow: Flow, now: float) -> bool | None:
        """Whether a new stream matches; None if its body will tell. `flow` has what comes of that."""
        request = _request(headers)
        judgement = self._judge(request, Body.AWAITED)
        if judgement is not None:
            return judgement
        self._undecided[stream] = _Undecided(request, flow, now + BODY_WAIT_S, _is_too_long(headers))
        return self.look(stream, now)

    def look(self, stream: int, now: float) -> bool | None:
        """Whether a stream matches by what has come of its body; None if more is needed."""
        undecided = self._undecided[stream]
        if undecided.too_long or len(undecided.flow.held) > MAX_BODY or now >= undecided.deadline:
            body: bytes | Body = Body.UNKNOWN
        elif undecided.flow.has_ended:
            body = bytes(undecided.flow.held)
        else:
            return None
        del self._undecided[stream]
        return self._judge(undecided.request, body)

    def overdue(self, now: float) -> list[int]:
        """The streams whose bodies have been awaited long enough."""
        return [stream for stream, undecided in self._undecided.items() if now >= undecided.deadline]

    def is_undecided(self, stream: int) -> bool:
        """Whether the stream's body is awaited."""
        return stream in self._undecided

    def forget(self, stream: int) -> None:
        """It does not matter any more."""
        self._undecided.pop(stream, None)

    def _judge(self, request: Request, body: bytes | Body) -> bool | None:
        try:
            return self._filter.judge(request, body)
        except TooSlowError as error:
            self.notices.append(f"a filter gave up on a request, which was taken to match nothing: {error}")
            return False


def _is_too_long(headers: Headers) -> bool:
    """Whether the headers say that the body is; one of nine digits is, whatever these are."""
    length = next((value for name, value in headers if name == b"content-length"), b"")
    return length.isdigit() and (len(length) >= 9 or int(length) > MAX_BODY)


def _request(headers: Headers) -> Request:
    """A request as filters see it: the authority is the host, as in HTTP/1."""
    pseudo = {name: value for name, value in headers if name.startswith(b":")}
    regular = [(name, value) for name, value in headers if not name.startswith(b":")]
    authority = pseudo.get(b":authority")
    if authority is not None and not any(name == b"host" for name, _ in regular):
        regular.insert(0, (b"host", authority))
    return Request(pseudo.get(b":method", b""), pseudo.get(b":path", b""), regular)
