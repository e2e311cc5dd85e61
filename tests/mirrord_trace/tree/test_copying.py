"""A tree of copies shows what the pod has, as it is now or was a second ago at most, and never leads out of itself."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mirrord_trace.tree.base import LIFETIME_S, Need, Tree
from mirrord_trace.tree.copy.copying import CopyTree, open_copy_tree
from mirrord_trace.tree.unmounting import remove
from tests.mirrord_trace.tree.private_mounts import (
    CAP_CHOWN,
    IS_ROOT,
    USER,
    become_user,
    in_private_mounts,
    keep_capabilities,
    tmpfs,
)
from tests.mirrord_trace.tree.scratch_pod import ScratchPod, Told

LONG_AGO_NS = 1_600_000_000_123_456_789


@attrs.define
class Later:
    """A clock that can be put forward."""

    by_s: float = 0.0

    def now_s(self) -> float:
        return time.monotonic() + self.by_s


@attrs.define(eq=False)
class Scene:
    pod: ScratchPod
    tree: CopyTree
    told: Told
    later: Later

    def here(self, path: str) -> Path:
        """What stands for a path of the pod."""
        return Path(os.fsdecode(self.tree.root) + path)

    async def ensure(self, path: str, need: Need) -> Path:
        return Path(os.fsdecode(await self.tree.ensure(os.fsencode(path), need)))

    async def read(self, path: str) -> bytes:
        return (await self.ensure(path, Need.CONTENT)).read_bytes()

    def is_ready(self, path: str, need: Need) -> bool:
        return self.tree.is_ready(os.fsencode(path), need)

    def pass_lifetime(self) -> None:
        self.later.by_s += LIFETIME_S + 0.001


def settled(path: Path) -> Path:
    """As if it had not been changed for a while."""
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS), follow_symlinks=False)
    return path


@pytest.fixture
def pod(tmp_path: Path) -> ScratchPod:
    root = tmp_path / "pod"
    (root / "srv/data").mkdir(parents=True)
    settled_files = {"srv/data/small": b"small\n", "srv/data/large": os.urandom(3 << 20), "top": b"top"}
    for name, content in settled_files.items():
        (root / name).write_bytes(content)
    (root / "srv/data/small").chmod(0o640)
    for path in sorted(root.rglob("*"), reverse=True):
        settled(path)
    return ScratchPod(root)


@asynccontextmanager
async def opened(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch, told: Told | None = None) -> AsyncIterator[Scene]:
    directory = pod.top.parent / "workspace"
    directory.mkdir()
    told = told or Told()
    later = Later()
    # Status changes are of now in a test, contents settled all the same.
    monkeypatch.setattr("mirrord_trace.tree.copy.replica.is_settled", lambda status: status.mtime_ns == LONG_AGO_NS)
    try:
        async with open_copy_tree(pod.files, directory, told, later.now_s) as tree:
            yield Scene(pod, tree, told, later)
    finally:
        remove(directory)


def in_scene(body: Callable[[Scene], Awaitable[None]]) -> Callable[[ScratchPod, pytest.MonkeyPatch], None]:
    """Runs a test with a tree of the pod."""

    async def main(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
        with trio.fail_after(20):
            async with opened(pod, monkeypatch) as scene:
                await body(scene)

    def run(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
        trio.run(main, pod, monkeypatch)

    return run


def looks_like(here: Path, there: Path) -> bool:
    ours, theirs = here.lstat(), there.lstat()
    facts = ["st_mode", "st_mtime_ns", "st_uid", "st_gid"]
    if not stat.S_ISDIR(theirs.st_mode):
        facts.append("st_size")
    return [getattr(ours, fact) for fact in facts] == [getattr(theirs, fact) for fact in facts]


@in_scene
async def test_is_a_tree(scene: Scene) -> None:
    tree: Tree = scene.tree
    assert not tree.may_write
    assert not tree.root.endswith(b"/")
    assert tree.pod_path(tree.root + b"/srv") == b"/srv"
    assert tree.pod_path(tree.root) == b"/"
    assert tree.pod_path(tree.root + b"x") is None
    assert tree.pod_path(b"/srv") is None


@in_scene
async def test_attributes_come_without_contents(scene: Scene) -> None:
    for path in ("/srv/data/large", "/srv/data/small", "/srv/data", "/top"):
        here = await scene.ensure(path, Need.ATTRIBUTES)
        assert here == scene.here(path)
        assert looks_like(here, scene.pod.path(path))
    assert scene.here("/srv/data/large").stat().st_blocks == 0
    assert looks_like(scene.here("/srv"), scene.pod.path("/srv"))
    assert looks_like(await scene.ensure("/", Need.ATTRIBUTES), scene.pod.top)


@in_scene
async def test_small_content_comes_in_one_round_trip(scene: Scene) -> None:
    assert await scene.read("/srv/data/small") == b"small\n"
    assert looks_like(scene.here("/srv/data/small"), scene.pod.path("/srv/data/small"))
    assert scene.pod.questions == ["look b'/srv/data/small'"]
    assert await scene.read("/srv/data/small") == b"small\n"
    assert len(scene.pod.questions) == 1


@in_scene
async def test_large_content_is_fetched_once(scene: Scene) -> None:
    content = scene.pod.path("/srv/data/large").read_bytes()

    async def read() -> None:
        assert await scene.read("/srv/data/large") == content

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert scene.pod.questions.count("open b'/srv/data/large'") == 1
    assert looks_like(scene.here("/srv/data/large"), scene.pod.path("/srv/data/large"))
    scene.pass_lifetime()
    await read()
    assert scene.pod.questions.count("open b'/srv/data/large'") == 1


@in_scene
async def test_what_is_known_counts_for_a_second(scene: Scene) -> None:
    assert not scene.is_ready("/srv/data/small", Need.ATTRIBUTES)
    await scene.ensure("/srv/data/small", Need.ATTRIBUTES)
    assert scene.is_ready("/srv/data/small", Need.ATTRIBUTES)
    assert not scene.is_ready("/srv/data/small", Need.CONTENT)
    scene.pass_lifetime()
    assert not scene.is_ready("/srv/data/small", Need.ATTRIBUTES)
    settled(scene.pod.path("/srv/data/small"))
    scene.pod.path("/srv/data/small").chmod(0o600)
    here = await scene.ensure("/srv/data/small", Need.ATTRIBUTES)
    assert looks_like(here, scene.pod.path("/srv/data/small"))


@in_scene
async def test_changed_file_is_another_one_for_who_opens_it_then(scene: Scene) -> None:
    for path, changed in (("/srv/data/small", b"changed"), ("/srv/data/large", b"changed" * 100_000)):
        before = scene.pod.path(path).read_bytes()
        with (await scene.ensure(path, Need.CONTENT)).open("rb") as file:
            settled(scene.pod.path(path)).write_bytes(changed)
            assert await scene.read(path) == before
            scene.pass_lifetime()
            assert await scene.read(path) == changed
            assert file.read() == before
    assert not any(scene.here("/../aside").iterdir())


@in_scene
async def test_what_was_looked_at_is_what_is_opened(scene: Scene) -> None:
    """cp(1) and others compare the inodes; and who has a descriptor of the path alone may open it again."""
    scene.pod.path("/srv/data/small").chmod(0o400)
    for path in ("/srv/data/small", "/srv/data/large"):
        here = await scene.ensure(path, Need.ATTRIBUTES)
        looked_at = here.stat()
        descriptor = os.open(here, os.O_PATH)
        for _ in range(3):
            content = await scene.read(path)
            assert content == scene.pod.path(path).read_bytes()
            assert os.path.samestat(here.stat(), looked_at)
            assert looks_like(here, scene.pod.path(path))
            assert (Path("/proc/self/fd") / str(descriptor)).read_bytes() == content
            scene.pass_lifetime()
        os.close(descriptor)


@in_scene
async def test_fresh_file_that_is_the_same_stays_the_same(scene: Scene) -> None:
    scene.pod.path("/srv/data/fresh").write_text("fresh")
    assert await scene.read("/srv/data/fresh") == b"fresh"
    before = scene.here("/srv/data/fresh").stat()
    scene.pass_lifetime()
    assert await scene.read("/srv/data/fresh") == b"fresh"
    assert os.path.samestat(scene.here("/srv/data/fresh").stat(), before)


def test_file_that_changes_again_and_again_while_it_is_fetched(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others look at it meanwhile, so that another version stands there before the first has its content."""

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene, trio.open_nursery() as nursery:
            changes = 0

            async def look() -> None:
                await scene.tree._bring(b"/srv/data/large", Need.ATTRIBUTES, scene.later.now_s())

            def change(path: bytes, offset: int) -> None:
                nonlocal changes
                if offset == 0:
                    changes += 1
                    pod.path("/srv/data/large").write_bytes(bytes([changes]) * (3 << 20))
                    nursery.start_soon(look)

            pod.before_read = change
            content = await scene.read("/srv/data/large")
            assert len(content) == 3 << 20
            assert 0 not in content
            assert changes <= 3

    trio.run(main)


