"""Walks that are under way while the kernel asks already: who waits for which, and what becomes of those that fail."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import cast

import attrs
import pytest
import trio
import trio.testing

from mirrord_trace.remote_files import Looked, RemoteFiles, Status, Visited
from mirrord_trace.session_requests import Request
from mirrord_trace.tree.base import Need
from mirrord_trace.tree.fuse.walks import Walks
from mirrord_trace.tree.known import Fact, Known
from tests.mirrord_trace.tree.mounted import Mounted, on_mount

FILE = Status(stat.S_IFREG | 0o644, 7, 1, 0, 0, 0, 3, 8, 4096, 0, 0, 0, 1, False)
DIRECTORY = attrs.evolve(FILE, mode=stat.S_IFDIR | 0o755, ino=8)
MANY = 64


@attrs.define
class Asked:
    """An agent that answers when the test says so."""

    can_be_asked: bool = True
    requests: dict[bytes, Request] = attrs.field(factory=dict)
    answers: dict[Request, Looked | OSError] = attrs.field(factory=dict)
    known: list[int] = attrs.field(factory=list)

    def ask_ahead(
        self, path: bytes, *, follow: bool, content_limit: int, known: int, begun: Callable[[Request], None]
    ) -> Request | None:
        if not self.can_be_asked:
            return None
        assert path not in self.requests, "it was asked for already"
        request = self.requests[path] = Request(1, 0)
        self.known.append(known)
        begun(request)
        return request

    def look_that_came(self, request: Request) -> Looked:
        answer = self.answers[request]
        if isinstance(answer, OSError):
            raise answer
        return answer

    def answer(self, path: bytes, answer: Looked | OSError) -> None:
        request = self.requests.pop(path)
        self.answers[request] = answer
        request.finish(None)


@attrs.define
class Scene:
    asked: Asked = attrs.field(factory=Asked)
    known: Known = attrs.field(factory=Known)
    learned: list[Fact] = attrs.field(factory=list)
    walks: Walks = attrs.field(init=False)

    @walks.default
    def _none(self) -> Walks:
        return Walks(cast(RemoteFiles, self.asked), self.known)

    def begin(self, path: bytes) -> bool:
        return self.walks.begin(path, follow=True, content_limit=0, learned=lambda _, fact: self.learned.append(fact))


def walked(*steps: tuple[bytes, Status]) -> Looked:
    return Looked(tuple(Visited(path, status, 0, None) for path, status in steps), None, 0)


def in_trio(test: Callable[[Scene], object]) -> Callable[[], None]:
    def run() -> None:
        async def limited() -> None:
            with trio.fail_after(20):
                await test(Scene())  # type: ignore[misc]

        trio.run(limited)

    run.__name__ = test.__name__
    return run


@in_trio
async def test_who_is_on_the_way_waits_and_finds_it_known(scene: Scene) -> None:
    assert scene.begin(b"/a/b")
    came: list[bytes] = []

    async def come(path: bytes) -> None:
        assert await scene.walks.coming_by(path)
        assert scene.known.fact(path) is not None
        came.append(path)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come, b"/a")
        nursery.start_soon(come, b"/a/b")
        await trio.testing.wait_all_tasks_blocked()
        assert not came
        scene.asked.answer(b"/a/b", walked((b"/a", DIRECTORY), (b"/a/b", FILE)))
    assert sorted(came) == [b"/a", b"/a/b"]
    assert [fact.status for fact in scene.learned] == [FILE]
    assert not await scene.walks.coming_by(b"/a")


@pytest.mark.parametrize("path", [b"/a/b/c", b"/a/bc", b"/", b"", b"/x", b"/a/"])
def test_who_is_elsewhere_does_not_wait(path: bytes) -> None:
    scene = Scene()

    async def check() -> None:
        assert scene.begin(b"/a/b")
        with trio.fail_after(20):
            assert not await scene.walks.coming_by(path)

    trio.run(check)


@in_trio
async def test_the_root_itself_can_be_waited_for(scene: Scene) -> None:
    assert scene.begin(b"")
    scene.asked.answer(b"/", walked((b"/", DIRECTORY)))
    assert [fact.status for fact in scene.learned] == [DIRECTORY]
    fact = scene.known.fact(b"/")
    assert fact is not None
    assert fact.status is DIRECTORY


@in_trio
async def test_the_same_is_asked_for_once(scene: Scene) -> None:
    assert scene.begin(b"/a")
    assert scene.begin(b"/a")
    scene.asked.answer(b"/a", walked((b"/a", FILE)))
    assert len(scene.learned) == 1


@in_trio
async def test_what_cannot_be_asked_for_is_not_waited_for(scene: Scene) -> None:
    scene.asked.can_be_asked = False
    assert not scene.begin(b"/a")
    assert not await scene.walks.coming_by(b"/a")


@in_trio
async def test_so_many_and_no_more(scene: Scene) -> None:
    assert all(scene.begin(b"/%d" % number) for number in range(MANY))
    assert not scene.begin(b"/more")
    scene.asked.answer(b"/7", walked((b"/7", FILE)))
    assert scene.begin(b"/more")


@in_trio
async def test_one_that_fails_tells_nothing_and_may_be_tried_again(scene: Scene) -> None:
    assert scene.begin(b"/a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scene.walks.coming_by, b"/a")
        await trio.testing.wait_all_tasks_blocked()
        scene.asked.answer(b"/a", OSError(errno.EIO, os.strerror(errno.EIO)))
    assert not scene.learned
    assert scene.known.fact(b"/a") is None
    assert scene.begin(b"/a")


@in_trio
async def test_what_is_known_needs_not_be_told(scene: Scene) -> None:
    scene.known.put(b"", b"a", Fact(DIRECTORY, 0, None, scene.known.clock()))
    assert scene.begin(b"/a/b/c")
    assert scene.asked.known == [2]


@on_mount(tellers=("agent",))
async def test_the_kernel_finds_what_was_begun(mount: Mounted) -> None:
    """The agent is asked once for each, though the kernel asks for each component."""
    count = 100
    for number in range(count):
        (mount.pod / f"{number}/deep").mkdir(parents=True)
        (mount.pod / f"{number}/deep/file").write_text("x" * number)

    async def look(*_: object, **__: object) -> None:
        raise AssertionError("the agent is asked once more")

    mount.tree.serving.files.look = look  # type: ignore[method-assign, assignment]

    def examine(number: int) -> int:
        path = f"/{number}/deep/file"
        assert mount.tree.begin(os.fsencode(path), Need.TARGET)
        return os.stat(f"{mount.root}{path}").st_size

    for number in range(count):
        assert await mount.do(examine, number) == number


@on_mount(tellers=("agent",))
async def test_what_cannot_be_begun_is_left_to_the_kernel(mount: Mounted) -> None:
    (mount.pod / "file").touch()
    for need in (Need.CONTENT, Need.LISTING, Need.OUTPUT, Need.CHANGE):
        assert not mount.tree.begin(b"/file", need)
    assert not mount.tree.begin(b"/directory/../file", Need.TARGET)
    assert not mount.tree.begin(mount.tree.root + b"/file", Need.TARGET)


@on_mount(tellers=("agent",))
async def test_links_are_followed_while_it_is_under_way(mount: Mounted) -> None:
    (mount.pod / "a/b").mkdir(parents=True)
    (mount.pod / "a/b/file").write_text("content")
    (mount.pod / "link").symlink_to("/a/b")
    (mount.pod / "last").symlink_to("link/file")

    def examine() -> tuple[int, bool, int]:
        assert mount.tree.begin(b"/last", Need.TARGET)
        size = os.stat(mount.root / "last").st_size
        assert mount.tree.begin(b"/last", Need.ATTRIBUTES)
        is_link = stat.S_ISLNK(os.lstat(mount.root / "last").st_mode)
        assert mount.tree.begin(b"/link/nothing", Need.TARGET)
        with pytest.raises(FileNotFoundError) as error:
            os.stat(mount.root / "link/nothing")
        return size, is_link, error.value.errno or 0

    assert await mount.do(examine) == (7, True, errno.ENOENT)
