"""Small files that are read one after the other come before they are asked for; without a habit nothing does."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from mirrord_trace.remote_files import Entry, Status
from mirrord_trace.tree.fuse.siblings import UNASKED_FILE_BYTES, Siblings
from mirrord_trace.tree.known import Known
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.tree.mounted import Mounted, on_mount
from tests.mirrord_trace.tree.test_known import FILE

MANY = 400


def fill(directory: Path, count: int = MANY) -> None:
    directory.mkdir(parents=True)
    for number in range(count):
        (directory / f"{number}").write_text(f"content {number}\n")


def read_each(directory: Path, numbers: Sequence[int]) -> None:
    for number in numbers:
        path = directory / f"{number}"
        assert path.stat().st_size == len(f"content {number}\n")
        assert path.read_text() == f"content {number}\n"


ORDERS: dict[str, Callable[[Path], list[int]]] = {
    "as they were made": lambda pod: list(range(MANY)),
    "backwards": lambda pod: list(range(MANY))[::-1],
    "sorted": lambda pod: sorted(range(MANY), key=str),
    "as listed": lambda pod: [int(name) for name in os.listdir(pod)],
    "at random": lambda pod: random.Random(5).sample(range(MANY), MANY),
}


@pytest.mark.parametrize("order", ORDERS)
def test_files_that_are_read_in_some_order(tmp_path: Path, order: str) -> None:
    @on_mount(tellers=("scratch",))
    async def test(mount: Mounted) -> None:
        fill(mount.pod / "srv/many")
        await mount.do(read_each, mount.root / "srv/many", ORDERS[order](mount.pod / "srv/many"))
        assert mount.files.asks["open"] == 0
        # Each is asked for once, by whomever; what had been brought a second before is asked for again.
        assert mount.files.asks["look"] < 2 * MANY

    test(tmp_path=tmp_path, teller="scratch")


@on_mount(tellers=("scratch",))
async def test_who_reads_a_few_here_and_there_brings_little(mount: Mounted) -> None:
    fill(mount.pod / "srv/many", 1000)
    await mount.do(read_each, mount.root / "srv/many", range(0, 1000, 25))
    assert mount.files.asks["look"] < 2 * 256 + 100


@on_mount(tellers=("scratch",))
async def test_what_was_brought_and_has_changed_is_read_as_it_is(mount: Mounted) -> None:
    fill(mount.pod / "srv/many")
    await mount.do(read_each, mount.root / "srv/many", range(199))
    (mount.pod / "srv/many/200").write_text("something else altogether")
    (mount.pod / "srv/many/201").unlink()
    await trio.sleep(1.05)  # what is known counts for a second
    assert await mount.do((mount.root / "srv/many/200").read_text) == "something else altogether"
    with pytest.raises(FileNotFoundError):
        await mount.do((mount.root / "srv/many/201").read_text)


@attrs.define
class Brought:
    paths: list[bytes] = attrs.field(factory=list)

    async def look(self, path: bytes, content_limit: int) -> None:
        await trio.lowlevel.checkpoint()
        assert content_limit == UNASKED_FILE_BYTES
        self.paths.append(path)


def small(name: str, **differing: Any) -> tuple[bytes, Status]:
    return name.encode(), attrs.evolve(FILE, **{"size": 10, **differing})


async def after_reading(
    names: Sequence[str],
    entries: Sequence[tuple[bytes, Status]],
    directory: bytes = b"/srv",
    pages: Callable[[Status], bool] = lambda status: False,
) -> list[bytes]:
    """What is brought when files are read in a directory that has these entries."""
    known, brought = Known(), Brought()

    async def listed(path: bytes) -> AsyncGenerator[tuple[Entry, ...], None]:
        assert path == directory
        for name, status in entries:
            yield (Entry(name, status),)

    found: Siblings | None = None
    for name in names:
        async with trio.open_nursery() as nursery:  # what a read begins ends before the next
            found = found or Siblings(listed, known, nursery, brought.look, pages)
            found.nursery = nursery
            found.read(directory + b"/" + name.encode())
    return brought.paths


ENTRIES = [small(str(number)) for number in range(1000)]


def test_the_next_ones_are_brought_in_the_order_of_use() -> None:
    @in_trio
    async def test() -> None:
        forwards = await after_reading(["10", "11", "12", "13"], ENTRIES)
        assert sorted(forwards) == sorted(b"/srv/%d" % number for number in range(14, 14 + 256))
        backwards = await after_reading(["500", "499", "498", "497"], ENTRIES)
        assert sorted(backwards) == sorted(b"/srv/%d" % number for number in range(496, 496 - 256, -1))
        by_name = await after_reading(["1", "10", "100", "101"], ENTRIES)
        assert sorted(by_name) == sorted(b"/srv/%b" % name for name, _ in ENTRIES)[5:261]

    test()


def test_nothing_is_brought_without_a_habit() -> None:
    @in_trio
    async def test() -> None:
        assert await after_reading(["1", "2", "3"], ENTRIES) == []
        assert await after_reading(["1"] * 20, ENTRIES) == []

    test()


@pytest.mark.parametrize("directory", [b"/proc/1", b"/sys/class", b"/dev"])
def test_nothing_is_brought_where_reading_may_have_effects(directory: bytes) -> None:
    @in_trio
    async def test() -> None:
        assert await after_reading(["1", "2", "3", "4"], ENTRIES, directory) == []

    test()


def test_only_small_regular_files_are_brought() -> None:
    entries = [
        small("empty", size=0),
        small("limit", size=UNASKED_FILE_BYTES),
        small("large", size=UNASKED_FILE_BYTES + 1),
        small("directory", mode=0o040755),
        small("link", mode=0o120777),
        small("fifo", mode=0o010644),
        small("device", mode=0o020644),
        small("kept", ino=77),
    ]

    @in_trio
    async def test() -> None:
        brought = await after_reading(["a", "b", "c", "d"], entries, pages=lambda status: status.ino == 77)
        assert brought == [b"/srv/limit"]

    test()


def test_no_more_bytes_are_brought_than_are_good() -> None:
    entries = [small(str(number), size=UNASKED_FILE_BYTES) for number in range(200)]

    @in_trio
    async def test() -> None:
        brought = await after_reading(["0", "1", "2", "3"], entries)
        assert len(brought) == (1 << 20) // UNASKED_FILE_BYTES

    test()


@pytest.mark.parametrize("size", [10, UNASKED_FILE_BYTES])
def test_who_reads_on_has_all_brought(size: int) -> None:
    entries = [small(str(number), size=size) for number in range(1000)]

    @in_trio
    async def test() -> None:
        brought = await after_reading([str(number) for number in range(900)], entries)
        assert set(brought) >= {b"/srv/%d" % number for number in range(4, 900)}

    test()


@in_trio
async def test_a_directory_where_nothing_is_worth_bringing_is_left_alone() -> None:
    listings: list[bytes] = []
    now_s = 100.0

    async def listed(path: bytes) -> AsyncGenerator[tuple[Entry, ...], None]:
        listings.append(path)
        yield tuple(Entry(*small(str(number), size=UNASKED_FILE_BYTES + 1)) for number in range(100))

    known, brought = Known(clock=lambda: now_s), Brought()
    found: Siblings | None = None
    for number in range(40):
        now_s += 0.2
        async with trio.open_nursery() as nursery:
            found = found or Siblings(listed, known, nursery, brought.look, lambda status: False)
            found.nursery = nursery
            found.read(b"/srv/%d" % number)
    assert listings == [b"/srv"]
    assert brought.paths == []
