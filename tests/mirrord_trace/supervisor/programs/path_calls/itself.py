"""Calls that change the task itself."""

from __future__ import annotations

import ctypes
import os
import struct
import sys

from tests.mirrord_trace.supervisor.programs.path_calls.calling import AT_FDCWD, Value, at, call, say, show
from tests.mirrord_trace.supervisor.programs.path_calls.opening import describe


def moves_itself() -> None:
    here = os.getcwd()
    for path in ("directory", "link-to-directory", "file", "nothing", "loop"):
        show("chdir", at(path), note=path)
        say("here", sorted(os.listdir(".")) if os.getcwd() != here else "as before")
        os.chdir(here)
    location = call("openat", AT_FDCWD, at("directory"), os.O_PATH | os.O_DIRECTORY)
    os.fchdir(location)
    say("below", sorted(os.listdir(".")), describe(call("openat", AT_FDCWD, b"file", 0)))
    os.chdir(here)
    say("beside", describe(call("openat", location, b"file", 0)))
    os.close(location)


def executes() -> None:
    for path, content in (
        ("script", b"#!/bin/echo says\n"),
        ("no-interpreter", b"#!/nowhere/at/all\n"),
        ("text", b"x\n"),
    ):
        with open(at(path), "wb") as file:
            file.write(content)
        os.chmod(at(path), 0o755)
    for name in ("execve", "execveat"):
        for path in ("script", "no-interpreter", "text", "file", "directory", "nothing"):
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                where: tuple[Value, ...] = (at(path),) if name == "execve" else (AT_FDCWD, at(path))
                argument = ctypes.create_string_buffer(b"itself")
                vector = bytearray(struct.pack("=QQ", ctypes.addressof(argument), 0))
                result = call(name, *where, vector, bytearray(8))
                os._exit(-result)
            say(name, path, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
