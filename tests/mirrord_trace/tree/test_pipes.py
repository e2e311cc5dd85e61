"""FIFOs of the pod, through a real mount, and some that are not the pod's."""

import os
import select
from pathlib import Path

import pytest
import trio

from mirrord_trace.tree.base import Need
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.tree.mounted import Mounted, mounted, on_mount


@on_mount(["scratch"])
async def test_a_fifo_is_one_of_this_machine_that_is_fed(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    place = await mount.tree.ensure(b"/fifo", Need.CONTENT)
    assert not place.startswith(os.fsencode(mount.root) + b"/")
    assert await mount.tree.ensure(b"/fifo", Need.TARGET) == os.fsencode(mount.root / "fifo")
    assert not mount.tree.is_ready(b"/fifo", Need.CONTENT)
    assert mount.tree.is_ready(b"/fifo", Need.ATTRIBUTES)

    def read_some() -> bytes:
        descriptor = os.open(place, os.O_RDONLY)
        with os.fdopen(descriptor, "rb", buffering=0) as reader:
            assert select.select([reader], [], [], 10)[0]
            return reader.read()

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await mount.do(read_some) == b"fed from the pod"

        nursery.start_soon(read)
        await mount.files.until_handles_are(1)
        await mount.do((mount.pod / "fifo").write_bytes, b"fed from the pod")
    await mount.files.until_handles_are(0)
    assert not await trio.Path(os.fsdecode(place)).exists()


@on_mount()
async def test_a_fifo_that_is_made_here_is_for_those_here(mount: Mounted) -> None:
    assert await mount.shell("mkfifo fifo; echo through > fifo & cat fifo; wait; stat -c %F $POD/fifo") == (
        "through\nfifo\n"
    )
    for need in Need:
        assert mount.tree.is_ready(b"/fifo", need)
        assert await mount.tree.ensure(b"/fifo", need) == mount.tree.root + b"/fifo"


async def open_outlet(mount: Mounted) -> str:
    place = await mount.tree.ensure(b"/fifo", Need.OUTPUT)
    assert not place.startswith(mount.tree.root + b"/")
    return os.fsdecode(place)


@on_mount()
async def test_a_fifo_of_the_pods_is_written_to(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    place = await open_outlet(mount)
    with pytest.raises(OSError, match="No such device or address"):
        await mount.do(os.open, place, os.O_WRONLY | os.O_NONBLOCK)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await mount.do((mount.pod / "fifo").read_text) == "first"

        nursery.start_soon(read)
        await mount.do(Path(place).write_text, "first")


@on_mount()
async def test_a_fifo_of_the_pods_that_has_a_reader_opens_at_once(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    reader = os.open(mount.pod / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        writer = await mount.do(os.open, await open_outlet(mount), os.O_WRONLY | os.O_NONBLOCK)
        await mount.do(os.write, writer, b"text")
        await trio.lowlevel.wait_readable(reader)
        assert os.read(reader, 100) == b"text"
        os.close(reader)
        reader = -1

        def write_more() -> None:
            while True:
                select.select([], [writer], [])
                os.write(writer, b"more")

        with pytest.raises(BrokenPipeError):
            await mount.do(write_more)
        await mount.do(os.close, writer)
    finally:
        if reader >= 0:
            os.close(reader)


@in_trio
async def test_the_last_bytes_reach_the_pods_fifo(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        os.mkfifo(mount.pod / "fifo")
        reader = os.open(mount.pod / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(await open_outlet(mount), os.O_WRONLY)
        os.write(writer, b"last words")
        os.close(writer)
    assert os.read(reader, 100) == b"last words"
    os.close(reader)
