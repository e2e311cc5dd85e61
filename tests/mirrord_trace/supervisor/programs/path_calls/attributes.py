"""Calls about extended attributes."""

from __future__ import annotations

import ctypes
import struct

from tests.mirrord_trace.supervisor.programs.path_calls.calling import (
    AT_FDCWD,
    BAD,
    EMPTY_PATH,
    NO_FOLLOW,
    at,
    call,
    ends,
    has,
    named,
    room,
    say,
    show,
)

NAMES = (
    b"user.one",
    b"user.two",
    b"user.none",
    b"",
    b"none",
    b"user." + b"x" * 250,
    b"user." + b"x" * 251,
    b"x" * 5000,
)
SIZES = (0, 1, 5, 300, 65535, 65536, 65537, 1 << 32, 1 << 63)


def attributes() -> None:
    for path in ("file", "link", "dangling", "directory", "fifo", "nothing"):
        for name in NAMES:
            for call_name in has("getxattr", "lgetxattr"):
                for size in SIZES:
                    buffer = room(500)
                    result = call(call_name, at(path), name, buffer, size)
                    say(call_name, path, name[:12], size, named(result), ends(buffer))
        for call_name in has("listxattr", "llistxattr"):
            for size in SIZES:
                buffer = room(500)
                say(call_name, path, size, named(call(call_name, at(path), buffer, size)), ends(buffer))
    for call_name in has("setxattr", "lsetxattr"):
        for path in ("file", "link", "dangling", "directory", "nothing"):
            for flags in (0, 1, 2, 4):
                for name in (b"user.one", b"user.new" + b"%d" % flags, b"", b"other.x", b"user." + b"y" * 260):
                    result = call(call_name, at(path), name, b"value", 5, flags)
                    say(call_name, path, name[:12], flags, named(result))
        for size in (0, 1, 65536, 65537, 1 << 40):
            say(call_name, size, named(call(call_name, at("secret"), b"user.sized", bytes(65537), size, 0)))
        for address in (0, BAD):
            for size in (0, 1, 65537):
                result = call(call_name, at("file"), b"user.badly", address, size, 0)
                say(call_name, "at", address, size, named(result))
            say(call_name, "name at", address, named(call(call_name, at("file"), address, b"value", 5, 0)))
    for call_name in has("getxattr", "listxattr"):
        for address in (0, BAD):
            for size in (0, 1, 400):
                values = (b"user.one",) if call_name == "getxattr" else ()
                say(call_name, "at", address, size, named(call(call_name, at("file"), *values, address, size)))
    for call_name in has("removexattr", "lremovexattr"):
        for path in ("file", "link", "nothing"):
            for name in (b"user.new0", b"user.none", b"", b"user." + b"z" * 260):
                say(call_name, path, name[:12], named(call(call_name, at(path), name)))
        say(call_name, named(call(call_name, at("file"), BAD)))


def attributes_at() -> None:
    for path in ("file", "link", "nothing"):
        for flags in (0, NO_FOLLOW, EMPTY_PATH, 1):
            for size in SIZES:
                buffer = room(500)
                result = call("listxattrat", AT_FDCWD, at(path), flags, buffer, size)
                say("listxattrat", path, flags, size, named(result), ends(buffer))
                gets_at(path, flags, size & 0xFFFF_FFFF)
            say("removexattrat", path, flags, named(call("removexattrat", AT_FDCWD, at(path), flags, b"user.none")))
            for more in (b"", bytes(8), b"x" * 8):
                value = ctypes.create_string_buffer(b"value")
                arguments = bytearray(struct.pack("=QII", ctypes.addressof(value), 5, 0) + more)
                result = call("setxattrat", AT_FDCWD, at(path), flags, b"user.at", arguments, len(arguments))
                say("setxattrat", path, flags, more, named(result))
    for size in (0, 15, 16, 4096, 4097, 1 << 40):
        arguments = bytearray(struct.pack("=QII", 0, 0, 0)) + bytes(4100)
        for name in ("getxattrat", "setxattrat"):
            result = call(name, AT_FDCWD, at("file"), 0, b"user.at", arguments, size)
            say(name, "of", size, named(result))
    for address in (0, BAD):
        for name in ("getxattrat", "setxattrat"):
            say(name, "at", address, named(call(name, AT_FDCWD, at("file"), 0, b"user.at", address, 16)))
            for size in (0, 3, 65537):
                arguments = bytearray(struct.pack("=QII", address, size, 0))
                result = call(name, AT_FDCWD, at("file"), 0, b"user.two", arguments, 16)
                say(name, "value at", address, size, named(result))


def gets_at(path: str, flags: int, size: int) -> None:
    value = ctypes.create_string_buffer(b"\xaa" * 500, 500)
    arguments = bytearray(struct.pack("=QII", ctypes.addressof(value), size, 0))
    result = call("getxattrat", AT_FDCWD, at(path), flags, b"user.one", arguments, 16)
    say("getxattrat", path, flags, size, named(result), ends(bytearray(value.raw)))


def file_attributes() -> None:
    for path in ("file", "link", "directory", "nothing"):
        for size in (0, 23, 24, 40, 4096, 4097):
            buffer = room(4100)
            result = call("file_getattr", AT_FDCWD, at(path), buffer, size, 0)
            say("file_getattr", path, size, named(result), len(bytes(buffer).rstrip(b"\xaa")))
            given = bytearray(max(size, 24))
            say("file_setattr", path, size, named(call("file_setattr", AT_FDCWD, at(path), given, size, 0)))
    for address in (0, BAD):
        show("file_getattr", AT_FDCWD, at("file"), address, 24, 0, note=hex(address))
        show("file_setattr", AT_FDCWD, at("file"), address, 24, 0, note=hex(address))
