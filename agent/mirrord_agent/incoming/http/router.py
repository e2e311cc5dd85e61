"""Routes a connection of a client, whatever it speaks.

HTTP/2 is known by its client's preface, but some of its servers do not wait for that: gRPC's send their SETTINGS first.
So first words of the target that look like SETTINGS are kept until the client has spoken. All others are passed on at
once, as from any server that speaks first.
"""

from __future__ import annotations

from mirrord_agent.incoming.http.actions import Action, Router, Side
from mirrord_agent.incoming.http.filters import Filter
from mirrord_agent.incoming.http.http1 import Http1Router
from mirrord_agent.incoming.http.http2 import Http2Router
from mirrord_agent.incoming.http.http2_leg import PREFACE
from mirrord_agent.incoming.http.marks import Mark

#: The head of a SETTINGS frame (RFC 9113 section 6.5), the lower two bytes of its length left out.
_SETTINGS = b"\0??\4\0\0\0\0\0"
#: Most of the target's first words that are kept, in bytes.
_MAX_FIRST_WORDS = 16384


class ConnectionRouter:
    """Routes one connection, as `actions.Router` says. The target's connection is there already, or under way."""

    def __init__(self, accepts: Filter, mark: Mark | None = None) -> None:
        self._filter = accepts
        self._mark = mark
        self._router: Router | None = None
        self._client_said = b""
        self._target_said = b""
        self._target_is_unreachable = False

    @property
    def deadline(self) -> float | None:
        """When to call `expire`."""
        return None if self._router is None else self._router.deadline

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, or none is told from others any more."""
        return not self._client_said if self._router is None else self._router.is_idle

    def reads(self, side: Side) -> bool:
        """Whether bytes of this side are wanted now."""
        return True if self._router is None else self._router.reads(side)

    def receive(self, side: Side, data: bytes, now: float) -> list[Action]:
        """A side has sent this."""
        if self._router is not None:
            return self._router.receive(side, data, now)
        if side is Side.CLIENT:
            self._client_said += data
            if self._client_said.startswith(PREFACE):
                self._client_said = self._client_said[len(PREFACE) :]
                return self._begin(Http2Router(self._filter, self._mark), now)
            is_known = not PREFACE.startswith(self._client_said)
        else:
            self._target_said += data
            is_known = len(self._target_said) > _MAX_FIRST_WORDS or not _may_be_settings(self._target_said)
        return self._begin(Http1Router(self._filter, self._mark), now) if is_known else []

    def ended(self, side: Side, now: float, *, reset: bool = False) -> list[Action]:
        """A side sends no more, or has reset its connection."""
        if self._router is not None:
            return self._router.ended(side, now, reset=reset)
        router = Http1Router(self._filter, self._mark)
        return [*self._begin(router, now), *router.ended(side, now, reset=reset)]

    def unreachable(self, side: Side, now: float) -> list[Action]:
        """There is no connection to this side to be had."""
        if self._router is not None:
            return self._router.unreachable(side, now)
        self._target_is_unreachable = True
        return []

    def written(self, side: Side, amount: int, now: float) -> list[Action]:
        """So many bytes have gone out to this side."""
        return [] if self._router is None else self._router.written(side, amount, now)

    def expire(self, now: float) -> list[Action]:
        """The deadline has come."""
        return [] if self._router is None else self._router.expire(now)

    def _begin(self, router: Router, now: float) -> list[Action]:
        self._router = router
        actions = router.unreachable(Side.TARGET, now) if self._target_is_unreachable else []
        for side, data in ((Side.TARGET, self._target_said), (Side.CLIENT, self._client_said)):
            if data:
                actions += router.receive(side, data, now)
        self._client_said = self._target_said = b""
        return actions


def _may_be_settings(data: bytes) -> bool:
    return all(known in (ord("?"), byte) for byte, known in zip(data, _SETTINGS, strict=False))