@in_scene
async def test_content_that_was_promised_is_not_taken_away_by_who_only_looks(scene: Scene) -> None:
    """Else a file would be empty for who is just about to open it."""
    for path in ("/srv/data/small", "/srv/data/large"):
        here = await scene.ensure(path, Need.CONTENT)
        before = here.read_bytes()
        scene.pod.path(path).write_bytes(b"changed")
        await scene.ensure(path, Need.ATTRIBUTES)
        await scene.ensure("/srv/data", Need.LISTING)
        assert here.read_bytes() == before
        scene.pass_lifetime()
        assert scene.is_ready(path, Need.CONTENT) is False
        assert (await scene.ensure(path, Need.CONTENT)).read_bytes() == b"changed"
        scene.pod.path(path).write_bytes(b"changed again")
        scene.pass_lifetime()
        scene.pass_lifetime()
        assert (await scene.ensure(path, Need.ATTRIBUTES)).stat().st_size == len(b"changed again")


@in_scene
async def test_file_that_was_just_changed_may_change_again_unnoticed(scene: Scene) -> None:
    path = scene.pod.path("/srv/data/small")
    path.write_bytes(b"first!")
    assert await scene.read("/srv/data/small") == b"first!"
    times = path.stat()
    path.write_bytes(b"second")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    scene.pass_lifetime()
    assert await scene.read("/srv/data/small") == b"second"


