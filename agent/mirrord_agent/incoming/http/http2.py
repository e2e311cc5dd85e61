"""Routes one HTTP/2 connection of a client, stream by stream, between the target's process and the user's.

The client, the target and the process each have a connection of their own (a leg), with its own settings, pings and
numbers of streams. What passes between them is what streams are made of: headers in their order and with their
sensitivity, data, trailers, resets; data only as fast as it is taken at the other end. What the client must know of the
target is passed on: how many streams it takes, and that it goes away.

A server that does not speak HTTP/2 is known by its first bytes. Its streams are reset with HTTP_1_1_REQUIRED.
"""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    InformationalResponseReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from mirrord_agent.incoming.http.actions import BACKLOG_LIMIT, Action, Actions, Side
from mirrord_agent.incoming.http.filters import Filter, Headers
from mirrord_agent.incoming.http.http2_flows import Flow
from mirrord_agent.incoming.http.http2_judge import Judge
from mirrord_agent.incoming.http.http2_leg import LAST_OF_ALL, Failed, GoneAway, Heard, Leg, Windows
from mirrord_agent.incoming.http.http2_streams import Server, Stream
from mirrord_agent.incoming.http.marks import Mark

#: Bytes to be written to a side at which nothing is read that could add to them: headers, and answers to pings.
HARD_LIMIT = 1 << 20
#: What each may send ahead. The process is at the other end of a long line. A body to be looked into fits a stream's.
WINDOWS = {
    Side.CLIENT: Windows(128 << 10, 1 << 20),
    Side.TARGET: Windows(128 << 10, 1 << 20),
    Side.PROCESS: Windows(1 << 20, 4 << 20),
}

_CONTINUE = [(b":status", b"100")]


