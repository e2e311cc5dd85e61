"""A scratch directory, mounted as a pod's root: what is in it is told by an agent, or by `ScratchFiles`.

What asks the mount runs in other threads or processes, as it must. Memory that is mapped from there may be touched by
other processes only: a thread of ours would hold the interpreter's lock while it waits for us.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import pytest
import trio

from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.reporting import Reporter, Step
from mirrord_trace.session import open_session
from mirrord_trace.targets.pid import agent_for
from mirrord_trace.tree.fuse.mount import open_fuse_tree
from mirrord_trace.tree.fuse.tree import FuseTree
from mirrord_trace.tree.unmounting import MOUNTPOINT
from tests.mirrord_trace.tree.scratch_files import ScratchFiles

T = TypeVar("T")

LIMIT_S = 30
_ENDED_AFTER_S = 45


@attrs.define
class Told:
    """A reporter that remembers."""

    warnings: list[str] = attrs.field(factory=list)

    def step(self, text: str) -> AbstractContextManager[Step]:
        return nullcontext(self)

    def warning(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        pass

    detail = waiting = explain = note

    def ready(self) -> None:
        pass

    close = ready


@attrs.define
class Mounted:
    tree: FuseTree
    scratch: ScratchFiles | None
    """Whoever tells what is in the pod, if that is no agent."""
    pod: Path
    """What is in the pod."""
    root: Path
    """Where it is mounted."""
    told: Told

    @property
    def files(self) -> ScratchFiles:
        assert self.scratch is not None, "an agent tells what is in the pod"
        return self.scratch

    async def do(self, action: Callable[..., T], *arguments: Any) -> T:
        """Does something with the mount, in another thread."""
        return await trio.to_thread.run_sync(functools.partial(action, *arguments), abandon_on_cancel=True)

    async def shell(self, script: str) -> str:
        """What a shell script prints that starts in the mount's root; $POD is the pod's root."""
        entered = f"cd {self.root} && {script}"
        command = ["bash", "-c", entered]
        process = await trio.run_process(
            command,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
            env={**os.environ, "POD": str(self.pod)},
        )
        return process.stdout.decode(errors="surrogateescape")


def connections() -> dict[bytes, int]:
    """The mounts of ours that there are on this machine, and the numbers of their FUSE connections."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        if b" - fuse.mirrord-trace " in line:
            fields = line.split()
            found[fields[4]] = int(fields[2].partition(b":")[2])
    return found


@contextmanager
def ended_if_it_hangs(mountpoint: Path) -> Iterator[None]:
    """Takes a mount away when this process ends or hangs: another process does, for who hangs may have our lock.

    The block mounts and unmounts. However it ends, it fails if the mount is there then, or had to be taken away.
    """
    control = "/sys/fs/fuse/connections"
    mounted_there = "awk -v at=$0 '$5 == at {print $3}' /proc/self/mountinfo"
    abort = f"mount -t fusectl none {control}; echo 1 > {control}/${{device#*:}}/abort"
    each = f"do export device; unshare -m sh -c '{abort}'; umount -l $0; done 2> /dev/null"
    take_away = f"for device in $({mounted_there}); {each}"
    script = f"read -t {_ENDED_AFTER_S} -r done || {{ {take_away}; exit 1; }}"
    with subprocess.Popen(["setsid", "bash", "-c", script, mountpoint], stdin=subprocess.PIPE) as watcher:
        try:
            yield
        finally:
            is_left = os.fsencode(mountpoint) in connections()
            watcher.communicate(b"" if is_left else b"done\n")
            assert not is_left, "it is still mounted"
            assert watcher.returncode == 0, "it hung"


@contextmanager
def process_in(pod: Path) -> Iterator[int]:
    """A process whose root is `pod`."""
    script = "import os, signal, sys; os.chroot(sys.argv[1]); os.chdir('/'); print(flush=True); signal.pause()"
    as_root = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
    command = [*as_root, sys.executable, "-c", script, os.fspath(pod)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None, "it was asked for"
            assert process.stdout.readline() == b"\n"
            yield process.pid
        finally:
            process.kill()


@asynccontextmanager
async def agent_in(pod: Path, told: Reporter) -> AsyncIterator[RemoteFiles]:
    """The files of a process whose root is `pod`, as an agent tells them."""
    with process_in(pod) as pid:
        async with (
            agent_for(pid, "a process with a root of its own", told) as link,
            open_session(link.stream, link.secret) as session,
        ):
            yield session.files


@asynccontextmanager
async def mounted(
    base: Path,
    *,
    with_agent: bool = False,
    top: Path | None = None,
    writable: Callable[[bytes], bool] = lambda path: True,
    may_write: bool = True,
) -> AsyncIterator[Mounted]:
    """`base/pod` or `top`, mounted at `base/work/tree`; nothing of the mount is left at the end."""
    pod, work = top or base / "pod", base / "work"
    for directory in (pod, work):
        directory.mkdir(exist_ok=True)
    scratch, told = None if with_agent else ScratchFiles(pod), Told()
    async with AsyncExitStack() as opened:
        files = cast(RemoteFiles, scratch or await opened.enter_async_context(agent_in(pod, told)))
        opened.enter_context(ended_if_it_hangs(work / MOUNTPOINT))
        async with open_fuse_tree(files, work, writable=writable, may_write=may_write, tell=told) as tree:
            yield Mounted(tree, scratch, pod, Path(os.fsdecode(tree.root)), told)
    assert scratch is None or scratch.open_handles == 0, "handles are open at the agent"


def on_mount(
    tellers: Sequence[str] = ("scratch", "agent"), **how: Any
) -> Callable[[Callable[[Mounted], Awaitable[None]]], Callable[..., None]]:
    """Runs an async test with a mount of its own. One that hangs fails, and one that a fault of ours was told in."""

    def decorate(test: Callable[[Mounted], Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("teller", tellers)
        def run(tmp_path: Path, teller: str) -> None:
            async def limited() -> None:
                with trio.fail_after(LIMIT_S):
                    async with mounted(tmp_path, with_agent=teller == "agent", **how) as mount:
                        await test(mount)
                        assert not [warning for warning in mount.told.warnings if "fault" in warning]

            trio.run(limited)

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate
