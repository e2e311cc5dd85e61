"""What is known of the pod's paths, for as long as it counts.

Facts are kept by directory and name, both real: before the last component there are no links. `leads_to` and `lies_at`
are for paths with links on the way. All of it is only ever replaced, never awaited, so other threads may look too.
What is too much is dropped: a fact that is gone costs a round trip, no more.
"""

from __future__ import annotations

import errno
import math
import stat
import time
from collections import deque
from collections.abc import Callable

import attrs

from mirrord_trace.remote_files import Looked, Status
from mirrord_trace.tree.base import LIFETIME_S

FACTS_AT_MOST = 131_072
CONTENTS_AT_MOST_BYTES = 32 << 20
_CHANGED_AT_MOST = 4096
_CONTENT_LIFETIME_S = 30.0
"""How long content is kept that may turn out to be still the same."""
_UNSETTLED_NS = 3_000_000_000
"""A file changed so recently may change again without its times telling: they advance in steps, and clocks differ."""


@attrs.define(eq=False)
class Fact:
    """What is known of one path, the link itself if it is one."""

    status: Status | None
    """None: there is none, and `errno` says why."""
    errno: int
    target: bytes | None
    """What a symbolic link says, if that is known."""
    since_s: float
    """When it was asked for, by the clock of `Known`."""
    content: bytes | None = None
    """All of a small regular file, read together with the status."""
    content_errno: int = 0
    """Why it could not be opened for reading."""


def version_of(status: Status) -> tuple[int, int, int, int]:
    """What differs when a regular file's content differs."""
    return status.mtime_ns, status.ctime_ns, status.size, status.ino


def is_settled(status: Status) -> bool:
    """Whether a file's version tells its contents apart: it was not changed just now."""
    age_ns = time.time_ns() - max(status.mtime_ns, status.ctime_ns)
    return abs(age_ns) > _UNSETTLED_NS


def split(path: bytes) -> tuple[bytes, bytes]:
    """An absolute path's directory, b"" for the root, and its last component."""
    directory, _, name = path.rpartition(b"/")
    return directory, name


