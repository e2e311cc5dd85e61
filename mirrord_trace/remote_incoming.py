"""What comes to the target, as the client asks for it: subscriptions to ports, and the streams that the agent opens.

`Session.incoming` is the one of its session, whose reader calls the `on_…` methods; those never block.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from mirrord_agent.wire import ProtocolError, frames
from mirrord_agent.wire.frames import AddressFamily, Frame, IncomingMode, InetEndpoint
from mirrord_trace.remote import RemoteDatagrams, RemoteStream
from mirrord_trace.remote_listener import RemoteListener
from mirrord_trace.session_link import SessionLink
from mirrord_trace.session_requests import Requests

OPEN_AT_MOST: Final = 4096
"""So many connections that have come to the target may be open at a time. The agent takes no more either."""

Tell = Callable[[str], None]
_Subscription = TypeVar("_Subscription", RemoteListener, RemoteDatagrams)


class RemoteIncoming:
    """The subscriptions of one session."""

    def __init__(
        self,
        link: SessionLink,
        requests: Requests,
        *,
        is_served: bool,
        add_stream: Callable[[int, InetEndpoint, InetEndpoint], RemoteStream],
        add_flow: Callable[[int, RemoteDatagrams], None],
        forget: Callable[[int], None],
    ) -> None:
        """`is_served` says whether the agent has this feature; the others make streams and flows known, and forget."""
        self._link = link
        self._requests = requests
        self._is_served = is_served
        self._add_stream = add_stream
        self._add_flow = add_flow
        self._forget_stream = forget
        self._opening: dict[int, Callable[[int], RemoteListener | RemoteDatagrams]] = {}
        """What is opened when a subscription begins."""
        self._listeners: dict[int, RemoteListener] = {}
        self._tellers: dict[int, Tell] = {}
        """Who is told of notices about a subscription."""
        self._last_arrived = 0
        self._open: set[int] = set()

    async def subscribe(
        self,
        port: int,
        mode: IncomingMode,
        tell: Tell,
        *,
        http_filter: str | None = None,
        flush: bool = False,
        mark: bool = False,
        family: AddressFamily | None = None,
    ) -> RemoteListener:
        """Has the connections to a TCP port of the target come here from now on; see `frames.Subscribe`.

        `tell` is called with what the user should know of it, in words. Raises OSError (EADDRINUSE, EPERM, EOPNOTSUPP,
        EINVAL) with the reason in words, SessionLost.
        """
        make = partial(
            frames.Subscribe,
            port=port,
            protocol="tcp",
            mode=mode,
            filter=http_filter,
            flush=flush,
            mark=mark,
            family=family,
        )
        return await self._subscribe(make, self._open_listener, RemoteListener, tell)

    async def subscribe_datagrams(
        self, port: int, mode: IncomingMode, tell: Tell, *, family: AddressFamily | None = None
    ) -> RemoteDatagrams:
        """Has the datagrams to a UDP port of the target come here, too; only on a stolen port can they be answered.

        Raises as `subscribe` does.
        """
        make = partial(
            frames.Subscribe,
            port=port,
            protocol="udp",
            mode=mode,
            filter=None,
            flush=False,
            mark=False,
            family=family,
        )
        return await self._subscribe(make, partial(self._open_flow, port), RemoteDatagrams, tell)

    async def _subscribe(
        self,
        make: Callable[[int], Frame],
        opening: Callable[[int], RemoteListener | RemoteDatagrams],
        expected: type[_Subscription],
        tell: Tell,
    ) -> _Subscription:
        if not self._is_served:
            raise OSError(errno.EOPNOTSUPP, "the agent is older than this client, and has no part for it")
        request = self._requests.start(make)
        self._opening[request.stream] = opening
        self._tellers[request.stream] = tell
        try:
            return await self._requests.finish(request, expected)
        except BaseException:
            self._tellers.pop(request.stream, None)
            raise
        finally:
            self._opening.pop(request.stream, None)

    def _open_listener(self, stream: int) -> RemoteListener:
        listener = self._listeners[stream] = RemoteListener(self._link, stream, self._forget_stream)
        return listener

    def _open_flow(self, port: int, stream: int) -> RemoteDatagrams:
        flow = RemoteDatagrams(self._link, stream, InetEndpoint("::", port), None, self._forget_stream)
        self._add_flow(stream, flow)
        return flow

    # What the session says.

    def check_known(self, stream: int) -> None:
        """Raises ProtocolError for a stream that the agent has never opened."""
        if not 0 < stream <= self._last_arrived:
            raise ProtocolError(f"a frame of stream {stream}, which was never opened")

    def forget(self, stream: int) -> None:
        """A listener, or a stream that the agent has opened, is over."""
        self._open.discard(stream)
        self._listeners.pop(stream, None)
        self._tellers.pop(stream, None)

    def wake(self) -> None:
        """The session is lost: those who wait should look."""
        for listener in self._listeners.values():
            listener.wake()

    # What the agent says.

    def on_subscribed(self, frame: frames.Subscribed) -> None:
        """A subscription begins, and opens what is there from here on. Raises ProtocolError."""
        request = self._requests.pending(frame.stream)
        if request is not None:
            opening = self._opening.get(frame.stream)
            if opening is None:
                raise ProtocolError(f"request {frame.stream} was no subscription")
            request.finish(opening(frame.stream))

    def on_arrived(self, frame: frames.Arrived) -> None:
        """A connection has come. Raises ProtocolError."""
        if frame.stream != self._last_arrived + 2:
            raise ProtocolError(f"the agent opened stream {frame.stream} after {self._last_arrived}")
        self._last_arrived = frame.stream
        self._requests.check_known(frame.subscription)
        stream = self._add_stream(frame.stream, frame.local, frame.peer)
        listener = self._listeners.get(frame.subscription)
        if listener is None or len(self._open) >= OPEN_AT_MOST:  # closed meanwhile; or ends are still on their way
            stream.reset()
        else:
            self._open.add(frame.stream)
            listener.on_arrived(stream)

    def on_notice(self, frame: frames.Notice) -> None:
        """Something that the user should know. Raises ProtocolError."""
        self._requests.check_known(frame.stream)
        tell = self._tellers.get(frame.stream)
        if tell is not None:
            tell(frame.message)
