"""What `ensure` brings, and that it is all that the kernel then asks for."""

import os
from pathlib import Path

import pytest
import trio

from mirrord_trace.tree.base import LIFETIME_S, Need
from tests.mirrord_trace.tree.mounted import Mounted, on_mount


def open_read_close(path: Path) -> bytes:
    os.stat(path)
    with open(path, "rb") as file:
        return file.read()


async def rounds(mount: Mounted) -> int:
    """How many round trips there were since the last time."""
    count = sum(mount.files.asks.values())
    mount.files.asks.clear()
    return count


@on_mount(["scratch"])
async def test_a_small_file_comes_in_one_round_trip(mount: Mounted) -> None:
    (mount.pod / "a/b").mkdir(parents=True)
    (mount.pod / "a/b/file").write_bytes(b"content")
    (mount.pod / "link").symlink_to("/a/b/file")
    await mount.do(os.stat, mount.root)
    for path, first in ((b"/a/b/file", Need.ATTRIBUTES), (b"/link", Need.TARGET), (b"/a/b/file", Need.CONTENT)):
        await trio.sleep(LIFETIME_S + 0.05)
        await rounds(mount)
        assert not mount.tree.is_ready(path, first)
        assert await mount.tree.ensure(path, first) == mount.tree.root + path
        for need in (first, Need.TARGET, Need.CONTENT, Need.CHANGE):
            assert mount.tree.is_ready(path, need), need
        asked = mount.files.asks.copy()
        assert await mount.do(open_read_close, mount.root / path[1:].decode()) == b"content"
        asked["look"] += 1 - mount.files.asks["look"] if path == b"/" else 0
        assert await rounds(mount) <= 2, asked


@on_mount(["scratch"])
async def test_nothing_is_asked_twice_within_a_second(mount: Mounted) -> None:
    (mount.pod / "d").mkdir()
    (mount.pod / "d/file").write_text("x")
    (mount.pod / "d/long").write_bytes(bytes(100_000))
    (mount.pod / "link").symlink_to("d/file")
    for path in (b"/d/file", b"/d/long", b"/d/nothing", b"/link", b"/nothing/at/all", b"/d/", b"/", b"/d/file/x"):
        for need in Need:
            await mount.tree.ensure(path, need)
            assert mount.tree.is_ready(path, need), (path, need)
            before = await rounds(mount)
            await mount.tree.ensure(path, need)
            assert await rounds(mount) == 0, (path, need, before)


@on_mount(["scratch"])
async def test_paths_that_climb(mount: Mounted) -> None:
    (mount.pod / "a/b").mkdir(parents=True)
    (mount.pod / "a/file").write_text("content")
    (mount.pod / "link").symlink_to("a/b")
    root = mount.tree.root
    assert not mount.tree.is_ready(b"/link/../file", Need.CONTENT)
    assert await mount.tree.ensure(b"/link/../file", Need.CONTENT) == root + b"/a/file"
    assert await mount.tree.ensure(b"/../link/../../a", Need.TARGET) == root + b"/a"
    with pytest.raises(FileNotFoundError):
        await mount.tree.ensure(b"/nothing/../file", Need.CONTENT)
    assert mount.tree.pod_path(root + b"/a/file") == b"/a/file"
    assert mount.tree.pod_path(root) == b"/"
    assert mount.tree.pod_path(b"/etc") is None
    assert await mount.tree.read_link(b"/link") == b"a/b"
    with pytest.raises(OSError, match="Invalid argument"):
        await mount.tree.read_link(b"/a")


@on_mount(["scratch"])
async def test_content_is_not_fetched_for_who_only_looks(mount: Mounted) -> None:
    for number in range(100):
        (mount.pod / f"{number}").mkdir()
        (mount.pod / f"{number}/file").write_text("x")
    brought = 0
    for number in range(100):
        await mount.tree.ensure(b"/%d/file" % number, Need.ATTRIBUTES)
        brought += mount.tree.is_ready(b"/%d/file" % number, Need.CONTENT)
    assert brought == 8
    await mount.tree.ensure(b"/99/file", Need.CONTENT)
    await mount.do(open_read_close, mount.root / "99/file")
    await trio.sleep(LIFETIME_S + 0.05)
    await mount.tree.ensure(b"/5/file", Need.ATTRIBUTES)
    assert mount.tree.is_ready(b"/5/file", Need.CONTENT)


@on_mount(["scratch"])
async def test_a_slow_pod_is_waited_for(mount: Mounted) -> None:
    (mount.pod / "file").write_text("content")
    mount.files.delay_s = LIFETIME_S * 1.3
    assert await mount.do(open_read_close, mount.root / "file") == b"content"


@on_mount(["scratch"])
async def test_what_did_not_change_is_read_from_the_kernels_memory(mount: Mounted) -> None:
    for name, content in (("small", b"content"), ("long", os.urandom(200_000))):
        (mount.pod / name).write_bytes(content)
        os.utime(mount.pod / name, (1, 1))
    await trio.sleep(3.1)  # a change that is so recent could have been followed by another that cannot be seen
    for name in ("small", "long"):
        content = (mount.pod / name).read_bytes()
        assert await mount.do(open_read_close, mount.root / name) == content
        await trio.sleep(LIFETIME_S + 0.05)
        await rounds(mount)
        assert await mount.do(open_read_close, mount.root / name) == content
        assert mount.files.asks["read"] == mount.files.asks["open"] == 0


@on_mount()
async def test_a_directory_that_was_removed_while_it_was_open_is_entered(mount: Mounted) -> None:
    script = "mkdir going && exec 3< going && rmdir going && cd /proc/self/fd/3 && stat -c '%F, %h links' . && ls -A"
    assert await mount.shell(script) == "directory, 0 links\n"
