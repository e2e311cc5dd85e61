"""What a program that was just started cannot have under a tracer, said in words for the user.

execve(2): the set-user-ID bits have no effect under no_new_privs, nor under a tracer without CAP_SYS_PTRACE. Programs
of another architecture (32-bit ones) make other system calls than those we intercept; the filter refuses them with
ENOSYS.
"""

from __future__ import annotations

import os
import stat

from mirrord_syscalls.abi import Abi


def complaint_about(tid: int, architecture: int, abi: Abi) -> str | None:
    """A warning about the program that task `tid` just became, or None. `architecture` is its AUDIT_ARCH_*."""
    try:
        path = os.readlink(f"/proc/{tid}/exe")
        if architecture != abi.audit_arch:
            return f"{path} is not a {abi.name} program: it cannot run here, its system calls fail with ENOSYS"
        program = os.stat(f"/proc/{tid}/exe")
        if not program.st_mode & (stat.S_ISUID | stat.S_ISGID):
            return None
        with open(f"/proc/{tid}/status", "rb") as status:
            fields = dict(line.split(b":", 1) for line in status if line.startswith((b"Uid", b"Gid")))
        user, group = (int(fields[name].split()[1]) for name in (b"Uid", b"Gid"))
    except OSError:
        return None
    if program.st_mode & stat.S_ISUID and program.st_uid != user:
        return f"{path} is set-user-ID, but a traced program gets no new privileges: it runs as uid {user}"
    if program.st_mode & stat.S_ISGID and program.st_gid != group:
        return f"{path} is set-group-ID, but a traced program gets no new privileges: it runs as gid {group}"
    return None