class Http2Router:
    """Routes one connection, as `actions.Router` says, from behind the client's preface.

    The target's connection is there already, or under way.
    """

    def __init__(self, accepts: Filter, mark: Mark | None = None) -> None:
        self._judge = Judge(accepts)
        self._mark = mark
        self._actions = Actions()
        self._client = Leg(is_client=False, windows=WINDOWS[Side.CLIENT])
        self._servers = {Side.TARGET: _new_server(Side.TARGET)}
        self._streams: dict[int, Stream] = {}
        """By the client's numbers."""
        self._waiting: dict[Side, dict[Stream, Flow]] = {side: {} for side in Side}
        """What has come for a side, and waits for room."""
        self._announced: tuple[int, bool] | None = None
        """What the client was told of the target's settings."""
        self._refuses = False
        """Whether the client was told that no more streams are taken."""
        self._client_has_ended = False
        self._is_done = False

    @property
    def deadline(self) -> float | None:
        """When the body of a request has been awaited long enough."""
        return None if self._is_done else self._judge.deadline

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._streams

    def reads(self, side: Side) -> bool:
        """Whether bytes of this side are wanted now."""
        if self._is_done:
            return False
        answered = [*self._servers, Side.CLIENT] if side is Side.CLIENT else [side, Side.CLIENT]
        return all(self._actions.backlog(other) < HARD_LIMIT for other in answered)

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """A side has sent this."""
        if self._is_done:
            return []
        server = self._servers.get(side)
        leg = self._leg(side)
        for event in leg.receive(data) if leg is not None else ():
            if server is None:
                self._hear_client(event, now)
            elif self._servers.get(side) is server:
                self._hear_server(server, event)
        return self._go_on()

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """A side sends no more, or has reset its connection."""
        if self._is_done:
            return []
        if side is not Side.CLIENT:
            self._lose(side, ErrorCodes.INTERNAL_ERROR)
        elif reset:
            self._close(reset=True)
        else:
            self._client_has_ended = True
            for stream in [stream for stream in self._streams.values() if not stream.upward.has_ended]:
                self._give_up(stream, ErrorCodes.CANCEL)
        return self._go_on()

    def unreachable(self, side: Side, now: float) -> list[Action]:
        """There is no connection to this side to be had."""
        server = self._servers.pop(side, None)
        for stream in list(server.streams.values()) if server is not None else ():
            # It has reached nobody: the client may ask again.
            self._break_off(stream, ErrorCodes.REFUSED_STREAM)
        return self._go_on()

    def written(self, side: Side, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to this side."""
        self._actions.written(side, amount)
        self._pump(side)
        return self._go_on()

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        for number in self._judge.overdue(now):
            self._look(self._streams[number], now)
        return self._go_on()

    def _leg(self, side: Side) -> Leg | None:
        server = self._servers.get(side)
        return self._client if side is Side.CLIENT else None if server is None else server.leg

    def _go_on(self) -> list[Action]:
        """Sends what there is, and closes the connection when it has served its purpose."""
        if not self._is_done:
            self._flush()
            is_left = self._refuses and Side.TARGET not in self._servers
            if not self._streams and (is_left or self._client_has_ended):
                self._close()
        return self._actions.take()

    def _flush(self) -> None:
        self._actions.send(Side.CLIENT, self._client.take())
        for side, server in self._servers.items():
            self._actions.send(side, server.leg.take())
        for notice in self._judge.notices:
            self._actions.notice(notice)
        self._judge.notices.clear()

    def _close(self, *, reset: bool = False) -> None:
        self._flush()
        for side in (Side.CLIENT, *self._servers):
            self._actions.close(side, reset=reset)
        self._servers.clear()
        self._is_done = True

    def _hear_client(self, event: Heard, now: float) -> None:
        stream = self._streams.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case RequestReceived(stream_id=number, headers=headers, stream_ended=end):
                self._begin(number, headers, end is not None, now)
            case DataReceived(stream_id=number, data=data, flow_controlled_length=cost, stream_ended=end):
                if stream is None or stream.upward.is_done:
                    self._client.acknowledge(number, cost)
                else:
                    stream.upward.add(data, cost, ends=end is not None)
                    self._continue(stream, now)
            case TrailersReceived(headers=headers) if stream is not None:
                stream.upward.add_trailers(headers)
                self._continue(stream, now)
            case StreamReset(error_code=code) if stream is not None:
                self._give_up(stream, code)
            case RemoteSettingsChanged() | WindowUpdated():
                self._pump(Side.CLIENT)
            case Failed():
                for open_stream in list(self._streams.values()):
                    self._give_up(open_stream, ErrorCodes.CANCEL)
                self._close()

    def _begin(self, number: int, headers: Headers, ends: bool, now: float) -> None:
        if self._refuses or not headers:
            self._client.reset(number, ErrorCodes.REFUSED_STREAM if headers else ErrorCodes.PROTOCOL_ERROR)
            return
        stream = self._streams[number] = Stream(number, headers, Flow(self._client, number, has_ended=ends))
        matches = self._judge.begin(number, headers, stream.upward, now)
        if matches is not None:
            self._route(stream, Side.PROCESS if matches else Side.TARGET)
        elif (b"expect", b"100-continue") in headers:
            self._client.send_headers(number, _CONTINUE, ends=False)
            stream.drops_continue = True

    def _continue(self, stream: Stream, now: float) -> None:
        """More of a request has come."""
        if self._judge.is_undecided(stream.number):
            self._look(stream, now)
        elif stream.server is not None:
            self._move(stream.server.side, stream, stream.upward)

    def _look(self, stream: Stream, now: float) -> None:
        matches = self._judge.look(stream.number, now)
        if matches is not None:
            self._route(stream, Side.PROCESS if matches else Side.TARGET)

    def _route(self, stream: Stream, side: Side) -> None:
        """Begins the stream at its server, or refuses it if that does not take it."""
        upward = stream.upward
        ends = upward.has_ended and not upward.held and not upward.trailers
        server = self._reach(side)
        number = server.leg.open_stream(stream.headers, ends=ends) if server is not None else None
        if server is None or number is None:
            self._break_off(stream, ErrorCodes.REFUSED_STREAM)
            return
        upward.is_done = ends
        stream.server, stream.server_number = server, number
        stream.downward = Flow(server.leg, number)
        server.streams[number] = stream
        server.is_used = True
        self._move(side, stream, upward)

    def _reach(self, side: Side) -> Server | None:
        """The server, unless it takes no more."""
        server = self._servers.get(side)
        if server is None:
            self._actions.open(side)
            server = self._servers[side] = _new_server(side)
        return None if server.is_leaving else server

    def _hear_server(self, server: Server, event: Heard) -> None:
        stream = server.streams.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case RemoteSettingsChanged():
                if server.side is Side.TARGET:
                    self._announce(server.leg)
                self._pump(server.side)
            case WindowUpdated():
                self._pump(server.side)
            case GoneAway():
                self._see_off(server, event)
            case Failed(reason, is_http2):
                self._actions.send(server.side, server.leg.take())
                self._actions.notice(f"the {server.side.name.lower()}'s HTTP/2 connection failed: {reason}")
                self._lose(server.side, ErrorCodes.INTERNAL_ERROR if is_http2 else ErrorCodes.HTTP_1_1_REQUIRED)
            case DataReceived(stream_id=number, flow_controlled_length=cost) if stream is None:
                server.leg.acknowledge(number, cost)
            case _ if stream is not None:
                self._hear_answer(server.side, stream, event)

    def _hear_answer(self, side: Side, stream: Stream, event: Heard) -> None:
        downward = stream.downward
        assert downward is not None
        match event:
            case ResponseReceived(headers=[]):
                self._client.reset(stream.number, ErrorCodes.PROTOCOL_ERROR)
                self._give_up(stream, ErrorCodes.PROTOCOL_ERROR)
            case InformationalResponseReceived(headers=headers):
                if not (stream.drops_continue and (b":status", b"100") in headers):
                    self._client.send_headers(stream.number, headers, ends=False)
            case ResponseReceived(headers=headers, stream_ended=end):
                mark = self._mark.header(side) if self._mark is not None else None
                marked = headers if mark is None else [*headers, mark]
                self._client.send_headers(stream.number, marked, ends=end is not None)
                downward.has_ended = downward.is_done = end is not None
                self._finish(stream)
            case DataReceived(data=data, flow_controlled_length=cost, stream_ended=end):
                downward.add(data, cost, ends=end is not None)
                self._move(Side.CLIENT, stream, downward)
            case TrailersReceived(headers=headers):
                downward.add_trailers(headers)
                self._move(Side.CLIENT, stream, downward)
            case StreamReset(error_code=code):
                self._detach(stream, code)

    def _announce(self, leg: Leg) -> None:
        settings = leg.max_streams, leg.allows_extended_connect
        if settings != self._announced:
            self._announced = settings
            self._client.announce(*settings)

    def _see_off(self, server: Server, word: GoneAway) -> None:
        """The server goes away, or says that it will."""
        for number, stream in list(server.streams.items()):
            if number > word.last_stream:
                self._break_off(stream, ErrorCodes.REFUSED_STREAM)
        if self._servers.get(server.side) is not server:
            return  # it had announced that it goes, and had nothing else
        is_final = word.last_stream != LAST_OF_ALL
        if not server.streams and is_final and (server.side is Side.PROCESS or not server.is_used):
            self._drop(server)
            return
        server.is_leaving |= is_final
        if server.side is Side.TARGET and server.is_used:
            if is_final:
                self._refuse_more(word.code)
            elif not self._refuses:
                self._client.go_away(LAST_OF_ALL, word.code)

    def _refuse_more(self, code: int) -> None:
        if not self._refuses:
            self._refuses = True
            self._client.go_away(self._client.last_stream, code)

    def _lose(self, side: Side, code: int) -> None:
        """A server's connection is over; the streams that it has not answered end with the code."""
        server = self._servers.get(side)
        if server is None:
            return
        self._drop(server)
        for stream in list(server.streams.values()):
            self._detach(stream, code)
        if side is Side.TARGET and server.is_used:
            self._refuse_more(ErrorCodes.NO_ERROR)

    def _drop(self, server: Server) -> None:
        del self._servers[server.side]
        self._waiting[server.side].clear()
        self._actions.close(server.side)

    def _detach(self, stream: Stream, code: int) -> None:
        """The server has broken the stream off. What it has answered in full still reaches the client."""
        if stream.downward is None or not stream.downward.has_ended:
            self._break_off(stream, code)
            return
        stream.upward.drop()
        stream.reset_at_end = code
        self._finish(stream)

    def _break_off(self, stream: Stream, code: int) -> None:
        """Ends a stream for the client; the server knows, or never knew."""
        self._client.reset(stream.number, code)
        self._forget(stream)

    def _give_up(self, stream: Stream, code: int) -> None:
        """Ends a stream for its server; the client knows."""
        if stream.server is not None and stream.server.side in self._servers:
            stream.server.leg.reset(stream.server_number, code)
        self._forget(stream)

    def _finish(self, stream: Stream) -> None:
        """Forgets a stream when both have said all."""
        if stream.upward.is_done and stream.downward is not None and stream.downward.is_done:
            if stream.reset_at_end is not None:
                self._client.reset(stream.number, stream.reset_at_end)
            self._forget(stream)

    def _forget(self, stream: Stream) -> None:
        for flow in (stream.upward, stream.downward):
            if flow is not None:
                flow.drop()
        for waiting in self._waiting.values():
            waiting.pop(stream, None)
        self._judge.forget(stream.number)
        del self._streams[stream.number]
        server = stream.server
        if server is not None:
            del server.streams[stream.server_number]
            is_over = server.is_leaving and not server.streams and server.side is Side.PROCESS
            if is_over and self._servers.get(server.side) is server:
                self._drop(server)

    def _move(self, side: Side, stream: Stream, flow: Flow) -> None:
        """Moves on what has come for a side."""
        if not flow.is_done:
            self._waiting[side][stream] = flow
            self._pump(side)

    def _pump(self, side: Side) -> None:
        """Moves on what waits for a side and has room, a frame of each stream in turn."""
        waiting = self._waiting[side]
        leg = self._leg(side)
        if leg is None:
            return
        turns = list(waiting.items())
        while turns:
            again = []
            for stream, flow in turns:
                room = BACKLOG_LIMIT - self._actions.backlog(side) - leg.waiting
                number = stream.number if side is Side.CLIENT else stream.server_number
                if flow.move(leg, number, room):
                    again.append((stream, flow))
                elif not flow.held:
                    waiting.pop(stream, None)
                    self._finish(stream)
            turns = again


def _new_server(side: Side) -> Server:
    return Server(side, Leg(is_client=True, windows=WINDOWS[side]))
