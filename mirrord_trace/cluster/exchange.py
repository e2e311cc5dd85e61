"""Requests to the API server: in worker threads, repeated where that helps, with credentials that are renewed.

What is repeated, and why that is safe: the names of the objects that we create are ours, so a second create of one that
the first made after all is told by AlreadyExists; deletes and our patches say the same twice. So whatever was lost with
its connection is sent again, as is what the server or a balancer before it puts off (429, 502, 503, 504, and others
with Retry-After). A server that was never reached is not tried again: its address is likely wrong.

A cancelled request is abandoned: its thread, which does not hold up the end of the process, ends with the answer or its
time limit, and the server may still do what it was asked.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

import attrs
import trio

from mirrord_trace import __version__
from mirrord_trace.cluster import unreachable
from mirrord_trace.cluster.access import Access
from mirrord_trace.cluster.credentials import Credentials
from mirrord_trace.cluster.refusals import ApiRefusal, Request
from mirrord_trace.errors import Failure

if TYPE_CHECKING:
    import urllib3

USER_AGENT = f"mirrord-trace/{__version__}"
Query = Mapping[str, str]
Object = dict[str, Any]
"""An API object as JSON."""

_CONNECT_S = 10.0
_ANSWER_S = 35.0
"""Longer than the 30 s that an admission webhook may take."""
_DELAYS_S = (0.1, 0.3, 1.0, 2.0)
"""Before each repetition, unless the server says how long to wait."""
_LONGEST_DELAY_S = 10.0
STOOD_S = 5.0
"""A connection without time limit that breaks after this long, as where a balancer cuts those that are idle, is no sign
of trouble: what follows it is no repetition."""
_PASSING = frozenset({429, 502, 503, 504})


def delay_s(repetitions: int, status: int | None = None, retry_after: str | None = None) -> float | None:
    """How long to wait before a request is sent again, or None when it shall not be.

    `repetitions` were made before; `status` is the answer's, None when there was none.
    """
    if repetitions >= len(_DELAYS_S):
        return None
    if status is not None and status not in _PASSING and not (status >= 500 and retry_after):
        return None
    if retry_after and retry_after.isdigit():
        return min(float(retry_after), _LONGEST_DELAY_S)
    return _DELAYS_S[repetitions]


@attrs.frozen
class Answer:
    """A whole answer of the API server, of a status below 400."""

    body: bytes
    warnings: list[str]
    """The texts of its Warning headers."""

    def object(self) -> Object:
        """The JSON object that it is. Raises `Failure` for anything else, such as a proxy's page."""
        try:
            answer = json.loads(self.body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise no_api_server(self.body)
        return answer


def no_api_server(body: bytes) -> Failure:
    """What to tell the user of an answer that no API server gives, such as a proxy's page."""
    words = " ".join(body[:200].decode(errors="replace").split())
    return Failure(
        f"what answers in the API server's place does not speak its language, but says {words!r}",
        "Check the cluster's server in the kubeconfig.",
    )


class Lines:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self.pending = b""
        """The beginning of a line."""

    def of(self, chunk: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        *lines, self.pending = (self.pending + chunk).split(b"\n")
        return lines


class Stream:
    """An answer that goes on for long. Its bytes are read in a worker thread."""

    def __init__(self, response: urllib3.BaseHTTPResponse, access: Access, limiter: trio.CapacityLimiter) -> None:
        self._response = response
        self._access = access
        self._limiter = limiter
        self._lock = threading.Lock()
        self._reading = False
        self._closed = threading.Event()

    async def receive(self) -> bytes:
        """Some bytes, b"" at the proper end. Raises urllib3's HTTPError when the connection breaks."""
        return await trio.to_thread.run_sync(self._read, abandon_on_cancel=True, limiter=self._limiter)

    def failure(self, error: BaseException) -> Failure:
        """What to tell the user of a connection that breaks time and again."""
        return unreachable.failure(error, self._access.server, self._access.proxy, sent=True)

    def close(self) -> None:
        """End the answer, and with it a thread that waits for more of it."""
        with self._lock:
            self._closed.set()
            if self._reading:
                # The thread, woken by this, does the rest: closing waits for a lock that it holds.
                self._shut_down()
                return
        self._response.close()

    def _shut_down(self) -> None:
        try:
            self._response.shutdown()
        except (OSError, RuntimeError, ValueError):
            # It has just ended, or is TLS in a proxy's TLS, for which urllib3 knows no way.
            return

    def _read(self) -> bytes:
        with self._lock:
            if self._closed.is_set():
                return b""
            self._reading = True
        try:
            return self._response.read1(1 << 16)
        finally:
            with self._lock:
                self._reading = False
            if self._closed.is_set():
                self._response.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.close()


class Exchange:
    """Sends requests and counts them."""

    def __init__(self, credentials: Credentials) -> None:
        self.credentials = credentials
        self.requests = 0
        self._limiter = trio.CapacityLimiter(64)
        # Who reads on and on must not hold up the others; each stream has its owner, who bounds their number.
        self._reading = trio.CapacityLimiter(math.inf)
        self._reached = False

    async def send(
        self,
        request: Request,
        method: str,
        query: Query = {},  # noqa: B006 (a Mapping has no way to change it)
        *,
        body: bytes | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Send a request and return the answer.

        Raises `ApiRefusal`, `Unreachable` when there is no connection to the server, and another `Failure` when it is
        no API server or there are no credentials.
        """
        attempt = _Attempt(request, method, query, body, content_type)
        response, _ = await self._answered(attempt)
        return Answer(response.data, warning_texts(response.headers.getlist("Warning")))

    async def stream(self, request: Request, query: Query, *, silence_s: float | None) -> Stream:
        """Ask for an answer that goes on; `silence_s` is how long nothing may come, None for any time.

        Raises as `send` does. Close the stream.
        """
        attempt = _Attempt(request, "GET", query, None, "application/json", stream=True, silence_s=silence_s)
        return Stream(*await self._answered(attempt), self._reading)

    async def _answered(self, attempt: _Attempt) -> tuple[urllib3.BaseHTTPResponse, Access]:
        import urllib3

        renewed = repeated = False
        repetitions = 0
        access = await self.credentials.access()
        while True:
            self.requests += 1
            begun = trio.current_time()
            try:
                response = await self._carried_out(attempt, access)
            except urllib3.exceptions.HTTPError as error:
                arrived = unreachable.may_have_arrived(error)
                if attempt.has_no_end and arrived and trio.current_time() - begun >= STOOD_S:
                    repetitions = 0
                delay = delay_s(repetitions) if unreachable.may_pass(error, reached=self._reached) else None
                if delay is None:
                    raise unreachable.failure(error, access.server, access.proxy, sent=repeated) from error
                repeated = repeated or arrived
            else:
                self._reached = True
                if response.status < 300:
                    self.credentials.interactive = False
                    return response, access
                if response.status < 400:
                    raise unreachable.redirected(access.server, response.headers.get("Location"))
                if response.status == 401 and not renewed:
                    renewed, access = True, await self.credentials.access(refused=access)
                    continue
                delay = delay_s(repetitions, response.status, response.headers.get("Retry-After"))
                if delay is None:
                    raise ApiRefusal.from_answer(attempt.request, response.status, response.data, repeated=repeated)
                repeated = repeated or response.status != 429
            await trio.sleep(delay)
            repetitions += 1
            access = await self.credentials.access()

    async def _carried_out(self, attempt: _Attempt, access: Access) -> urllib3.BaseHTTPResponse:
        """One attempt; where it is cancelled, what comes of it is closed."""
        lock = threading.Lock()
        cancelled = threading.Event()
        responses: list[urllib3.BaseHTTPResponse] = []

        def carry_out() -> urllib3.BaseHTTPResponse:
            response = attempt.carry_out(access)
            with lock:
                responses.append(response)
                if cancelled.is_set():
                    response.close()
            return response

        try:
            return await trio.to_thread.run_sync(carry_out, abandon_on_cancel=True, limiter=self._limiter)
        except trio.Cancelled:
            with lock:
                cancelled.set()
                for response in responses:
                    response.close()
            raise


@attrs.frozen
class _Attempt:
    request: Request
    method: str
    query: Query
    body: bytes | None
    content_type: str
    stream: bool = False
    silence_s: float | None = None

    @property
    def has_no_end(self) -> bool:
        """Whether the answer, and its head, may take any time to come."""
        return self.stream and self.silence_s is None

    def carry_out(self, access: Access) -> urllib3.BaseHTTPResponse:
        import urllib3

        path = self.request.resource.path(self.request.namespace, self.request.name)
        response = access.pools.urlopen(
            self.method,
            f"{access.server}{path}" + (f"?{urlencode(self.query)}" if self.query else ""),
            body=self.body,
            headers=self._headers(access),
            timeout=urllib3.Timeout(connect=_CONNECT_S, read=self.silence_s if self.stream else _ANSWER_S),
            retries=False,
            redirect=False,
            preload_content=not self.stream,
        )
        if response.status >= 300:
            # Read here what was not read yet; it is kept.
            _ = response.data
        return response

    def _headers(self, access: Access) -> Any:
        import urllib3

        headers = urllib3.HTTPHeaderDict({"Accept": "application/json, */*", "User-Agent": USER_AGENT})
        if self.body is not None:
            headers["Content-Type"] = self.content_type
        if not self.stream:
            headers["Accept-Encoding"] = "gzip"
        for name, value in access.headers():
            headers.add(name, value)
        return headers


def warning_texts(headers: Sequence[str]) -> list[str]:
    """The texts of Warning headers (RFC 7234, section 5.5), such as `299 - "would violate PodSecurity"`."""
    texts = []
    for header in headers:
        _, _, quoted = header.partition('"')
        text, _, _ = quoted.rpartition('"')
        texts.append(text.replace('\\"', '"').replace("\\\\", "\\"))
    return [text for text in texts if text]