@in_scene
async def test_absent(scene: Scene) -> None:
    """The kernel finds it out; so nothing of it may stay."""
    for path in ("/absent", "/srv/absent/file", "/top/file"):
        for need in (Need.ATTRIBUTES, Need.TARGET, Need.CONTENT, Need.LISTING):
            here = await scene.ensure(path, need)
            with pytest.raises((FileNotFoundError, NotADirectoryError)):
                here.lstat()
            assert scene.is_ready(path, need)
    await scene.read("/top")
    scene.pod.path("/top").unlink()
    scene.pass_lifetime()
    assert not (await scene.ensure("/top", Need.CONTENT)).exists()


@in_scene
async def test_whatever_else_is_there_suddenly(scene: Scene) -> None:
    """Each kind of thing takes the place of each other."""
    makers: dict[str, Callable[[Path], object]] = {
        "file": lambda path: path.write_text("x"),
        "directory": lambda path: (path / "in").mkdir(parents=True),
        "link": lambda path: path.symlink_to("../top"),
        "other link": lambda path: path.symlink_to("data"),
        "FIFO": lambda path: os.mkfifo(path),
    }
    there = scene.pod.path("/srv/it")
    for first in makers:
        for second in makers:
            for make in (makers[first], makers[second]):
                if there.is_dir() and not there.is_symlink():
                    (there / "in").rmdir()
                    there.rmdir()
                there.unlink(missing_ok=True)
                make(there)
                scene.pass_lifetime()
                here = await scene.ensure("/srv/it", Need.ATTRIBUTES)
                leads_to = (await scene.ensure("/srv/it", Need.LISTING)).resolve()
                assert stat.S_IFMT(here.lstat().st_mode) == stat.S_IFMT(there.lstat().st_mode)
                assert stat.S_IFMT(leads_to.lstat().st_mode) == stat.S_IFMT(there.stat().st_mode)
                if there.is_dir():
                    assert sorted(os.listdir(leads_to)) == sorted(os.listdir(there))


