"""Gives the process those streams of a watched HTTP/2 connection that a filter matches."""

from __future__ import annotations

import attrs
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from mirrord_agent.incoming.http.actions import BACKLOG_LIMIT, Action, Actions, Side
from mirrord_agent.incoming.http.filters import Filter, Headers
from mirrord_agent.incoming.http.http2_flows import Flow
from mirrord_agent.incoming.http.http2_judge import Judge
from mirrord_agent.incoming.http.http2_leg import LAST_OF_ALL, Failed, GoneAway, Heard, Leg, Windows

#: Bytes that are kept for a process that takes them more slowly than they come. The stream that exceeds it is cut.
MAX_HELD = 4 << 20
#: What the process may answer ahead, though nobody listens.
_WINDOWS = Windows(1 << 20, 4 << 20)


@attrs.define(eq=False)
class _Copy:
    """A stream of the client's that the process has, or may get."""

    number: int
    """The client's."""
    headers: Headers
    flow: Flow
    process_number: int | None = None
    """The process's, once it has it."""
    is_answered: bool = False


class Http2Mirror:
    """Watches one connection, as `mirror.Mirror` says, from behind the client's preface."""

    def __init__(self, accepts: Filter) -> None:
        self._judge = Judge(accepts)
        self._actions = Actions()
        self._client = Leg.watching()
        self._process: Leg | None = None
        self._takes_more = True
        """Whether the process takes more streams on its connection."""
        self._copies: dict[int, _Copy] = {}
        """By the client's numbers."""
        self._of_process: dict[int, _Copy] = {}
        """By the process's numbers."""
        self._client_has_ended = False

    @property
    def deadline(self) -> float | None:
        """When the body of a request has been awaited long enough."""
        return self._judge.deadline

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """The client or the process has sent this."""
        if side is Side.CLIENT:
            for event in self._client.receive(data):
                self._hear_client(event, now)
        elif self._process is not None:
            process = self._process
            for event in process.receive(data):
                if self._process is process:
                    self._hear_process(process, event)
        return self._go_on()

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """The client or the process sends no more, or has reset its connection."""
        if side is Side.PROCESS:
            self._lose_process()
            return self._go_on()
        for copy in [copy for copy in self._copies.values() if reset or not copy.flow.has_ended]:
            self._cut(copy, ErrorCodes.CANCEL)
        self._client_has_ended = True
        return self._go_on()

    def unreachable(self, now: float) -> list[Action]:
        """There is no connection to the process to be had."""
        self._process = None
        self._lose_process()
        return self._go_on()

    def written(self, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to the process."""
        self._actions.written(Side.PROCESS, amount)
        self._pump()
        return self._go_on()

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        for number in self._judge.overdue(now):
            self._look(self._copies[number], now)
        return self._go_on()

    def _go_on(self) -> list[Action]:
        self._client.take()
        if self._process is not None:
            self._actions.send(Side.PROCESS, self._process.take())
        for notice in self._judge.notices:
            self._actions.notice(notice)
        self._judge.notices.clear()
        if self._client_has_ended and not self._copies:
            self._lose_process()
        return self._actions.take()

    def _hear_client(self, event: Heard, now: float) -> None:
        copy = self._copies.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case RequestReceived(stream_id=number, headers=headers, stream_ended=end):
                flow = Flow(self._client, number, has_ended=end is not None)
                copy = self._copies[number] = _Copy(number, headers, flow)
                self._settle(copy, self._judge.begin(number, headers, flow, now))
            case DataReceived(stream_id=number, flow_controlled_length=cost) if copy is None:
                self._client.acknowledge(number, cost)
            case DataReceived(data=data, flow_controlled_length=cost, stream_ended=end) if copy is not None:
                copy.flow.add(data, cost, ends=end is not None)
                self._continue(copy, now)
            case TrailersReceived(headers=headers) if copy is not None:
                copy.flow.add_trailers(headers)
                self._continue(copy, now)
            case StreamReset(error_code=code) if copy is not None:
                self._cut(copy, code)
            case Failed(reason):
                for copy in list(self._copies.values()):
                    self._cut(copy, ErrorCodes.CANCEL)
                self._actions.notice(f"an HTTP/2 connection cannot be mirrored any further: {reason}")
        ended = getattr(event, "stream_ended", None)
        if ended is not None and ended.stream_id not in self._copies:
            self._close_unanswered(ended.stream_id)

    def _close_unanswered(self, number: int) -> None:
        """Closes a stream, which its answer would do if that could be seen."""
        self._client.reset(number, ErrorCodes.NO_ERROR)

    def _continue(self, copy: _Copy, now: float) -> None:
        if self._judge.is_undecided(copy.number):
            self._look(copy, now)
        else:
            self._pump()
        if sum(len(each.flow.held) for each in self._copies.values()) > MAX_HELD:
            self._actions.notice("a mirrored HTTP/2 stream was cut: the process takes it more slowly than it comes")
            self._cut(copy, ErrorCodes.CANCEL)

    def _look(self, copy: _Copy, now: float) -> None:
        self._settle(copy, self._judge.look(copy.number, now))

    def _settle(self, copy: _Copy, matches: bool | None) -> None:
        """Gives the process a stream that matches."""
        if matches is None:
            return
        if not matches or not copy.headers:
            self._forget(copy)
            return
        if self._process is None:
            self._actions.open(Side.PROCESS)
            self._process, self._takes_more = Leg(is_client=True, windows=_WINDOWS), True
        flow = copy.flow
        ends = flow.has_ended and not flow.held and not flow.trailers
        number = self._process.open_stream(copy.headers, ends=ends) if self._takes_more else None
        if number is None:
            self._actions.notice("a mirrored HTTP/2 stream was left out: the process takes no more of them now")
            self._forget(copy)
            return
        flow.is_done = ends
        copy.process_number = number
        self._of_process[number] = copy
        self._pump()

    def _hear_process(self, process: Leg, event: Heard) -> None:
        match event:
            case DataReceived(stream_id=number, flow_controlled_length=cost):
                process.acknowledge(number, cost)
            case RemoteSettingsChanged() | WindowUpdated():
                self._pump()
            case StreamReset(stream_id=number) if number in self._of_process:
                self._forget(self._of_process[number])
            case StreamEnded(stream_id=number) if number in self._of_process:
                copy = self._of_process[number]
                copy.is_answered = True
                if copy.flow.is_done:
                    self._forget(copy)
            case GoneAway(last_stream):
                self._takes_more = last_stream == LAST_OF_ALL
                for number, copy in list(self._of_process.items()):
                    if number > last_stream:
                        self._forget(copy)
            case Failed(reason):
                self._actions.notice(f"the process's HTTP/2 connection failed: {reason}")
                self._actions.send(Side.PROCESS, process.take())
                self._lose_process()

    def _pump(self) -> None:
        """Moves on what waits for the process and has room, a frame of each stream in turn."""
        turns = list(self._of_process.values())
        while turns and self._process is not None:
            again = []
            for copy in turns:
                assert copy.process_number is not None
                room = BACKLOG_LIMIT - self._actions.backlog(Side.PROCESS) - self._process.waiting
                if copy.flow.move(self._process, copy.process_number, room):
                    again.append(copy)
                elif copy.flow.is_done and copy.is_answered:
                    self._forget(copy)
            turns = again

    def _cut(self, copy: _Copy, code: int) -> None:
        """Ends a stream before its end."""
        if self._process is not None and copy.process_number is not None:
            self._process.reset(copy.process_number, code)
        self._forget(copy)

    def _lose_process(self) -> None:
        """Its connection is over; the next stream may have another."""
        if self._process is not None:
            self._actions.close(Side.PROCESS)
        self._process = None
        for copy in list(self._of_process.values()):
            self._forget(copy)

    def _forget(self, copy: _Copy) -> None:
        """What follows of the stream is nobody's."""
        copy.flow.drop()
        if copy.flow.has_ended:
            self._close_unanswered(copy.number)
        self._judge.forget(copy.number)
        self._copies.pop(copy.number, None)
        if copy.process_number is not None:
            self._of_process.pop(copy.process_number, None)
