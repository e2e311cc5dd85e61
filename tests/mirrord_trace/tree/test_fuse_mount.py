"""Mounts that come and go: what is left behind, and who is left waiting."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mirrord_trace.tree import unmounting
from mirrord_trace.tree.fuse.askers import Askers
from tests.mirrord_agent.support import in_trio
from tests.mirrord_trace.tree.mounted import Mounted, connections, mounted, on_mount


@in_trio
async def test_one_after_the_other(tmp_path: Path) -> None:
    for text in ("first", "second"):
        async with mounted(tmp_path) as mount:
            (mount.pod / "file").write_text(text)
            assert await mount.do((mount.root / "file").read_text) == text
        assert os.listdir(tmp_path / "work/tree") == []


@in_trio
async def test_a_mount_that_is_in_use_goes_and_nobody_waits(tmp_path: Path) -> None:
    async with mounted(tmp_path) as mount:
        (mount.pod / "file").write_bytes(bytes(200_000))
        descriptor = await mount.do(os.open, mount.root / "file", os.O_RDONLY)
        directory = await mount.do(os.open, mount.root, os.O_RDONLY | os.O_DIRECTORY)
        await mount.files.until_handles_are(1)
    with pytest.raises(OSError, match="not connected"):
        os.pread(descriptor, 10, 0)
    with pytest.raises(OSError, match="not connected"):
        os.close(descriptor)
    os.close(directory)


@on_mount(["scratch"])
async def test_what_is_abandoned_fails_at_once(mount: Mounted) -> None:
    (mount.pod / "file").write_text("x")
    await mount.do((mount.root / "file").read_text)
    mount.files.held = trio.Event()
    async with trio.open_nursery() as nursery:
        for name in ("one", "two"):

            async def wait(name: str = name) -> None:
                with pytest.raises(OSError, match=r"connection abort|not connected"):
                    await mount.do(os.stat, mount.root / name)

            nursery.start_soon(wait)
        while mount.files.asks["look"] < 3:
            await trio.lowlevel.checkpoint()
        mount.tree.abandon()
    with pytest.raises(OSError, match="not connected"):
        await mount.do(os.stat, mount.root / "three")
    assert os.fsencode(mount.root) in connections(), "it stays mounted until the end"


@on_mount(["scratch"])
async def test_somebody_else_unmounts_it(mount: Mounted) -> None:
    await mount.shell("true")
    assert await trio.to_thread.run_sync(unmounting.detach, mount.root)
    while not mount.told.warnings:
        await trio.lowlevel.checkpoint()
    assert "unmounted" in mount.told.warnings[0]
    mount.tree.abandon()


@in_trio
async def test_what_goes_wrong_in_the_block_arrives_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with mounted(tmp_path):
            raise ZeroDivisionError
    with trio.CancelScope() as scope:
        async with mounted(tmp_path):
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


def test_what_cannot_be_mounted_says_why(tmp_path: Path) -> None:
    script = (
        "import sys, trio; from pathlib import Path; from mirrord_trace.errors import Failure\n"
        "from tests.mirrord_trace.tree.mounted import mounted\n"
        "async def main():\n"
        "    try:\n"
        "        async with mounted(Path(sys.argv[1])): pass\n"
        "    except Failure as failure: print(failure.message)\n"
        "trio.run(main)\n"
    )
    without_rights = ["setpriv", "--no-new-privs", *(["--bounding-set=-all"] if os.geteuid() == 0 else [])]
    tried = subprocess.run(
        [*without_rights, sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert tried.stderr == ""
    assert tried.stdout.startswith(f"cannot mount the target's files at {tmp_path}/work/tree: ")
    assert "fusermount3: mount failed: Operation not permitted" in tried.stdout


@on_mount(["scratch"])
async def test_a_fault_of_ours_is_told_once_and_ends_nothing(mount: Mounted) -> None:
    (mount.pod / "file").write_text("x")
    mount.files.bug = RuntimeError("a bug")
    for _ in range(3):
        with pytest.raises(OSError, match="Input/output error"):
            await mount.do(os.stat, mount.root / "file")
    mount.files.bug = None
    assert await mount.do((mount.root / "file").read_text) == "x"
    assert len(mount.told.warnings) == 1
    assert "RuntimeError('a bug')" in mount.told.warnings.pop()


@on_mount(["scratch"])
async def test_requests_that_signals_take_back_hold_up_nobody(mount: Mounted) -> None:
    """A request, or the news that it is interrupted, may be gone before it is read."""
    (mount.pod / "signalled").write_text(
        "import os, signal\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)\n"
        "for number in range(3000): os.path.exists(f'nothing-{number}')\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
    )
    (mount.pod / "killed").write_text(
        "import os, signal, time\n"
        "for number in range(300):\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        while True: os.path.exists(f'no-{os.getpid()}-{time.perf_counter()}')\n"
        "    time.sleep(number % 10 / 3000)\n"
        "    os.kill(child, signal.SIGKILL); os.waitpid(child, 0)\n"
    )
    assert (
        await mount.shell(f"for name in signalled signalled killed; do {sys.executable} $POD/$name & done; wait") == ""
    )


def test_killed_without_warning(tmp_path: Path) -> None:
    """Nobody waits for a server that is no more."""
    script = (
        "import sys, trio; from pathlib import Path; from tests.mirrord_trace.tree.mounted import mounted\n"
        "async def main():\n"
        "    async with mounted(Path(sys.argv[1])) as mount:\n"
        "        mount.files.held = trio.Event()\n"
        "        print('mounted', flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    root = tmp_path / "work/tree"
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None, "it was asked for"
            assert server.stdout.readline() == b"mounted\n"
            with subprocess.Popen(["stat", root / "file"], stderr=subprocess.PIPE) as waiting:
                server.kill()
                said = waiting.communicate(timeout=20)[1]
            assert b"connection abort" in said or b"not connected" in said
        finally:
            server.kill()
            server.wait()
            assert unmounting.detach(root)


def test_who_may_ask() -> None:
    """Root's mount is for the processes that descend from us, and for root."""
    us = os.getpid()
    with subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None, "it was asked for"
        grandchild = int(child.stdout.readline())
        try:
            trio.run(_check_askers, us, child.pid, grandchild)
        finally:
            os.kill(grandchild, signal.SIGKILL)
            child.kill()


async def _check_askers(us: int, child: int, grandchild: int) -> None:
    askers = Askers(owner=0, supervisor=us)
    assert askers.may_ask(0, 1)
    for _ in range(2):
        assert all(askers.may_ask(65534, pid) for pid in (us, child, grandchild))
        assert not any(askers.may_ask(65534, pid) for pid in (0, 1, 1 << 30))
    assert not Askers(owner=0, supervisor=grandchild).may_ask(1, child)
