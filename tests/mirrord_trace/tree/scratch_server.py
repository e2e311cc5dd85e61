"""Mounts a directory, writable, as a pod's root, and serves it until its standard input ends.

`python -m tests.mirrord_trace.tree.scratch_server TOP WORKSPACE`. It says "mounted" on stdout.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import cast

import trio

from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.tree.fuse.mount import open_fuse_tree
from tests.mirrord_trace.tree.scratch_files import ScratchFiles
from tests.mirrord_trace.tree.scratch_pod import Told


async def main(top: str, workspace: str) -> None:
    files = cast(RemoteFiles, ScratchFiles(Path(top)))
    async with open_fuse_tree(files, Path(workspace), writable=lambda path: True, may_write=True, tell=Told()):
        os.write(1, b"mounted\n")
        await trio.lowlevel.wait_readable(0)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
