"""Listing directories through a real mount."""

import ctypes
import os
from pathlib import Path

import pytest
import trio

from mirrord_trace.tree.base import LIFETIME_S, Need
from tests.mirrord_trace.tree.mounted import Mounted, on_mount

MANY = 5000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir64.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long


class Directory:
    """opendir(3), one entry at a time."""

    def __init__(self, path: Path) -> None:
        found = _libc.opendir(os.fsencode(path))
        assert found, os.strerror(ctypes.get_errno())
        self._stream = ctypes.c_void_p(found)

    def read(self) -> str | None:
        entry = _libc.readdir64(self._stream)
        return ctypes.string_at(entry + 19).decode() if entry else None

    def rest(self) -> list[str]:
        return [*iter(self.read, None)]

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        _libc.seekdir(self._stream, ctypes.c_long(place))

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def close(self) -> None:
        _libc.closedir(self._stream)


def fill(directory: Path, count: int) -> list[str]:
    directory.mkdir()
    for number in range(count):
        (directory / f"entry-{number}").touch()
    return sorted(os.listdir(directory))


@on_mount()
async def test_everything_is_listed_once_with_its_attributes(mount: Mounted) -> None:
    names = fill(mount.pod / "many", MANY)

    def check() -> None:
        entries = list(os.scandir(mount.root / "many"))
        assert sorted(entry.name for entry in entries) == names
        for entry in entries[:: MANY // 50]:
            found = os.lstat(mount.pod / "many" / entry.name)
            assert entry.inode() == found.st_ino
            assert entry.is_file(follow_symlinks=False)
            assert entry.stat(follow_symlinks=False).st_mtime_ns == found.st_mtime_ns

    await mount.do(check)


@on_mount(["scratch"])
async def test_who_lists_and_looks_asks_no_more(mount: Mounted) -> None:
    fill(mount.pod / "some", 500)

    def check() -> None:
        for entry in os.scandir(mount.root / "some"):
            entry.stat()

    await mount.do(check)
    assert mount.files.asks["look"] <= 2
    assert all(mount.tree.is_ready(b"/some/entry-%d" % number, Need.ATTRIBUTES) for number in range(500))


@on_mount()
async def test_dots_and_kinds(mount: Mounted) -> None:
    (mount.pod / "a/b").mkdir(parents=True)
    (mount.pod / "a/link").symlink_to("b")
    os.mkfifo(mount.pod / "a/fifo")
    shown = await mount.shell("ls -ai a | sort -k2; ls -aF a")
    assert shown == await mount.shell("cd $POD; ls -ai a | sort -k2; ls -aF a")


@on_mount()
async def test_going_back_in_a_directory(mount: Mounted) -> None:
    names = fill(mount.pod / "many", MANY)

    def check() -> None:
        directory = Directory(mount.root / "many")
        for _ in range(10):
            directory.read()
        place = directory.tell()
        after = directory.rest()
        assert len(after) == MANY + 2 - 10
        directory.seek(place)
        assert directory.rest() == after
        (mount.pod / "many/new").touch()
        directory.rewind()
        assert sorted(directory.rest()) == sorted([".", "..", "new", *names])
        directory.rewind()
        directory.close()

    await mount.do(check)


@on_mount()
async def test_entries_go_while_they_are_listed(mount: Mounted) -> None:
    names = fill(mount.pod / "many", MANY)

    def check() -> None:
        directory = Directory(mount.root / "many")
        seen = [directory.read()]
        for name in names:
            (mount.pod / "many" / name).unlink()
        (mount.pod / "many").rmdir()
        seen += directory.rest()
        directory.close()
        assert set(seen) <= {".", "..", *names}

    await mount.do(check)
    await trio.sleep(LIFETIME_S)
    assert not await mount.do((mount.root / "many").exists)


@on_mount()
async def test_what_is_no_directory_or_not_there(mount: Mounted) -> None:
    (mount.pod / "file").touch()
    (mount.pod / "gone").mkdir()
    with pytest.raises(NotADirectoryError):
        await mount.do(os.listdir, mount.root / "file")
    await mount.do(os.listdir, mount.root / "gone")
    (mount.pod / "gone").rmdir()
    with pytest.raises(FileNotFoundError):
        await mount.do(os.listdir, mount.root / "gone")


@on_mount()
async def test_our_changes_are_listed_at_once(mount: Mounted) -> None:
    def check() -> None:
        for number in range(20):
            (mount.root / f"{number}").write_text("x")
            assert len(os.listdir(mount.root)) == number + 1
            assert (mount.root / f"{number}").exists()
        for number in range(20):
            listed = os.listdir(mount.root)
            assert len(listed) == 20 - number
            (mount.root / f"{number}").unlink()
            assert not (mount.root / f"{number}").exists()

    await mount.do(check)


@on_mount()
async def test_directories_are_synchronised(mount: Mounted) -> None:
    def check() -> None:
        descriptor = os.open(mount.root, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)

    await mount.do(check)


def look_at_each(mount: Mounted, count: int) -> None:
    for number in range(count):
        os.stat(mount.root / f"many/entry-{number}")


@on_mount(["scratch"])
async def test_names_that_are_looked_at_one_by_one_come_together(mount: Mounted) -> None:
    fill(mount.pod / "many", 300)
    mount.files.delay_s = 0.002
    await mount.do(look_at_each, mount, 300)
    assert mount.files.asks["look"] < 100


@on_mount(["scratch"])
async def test_a_directory_that_is_too_large_is_listed_once_for_nothing(mount: Mounted) -> None:
    fill(mount.pod / "many", 8000)
    await mount.do(look_at_each, mount, 8000)
    assert mount.files.asks["list"] == 1
    assert mount.files.asks["list more"] < 60


@on_mount(["scratch"])
async def test_names_that_are_not_there_do_not_make_a_habit(mount: Mounted) -> None:
    fill(mount.pod / "some", 100)

    def look() -> None:
        for number in range(100):
            assert not (mount.root / f"some/nothing-{number}").exists()

    await mount.do(look)
    assert not mount.files.asks["list"]


@on_mount(["agent"], top=Path("/"))
async def test_a_pod_with_this_machines_files_does_not_show_the_mount_in_itself(mount: Mounted) -> None:
    work = mount.root.parent

    def check() -> None:
        inside = mount.root / work.relative_to("/")
        assert inside.is_dir()
        assert os.listdir(inside) == []
        assert not (inside / "tree").exists()

    await mount.do(check)
    with pytest.raises(FileNotFoundError):
        await mount.tree.ensure(os.fsencode(mount.root / "x"), Need.CONTENT)
