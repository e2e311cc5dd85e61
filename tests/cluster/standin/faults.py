"""What can go wrong with an API server, on demand.

A fault waits for requests that fit it: by verb, resource, namespace, name and user, each of which may be left open. It
strikes so many times, or always. The methods are for the test's thread; what they set up is carried out in the loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

import attrs
import trio

from mirrord_trace.cluster.resources import Resource

from .http import Connection, Dropped, Response
from .requests import Attributes
from .status import Refused
from .store import Store

T = TypeVar("T")


class InLoop(Protocol):
    """Runs a function in the stand-in's loop and returns its result."""

    def __call__(self, work: Callable[[], T], /) -> T:
        """Runs it."""
        ...


@attrs.frozen(kw_only=True)
class Match:
    """Which requests are meant; None for any."""

    verb: str | None = None
    resource: Resource | None = None
    namespace: str | None = None
    name: str | None = None
    user: str | None = None

    def fits(self, asked: Attributes) -> bool:
        """Whether a request is one of these."""
        pairs = (
            (self.verb, asked.verb),
            (self.resource, asked.resource),
            (self.namespace, asked.namespace),
            (self.name, asked.name),
            (self.user, asked.user),
        )
        return all(wanted in (None, found) for wanted, found in pairs)


ANY = Match()


@attrs.define(eq=False)
class Hold:
    """Requests that are kept waiting until the test lets them go on."""

    in_loop: InLoop
    reached: threading.Event = attrs.field(factory=threading.Event)
    """Set when the first request waits."""
    let_go: trio.Event = attrs.field(factory=trio.Event)

    def release(self) -> None:
        """Lets them go on, and those that come later."""
        self.in_loop(self.let_go.set)


@attrs.define(eq=False)
class _Fault:
    match: Match
    left: int | None
    """How often it will still strike; None for always."""
    delay_s: float = 0.0
    hold: Hold | None = None
    drop_before: bool = False
    drop_after: bool = False
    answer: Response | None = None


@attrs.define(eq=False)
class Faults:
    """The faults of one cluster."""

    in_loop: InLoop
    store: Store
    connections: set[Connection]
    _faults: list[_Fault] = attrs.field(factory=list)

    def delay(self, seconds: float, match: Match = ANY, *, times: int | None = None) -> None:
        """Requests are served so much later."""
        self._faults.append(_Fault(match, times, delay_s=seconds))

    def hold(self, match: Match = ANY, *, times: int | None = None) -> Hold:
        """Requests wait until they are released."""
        hold = Hold(self.in_loop)
        self._faults.append(_Fault(match, times, hold=hold))
        return hold

    def drop(self, match: Match = ANY, *, handled: bool = False, times: int | None = 1) -> None:
        """The connection ends in place of an answer; `handled`: only after the request was carried out."""
        self._faults.append(_Fault(match, times, drop_before=not handled, drop_after=handled))

    def answer(self, status: int, match: Match = ANY, *, retry_after_s: int | None = 1, times: int | None = 1) -> None:
        """Requests are answered with 429, or an error of the server's, and not carried out."""
        headers = [] if retry_after_s is None else [("retry-after", str(retry_after_s))]
        if status == 429:
            told = b"Too many requests, please try again later.\n"
            plain = [("content-type", "text/plain; charset=utf-8"), ("x-content-type-options", "nosniff")]
            response = Response(429, [*plain, *headers], told)
        else:
            reason, message = {
                500: ("InternalError", "Internal error occurred: etcdserver: leader changed"),
                503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
                504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
            }[status]
            body = Refused(status, reason, message, retry_after_s=retry_after_s).body
            response = Response.of(status, body, headers)
        self._faults.append(_Fault(match, times, answer=response))

    def clear(self) -> None:
        """Forgets the faults that still wait."""
        self._faults.clear()

    def cut(self, match: Match = ANY) -> int:
        """Ends the connections of requests that are being served, in the middle; returns how many."""
        return self.in_loop(partial(self._end, match, Connection.cut))

    def end_streams(self, match: Match = ANY) -> int:
        """Ends watches and logs that are being followed in good order, as at a timeout; returns how many."""
        return self.in_loop(partial(self._end, match, Connection.end_stream))

    def forget_versions(self, resource: Resource) -> None:
        """Versions until now are gone: a watch from one of them gets 410 (etcd has compacted its history)."""
        self.in_loop(partial(self.store.forget, resource))

    async def before(self, asked: Attributes) -> Response | None:
        """What happens to a request before it is served: an answer instead, or None. Raises Dropped."""
        for fault in self._striking(asked, lambda fault: not fault.drop_after):
            if fault.delay_s:
                await trio.sleep(fault.delay_s)
            if fault.hold is not None:
                fault.hold.reached.set()
                await fault.hold.let_go.wait()
            if fault.drop_before:
                raise Dropped
            if fault.answer is not None:
                return fault.answer
        return None

    def after(self, asked: Attributes) -> None:
        """What happens to a request that was served. Raises Dropped."""
        if self._striking(asked, lambda fault: fault.drop_after):
            raise Dropped

    def _striking(self, asked: Attributes, kind: Callable[[_Fault], bool]) -> list[_Fault]:
        striking = [fault for fault in self._faults if kind(fault) and fault.match.fits(asked) and fault.left != 0]
        for fault in striking:
            if fault.left is not None:
                fault.left -= 1
        return striking

    def _end(self, match: Match, how: Callable[[Connection], None]) -> int:
        ended = [one for one in self.connections if one.serving is not None and match.fits(one.serving)]
        for connection in ended:
            how(connection)
        return len(ended)
