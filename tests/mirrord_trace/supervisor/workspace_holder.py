"""A supervisor's part in the life of a workspace: makes one, mounts something writable in it, and waits.

`python -m tests.mirrord_trace.supervisor.workspace_holder MOUNT [SOURCE]`: MOUNT is "nothing", "bind" (of SOURCE),
"fuse" or "fusermount3" (served by nobody), or "served" (SOURCE, by itself, with a file of it open). It says each step
on stdout and goes on when it is sent a line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

import trio

from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.supervisor.workspace import workspace
from mirrord_trace.tree.fuse.mount import open_fuse_tree
from mirrord_trace.tree.unmounting import MOUNTPOINT
from tests.mirrord_trace.tree.private_mounts import bind, mount_fuse, mount_fuse_as_user
from tests.mirrord_trace.tree.scratch_files import ScratchFiles
from tests.mirrord_trace.tree.scratch_pod import Told


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())
    sys.stdin.readline()


def tell(text: str) -> None:
    sys.exit(f"nothing may go wrong, but: {text}")


async def serve(source: Path, directory: Path) -> None:
    files = cast(RemoteFiles, ScratchFiles(source))
    async with open_fuse_tree(files, directory, writable=lambda _: True, may_write=True, tell=Told()) as tree:
        await trio.to_thread.run_sync(os.open, tree.root + b"/file", os.O_RDONLY)
        say("mounted")  # nothing is served any more


def main() -> None:
    kind, *source = sys.argv[1:]
    say("starts")
    with workspace(tell) as directory:
        say(f"workspace {directory}")
        mountpoint = directory / MOUNTPOINT
        mountpoint.mkdir()
        (directory / "hosts").touch()
        if kind == "served":
            trio.run(serve, Path(source[0]), directory)
            return
        match kind:
            case "bind":
                bind(Path(source[0]), mountpoint)
            case "fuse":
                mount_fuse(mountpoint)
            case "fusermount3":
                mount_fuse_as_user(mountpoint)
        say("mounted")
    say("gone")


if __name__ == "__main__":
    main()
