"""Random operations on a mounted directory and on an ordinary one, one after the other: both must do the same."""

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from tests.mirrord_trace.tree.mounted import LIMIT_S, mounted

NAMES = ("a", "b", "c", "d/a", "d/b", "e", "e/a")
FLAGS = (
    os.O_RDONLY,
    os.O_RDWR,
    os.O_WRONLY | os.O_APPEND,
    os.O_RDWR | os.O_CREAT,
    os.O_RDWR | os.O_CREAT | os.O_EXCL,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    os.O_RDONLY | os.O_NOFOLLOW,
    os.O_RDONLY | os.O_DIRECTORY,
)
STEPS = 1500


@attrs.define
class World:
    """A directory and what is open in it."""

    top: Path
    open_files: list[int] = attrs.field(factory=list)

    def do(self, action: str, *arguments: Any) -> object:
        """What an operation tells, or its errno."""
        doing: Callable[..., object] = getattr(self, action)
        try:
            return doing(*arguments)
        except OSError as error:
            return error.errno

    def open(self, name: str, flags: int) -> str:
        descriptor = os.open(self.top / name, flags, 0o644)
        self.open_files.append(descriptor)
        return "open"

    def close(self, number: int) -> None:
        if self.open_files:
            os.close(self.open_files.pop(number % len(self.open_files)))

    def _file(self, number: int) -> int:
        return self.open_files[number % len(self.open_files)] if self.open_files else -1

    def read(self, number: int, offset: int, length: int) -> bytes:
        return os.pread(self._file(number), length, offset)

    def write(self, number: int, offset: int, data: bytes) -> int:
        return os.pwrite(self._file(number), data, offset)

    def truncate(self, number: int, size: int) -> None:
        os.ftruncate(self._file(number), size)

    def examine(self, number: int) -> object:
        return told(os.fstat(self._file(number)))

    def change_mode(self, number: int, mode: int) -> None:
        os.fchmod(self._file(number), mode)

    def truncate_path(self, name: str, size: int) -> None:
        os.truncate(self.top / name, size)

    def change_mode_of_path(self, name: str, mode: int) -> None:
        os.chmod(self.top / name, mode)

    def set_times(self, name: str, time_ns: int) -> None:
        os.utime(self.top / name, ns=(time_ns, time_ns), follow_symlinks=False)

    def stat(self, name: str) -> object:
        return told(os.stat(self.top / name))

    def lstat(self, name: str) -> object:
        return told(os.lstat(self.top / name))

    def content(self, name: str) -> bytes:
        return (self.top / name).read_bytes()

    def make(self, name: str) -> None:
        os.mkdir(self.top / name)

    def remove(self, name: str) -> None:
        os.rmdir(self.top / name)

    def unlink(self, name: str) -> None:
        os.unlink(self.top / name)

    def rename(self, name: str, other: str) -> None:
        os.rename(self.top / name, self.top / other)

    def link(self, name: str, other: str) -> None:
        os.link(self.top / name, self.top / other, follow_symlinks=False)

    def symlink(self, target: str, name: str) -> None:
        os.symlink(target, self.top / name)

    def readlink(self, name: str) -> str:
        return os.readlink(self.top / name)

    def list(self, name: str) -> list[str]:
        return sorted(os.listdir(self.top / name))


def told(found: os.stat_result) -> object:
    """What of a status is the same in two places."""
    kind = stat.S_IFMT(found.st_mode)
    size = found.st_size if kind == stat.S_IFREG else 0
    return found.st_mode, found.st_nlink if kind != stat.S_IFDIR else 0, size


def steps_of(seed: int) -> list[tuple[Any, ...]]:
    choose = random.Random(seed)

    def name() -> str:
        return choose.choice(NAMES)

    def number() -> int:
        return choose.randrange(50)

    def place() -> int:
        return choose.choice((0, 1, 4095, 4096, 70_000, choose.randrange(200_000)))

    makers: list[Callable[[], tuple[Any, ...]]] = [
        lambda: ("open", name(), choose.choice(FLAGS)),
        lambda: ("open", name(), choose.choice(FLAGS)),
        lambda: ("close", number()),
        lambda: ("read", number(), place(), place()),
        lambda: ("read", number(), place(), place()),
        lambda: ("write", number(), place(), choose.randbytes(place() or 1)),
        lambda: ("write", number(), place(), choose.randbytes(10)),
        lambda: ("truncate", number(), place()),
        lambda: ("examine", number()),
        lambda: ("change_mode", number(), choose.choice((0o600, 0o644))),
        lambda: ("truncate_path", name(), place()),
        lambda: ("change_mode_of_path", name(), choose.choice((0o700, 0o755))),
        lambda: ("set_times", name(), choose.randrange(10**18)),
        lambda: ("stat", name()),
        lambda: ("lstat", name()),
        lambda: ("content", name()),
        lambda: ("content", name()),
        lambda: ("make", name()),
        lambda: ("make", choose.choice("de")),
        lambda: ("remove", name()),
        lambda: ("unlink", name()),
        lambda: ("rename", name(), name()),
        lambda: ("rename", name(), name()),
        lambda: ("link", name(), name()),
        lambda: ("symlink", choose.choice(("a", "b", "d/a", "../a", "nothing", "d")), name()),
        lambda: ("list", choose.choice((".", "d", "e"))),
    ]
    return [choose.choice(makers)() for _ in range(STEPS)]


def compare(seed: int, *worlds: World) -> None:
    done: list[tuple[Any, ...]] = []
    try:
        for step in steps_of(seed):
            done.append(step)
            said = [world.do(*step) for world in worlds]
            assert said[0] == said[1], f"after {done[-12:]}"
    finally:
        for world in worlds:
            for descriptor in world.open_files:
                os.close(descriptor)


@pytest.mark.parametrize("with_agent", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations(tmp_path: Path, seed: int, with_agent: bool) -> None:
    (tmp_path / "native/top").mkdir(parents=True)
    (tmp_path / "pod/top").mkdir(parents=True)

    async def check() -> None:
        with trio.fail_after(LIMIT_S):
            async with mounted(tmp_path, with_agent=with_agent) as mount:
                await mount.do(compare, seed, World(tmp_path / "native/top"), World(mount.root / "top"))
                assert not mount.told.warnings

    trio.run(check)
