"""Calls that open files."""

from __future__ import annotations

import fcntl
import os
import struct

from tests.mirrord_trace.supervisor.programs.path_calls.calling import (
    AT_FDCWD,
    BAD,
    Value,
    at,
    call,
    has,
    named,
    say,
)


def describe(opened: int) -> str:
    if opened < 0:
        return named(opened)
    try:
        flags = fcntl.fcntl(opened, fcntl.F_GETFL)
        found = os.fstat(opened)
        text = f"{flags:#o} {fcntl.fcntl(opened, fcntl.F_GETFD)} {found.st_mode:#o}"
        try:
            text += f" {os.pread(opened, 100, 0)!r}"
        except OSError as error:
            text += f" {named(-(error.errno or 0))}"
        return text
    finally:
        os.close(opened)


def opens() -> None:
    cases = [
        ("file", 0, 0),
        ("file", os.O_CLOEXEC, 0),
        ("file", os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY, 0),
        ("file", os.O_DIRECTORY, 0),
        ("directory", os.O_DIRECTORY, 0),
        ("directory", os.O_WRONLY, 0),
        ("link", 0, 0),
        ("link", os.O_NOFOLLOW, 0),
        ("dangling", 0, 0),
        ("loop", 0, 0),
        ("file/below", 0, 0),
        ("nothing", 0, 0),
        ("file", os.O_CREAT | os.O_EXCL, 0o644),
        ("made", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666),
        ("made-closely", os.O_CREAT | os.O_CLOEXEC | os.O_WRONLY, 0o6777),
        ("dangling", os.O_CREAT | os.O_EXCL, 0o666),
        ("directory", os.O_TMPFILE | os.O_RDWR, 0o666),
        ("file", os.O_TMPFILE | os.O_RDWR, 0o666),
        ("made", os.O_TRUNC | os.O_RDWR, 0),
        ("file", os.O_PATH, 0),
        ("file", os.O_PATH | os.O_CLOEXEC, 0),
        ("link", os.O_PATH | os.O_NOFOLLOW, 0),
        ("directory", os.O_PATH | os.O_DIRECTORY, 0),
        ("fifo", os.O_PATH, 0),
        ("nothing", os.O_PATH, 0),
        ("file", os.O_PATH | os.O_DIRECTORY, 0),
        ("fifo", os.O_WRONLY | os.O_NONBLOCK, 0),
        ("fifo", os.O_RDONLY | os.O_NONBLOCK, 0),
        ("x" * 256, 0, 0),
        ("x/" * 2100, 0, 0),
    ]
    for path, flags, mode in cases:
        for name in has("open", "openat", "openat2"):
            where: Value = at(path)
            if name == "open":
                opened = call(name, where, flags, mode)
            elif name == "openat":
                opened = call(name, -7, where, flags, mode)
            else:
                opened = call(name, AT_FDCWD, where, how(flags, mode), 24)
            say(name, path[:20], oct(flags), describe(opened))
            if mode and name != "openat2" and opened >= 0 and not flags & os.O_TMPFILE & ~os.O_DIRECTORY:
                os.unlink(at(path))
    for path in ("file", "created", "directory", "nothing/below"):
        for name in has("creat"):
            say(name, path, describe(call(name, at(path), 0o666)))
    with open(at("file"), "wb") as file:
        file.write(b"content\n")
    opens_how()


def how(flags: int, mode: int = 0, resolve: int = 0, rest: bytes = b"") -> bytearray:
    return bytearray(struct.pack("=QQQ", flags, mode, resolve) + rest)


def opens_how() -> None:
    for size in (0, 8, 23, 24, 32, 4096, 4097, 1 << 40):
        given = how(os.O_RDONLY, rest=bytes(max(min(size, 5000) - 24, 0)))
        say("openat2 of", size, describe(call("openat2", AT_FDCWD, at("file"), given, size)))
    strange = [
        how(0, rest=b"\0\0\0\1"),
        how(1 << 40),
        how(os.O_PATH | os.O_APPEND),
        how(os.O_RDONLY, 0o644),
        how(os.O_CREAT, 1 << 20),
        how(0, 0, 1 << 30),
    ]
    for given in strange:
        before = bytes(given)
        say("openat2 with", before, describe(call("openat2", AT_FDCWD, at("file"), given, len(given))))
        assert given == before
    for resolve in (0x01, 0x02, 0x04, 0x08, 0x20):
        for path in ("file", "link"):
            say("resolving", resolve, path, describe(call("openat2", AT_FDCWD, at(path), how(0, 0, resolve), 24)))
    for address in (0, BAD):
        say("openat2 at", address, describe(call("openat2", AT_FDCWD, at("file"), address, 24)))
