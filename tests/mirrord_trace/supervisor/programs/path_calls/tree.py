"""The files that the calls are about."""

from __future__ import annotations

import os
import stat

from tests.mirrord_trace.supervisor.programs.path_calls.calling import at, say


def build() -> None:
    """The files that the calls are about, where the calls look for them."""
    os.umask(0o022)
    os.mkdir(at(""))
    for name in ("directory", "directory/below", "empty", "sticky"):
        os.mkdir(at(name))
    os.chmod(at("sticky"), 0o1777)
    for name, content in (("file", b"content\n"), ("directory/file", b"more\n"), ("secret", b""), ("script", b"")):
        with open(at(name), "wb") as file:
            file.write(content)
    os.chmod(at("secret"), 0o600)
    os.symlink(b"file", at("link"))
    os.symlink(b"nowhere", at("dangling"))
    os.symlink(b"directory", at("link-to-directory"))
    os.symlink(b"loop", at("loop"))
    os.symlink(b"x" * 4000, at("long-link"))
    os.mkfifo(at("fifo"), 0o644)
    os.setxattr(at("file"), b"user.one", b"first")
    os.setxattr(at("file"), b"user.two", b"2" * 300)


def snapshot(path: bytes, below: bytes = b".") -> None:
    """Everything that can be seen of a tree."""
    found = os.lstat(path)
    attributes = []
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        attributes = [(name, os.getxattr(path, name)) for name in sorted(os.listxattr(path))]
    times = [when if when < 1_500_000_000 else "now" for when in (int(found.st_atime), int(found.st_mtime))]
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    say("there", below, oct(found.st_mode), found.st_uid, found.st_gid, size, found.st_rdev, times, attributes)
    if stat.S_ISLNK(found.st_mode):
        say("leads to", os.readlink(path))
    if stat.S_ISDIR(found.st_mode):
        for name in sorted(os.listdir(path)):
            snapshot(path + b"/" + name, below + b"/" + name)
