"""Names: the host and domain name of uname(2), and the files that a resolver reads.

No resolver library is hooked. The process reads the target's resolv.conf and hosts through redirected paths, and its
queries then travel like any other datagram. Opening one of these files for writing stays local, as all writes do.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping

import attrs

from mirrord_syscalls.abi import ARGUMENTS, ArgumentKind
from mirrord_syscalls.structs import OpenHow, Utsname
from mirrord_syscalls.subscription import Rule
from mirrord_trace.policy.names import LAST_COMPONENTS, presented_path
from mirrord_trace.supervisor.delivery.base import (
    AT_FDCWD,
    PASS,
    Call,
    Fail,
    Interest,
    PathEndings,
    Return,
    UsePath,
    Verdict,
)

_CAP_SYS_ADMIN = 21
_NAME_MAXIMUM = 64  # __NEW_UTS_LEN
_FIELDS_BY_SETTER = {"sethostname": "nodename", "setdomainname": "domainname"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_FLAGS_ARGUMENT = {"open": 1, "openat": 2}
_READING_CALLS = (
    "open",
    "openat",
    "openat2",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
)


_ENDINGS = PathEndings(LAST_COMPONENTS)
_PATH_ARGUMENT = {name: ARGUMENTS[name].index(ArgumentKind.PATH) for name in _READING_CALLS}


@attrs.define(eq=False)
class NameHandlers:
    """`presented` says where the stand-in of each presented path lies; one that is not in it does not exist."""

    hostname: bytes
    domain_name: bytes
    presented: Mapping[bytes, bytes]
    _names: Utsname = attrs.field(init=False)

    @_names.default
    def _of_the_target(self) -> Utsname:
        return attrs.evolve(_local_utsname(), nodename=self.hostname, domainname=self.domain_name)

    def interests(self, calls: Mapping[str, int]) -> tuple[Interest, ...]:
        """Those of our calls that the architecture has (`calls`: names to numbers)."""
        readers = (Interest(Rule(name), self.read_path, _ENDINGS) for name in _READING_CALLS if name in calls)
        setters = (Interest(Rule(name), self.set_name) for name in _FIELDS_BY_SETTER)
        return (Interest(Rule("uname"), self.uname), *setters, *readers)

    def uname(self, call: Call) -> Verdict:
        """uname(2) with the target's host name; a UTS namespace that the process made itself keeps its own."""
        if not call.shares_namespace("uts"):
            return PASS
        return Return(0, ((call.arguments[0], self._names.encode()),))

    def set_name(self, call: Call) -> Verdict:
        """sethostname(2), setdomainname(2): the process tree sees what it set; nothing is renamed, here or there."""
        if not call.shares_namespace("uts"):
            return PASS
        if not has_capability(call.tid, _CAP_SYS_ADMIN):
            return Fail(errno.EPERM)
        length = call.integer(1)
        if not 0 <= length <= _NAME_MAXIMUM:
            return Fail(errno.EINVAL)
        name = call.memory.read(call.arguments[0], length).partition(b"\0")[0]
        self._names = attrs.evolve(self._names, **{_FIELDS_BY_SETTER[call.name]: name})
        return Return(0)

    def read_path(self, call: Call) -> Verdict:
        """Calls that read a file or its attributes by path."""
        index = _PATH_ARGUMENT[call.name]
        path = call.memory.read_string(call.arguments[index])
        if not _ENDINGS.match(path):
            return PASS
        descriptor = call.integer(index - 1) if index else AT_FDCWD
        directory = b"/" if path.startswith(b"/") else call.directory(descriptor)
        wanted = presented_path(path, directory) if directory is not None else None
        if wanted is None or self._writes(call) or not _sees_our_root(call.tid):
            return PASS
        stand_in = self.presented.get(wanted)
        return Fail(errno.ENOENT) if stand_in is None else UsePath(stand_in)

    def _writes(self, call: Call) -> bool:
        if call.name == "openat2":
            how = OpenHow.decode(call.memory.read(call.arguments[2], OpenHow.SIZE))
            return bool(how.flags & _WRITING)
        index = _FLAGS_ARGUMENT.get(call.name)
        return index is not None and bool(call.arguments[index] & _WRITING)


def _sees_our_root(tid: int) -> bool:
    """False after a chroot or pivot_root of the task: then these paths are not this machine's."""
    try:
        theirs, ours = os.stat(f"/proc/{tid}/root"), os.stat("/")
    except OSError:
        return False
    return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)


def has_capability(tid: int, number: int) -> bool:
    """Whether a task has a capability in effect (proc_pid_status(5), capabilities(7))."""
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            return any(line.startswith(b"CapEff:") and int(line[7:], 16) >> number & 1 for line in status)
    except OSError:
        return False


def _local_utsname() -> Utsname:
    buffer = ctypes.create_string_buffer(Utsname.SIZE)
    if ctypes.CDLL(None, use_errno=True).uname(buffer) != 0:
        raise OSError(ctypes.get_errno(), "uname")
    return Utsname.decode(buffer.raw)
