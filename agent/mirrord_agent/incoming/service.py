"""A session's part in what is sent to its target: subscriptions, and what serves them.

The session's reader hands over what concerns them and never waits. Connections that arrive are streams of the session's
like those that the client opens. What serves subscriptions is loaded with the first of its kind: most sessions begin
without.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from mirrord_agent.incoming import families
from mirrord_agent.incoming.arrivals import Arrivals
from mirrord_agent.incoming.notices import Notices
from mirrord_agent.incoming.reserved import ReservedDescriptor
from mirrord_agent.incoming.subscriptions import Subscription
from mirrord_agent.link import Link
from mirrord_agent.streams import ByteStream, DatagramStream
from mirrord_agent.wire import WindowPool
from mirrord_agent.wire.frames import AddressFamily, Subscribe, Subscribed, Transport

if TYPE_CHECKING:
    from mirrord_agent.incoming.mirroring import Mirroring
    from mirrord_agent.incoming.stealing import Stealing

Key = tuple[Transport, int, AddressFamily]


class IncomingService:
    """The subscriptions of one session."""

    def __init__(
        self,
        link: Link,
        pool: WindowPool,
        owner: str,
        connections: dict[int, ByteStream],
        flows: dict[int, DatagramStream],
        start_task: Callable[..., None],
        start_keeper: Callable[..., None],
    ) -> None:
        """What arrives is added to `connections` and `flows`, where the session's reader finds it.

        `owner` says for people whose session it is, `start_task` starts a task of the session, `start_keeper` one that
        ends with `stop`.
        """
        self._link = link
        self._pool = pool
        self._flows = flows
        self._start_task = start_task
        self._start_keeper = start_keeper
        self._arrivals = Arrivals(link, connections)
        self._owner = owner
        self._reserved = ReservedDescriptor()
        self._stealing: Stealing | None = None
        self._mirroring: Mirroring | None = None
        self._taken: set[Key] = set()
        """Ports that there is a subscription to, or about to be."""
        self._subscriptions: dict[int, Subscription] = {}

    @property
    def count(self) -> int:
        """Subscriptions."""
        return len(self._subscriptions)

    @property
    def last_stream(self) -> int:
        """The number of the last stream that was opened from here."""
        return self._arrivals.last_stream

    async def subscribe(self, request: Subscribe) -> None:
        """Begins a subscription, and says so. Raises OSError, with words for the user."""
        await trio.lowlevel.checkpoint()
        keys = _keys(request)
        if keys & self._taken:
            raise OSError(errno.EADDRINUSE, "this session has subscribed to it already")
        self._taken |= keys
        try:
            subscription = self._read(request)
            if request.mode == "steal":
                await self._steal(subscription, flush=request.flush)
            else:
                self._mirror(subscription)
        except BaseException:
            self._taken -= keys
            raise
        self._subscriptions[request.stream] = subscription
        self._link.put_at_once(Subscribed(request.stream))

    def _read(self, request: Subscribe) -> Subscription:
        """Raises OSError."""
        accepts = None
        if request.filter is not None:
            from mirrord_agent.incoming.http.filters import FilterError, parse_filter  # loaded with the first filter

            if request.protocol != "tcp":
                raise OSError(errno.EINVAL, "a filter is of HTTP requests, which come by TCP")
            try:
                accepts = parse_filter(json.loads(request.filter))
            except (FilterError, ValueError, RecursionError) as error:
                raise OSError(errno.EINVAL, f"the filter is not understood: {error}") from error
        return Subscription(
            request.stream,
            request.port,
            request.protocol,
            request.family,
            request.mode,
            accepts,
            request.mark,
            Notices(self._link, request.stream),
        )

    async def _steal(self, subscription: Subscription, *, flush: bool) -> None:
        from mirrord_agent.incoming.stealing import Stealing

        if self._stealing is None:
            self._stealing = Stealing(
                self._link,
                self._pool,
                self._arrivals,
                self._owner,
                self._reserved,
                self._start_task,
                self._start_keeper,
            )
        if subscription.protocol == "tcp":
            await self._stealing.begin(subscription, flush=flush)
        else:
            flow = await self._stealing.begin_datagrams(subscription)
            self._flows[subscription.stream] = flow
            self._start_task(flow.run)

    def _mirror(self, subscription: Subscription) -> None:
        from mirrord_agent.incoming.mirroring import Mirroring

        if self._mirroring is None:
            self._mirroring = Mirroring(self._link, self._pool, self._arrivals)
            self._start_keeper(self._mirroring.run)
        if subscription.protocol == "tcp":
            self._mirroring.begin(subscription)
        else:
            self._flows[subscription.stream] = self._mirroring.begin_datagrams(subscription)

    def on_close(self, stream: int) -> bool:
        """The client wants nothing more of a subscription; False if the stream is none of one."""
        subscription = self._subscriptions.pop(stream, None)
        if subscription is None:
            return False
        is_tcp = subscription.protocol == "tcp"
        service = self._stealing if subscription.mode == "steal" else self._mirroring
        assert service is not None
        (service.end if is_tcp else service.end_datagrams)(subscription)
        if not is_tcp:
            self._flows.pop(stream).on_close()
        self._taken -= _keys(subscription)
        return True

    def stop(self) -> None:
        """Nothing more arrives; what has arrived lives on."""
        if self._stealing is not None:
            self._stealing.stop()
        if self._mirroring is not None:
            self._mirroring.close()

    def let_go(self) -> None:
        """The client has left in good order: what it said goes out, and nothing more is waited for."""
        if self._stealing is not None:
            self._stealing.let_go()

    async def drain(self) -> None:
        """Waits a moment for what was sent last to reach the target's clients."""
        if self._stealing is not None:
            await self._stealing.drain()

    def close(self) -> None:
        """Everything that has arrived is over."""
        self.stop()
        if self._stealing is not None:
            self._stealing.close()
        self._reserved.close()


def _keys(wish: Subscribe | Subscription) -> set[Key]:
    return {(wish.protocol, wish.port, family) for family in families.each(wish.family)}
