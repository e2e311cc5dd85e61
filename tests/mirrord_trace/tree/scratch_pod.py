"""A pod's files without a pod, for tests of copies: what is read can be denied, watched and interfered with."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import attrs

from mirrord_trace.remote_files import Entry, Looked, RemoteFiles
from mirrord_trace.reporting import Step
from tests.mirrord_trace.tree.scratch_files import ScratchFiles, ScratchHandle


@attrs.define(eq=False)
class ScratchPod(ScratchFiles):
    """`top` is the pod's root. What it is asked about paths is kept in `questions`."""

    questions: list[str] = attrs.field(factory=list)
    denied: set[bytes] = attrs.field(factory=set)
    """Paths that the target may not open."""
    before_read: Callable[[bytes, int], None] = lambda path, offset: None
    reading: int = 0
    reading_at_most: int = 0

    @property
    def files(self) -> RemoteFiles:
        return cast(RemoteFiles, self)

    def path(self, path: str) -> Path:
        """Where something of the pod is here."""
        return self.top / path.lstrip("/")

    def _check(self, path: bytes) -> None:
        if path in self.denied:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    async def look(self, path: bytes, *, follow: bool, content_limit: int = 0, known: int = 0) -> Looked:
        self.questions.append(f"look {path!r}")
        looked = await super().look(path, follow=follow, content_limit=content_limit, known=known)
        status = looked.result.status
        if content_limit and status is not None and stat.S_ISREG(status.mode) and looked.result.path in self.denied:
            return attrs.evolve(looked, content=None, content_errno=errno.EACCES)
        if looked.content == b"":  # its size says nothing
            return attrs.evolve(looked, content=None, content_errno=errno.EFBIG)
        return looked

    async def open(self, path: bytes, flags: int, mode: int = 0, mask: int = 0) -> WatchedHandle:
        self.questions.append(f"open {path!r}")
        self._check(path)
        handle = await super().open(path, flags, mode, mask)
        return WatchedHandle(self, handle.descriptor, handle.status, handle.seekable, path)

    async def list(self, path: bytes) -> AsyncIterator[tuple[Entry, ...]]:
        self.questions.append(f"list {path!r}")
        self._check(path)
        async for entries in super().list(path):
            yield tuple(
                attrs.evolve(entry, status=None) if path.rstrip(b"/") + b"/" + entry.name in self.denied else entry
                for entry in entries
            )

    async def access(self, path: bytes, mode: int) -> None:
        self._check(path)
        await super().access(path, mode)


@attrs.define(eq=False)
class WatchedHandle(ScratchHandle):
    path: bytes = b""

    async def read(self, offset: int, length: int) -> bytes:
        pod = cast(ScratchPod, self.files)
        pod.reading += 1
        pod.reading_at_most = max(pod.reading, pod.reading_at_most)
        try:
            pod.before_read(self.path, offset)
            return await super().read(offset, length)
        finally:
            pod.reading -= 1


class _Step:
    def detail(self, text: str) -> None:
        """Nobody looks."""

    def waiting(self, reason: str) -> None:
        """Nobody looks."""


@attrs.define(eq=False)
class Told:
    """A reporter that keeps what it was told."""

    warnings: list[str] = attrs.field(factory=list)
    notes: list[str] = attrs.field(factory=list)
    explanations: list[str] = attrs.field(factory=list)

    @contextmanager
    def step(self, text: str) -> Iterator[Step]:
        yield _Step()

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def explain(self, text: str) -> None:
        self.explanations.append(text)

    def ready(self) -> None:
        """No process here."""

    def close(self) -> None:
        """Nothing is drawn."""
