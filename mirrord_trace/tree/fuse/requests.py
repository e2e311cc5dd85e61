"""Taking the kernel's requests from /dev/fuse without ever waiting for one in the wrong place.

pyfuse3 waits in Trio until /dev/fuse is readable, and then reads it. But what made it readable may be gone by then: the
kernel takes a request back when its task is killed, and the news that one is interrupted when it is answered. The read
would then wait for the next request, in the kernel, with the interpreter's lock held: nothing of us would go on, and a
traced task, say, that is to be let go on by us could never make that request.

So /dev/fuse does not block, and is asked once more before it is read, when nobody of ours can come in between. If it is
empty all the same, pyfuse3 ends that task with EAGAIN, and we begin it anew. All this goes through the name `trio` in
pyfuse3's module, which it has its own asyncio support replace in the same way.
"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pyfuse3
import trio


async def serve_requests(min_tasks: int, max_tasks: int) -> None:
    """Serves the mounted file system until it is unmounted. Raises OSError, in a group, when it cannot be read."""
    pyfuse3.trio = _Trio()  # type: ignore[attr-defined]
    await pyfuse3.main(min_tasks, max_tasks)


class _Lowlevel:
    """`trio.lowlevel`, but for how it waits."""

    def __init__(self) -> None:
        self._poll = select.poll()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)

    async def wait_readable(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._poll.register(descriptor, select.POLLIN)
        await trio.lowlevel.wait_readable(descriptor)
        while not self._poll.poll(0):
            await trio.lowlevel.wait_readable(descriptor)


@attrs.frozen
class _Nursery:
    """A nursery for tasks that read requests."""

    nursery: trio.Nursery

    def start_soon(self, function: Callable[..., Awaitable[None]], *arguments: Any, name: str) -> None:
        self.nursery.start_soon(_run, function, *arguments, name=name)


class _Trio:
    """`trio`, as pyfuse3 is to see it."""

    def __init__(self) -> None:
        self.lowlevel = _Lowlevel()

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    @asynccontextmanager
    async def open_nursery(self) -> AsyncIterator[_Nursery]:
        async with trio.open_nursery() as nursery:
            yield _Nursery(nursery)


async def _run(function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    while True:
        try:
            return await function(*arguments)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                raise
