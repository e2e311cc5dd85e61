"""What a mountinfo file tells: proc_pid_mountinfo(5)."""

from __future__ import annotations

import os
from pathlib import Path

from mirrord_trace.tree.mounts import Mount, mounts_here, parse
from tests.mirrord_trace.tree.private_mounts import in_private_mounts, tmpfs

TEXT = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:53 / /tmp/a\040b\011c\134d rw,nosuid,nodev shared:7 master:2 - fuse.mirrord-trace mirrord-trace ro
32 22 0:4 net:[4026532281] /run/ns rw - nsfs nsfs rw
"""


def test_mounts() -> None:
    assert parse(TEXT) == (
        Mount(22, "8:1", b"/", b"ext4"),
        Mount(31, "0:53", b"/tmp/a b\tc\\d", b"fuse.mirrord-trace"),
        Mount(32, "0:4", b"/run/ns", b"nsfs"),
    )
    assert parse(b"") == ()


@in_private_mounts
def test_a_mount_with_any_name(tmp_path: Path) -> None:
    directory = tmp_path / "\x0b\r\x0c\x1c\x85 \t\n\\#-\udcff - "
    directory.mkdir()
    tmpfs(directory, "mode=755")
    (mount,) = (mount for mount in mounts_here() if mount.path == os.fsencode(directory))
    assert mount.type == b"tmpfs"
    status = directory.stat()
    assert mount.device == f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    descriptor = os.open(directory, os.O_PATH)
    assert f"mnt_id:\t{mount.id}\n" in Path(f"/proc/self/fdinfo/{descriptor}").read_text()