@attrs.define(eq=False)
class Known:
    """Everything that is known."""

    clock: Callable[[], float] = time.monotonic
    _directories: dict[bytes, dict[bytes, Fact]] = attrs.field(factory=dict)
    _count: int = 0
    _leads: dict[bytes, tuple[bytes, float]] = attrs.field(factory=dict)
    _lies: dict[bytes, tuple[bytes, float]] = attrs.field(factory=dict)
    _with_content: deque[Fact] = attrs.field(factory=deque)
    _content_bytes: int = 0
    _changed_s: dict[bytes, float] = attrs.field(factory=dict)
    """When something was last changed in a directory, as far as that is later than `_all_changed_s`."""
    _all_changed_s: float = -math.inf

    def remaining_s(self, fact: Fact) -> float:
        """How long a fact still counts, seconds; 0 if it does not."""
        return max(0.0, fact.since_s + LIFETIME_S - self.clock())

    def fact(self, path: bytes) -> Fact | None:
        """What is known of a path that has no links before its last component."""
        return self.entry(*split(path))

    def entry(self, directory: bytes, name: bytes) -> Fact | None:
        """The same, by directory (b"" for the root) and name."""
        fact = self.last_entry(directory, name)
        return fact if fact is not None and self.clock() - fact.since_s < LIFETIME_S else None

    def last_fact(self, path: bytes) -> Fact | None:
        """What was last known of a path, however old it is."""
        return self.last_entry(*split(path))

    def last_entry(self, directory: bytes, name: bytes) -> Fact | None:
        """The same, by directory and name."""
        entries = self._directories.get(directory)
        return None if entries is None else entries.get(name)

    def led_down(self, path: bytes) -> int:
        """How many bytes at the beginning of `path` lead to a directory that is known, without links on the way."""
        length = path.rfind(b"/")
        while length > 0:
            fact = self.fact(path[:length])
            if fact is not None and fact.status is not None and stat.S_ISDIR(fact.status.mode):
                return length
            length = path.rfind(b"/", 0, length)
        return 0

    def followed(self, path: bytes) -> Fact | None:
        """What is known of what a path leads to: if the way there ends early, of where it ends."""
        fact = self.fact(path)
        if fact is not None and (fact.status is None or not stat.S_ISLNK(fact.status.mode)):
            return fact
        return self._elsewhere(self._leads.get(path))

    def itself(self, path: bytes) -> Fact | None:
        """What is known of what lies at a path; links on the way are followed, one at its end is not."""
        return self.fact(path) or self._elsewhere(self._lies.get(path))

    def _elsewhere(self, place: tuple[bytes, float] | None) -> Fact | None:
        if place is None or self.clock() - place[1] >= LIFETIME_S:
            return None
        return self.fact(place[0])

    def learn(self, path: bytes, looked: Looked, *, follow: bool, since_s: float) -> Fact:
        """Takes in what a walk along `path` has shown, which was asked for at `since_s`. Returns what it ended with."""
        for step in looked.visited[:-1]:
            self.put(*split(step.path), Fact(step.status, step.errno, step.target, since_s))
        result = looked.result
        fact = Fact(result.status, result.errno, result.target, since_s)
        fact.content_errno = looked.content_errno if looked.content_errno != errno.EFBIG else 0
        self.put(*split(result.path), fact)
        if looked.content is not None:
            self._keep_content(fact, looked.content)
        if result.path != path:
            places = self._leads if follow else self._lies
            if len(places) >= FACTS_AT_MOST:
                places.clear()
            places[path] = result.path, since_s
        return fact

    def put(self, directory: bytes, name: bytes, fact: Fact) -> None:
        """Takes in what is known of one path, unless it was asked for before something changed there.

        Content that is known stays known while the file is the same.
        """
        if fact.since_s < self._changed_s.get(directory, self._all_changed_s):
            return
        if self._count >= FACTS_AT_MOST:
            self._make_room()
        entries = self._directories.get(directory)
        if entries is None:
            entries = self._directories[directory] = {}
        before = entries.get(name)
        if before is None:
            self._count += 1
        elif before.content is not None:
            content, before.content = before.content, None
            self._content_bytes -= len(content)
            status, old = fact.status, before.status
            if status is not None and old is not None and version_of(status) == version_of(old) and is_settled(status):
                self._keep_content(fact, content)
        entries[name] = fact

    def replace(self, directory: bytes, name: bytes, status: Status, asked_s: float) -> None:
        """What we have changed ourselves: this is its status, unless something else changed there since `asked_s`."""
        is_last = asked_s >= self._changed_s.get(directory, self._all_changed_s)
        self.forget(directory + b"/" + name)
        if is_last:
            self.put(directory, name, Fact(status, 0, None, self.clock()))

    def forget(self, path: bytes) -> None:
        """Something else is there now."""
        self._leads.clear()
        self._lies.clear()
        self.forget_status(path)

    def forget_status(self, path: bytes) -> None:
        """The same file is there, but it has changed. What was asked for before does not count."""
        directory, name = split(path)
        entries = self._directories.get(directory)
        fact = None if entries is None else entries.pop(name, None)
        if fact is not None:
            self._count -= 1
            self._drop_content(fact)
        if len(self._changed_s) >= _CHANGED_AT_MOST:
            self._changed_everywhere()
        self._changed_s[directory] = self.clock()

    def forget_below(self, path: bytes) -> None:
        """Something else is there now, and what was below it is somewhere else."""
        self.forget(path)
        below = path + b"/"
        for directory in [known for known in self._directories if known == path or known.startswith(below)]:
            self._drop(directory)
        self._changed_everywhere()

    def _changed_everywhere(self) -> None:
        self._changed_s.clear()
        self._all_changed_s = self.clock()

    def _keep_content(self, fact: Fact, content: bytes) -> None:
        self._drop_content(fact)
        fact.content = content
        self._content_bytes += len(content)
        self._with_content.append(fact)
        oldest = self._with_content[0]
        while (
            oldest.content is None
            or self._content_bytes > CONTENTS_AT_MOST_BYTES
            or fact.since_s - oldest.since_s > _CONTENT_LIFETIME_S
        ):
            self._drop_content(self._with_content.popleft())
            oldest = self._with_content[0]

    def _drop_content(self, fact: Fact) -> None:
        if fact.content is not None:
            self._content_bytes -= len(fact.content)
            fact.content = None

    def _make_room(self) -> None:
        """Drops directories, those that were met first before the others."""
        for directory in list(self._directories):
            if self._count <= FACTS_AT_MOST // 2:
                break
            self._drop(directory)

    def _drop(self, directory: bytes) -> None:
        entries = self._directories.pop(directory)
        self._count -= len(entries)
        for fact in entries.values():
            self._drop_content(fact)