@in_scene
async def test_listing(scene: Scene) -> None:
    there = scene.pod.path("/srv/data")
    (there / os.fsdecode(b"\xff\xfe\n")).touch()
    (there / ("n" * 255)).write_text("long")
    (there / "directory").mkdir(mode=0o500)
    (there / "link").symlink_to("small")
    settled(there)
    here = await scene.ensure("/srv/data", Need.LISTING)
    assert sorted(os.listdir(here)) == sorted(os.listdir(there))
    assert looks_like(here, there)
    for name in os.listdir(there):
        assert looks_like(here / name, there / name), name
    asked = len(scene.pod.questions)
    for name in os.listdir(there):
        assert scene.is_ready(f"/srv/data/{name}", Need.ATTRIBUTES)
        assert scene.is_ready(f"/srv/data/{name}", Need.TARGET) == (name != "link")
    await scene.ensure("/srv/data/small", Need.TARGET)
    assert len(scene.pod.questions) == asked
    (there / "small").unlink()
    (there / "directory").rmdir()
    (there / "new").touch()
    settled(there)
    scene.pass_lifetime()
    await scene.ensure("/srv/data", Need.LISTING)
    assert sorted(os.listdir(here)) == sorted(os.listdir(there))
    assert looks_like(here, there)


@in_scene
async def test_links_of_a_directory_tell_of_all_directories_in_it(scene: Scene) -> None:
    """fts(3) goes no further where it has found as many as that."""
    for name in ("many/one", "many/two/in", "many/three"):
        scene.pod.path(f"/{name}").mkdir(parents=True)
    for path in ("/many", "/many/two", "/many/one"):
        here = await scene.ensure(path, Need.ATTRIBUTES)
        assert here.stat().st_nlink == scene.pod.path(path).stat().st_nlink
    await scene.ensure("/srv", Need.LISTING)
    for path in ("/srv/data", "/srv"):
        here = await scene.ensure(path, Need.TARGET)
        assert here.stat().st_nlink == scene.pod.path(path).stat().st_nlink
    scene.pod.denied.add(b"/many")
    scene.pass_lifetime()
    assert (await scene.ensure("/many", Need.ATTRIBUTES)).is_dir()


@in_scene
async def test_opening_a_directory_lists_it(scene: Scene) -> None:
    assert sorted(os.listdir(await scene.ensure("/srv/data", Need.CONTENT))) == ["large", "small"]


