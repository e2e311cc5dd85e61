"""What is known of paths, with a clock of the test's."""

import stat
import time

import attrs
import pytest

from mirrord_trace.remote_files import Looked, Status, Visited
from mirrord_trace.tree import known as known_module
from mirrord_trace.tree.base import LIFETIME_S
from mirrord_trace.tree.known import CONTENTS_AT_MOST_BYTES, Fact, Known, split

LONG_AGO_NS = 10**18


def status_of(ino: int = 7, mode: int = stat.S_IFREG | 0o644, size: int = 3, mtime_ns: int = LONG_AGO_NS) -> Status:
    return Status(mode, ino, 1, 0, 0, 0, size, 8, 4096, 0, mtime_ns, mtime_ns, 1, False)


DIRECTORY = status_of(2, stat.S_IFDIR | 0o755)
LINK = status_of(3, stat.S_IFLNK | 0o777)
FILE = status_of()


@attrs.define
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def walk(*steps: tuple[bytes, Status | int, bytes | None], content: bytes | None = None) -> Looked:
    visited = (
        Visited(path, None if isinstance(what, int) else what, what if isinstance(what, int) else 0, target)
        for path, what, target in steps
    )
    return Looked(tuple(visited), content, 0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Known:
    return Known(clock)


def test_each_step_of_a_walk_is_known_for_a_second(known: Known, clock: Clock) -> None:
    known.learn(b"/a/f", walk((b"/a", DIRECTORY, None), (b"/a/f", FILE, None)), follow=False, since_s=clock())
    for path, status in ((b"/a", DIRECTORY), (b"/a/f", FILE)):
        fact = known.fact(path)
        assert fact is not None
        assert fact.status is status
        assert known.itself(path) is known.followed(path) is fact
        assert known.remaining_s(fact) == LIFETIME_S
    clock.now_s += LIFETIME_S
    assert known.fact(b"/a/f") is known.itself(b"/a/f") is known.followed(b"/a/f") is None
    assert known.last_fact(b"/a/f") is not None
    assert known.remaining_s(Fact(FILE, 0, None, 0)) == 0


def test_what_lies_behind_links(known: Known, clock: Clock) -> None:
    steps = (b"/l", LINK, b"/d"), (b"/d", DIRECTORY, None), (b"/d/k", LINK, b"f"), (b"/d/f", FILE, None)
    known.learn(b"/l/k", walk(*steps), follow=True, since_s=clock())
    target = known.followed(b"/l/k")
    assert target is not None
    assert target.status is FILE
    assert known.itself(b"/l/k") is None, "which step was the link itself a walk does not tell"
    known.learn(b"/l/k", walk(*steps[:-1]), follow=False, since_s=clock())
    link = known.itself(b"/l/k")
    assert link is not None
    assert (link.status, link.target) == (LINK, b"f")
    assert known.followed(b"/l") is None
    clock.now_s += LIFETIME_S
    assert known.followed(b"/l/k") is known.itself(b"/l/k") is None


def test_where_a_walk_ended(known: Known, clock: Clock) -> None:
    known.learn(b"/a/b/c", walk((b"/a", DIRECTORY, None), (b"/a/b", 2, None)), follow=True, since_s=clock())
    for fact in (known.followed(b"/a/b/c"), known.followed(b"/a/b")):
        assert fact is not None
        assert (fact.status, fact.errno) == (None, 2)
    assert known.itself(b"/a/b/c") is None


def test_the_root(known: Known, clock: Clock) -> None:
    known.learn(b"/", walk((b"/", DIRECTORY, None)), follow=False, since_s=clock())
    assert known.fact(b"") is known.fact(b"/") is not None


def test_content_is_kept_while_the_file_is_the_same(known: Known, clock: Clock) -> None:
    def look(status: Status, content: bytes | None = None) -> bytes | None:
        return known.learn(b"/f", walk((b"/f", status, None), content=content), follow=False, since_s=clock()).content

    assert look(FILE, b"abc") == b"abc"
    clock.now_s += 2
    assert look(FILE) == b"abc"
    assert look(attrs.evolve(FILE, atime_ns=5)) == b"abc"
    assert look(attrs.evolve(FILE, mtime_ns=LONG_AGO_NS + 1)) is None
    just_now = status_of(mtime_ns=time.time_ns())
    assert look(just_now, b"new") == b"new"
    assert look(just_now) is None, "it may have been changed again in the same tick"


def test_content_takes_a_bounded_amount_of_memory(known: Known, clock: Clock) -> None:
    piece = bytes(1 << 20)
    facts = []
    for number in range(CONTENTS_AT_MOST_BYTES // len(piece) + 3):
        path = b"/%d" % number
        looked = walk((path, status_of(number, size=len(piece)), None), content=piece)
        facts.append(known.learn(path, looked, follow=False, since_s=clock()))
    assert [fact.content is None for fact in facts[:4]] == [True, True, True, False]
    clock.now_s += 60
    known.learn(b"/x", walk((b"/x", FILE, None), content=b"abc"), follow=False, since_s=clock())
    assert all(fact.content is None for fact in facts)


def test_facts_take_a_bounded_amount_of_memory(known: Known, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_module, "FACTS_AT_MOST", 100)
    for number in range(1000):
        known.put(b"/%d" % (number // 30), b"%d" % number, Fact(FILE, 0, None, clock()))
        assert known.entry(b"/%d" % (number // 30), b"%d" % number) is not None
    assert sum(known.entry(b"/%d" % (number // 30), b"%d" % number) is not None for number in range(1000)) <= 100


def test_what_was_asked_before_a_change_does_not_count(known: Known, clock: Clock) -> None:
    def put(path: bytes, since_s: float) -> bool:
        directory, _, name = path.rpartition(b"/")
        known.put(directory, name, Fact(FILE, 0, None, since_s))
        return known.fact(path) is not None

    asked_s = clock()
    assert put(b"/a/f", asked_s)
    assert put(b"/b/f", asked_s)
    clock.now_s += 0.1
    known.forget(b"/a/f")
    assert not put(b"/a/f", asked_s)
    assert not put(b"/a/g", asked_s)
    assert put(b"/b/f", asked_s)
    assert put(b"/a/f", clock())
    assert put(b"/b/c/d", clock())
    clock.now_s += 0.1
    known.forget_below(b"/b")
    assert known.fact(b"/b/f") is known.fact(b"/b/c/d") is None
    assert known.fact(b"/a/f") is not None
    assert not put(b"/c/f", clock() - 0.01)
    assert put(b"/c/f", clock())


@pytest.mark.parametrize(
    ("path", "length"),
    [
        (b"/a/b/c/file", 4),
        (b"/a/b/file", 4),
        (b"/a/b", 2),
        (b"/a/b/", 4),
        (b"/a/link/file", 2),
        (b"/a/f/file", 2),
        (b"/a/gone/file", 2),
        (b"/elsewhere/file", 0),
        (b"/a/./b/file", 2),
        (b"/a", 0),
        (b"/", 0),
        (b"", 0),
    ],
)
def test_which_directories_need_no_walk(known: Known, clock: Clock, path: bytes, length: int) -> None:
    for place, status in ((b"/a", DIRECTORY), (b"/a/b", DIRECTORY), (b"/a/link", LINK), (b"/a/f", FILE)):
        known.put(*split(place), Fact(status, 0, None, clock()))
    known.put(b"/a", b"gone", Fact(None, 2, None, clock()))
    assert known.led_down(path) == length
    clock.now_s += LIFETIME_S
    assert known.led_down(path) == 0
