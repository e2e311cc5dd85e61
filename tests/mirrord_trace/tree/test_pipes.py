"""FIFOs of the pod, through a real mount, and some that are not the pod's."""

import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mirrord_trace.tree import pipes
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


OPENER = "import sys; place = sys.stdin.readline().strip(); print(flush=True); open(place, 'wb').close()"
"""It is told a path, and opens it to write."""


@contextmanager
def killed_opener() -> Iterator[Callable[[str, bool], None]]:
    """A task that is killed after it was told of a FIFO: before it has opened it, or while it waits in its open."""
    command = [sys.executable, "-c", OPENER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def tell_and_kill(place: str, while_it_waits: bool) -> None:
            if while_it_waits:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(place + "\n")
                process.stdin.flush()
                assert process.stdout.readline() == "\n"
                while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "S":
                    os.sched_yield()
            process.kill()
            process.wait()

        yield tell_and_kill


@pytest.fixture
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was told of a FIFO has opened it by now, or never will."""
    monkeypatch.setattr(pipes, "_OPENED_WITHIN_S", 0.0)


@pytest.mark.usefixtures("no_patience")
@on_mount(["scratch"])
async def test_the_pods_fifo_is_not_kept_open_for_a_task_that_never_opens_it(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    reader = os.open(mount.pod / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with killed_opener() as tell_and_kill:
        tell_and_kill(await open_outlet(mount), False)
        await mount.files.until_handles_are(0)
    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.usefixtures("no_patience")
@on_mount(["scratch"])
async def test_the_pods_fifo_is_not_kept_open_for_a_task_that_was_killed_in_its_open(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    with killed_opener() as tell_and_kill:
        await mount.do(tell_and_kill, await open_outlet(mount), True)
        assert await mount.do((mount.pod / "fifo").read_text) == ""
        await mount.files.until_handles_are(0)


@pytest.mark.usefixtures("no_patience")
@on_mount(["scratch"])
async def test_who_has_opened_a_fifo_may_write_when_he_likes(mount: Mounted) -> None:
    os.mkfifo(mount.pod / "fifo")
    reader = os.open(mount.pod / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(await open_outlet(mount), os.O_WRONLY)
    await wait_all_tasks_blocked()  # nobody waits for the open any more
    os.write(writer, b"late")
    await trio.lowlevel.wait_readable(reader)
    assert os.read(reader, 100) == b"late"
    os.close(writer)
    await mount.files.until_handles_are(0)
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


@on_mount()
async def test_a_fifo_of_the_pods_that_is_opened_for_both_is_this_machines(mount: Mounted) -> None:
    """As docs/limits.md says."""
    os.mkfifo(mount.pod / "fifo")
    reader = os.open(mount.pod / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    both = await mount.do(os.open, await mount.tree.ensure(b"/fifo", Need.CHANGE), os.O_RDWR)
    try:
        assert os.write(both, b"to nobody") == 9
        assert os.read(both, 100) == b"to nobody"
        assert os.read(reader, 100) == b"", "the pod's FIFO has a writer"
    finally:
        os.close(both)
        os.close(reader)