@in_scene
async def test_many_entries(scene: Scene) -> None:
    there = scene.pod.path("/many")
    there.mkdir()
    for number in range(10_000):
        (there / f"{number}").touch()
    here = await scene.ensure("/many", Need.LISTING)
    assert sorted(os.listdir(here)) == sorted(os.listdir(there))


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/top", "/top"),
        ("//top", "/top"),
        ("small", "/srv/data/small"),
        ("./small", "/srv/data/small"),
        ("../../top", "/top"),
        ("../../../../../../../../../../../../top", "/top"),
        ("/../../../../../../../../../../../../top", "/top"),
        ("../data/small", "/srv/data/small"),
        ("to-root/../../../top", "/top"),
        ("to-deep/../small", "/srv/data/small"),
        ("absent/../small", None),
        ("/absent", None),
        ("../../../../../../../../etc", None),
        ("/etc/passwd", None),
    ],
)
def test_links_stay_inside(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch, target: str, leads_to: str | None) -> None:
    async def main() -> None:
        data = pod.path("/srv/data")
        (data / "deep").mkdir()
        (data / "to-root").symlink_to("/")
        (data / "to-deep").symlink_to("/srv/data/deep")
        (data / "link").symlink_to(target)
        async with opened(pod, monkeypatch) as scene:
            assert await scene.tree.read_link(b"/srv/data/link") == os.fsencode(target)
            for need in (Need.TARGET, Need.CONTENT, Need.LISTING):
                for _ in range(2):
                    if need is Need.TARGET and leads_to is None:
                        with pytest.raises(FileNotFoundError):
                            await scene.ensure("/srv/data/link", need)
                        continue
                    here = await scene.ensure("/srv/data/link", need)
                    assert not scene.is_ready("/srv/data/link", need)
                    assert here.exists() == (leads_to is not None)
                    if leads_to is not None:
                        assert here.resolve() == scene.here(leads_to)
                    if need is not Need.TARGET:
                        with pytest.raises(OSError, match="symbolic") as raised:
                            os.open(here, os.O_RDONLY | os.O_NOFOLLOW)
                        assert raised.value.errno == errno.ELOOP
            if leads_to is not None:
                assert scene.here(leads_to).read_bytes() == pod.path(leads_to).read_bytes()
            here = await scene.ensure("/srv/data/link", Need.ATTRIBUTES)
            assert scene.is_ready("/srv/data/link", Need.ATTRIBUTES)
            assert looks_like(here, data / "link")
            with pytest.raises(FileNotFoundError):
                here.stat()

    trio.run(main)


@pytest.mark.parametrize(
    ("target", "number"), [("it", errno.ELOOP), ("absent", errno.ENOENT), ("top/in", errno.ENOTDIR)]
)
def test_links_that_lead_nowhere(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch, target: str, number: int) -> None:
    async def main() -> None:
        pod.path("/it").symlink_to(target)
        async with opened(pod, monkeypatch) as scene:
            assert (await scene.ensure("/it", Need.ATTRIBUTES)).is_symlink()
            with pytest.raises(OSError, match="/it") as raised:
                await scene.ensure("/it", Need.TARGET)
            assert raised.value.errno == number
            for need in (Need.CONTENT, Need.LISTING):
                here = await scene.ensure("/it", need)
                for flags, expected in ((0, number), (os.O_NOFOLLOW, errno.ELOOP)):
                    with pytest.raises(OSError, match="alias") as raised:
                        os.open(here, os.O_RDONLY | flags)
                    assert raised.value.errno == expected
            assert scene.told.warnings == []

    trio.run(main)


@in_scene
async def test_links_on_the_way_and_at_the_end(scene: Scene) -> None:
    scene.pod.path("/to-srv").symlink_to("/srv")
    scene.pod.path("/srv/to-data").symlink_to("data")
    scene.pod.path("/srv/data/to-small").symlink_to("small")
    scene.pod.path("/srv/data/small-too").symlink_to("to-small")
    for path, is_link in (
        ("/to-srv/to-data/small", False),
        ("/to-srv/to-data/to-small", True),
        ("/to-srv/data/small-too", True),
        ("/to-srv/to-data", True),
        ("/to-srv/to-data/", False),
        ("/to-srv/data/../to-data", True),
    ):
        here = await scene.ensure(path, Need.CONTENT)
        assert here.is_symlink() == is_link
        if "small" in path:
            assert here.read_bytes() == b"small\n"
        else:
            assert sorted(os.listdir(here)) == sorted(os.listdir(scene.pod.path("/srv/data")))


