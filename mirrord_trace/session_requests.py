"""The requests of a session that are under way.

A request is started, which never waits, and finished, which waits for its answer; so several can be under way for one
task. Who no longer wants the answer abandons it: whatever the request opened, or is about to open, goes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar

import trio

from mirrord_agent.wire import ProtocolError, frames
from mirrord_agent.wire.file_frames import FileAnswer, FileOpened, Listed
from mirrord_agent.wire.frames import Frame
from mirrord_trace.remote import RemoteDatagrams, RemoteStream
from mirrord_trace.remote_listener import RemoteListener
from mirrord_trace.session_link import SessionLink, SessionLost

AnswerFrame = frames.Done | frames.Failed | FileAnswer
_Outcome = AnswerFrame | RemoteStream | RemoteDatagrams | RemoteListener
_Answer = TypeVar("_Answer")


def _nothing() -> None:
    """Nobody is to be told."""


class Request:
    """A request under way: what of its answer has come."""

    def __init__(self, stream: int, limit_bytes: int) -> None:
        self.stream = stream
        self.limit_bytes = limit_bytes
        """Most bytes that its parts may have together."""
        self.parts: list[bytes] = []
        self.length = 0
        self.answer: _Outcome | None = None
        """None until it is there, and when the session was lost before."""
        self.answered = trio.Event()
        self.on_answered: Callable[[], None] = _nothing
        """Called in Trio's thread when `answered` is set."""

    def finish(self, answer: _Outcome | None) -> None:
        """The answer is complete; None when the session is lost."""
        self.answer = answer
        self.answered.set()
        self.on_answered()


class Requests:
    """All requests of a session. Streams are numbered here."""

    def __init__(self, link: SessionLink) -> None:
        self._link = link
        self._next_stream = 1
        self._under_way: dict[int, Request] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def start(self, make: Callable[[int], Frame], limit_bytes: int = 0) -> Request:
        """Sends a request; `make` gives its frame for a stream. Raises SessionLost."""
        self._link.check()
        with self._link.lock:
            request, frame = self._begin(make, limit_bytes)
            self._link.put_at_once(frame)
        return request

    def start_from_any_thread(
        self, make: Callable[[int], Frame], begun: Callable[[Request], None] | None = None
    ) -> Request | None:
        """Sends a request now, or not at all: then somebody else is sending, or much waits to be sent.

        `begun` gets it before its answer can come.
        """
        requests: list[Request] = []

        def begin() -> Frame:
            request, frame = self._begin(make, 0)
            requests.append(request)
            if begun is not None:
                begun(request)
            return frame

        return requests[0] if self._link.send_from_any_thread(begin) else None

    def _begin(self, make: Callable[[int], Frame], limit_bytes: int) -> tuple[Request, Frame]:
        """A request and its frame, which must be sent in the order of their numbers."""
        stream = self._next_stream
        frame = make(stream)
        request = self._under_way[stream] = Request(stream, limit_bytes)
        self._next_stream += 2
        return request, frame

    async def finish(self, request: Request, expected: type[_Answer]) -> _Answer:
        """Waits for a request's answer, which must be of the expected class. Abandons it when cancelled.

        Raises OSError with the pod's errno, SessionLost.
        """
        try:
            if not request.answered.is_set():
                await request.answered.wait()
        except BaseException:
            self.abandon(request)
            raise
        return self.outcome(request, expected)

    def outcome(self, request: Request, expected: type[_Answer]) -> _Answer:
        """The answer of a request that is `answered`, which must be of the expected class.

        Raises OSError with the pod's errno, SessionLost.
        """
        self._under_way.pop(request.stream, None)
        answer = request.answer
        if isinstance(answer, expected):
            return answer
        if isinstance(answer, frames.Failed):
            raise OSError(answer.errno, answer.message)
        raise SessionLost(self._link.loss_reason or "the agent is gone")

    def abandon(self, request: Request) -> None:
        """The answer is no longer wanted: whatever the request opened, or is about to open, goes."""
        if self._under_way.pop(request.stream, None) is None:
            return
        match request.answer:
            case RemoteStream() as opened:
                opened.reset()
            case RemoteDatagrams() | RemoteListener() as opened:
                opened.close()
            case FileOpened() | Listed(last=False):
                self._link.put(frames.Close(request.stream))
            case None:
                self._link.put(frames.Reset(request.stream, errno.ECANCELED))

    def tell(self, frame: Frame) -> None:
        """Sends a frame that has no answer."""
        self._link.put(frame)

    # What the agent says.

    def check_known(self, stream: int) -> None:
        """Raises ProtocolError for a stream that never was; frames of one that is over are to be ignored."""
        if stream >= self._next_stream or stream % 2 == 0:
            raise ProtocolError(f"a frame of stream {stream}, which was never opened")

    def pending(self, stream: int) -> Request | None:
        """The request that a frame answers, or None for one that is no longer waited for. Raises ProtocolError."""
        self.check_known(stream)
        request = self._under_way.get(stream)
        if request is not None and request.answer is not None:
            raise ProtocolError(f"a second answer to request {stream}")
        return request

    def on_part(self, frame: frames.Part) -> None:
        """A piece of an answer. Raises ProtocolError when there are more than were asked for."""
        request = self.pending(frame.stream)
        if request is not None:
            request.length += len(frame.payload)
            if request.length > request.limit_bytes:
                raise ProtocolError(f"{request.length} bytes in answer to a request for {request.limit_bytes}")
            request.parts.append(frame.payload)

    def on_answer(self, frame: AnswerFrame) -> None:
        """An answer, or its end. Raises ProtocolError."""
        request = self.pending(frame.stream)
        if request is not None:
            request.finish(frame)

    def lose(self) -> None:
        """The session is lost: nobody gets an answer any more."""
        for request in tuple(self._under_way.values()):
            if request.answer is None:
                request.finish(None)
