"""What the agent may do, in words for who has to give it the rest."""

from __future__ import annotations

import enum
import os


class Capability(enum.Enum):
    """A capability that the agent can use, by its number in linux/capability.h (capabilities(7))."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    SETGID = 6
    SETUID = 7
    LINUX_IMMUTABLE = 9
    NET_ADMIN = 12
    NET_RAW = 13
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    MKNOD = 27
    SETFCAP = 31


#: Those that decide what a process may do with files.
FILE_CAPABILITIES = frozenset(Capability) - {
    Capability.SETGID,
    Capability.SETUID,
    Capability.NET_ADMIN,
    Capability.NET_RAW,
    Capability.SYS_PTRACE,
}


def is_held(capability: Capability) -> bool:
    """Whether this thread has the capability, in its own user namespace."""
    with open("/proc/thread-self/status", encoding="utf-8") as file:
        effective = next(line.partition(":")[2] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability.value & 1)


def why_denied(*needed: Capability, otherwise: str) -> str:
    """Words for an EPERM or EACCES of what takes all these capabilities, or else what `otherwise` says."""
    agent = f"the agent runs as uid {os.geteuid()}"
    missing = " and ".join(f"CAP_{capability.name}" for capability in needed if not is_held(capability))
    if missing:
        return f"{agent} without {missing}; it needs {missing} {otherwise}"
    held = " and ".join(f"CAP_{capability.name}" for capability in needed)
    return (
        f"{agent} and has {held}; so a security module (AppArmor, SELinux) forbids it, or it would need {held} in "
        "another user namespace"
    )