@in_scene
async def test_paths_that_climb(scene: Scene) -> None:
    scene.pod.path("/to-data").symlink_to("srv/data")
    assert await scene.ensure("/to-data/../../top", Need.CONTENT) == scene.here("/top")
    assert await scene.ensure("/to-data/../../top", Need.TARGET) == scene.here("/top")
    assert await scene.ensure("/../../..", Need.LISTING) == scene.here("/")
    assert not scene.is_ready("/to-data/../../top", Need.CONTENT)
    with pytest.raises(FileNotFoundError):
        await scene.ensure("/absent/../top", Need.CONTENT)


@in_scene
async def test_what_the_target_may_not(scene: Scene) -> None:
    scene.pod.denied |= {b"/srv/data/small", b"/srv/data", b"/srv/data/large"}
    assert (await scene.ensure("/srv/data/small", Need.ATTRIBUTES)).exists()
    for path, need in (
        ("/srv/data/small", Need.CONTENT),
        ("/srv/data/large", Need.CONTENT),
        ("/srv/data", Need.LISTING),
    ):
        with pytest.raises(PermissionError):
            await scene.ensure(path, need)
        assert not scene.is_ready(path, need)


@in_scene
async def test_entries_that_may_be_named_but_not_looked_at(scene: Scene) -> None:
    scene.pod.denied.add(b"/srv/data/small")
    here = await scene.ensure("/srv/data", Need.LISTING)
    assert sorted(os.listdir(here)) == ["large", "small"]
    assert not scene.is_ready("/srv/data/small", Need.ATTRIBUTES)
    scene.pod.denied.clear()
    assert await scene.read("/srv/data/small") == b"small\n"


@in_scene
async def test_nothing_is_changed(scene: Scene) -> None:
    with pytest.raises(OSError, match="Read-only") as raised:
        await scene.ensure("/srv/data/small", Need.CHANGE)
    assert raised.value.errno == errno.EROFS


@in_scene
async def test_abandoned(scene: Scene) -> None:
    scene.tree.abandon()
    with pytest.raises(OSError, match="Input/output") as raised:
        await scene.ensure("/srv/data/small", Need.CONTENT)
    assert raised.value.errno == errno.EIO


@in_scene
async def test_links_are_read_as_the_pod_has_them(scene: Scene) -> None:
    scene.pod.path("/link").symlink_to("../..//top")
    assert await scene.tree.read_link(b"/link") == b"../..//top"
    for path, number in ((b"/top", errno.EINVAL), (b"/absent", errno.ENOENT)):
        with pytest.raises(OSError, match=r"Invalid|No such") as raised:
            await scene.tree.read_link(path)
        assert raised.value.errno == number


@in_scene
async def test_programs_keep_no_special_rights(scene: Scene) -> None:
    scene.pod.path("/top").chmod(0o6755)
    assert stat.S_IMODE((await scene.ensure("/top", Need.ATTRIBUTES)).stat().st_mode) == 0o755
    await scene.read("/top")
    assert stat.S_IMODE(scene.here("/top").stat().st_mode) == 0o755


@in_scene
async def test_content_of_files_whose_size_says_nothing(scene: Scene) -> None:
    """As in /proc; here one that grows between the look and the opening."""
    scene.pod.path("/empty").touch()
    assert await scene.read("/empty") == b""
    settled(scene.pod.path("/empty"))
    scene.pass_lifetime()
    scene.pod.before_read = lambda path, offset: os.truncate(scene.pod.path("/empty"), 5)
    assert await scene.read("/empty") == bytes(5)


@in_scene
async def test_a_fifo_is_connected_with_the_pods(scene: Scene) -> None:
    there = scene.pod.path("/srv/fifo")
    os.mkfifo(there)
    assert stat.S_ISFIFO((await scene.ensure("/srv/fifo", Need.ATTRIBUTES)).stat().st_mode)
    fifo = await scene.ensure("/srv/fifo", Need.CONTENT)
    assert fifo != scene.here("/srv/fifo")
    assert not scene.is_ready("/srv/fifo", Need.CONTENT)

    async def write() -> None:
        await trio.to_thread.run_sync(there.write_bytes, b"from the pod")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        assert await trio.to_thread.run_sync(fifo.read_bytes) == b"from the pod"
    scene.pod.denied.add(b"/srv/fifo")
    with pytest.raises(PermissionError):
        await scene.ensure("/srv/fifo", Need.CONTENT)


