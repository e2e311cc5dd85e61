"""A supervisor's part in the life of a workspace: makes one, mounts something writable in it, and waits.

`python -m tests.mirrord_trace.supervisor.workspace_holder MOUNT [SOURCE]`: MOUNT is "nothing", "bind" (of SOURCE),
"fuse" or "fusermount3" (served by nobody). It says each step on stdout and goes on when it is sent a line.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mirrord_trace.supervisor.workspace import workspace
from mirrord_trace.tree.unmounting import MOUNTPOINT
from tests.mirrord_trace.tree.private_mounts import bind, mount_fuse, mount_fuse_as_user


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())
    sys.stdin.readline()


def tell(text: str) -> None:
    sys.exit(f"nothing may go wrong, but: {text}")


def main() -> None:
    kind, *source = sys.argv[1:]
    say("starts")
    with workspace(tell) as directory:
        say(f"workspace {directory}")
        mountpoint = directory / MOUNTPOINT
        mountpoint.mkdir()
        (directory / "hosts").touch()
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
