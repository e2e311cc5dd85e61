"""What a pod of the file tests has in /srv, made from within; and what is there after a program has changed it.

`make`: the tree under /srv/data, what cannot be copied in /srv/exact, volumes on /srv/volume and /opt/volume, mounted
as a kubelet would; says "ready" and stays. `fill`: all of that but the volumes, where there is a kubelet.
`reset DIRECTORY`: an empty directory in the place of whatever is there. `snapshot DIRECTORY`: all that is there, one
line for each entry. Standard library only: it runs in the pod as a script.

Everything is the same each time that it is made, and every modification time is set, so that programs may print them.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path("/srv/data")
EXACT = Path("/srv/exact")
VOLUMES = (Path("/srv/volume"), Path("/opt/volume"))
BIG_SIZE = 5 * 1024 * 1024 + 123
MANY = 3000
LARGE_SIZE = 10 * 1024**3
LONGEST_PATH = 4040
"""Under the tool the path of the tree comes before it, and all of it may have 4095 bytes (PATH_MAX)."""
FIRST_TIME_NS = 1_600_000_000_123_456_789


def content(size: int, seed: bytes) -> bytes:
    """Bytes without a pattern, always the same."""
    return hashlib.shake_256(seed).digest(size)


def place(path: str | bytes, data: bytes, mode: int = 0o644) -> Path:
    """Write a file below ROOT, with the directories that lead to it."""
    target = Path(os.fsdecode(path)) if os.path.isabs(path) else ROOT / os.fsdecode(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(mode)
    return target


def link(path: str, target: str) -> None:
    """A symbolic link below ROOT."""
    (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, ROOT / path)


def make_plain() -> None:
    """Files of several sizes, and texts to search in."""
    place("a/small.txt", b"small\n")
    place("a/empty", b"")
    place("a/page", content(4096, b"page"))
    place("a/odd", content(70_001, b"odd"))
    place("a/big.bin", content(BIG_SIZE, b"big"))
    place("a/b/c/deep.txt", b"deep\n")
    place("a/compressed.gz", gzip.compress(b"compressed\n" * 1000, mtime=0))
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writing:
        for name in ("one", "two"):
            writing.writestr(zipfile.ZipInfo(name), name * 100)
    place("a/archive.zip", archive.getvalue())
    with (ROOT / "a/holes").open("wb") as file:
        file.write(b"begin")
        file.seek(3 * 1024 * 1024)
        file.write(b"end")
    for number in range(40):
        lines = [f"{number * step % 97:02d} line {step} of text {number}" for step in range(60)]
        place(f"text/{number % 5}/{number}.txt", "\n".join([*lines, "needle"[: number % 8], ""]).encode())
    place("script/settings", b"SETTING=from-the-pod\n")


def make_links() -> None:
    """Symbolic links of every kind."""
    link("links/relative", "../a/small.txt")
    link("links/absolute", "/srv/data/a/small.txt")
    link("links/directory", "../a")
    link("links/absolute-directory", "/srv/data/a/b")
    link("links/with-slash", "../a/")
    link("links/chain-1", "chain-2")
    link("links/chain-2", "directory/../a/b/../small.txt")
    link("links/chain-3", "absolute-directory/c/deep.txt")
    link("links/above-the-root", "../../../../../../../../srv/data/a/small.txt")
    link("links/root", "/")
    link("links/parent", "..")
    link("links/dangling", "nowhere")
    link("links/dangling-absolute", "/srv/data/no/where")
    link("links/through-file", "../a/small.txt/x")
    link("links/self", "self")
    link("links/loop-1", "loop-2")
    link("links/loop-2", "loop-1")
    link("links/long", "./" * 2000 + "relative")
    link("links/volume", "/srv/volume/key")
    link("links/hello", "../bin/hello")
    link("links/odd-name", "../names/with space")
    # The kernel follows 40 links and no more (path_resolution(7)).
    for number in range(45):
        link(f"links/forty/{number}", f"{number + 1}" if number < 44 else "../../a/small.txt")
    # Nothing here leads out of it, so that programs may follow every link.
    place("cycles/one/file", b"in a cycle\n")
    for path, target in (("one/up", ".."), ("two", "one"), ("file", "one/up/two/file"), ("gone", "x")):
        link(f"cycles/{path}", target)


def make_special() -> None:
    """Modes, owners, times, and what is no file."""
    for name, mode in (("none", 0), ("only-execute", 0o711), ("read-only", 0o444), ("all", 0o777)):
        place(f"modes/{name}", name.encode(), mode)
    for name, mode in (("sticky", 0o1777), ("set-group", 0o2775), ("private", 0o700), ("unsearchable", 0o600)):
        place(f"modes/{name}-directory/inside", b"inside\n")
        (ROOT / f"modes/{name}-directory").chmod(mode)
    place("owners/someone", b"someone's\n", 0o640)
    os.chown(ROOT / "owners/someone", 1234, 5678)
    place("owners/largest", b"")
    os.chown(ROOT / "owners/largest", 2**32 - 2, 2**32 - 2)
    place("owners/theirs/file", b"theirs\n", 0o600)
    os.chown(ROOT / "owners/theirs/file", 1000, 1000)
    os.chown(ROOT / "owners/theirs", 1000, 1000)
    (ROOT / "owners/theirs").chmod(0o700)
    place("owners/group/file", b"the group's\n", 0o040)
    os.chown(ROOT / "owners/group/file", 0, 3000)
    for name in ("epoch", "before", "far", "nanosecond"):
        place(f"times/{name}", name.encode())
    (ROOT / "special").mkdir()
    os.mkfifo(ROOT / "special/fifo", 0o640)
    os.mkfifo(ROOT / "special/other-fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(ROOT / "special/socket"))


def make_exact() -> None:
    """What cannot be shown in a copy: set-ID bits, devices, hard links, attributes, files without end."""
    place(str(EXACT / "set-id"), b"set-id", 0o6755)
    os.mknod(EXACT / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(EXACT / "disk", stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    (EXACT / "below").mkdir()
    os.link(place(str(EXACT / "hard-1"), b"hard\n"), EXACT / "hard-2")
    os.link(EXACT / "hard-1", EXACT / "below/hard-3")
    place(str(EXACT / "attributes"), b"has some\n")
    os.setxattr(EXACT / "attributes", "user.colour", b"green")
    os.setxattr(EXACT / "attributes", "user.empty", b"")
    os.setxattr(EXACT / "attributes", "user.big", content(3000, b"attribute"))
    os.setxattr(EXACT / "attributes", "trusted.ours", b"\0\1\2")
    os.setxattr(EXACT / "below", "user.directory", b"yes")
    with place(str(EXACT / "large"), b"begin").open("r+b") as file:
        file.truncate(LARGE_SIZE)
        file.seek(LARGE_SIZE // 2)
        file.write(b"middle")
        file.seek(-3, os.SEEK_END)
        file.write(b"end")
    for name in ("set-id", "null", "disk", "hard-1", "attributes", "below"):
        os.utime(EXACT / name, ns=(FIRST_TIME_NS, FIRST_TIME_NS))


def make_names() -> None:
    """Names that programs get wrong."""
    for name in (
        b"with space",
        b"new\nline",
        b"quote'\"\\",
        b"-dash",
        b"...",
        b"\xff\xfe not UTF-8",
        "wörld €".encode(),
    ):
        place(b"names/" + name, b"named " + name)
    place(b"names/" + b"x" * 255, b"255\n")
    place(b"names/" + b"\xe9" * 255, b"255 bytes that are not UTF-8\n")
    place(b"names/ \xff directory/inside", b"inside\n")
    # A path below ROOT as long as it may be.
    inside = ROOT / "longest"
    left = LONGEST_PATH - len(os.fsencode(inside))
    while left:
        step = min(left, 201)
        # What is left at the end must hold a slash and a name.
        step = step - 10 if 0 < left - step < 2 else step
        inside = inside / ("d" * (step - 1))
        left -= step
    os.makedirs(inside.parent)
    place(os.fsencode(inside), b"at the longest path\n")
    (ROOT / "many").mkdir()
    for number in range(MANY):
        (ROOT / f"many/entry-{number:05d}{'-with-a-longer-name' * (number % 4)}").touch()


def make_programs() -> None:
    """What interpreters run: scripts, a package, a database, a repository."""
    place("bin/hello", b'#!/bin/sh\necho "hello from ${0##*/}, arguments: $*"\n', 0o755)
    place("bin/with-argument", b'#!/bin/sh -eu\necho "flags: $-, arguments: $*"\n', 0o755)
    place("bin/python", b"#!/usr/bin/env python3\nimport sys\nprint('Python got', sys.argv[1:])\n", 0o755)
    place("bin/no-interpreter", b"#!/no/such/interpreter\n", 0o755)
    place("bin/not-executable", b"#!/bin/sh\necho never\n")
    place("bin/plain", b"echo a plain text: $0 $*\n", 0o755)
    place("bin/empty", b"", 0o755)
    package = "packages/pod_package"
    place(f"{package}/__init__.py", b"from pod_package.inner import answer\nNAME = __name__\n")
    place(f"{package}/inner/__init__.py", b"from .leaf import answer\n")
    place(f"{package}/inner/leaf.py", b"def answer():\n    return 42\n")
    place(f"{package}/data/words", b"one two three\n")
    place("packages/single.py", b"import pod_package\nVALUE = pod_package.answer() + 1\n")
    database = sqlite3.connect(ROOT / "app.db")
    with contextlib.closing(database), database:
        database.execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
        rows = [(number, f"item {number * 7919 % 10007}", number / 8) for number in range(20_000)]
        database.executemany("INSERT INTO item VALUES (?, ?, ?)", rows)
        database.execute("CREATE INDEX by_name ON item (name)")
    git = {
        "GIT_AUTHOR_NAME": "A",
        "GIT_AUTHOR_EMAIL": "a@example.com",
        "GIT_AUTHOR_DATE": "1600000000 +0000",
        "GIT_COMMITTER_NAME": "C",
        "GIT_COMMITTER_EMAIL": "c@example.com",
        "GIT_COMMITTER_DATE": "1600000000 +0000",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "PATH": os.environ.get("PATH", os.defpath),
    }
    shutil.copytree(ROOT / "text", ROOT / "repository")
    for command in ("init -q -b main", "add .", "commit -q -m first", "rm -q -r 4", "commit -q -m second", "gc -q"):
        subprocess.run(["git", "-C", str(ROOT / "repository"), *command.split()], env=git, check=True, timeout=20)


def make_volumes() -> None:
    """File systems of their own, one with the links that a kubelet makes to replace all keys at once."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    for volume in VOLUMES:
        volume.mkdir(parents=True, exist_ok=True)
        if mount(b"volume", os.fsencode(volume), b"tmpfs", 0, b"mode=755,size=16m") != 0:
            raise OSError(ctypes.get_errno(), f"mount {volume}")
        place(str(volume / "..2024_01/key"), b"one\n")
        os.symlink("..2024_01", volume / "..data")
        os.symlink("..data/key", volume / "key")


