"""Calls that make, move, change and remove files."""

from __future__ import annotations

import os
import resource
import signal
import stat
import struct

from tests.mirrord_trace.supervisor.programs.path_calls.calling import (
    AT_FDCWD,
    BAD,
    NO_FOLLOW,
    at,
    call,
    has,
    libc,
    named,
    say,
    show,
)
from tests.mirrord_trace.supervisor.programs.path_calls.opening import describe, how

LIMIT = 1 << 26
SECOND = struct.Struct("=qq")
LONG_AGO = SECOND.pack(1_000_000_000, 0)


def makes() -> None:
    for mask in (0o022, 0, 0o077, 0o777):
        os.umask(mask)
        base = f"mask-{mask:o}"
        for name in has("mkdir", "mkdirat"):
            where = (at(f"{base}-{name}"),) if name == "mkdir" else (AT_FDCWD, at(f"{base}-{name}"))
            for _ in range(2):
                show(name, *where, 0o1777, note=base)
        for kind in (0, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFDIR, stat.S_IFLNK):
            for name in has("mknod", "mknodat"):
                path = at(f"{base}-{name}-{kind:o}")
                show(
                    name,
                    *((path,) if name == "mknod" else (AT_FDCWD, path)),
                    kind | 0o666,
                    0x103,
                    note=f"{base} {kind:o}",
                )
        say("opened", describe(call("openat", AT_FDCWD, at(f"{base}-opened"), os.O_CREAT | os.O_RDWR, 0o666)))
        opened = call("openat2", AT_FDCWD, at(f"{base}-opened-how"), how(os.O_CREAT | os.O_RDWR, 0o666), 24)
        say("opened", describe(opened))
    os.umask(0o022)
    for target in (b"file", b"", b"x" * 4095, b"x" * 4096, b"x" * 5000, BAD, 0):
        shown = target[:5] if isinstance(target, bytes) else target
        for name in has("symlink"):
            show(name, target, at("new-link"), note=f"{shown!r}")
            show("unlinkat", AT_FDCWD, at("new-link"), 0)
        show("symlinkat", target, AT_FDCWD, at("new-link"), note=f"{shown!r}")
        show("unlinkat", AT_FDCWD, at("new-link"), 0)


def removes() -> None:
    for name in ("removed", "removed-too"):
        os.mkdir(at(name))
    for name in ("pipe", "pipe-too"):
        os.mkfifo(at(name))
    for name in has("rmdir", "unlink"):
        for path in ("removed", "pipe", "directory", "nothing", "link-to-directory"):
            show(name, at(path), note=path)
    for flags in (0, 0x200, 0x400):
        for path in ("removed-too", "pipe-too", "directory", "nothing"):
            show("unlinkat", AT_FDCWD, at(path), flags, note=f"{path} {flags}")


def moves() -> None:
    two = [("file", "moved"), ("moved", "file"), ("nothing", "moved"), ("file", "directory"), ("directory", "empty")]
    two += [("empty", "directory"), ("file", "x" * 256), ("x/" * 2100, "moved"), ("directory", "directory/below/x")]
    for old, new in two:
        for name in has("rename", "renameat", "link", "linkat"):
            values = (at(old), at(new)) if name in ("rename", "link") else (AT_FDCWD, at(old), -7, at(new))
            show(name, *values, note=f"{old[:20]} {new[:20]}")
        for flags in (0, 1, 2, 3, 8):
            show("renameat2", AT_FDCWD, at(old), AT_FDCWD, at(new), flags, note=f"{old[:20]} {new[:20]} {flags}")
        for flags in (0, 0x400, 1):
            show("linkat", AT_FDCWD, at("link"), AT_FDCWD, at("new-link"), flags, note=f"link {flags}")
            show("unlinkat", AT_FDCWD, at("new-link"), 0)


def changes() -> None:
    for path in ("secret", "link", "dangling", "nothing", "directory"):
        for name in has("chmod"):
            show(name, at(path), 0o6751, note=path)
        show("fchmodat", AT_FDCWD, at(path), 0o640, note=path)
        for flags in (0, NO_FOLLOW, 1):
            show("fchmodat2", AT_FDCWD, at(path), 0o604, flags, note=f"{path} {flags}")
        for name in has("chown", "lchown"):
            show(name, at(path), os.getuid(), os.getgid(), note=path)
            show(name, at(path), -1, -1, note=path)
        for flags in (0, NO_FOLLOW, 1):
            show("fchownat", AT_FDCWD, at(path), os.getuid(), -1, flags, note=f"{path} {flags}")
        for length in (0, 5, 4096, -1, 1 << 62):
            show("truncate", at(path), length, note=f"{path} {length}")
        times(path)


def times(path: str) -> None:
    now, omit = SECOND.pack(0, (1 << 30) - 1), SECOND.pack(0, (1 << 30) - 2)
    for given in (LONG_AGO + LONG_AGO, now + LONG_AGO, omit + LONG_AGO, omit + omit, SECOND.pack(1, 1 << 31) * 2):
        for flags in (0, NO_FOLLOW, 1):
            show("utimensat", AT_FDCWD, at(path), bytearray(given), flags, note=f"{path} {given[:16]!r} {flags}")
        for name in has("utimes", "futimesat"):
            show(
                name,
                *(() if name == "utimes" else (AT_FDCWD,)),
                at(path),
                bytearray(given),
                note=f"{path} {given[:16]!r}",
            )
    for name in has("utime", "utimes", "futimesat", "utimensat"):
        where = (at(path),) if name in ("utime", "utimes") else (AT_FDCWD, at(path))
        for address in (0, BAD):
            show(name, *where, address, note=f"{path} {address:#x}")
    for name in has("utime"):
        show(name, at(path), bytearray(struct.pack("=qq", 900_000_000, 800_000_000)), note=path)


def lengths() -> None:
    """Of files that may not grow too long: a signal comes then, which Python ignores."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    for handler in (signal.SIG_IGN, lambda *_: say("the signal")):
        signal.signal(signal.SIGXFSZ, handler)
        for path in ("file", "link", "nothing", "directory"):
            for length in (LIMIT, LIMIT + 1, 5):
                show("truncate", at(path), length, note=f"{path} {length}")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def watches() -> None:
    inotify = libc.inotify_init1(os.O_NONBLOCK)
    for path in ("directory", "link", "nothing", "file"):
        for mask in (0x100, 0x100 | 0x0200_0000, 0x100 | 0x0100_0000, 0, -1):
            show("inotify_add_watch", inotify, at(path), mask, note=f"{path} {mask:#x}")
    for descriptor in (-1, 9999, 0):
        show("inotify_add_watch", descriptor, at("directory"), 0x100, note=str(descriptor))
    os.close(os.open(at("directory/seen"), os.O_CREAT | os.O_WRONLY))
    say("event", os.read(inotify, 1000).count(b"seen"))
    os.unlink(at("directory/seen"))
    os.close(inotify)
    fanotify = call("fanotify_init", 0x02, os.O_RDONLY)
    say("fanotify_init", named(min(fanotify, 0)))
    for path in ("directory", "nothing"):
        for flags in (1, 1 | 0x8, 2, 1 << 20):
            show("fanotify_mark", fanotify, flags, 0x20, AT_FDCWD, at(path), note=f"{path} {flags}")
