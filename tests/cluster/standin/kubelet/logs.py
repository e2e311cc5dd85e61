"""What containers write, kept in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import trio

_PIECE = 65536


class Log:
    """One container's output, both streams together, from its start to its end."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._news = trio.Event()
        self._ended = False

    async def take(self, descriptor: int) -> None:
        """Reads a pipe to its end, and closes it."""
        async with trio.lowlevel.FdStream(descriptor) as pipe:
            while piece := await pipe.receive_some(_PIECE):
                self._pieces.append(piece)
                self._announce()
        self.end()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._announce()

    async def read(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """What has been written, and with `follow` also what will be."""
        position = 0
        while True:
            news = self._news
            while position < len(self._pieces):
                piece = self._pieces[position]
                position += 1
                yield piece
            if self._ended or not follow:
                return
            if news is self._news:
                await news.wait()

    def _announce(self) -> None:
        self._news.set()
        self._news = trio.Event()