def set_times() -> None:
    """Give everything a modification time of its own, directories last."""
    time_ns = FIRST_TIME_NS
    for directory, directories, files in os.walk(os.fsencode(ROOT), topdown=False):
        # The longest path must be reached from where it is near.
        os.chdir(directory)
        for name in (*sorted([*files, *directories]), b"."):
            time_ns += 1_000_000_007
            os.utime(name, ns=(time_ns, time_ns), follow_symlinks=False)
    os.chdir("/")
    for special, wanted in (("epoch", 0), ("before", -86_400_000_000_001), ("far", 2**33 * 10**9), ("nanosecond", 1)):
        os.utime(ROOT / "times" / special, ns=(wanted, wanted))


def fill() -> None:
    """All of it but the volumes, once."""
    os.umask(0o022)
    make_plain()
    make_links()
    make_special()
    make_names()
    make_programs()
    set_times()
    make_exact()


def start_ordinary_process() -> None:
    """A process of an ordinary user, for those who want to have its rights."""
    if os.fork() == 0:
        os.setgroups([3000])
        os.setgid(1000)
        os.setuid(1000)
        signal.pause()


def reset(directory: Path) -> None:
    """An empty directory for a program to work in."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755, parents=True)
    directory.chmod(0o755)


def describe(path: bytes) -> str:
    """One line that says all of an entry but what is different each time."""
    status = os.lstat(path)
    facts = [f"{status.st_mode:o}", f"{status.st_uid}:{status.st_gid}", f"{status.st_nlink} links"]
    if stat.S_ISREG(status.st_mode):
        facts += [f"{status.st_size} bytes", hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()[:16]]
    elif stat.S_ISLNK(status.st_mode):
        facts.append(f"to {os.readlink(path)!r}")
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        facts.append(f"device {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}")
    if status.st_mtime_ns < FIRST_TIME_NS + 10**15:
        facts.append(f"modified {status.st_mtime_ns}")
    with contextlib.suppress(OSError):
        for name in sorted(os.listxattr(path, follow_symlinks=False)):
            facts.append(f"{name}={os.getxattr(path, name, follow_symlinks=False)!r}")
    return ", ".join(facts)


def snapshot(directory: Path) -> None:
    """Print what is in a directory, and of itself."""
    paths = [os.fsencode(directory)]
    for above, directories, files in os.walk(paths[0]):
        paths += [os.path.join(above, name) for name in (*directories, *files)]
    for path in sorted(paths):
        # A path may be longer than a call takes: what is that deep is not looked at.
        if len(path) <= LONGEST_PATH:
            sys.stdout.write(f"{path!r} {describe(path)}\n")


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        fill()
    elif sys.argv[1] == "make":
        fill()
        make_volumes()
        start_ordinary_process()
        os.write(1, b"ready\n")
        signal.pause()
    else:
        {"reset": reset, "snapshot": snapshot}[sys.argv[1]](Path(sys.argv[2]))
