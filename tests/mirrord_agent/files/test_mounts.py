from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from mirrord_agent.files.mounts import parse_mountinfo

TEXT = rb"""22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 28 0:30 /a\040b /with\040space\011tab\012newline\134backslash\043hash ro - tmpfs none rw
41 28 0:31 / /optional rw shared:1 master:2 propagate_from:3 unbindable - xfs /dev/a\040-\040b rw
42 28 0:32 / /dash\040-\040dash rw - tmpfs tmpfs rw
"""


def test_mountinfo() -> None:
    assert parse_mountinfo(TEXT) == [
        (b"/proc", b"proc", b"/", b"rw,nosuid,nodev,noexec,relatime"),
        (b"/mnt2", b"ext3", b"/mnt1", b"rw,noatime"),
        (b"/with space\ttab\nnewline\\backslash#hash", b"tmpfs", b"/a b", b"ro"),
        (b"/optional", b"xfs", b"/", b"rw"),
        (b"/dash - dash", b"tmpfs", b"/", b"rw"),
    ]
    assert parse_mountinfo(b"") == []


def test_names_need_not_be_text() -> None:
    line = b"22 28 0:21 / /caf\xe9\x0b\r\x1c rw - ext4 /dev/sda1 rw\n"
    assert parse_mountinfo(line)[0][0] == b"/caf\xe9\x0b\r\x1c"


SILENT_SERVER = textwrap.dedent("""
    import ctypes, os, sys
    from mirrord_agent.files.mounts import mounts_from
    from mirrord_agent.files.root import Root

    directory, file = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    NEWNS, BIND, PRIVATE, REC = 0x20000, 0x1000, 1 << 18, 0x4000
    assert libc.unshare(NEWNS) == 0 and libc.mount(b"none", b"/", None, PRIVATE | REC, None) == 0
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    assert libc.mount(b"silent", os.fsencode(directory), b"fuse", 0, options) == 0
    assert libc.mount(os.fsencode(file), os.fsencode(file), None, BIND, None) == 0
    with open("/proc/self/mountinfo", "rb") as text:
        found = {mount.path: mount for mount in mounts_from(Root(os.open("/", os.O_PATH)), text.read())}
    print(found[os.fsencode(directory)].is_directory, found[os.fsencode(file)].is_directory, found[b"/"].is_directory)
""")


def test_a_mount_whose_server_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    """It needs root and /dev/fuse: apt-get install fuse3."""
    directory, file = tmp_path / "silent", tmp_path / "file"
    directory.mkdir()
    file.touch()
    command = [sys.executable, "-c", SILENT_SERVER, str(directory), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.stderr) == ("True False True\n", "")