@in_scene
async def test_directories_that_vanish_with_all_that_was_in_them(scene: Scene) -> None:
    await scene.read("/srv/data/small")
    for name in ("small", "large"):
        scene.pod.path(f"/srv/data/{name}").unlink()
    scene.pod.path("/srv/data").rmdir()
    scene.pass_lifetime()
    assert not (await scene.ensure("/srv/data/small", Need.CONTENT)).exists()
    assert not scene.here("/srv/data").exists()
    scene.pod.path("/srv/data").mkdir()
    scene.pod.path("/srv/data/small").write_text("again")
    scene.pass_lifetime()
    assert await scene.read("/srv/data/small") == b"again"


@pytest.mark.parametrize("is_his", [False, True], ids=["of-another", "of-him"])
@in_private_mounts
def test_an_ordinary_user_can_read_all_and_make_all(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch, is_his: bool
) -> None:
    """His copies are his own, so modes that shut their owner out are widened, also if he is the owner in the pod."""
    if IS_ROOT and is_his:
        for path in (pod.top, *pod.top.rglob("*")):
            os.chown(path, USER, USER)
    for parent in pod.top.parents[:3]:
        parent.chmod(0o777)
    pod.path("/srv/data").chmod(0o555)
    pod.path("/srv").chmod(0o555)
    pod.path("/srv/data/small").chmod(0o044)
    become_user()

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:
            # The fake of a pod has no more rights than we: it says what it is told.
            for path in ("/srv/data", "/srv"):
                here = await scene.ensure(path, Need.LISTING)
                assert stat.S_IMODE(here.stat().st_mode) == 0o755
                assert stat.S_IMODE(here.parents[0].stat().st_mode) & 0o700 == 0o700
            assert stat.S_IMODE(scene.here("/srv/data/small").stat().st_mode) == 0o444
            assert await scene.read("/srv/data/large")
            assert stat.S_IMODE((scene.here("/") / "..").stat().st_mode) == 0o700

    trio.run(main)


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user has files of his own only")
@in_private_mounts
def test_root_whom_modes_bind_owns_all(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    """He may give files away (CAP_CHOWN), and could not use them then: without CAP_DAC_OVERRIDE, in a container say."""
    for path in ("/srv/data/small", "/srv/data", "/srv"):
        os.chown(pod.path(path), USER, USER)
    pod.path("/srv/data/small").chmod(0o604)  # others may, so the fake of a pod may
    keep_capabilities(CAP_CHOWN)

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:
            assert await scene.read("/srv/data/small") == b"small\n"
            assert await scene.read("/srv/data/large")
            assert {scene.here(path).stat().st_uid for path in ("/srv", "/srv/data/small")} == {0}

    trio.run(main)


@in_private_mounts
def test_no_room(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What does not fit is told to the user; a call gets ENOSPC; what fits is there."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    tmpfs(workspace, "size=1m")
    pod.path("/sparse").touch()
    os.truncate(pod.path("/sparse"), 1 << 40)

    async def main() -> None:
        told = Told()
        async with open_copy_tree(pod.files, workspace, told) as tree:
            for _ in range(2):
                with pytest.raises(OSError, match="space") as raised:
                    await tree.ensure(b"/srv/data/large", Need.CONTENT)
                assert raised.value.errno == errno.ENOSPC
            assert len(told.warnings) == 1
            assert told.warnings[0].startswith("no room for /srv/data/large (3 MB; 1 MB are free in ")
            await tree.ensure(b"/srv/data/small", Need.CONTENT)
            await tree.ensure(b"/sparse", Need.ATTRIBUTES)
            assert os.stat(tree.root + b"/sparse").st_size == 1 << 40
            (workspace / "filler").write_bytes(bytes(900_000))
            pod.path("/medium").write_bytes(b"x" * 60_000)
            for number in range(50):
                pod.path(f"/medium{number}").write_bytes(b"x" * 60_000)

            async def copy_all() -> None:
                for number in range(50):
                    await tree.ensure(b"/medium%d" % number, Need.CONTENT)

            with pytest.raises(OSError, match="space"):
                await copy_all()
            assert len(told.warnings) == 2
            assert told.warnings[1].startswith("cannot keep copies of the target's files in ")

    trio.run(main)


def test_files_of_several_gigabytes_need_no_memory_of_their_size(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.path("/huge").touch()
    os.truncate(pod.path("/huge"), 2 << 30)
    with pod.path("/huge").open("r+b") as file:
        for offset in (0, (1 << 30) + 5, (2 << 30) - 4):
            file.seek(offset)
            file.write(b"here")

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:
            here = await scene.ensure("/huge", Need.CONTENT)
            assert here.stat().st_size == 2 << 30
            assert here.stat().st_blocks * 512 < 64 << 20
            with here.open("rb") as file:
                for offset in (0, (1 << 30) + 5, (2 << 30) - 4):
                    file.seek(offset)
                    assert file.read(4) == b"here"
            assert 1 < pod.reading_at_most <= 8

    trio.run(main)


def test_many_large_files_at_once(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        pod.path(f"/{number}").write_bytes(bytes([number]) * (4 << 20))

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:

            async def read(number: int) -> None:
                assert await scene.read(f"/{number}") == bytes([number]) * (4 << 20)

            async with trio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(read, number)
            assert pod.reading_at_most <= 16

    trio.run(main)


def test_file_that_shrinks_while_it_is_read(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    length = (2 << 20) + 5

    def shrink(path: bytes, offset: int) -> None:
        if offset == 2 << 20:
            os.truncate(pod.path("/srv/data/large"), length)

    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:
            pod.before_read = shrink
            assert len(await scene.read("/srv/data/large")) == length
            pod.before_read = lambda path, offset: None
            scene.pass_lifetime()
            assert await scene.read("/srv/data/large") == pod.path("/srv/data/large").read_bytes()

    trio.run(main)


def test_fetch_that_fails_or_is_cancelled_leaves_nothing(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:

            def fail(path: bytes, offset: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            pod.before_read = fail
            with pytest.raises(OSError, match="Input/output"):
                await scene.read("/srv/data/large")

            def cancel(path: bytes, offset: int) -> None:
                scope.cancel()

            pod.before_read = cancel
            with trio.CancelScope() as scope:
                await scene.read("/srv/data/large")
            assert scope.cancelled_caught
            assert not any(scene.here("/../aside").iterdir())
            pod.before_read = lambda path, offset: None
            assert await scene.read("/srv/data/large") == pod.path("/srv/data/large").read_bytes()

    trio.run(main)


def test_who_waits_for_a_fetch_that_is_cancelled_goes_on_with_it(
    pod: ScratchPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with opened(pod, monkeypatch) as scene, trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first() -> None:
                with scope:
                    await scene.read("/srv/data/large")

            async def second() -> None:
                assert await scene.read("/srv/data/large") == pod.path("/srv/data/large").read_bytes()

            def cancel_first(path: bytes, offset: int) -> None:
                pod.before_read = lambda path, offset: None
                nursery.start_soon(second)
                scope.cancel()

            pod.before_read = cancel_first
            nursery.start_soon(first)

    trio.run(main)


def test_long_fetches_are_told(pod: ScratchPod, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with opened(pod, monkeypatch) as scene:

            def pass_time(path: bytes, offset: int) -> None:
                scene.later.by_s += 2.5

            pod.before_read = pass_time
            await scene.read("/srv/data/large")
            assert scene.told.notes[0].startswith("copying /srv/data/large, 1 MB of 3 MB: without FUSE ")
            assert scene.told.notes[-1] == "copied /srv/data/large, 3 MB"
            assert scene.told.warnings == []

    trio.run(main)
