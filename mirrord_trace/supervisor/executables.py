"""What a program cannot have under a supervisor, said in words for the user.

execve(2): the set-user-ID bits have no effect under no_new_privs, nor under a tracer without CAP_SYS_PTRACE. Programs
of another architecture (32-bit ones) make other system calls than those we intercept; the filter refuses them with
ENOSYS.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import Final

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_trace.supervisor.looks import FileStatus, status_of_link

_elf = struct.Struct("<4sB13xH")
"""The magic number, the class, and (behind the type) the machine: elf(5)."""
_ELF_64: Final = 2
_AUDIT_MACHINE_MASK: Final = 0xFFFF  # AUDIT_ARCH_* is EM_* with flags above: linux/audit.h


def complaint_about(tid: int, architecture: int, abi: Abi) -> str | None:
    """A warning about the program that a traced task just became, or None. `architecture` is its AUDIT_ARCH_*."""
    try:
        path = os.readlink(f"/proc/{tid}/exe")
        if architecture != abi.audit_arch:
            return _foreign(path, abi)
        return _about_privileges(tid, path, status_of_link(b"/proc/%d/exe" % tid))
    except OSError:
        return None


@attrs.frozen
class Seen:
    """What a look at a program has shown."""

    complaint: str | None = None
    """A warning, or None."""
    is_ordinary: bool = False
    """Whether nothing is ever to be said of it, whoever starts it."""


def look_at_program(tid: int, program: bytes, shown: str, abi: Abi) -> Seen:
    """Looks at the program that task `tid`, which nobody traces, is about to become. It may wait for a file system."""
    try:
        found = os.stat(program)
        gives_rights = bool(found.st_mode & (stat.S_ISUID | stat.S_ISGID))
        if gives_rights and _status(tid)[b"NoNewPrivs"].strip() == b"1":
            return Seen(_about_privileges(tid, shown, FileStatus.of(found)))
        if not stat.S_ISREG(found.st_mode):
            return Seen()
        with open(program, "rb", buffering=0) as file:
            raw = file.read(_elf.size)
    except (OSError, KeyError):
        return Seen()
    if len(raw) == _elf.size and raw.startswith(b"\x7fELF"):
        _, width, machine = _elf.unpack(raw)
        if width != _ELF_64 or machine != abi.audit_arch & _AUDIT_MACHINE_MASK:
            return Seen(_foreign(shown, abi))
    return Seen(is_ordinary=not gives_rights)


def _foreign(path: str, abi: Abi) -> str:
    return f"{path} is not a {abi.name} program: it cannot run here, its system calls fail with ENOSYS"


def _about_privileges(tid: int, path: str, program: FileStatus) -> str | None:
    if not program.mode & (stat.S_ISUID | stat.S_ISGID):
        return None
    status = _status(tid)
    user, group = (int(status[name].split()[1]) for name in (b"Uid", b"Gid"))
    if program.mode & stat.S_ISUID and program.user != user:
        return f"{path} is set-user-ID, but the command gets no new privileges: it runs as uid {user}"
    if program.mode & stat.S_ISGID and program.group != group:
        return f"{path} is set-group-ID, but the command gets no new privileges: it runs as gid {group}"
    return None


def _status(tid: int) -> dict[bytes, bytes]:
    with open(f"/proc/{tid}/status", "rb") as status:
        return dict(line.split(b":", 1) for line in status)
