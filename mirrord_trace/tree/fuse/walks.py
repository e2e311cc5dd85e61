"""Walks that the agent was asked for before the kernel has asked us.

A call that only examines a path of the tree is made while the walk along that path is still under way. What the kernel
asks for meanwhile waits for the walk if that comes by there. So the kernel and the agent are busy at the same time, and
Trio's thread is not woken to let the call go on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs

from mirrord_trace.remote_files import Looked, RemoteFiles
from mirrord_trace.session_requests import Request
from mirrord_trace.tree.known import Fact, Known

_AT_MOST = 64
"""So many are under way: each may have one of the kernel's requests wait, and there must be some to answer others."""


@attrs.define(eq=False)
class Walks:
    """Those that are under way, by their paths (b"" for the root)."""

    files: RemoteFiles
    known: Known
    _under_way: dict[bytes, Request] = attrs.field(factory=dict)

    def begin(self, path: bytes, *, follow: bool, content_limit: int, learned: Callable[[Looked, Fact], None]) -> bool:
        """Has the agent walk along `path`, from any thread; False where it cannot be asked just now.

        `learned` is called in Trio's thread once what it showed is known.
        """
        if path in self._under_way:
            return True
        if len(self._under_way) >= _AT_MOST:
            return False
        end = partial(self._end, path, follow, self.known.clock(), learned)

        def begun(request: Request) -> None:
            request.on_answered = partial(end, request)
            self._under_way[path] = request

        asked = self.files.ask_ahead(
            path or b"/",
            follow=follow,
            content_limit=content_limit,
            known=self.known.led_down(path),
            begun=begun,
        )
        return asked is not None

    async def coming_by(self, path: bytes) -> bool:
        """Waits for a walk that comes by `path`, if there is one: what it showed is known then.

        Only one that ends there counts for the root, of which others tell nothing.
        """
        request = self._under_way.get(path) or (self._longer(path + b"/") if path else None)
        if request is None:
            return False
        await request.answered.wait()
        return True

    def _longer(self, beginning: bytes) -> Request | None:
        for path, request in tuple(self._under_way.items()):  # another thread may begin one
            if path.startswith(beginning):
                return request
        return None

    def _end(
        self,
        path: bytes,
        follow: bool,
        since_s: float,
        learned: Callable[[Looked, Fact], None],
        request: Request,
    ) -> None:
        del self._under_way[path]
        try:
            looked = self.files.look_that_came(request)
        except OSError:
            return  # who waits for it asks himself, and is told
        learned(looked, self.known.learn(path or b"/", looked, follow=follow, since_s=since_s))
