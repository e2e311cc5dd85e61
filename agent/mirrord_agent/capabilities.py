"""What the agent may do, in words for who has to give it the rest."""

from __future__ import annotations

import enum
import os


class Capability(enum.Enum):
    """A capability that the agent uses, by its number in linux/capability.h (capabilities(7))."""

    SYS_PTRACE = 19
    SYS_ADMIN = 21


def is_held(capability: Capability) -> bool:
    """Whether this thread has the capability, in its own user namespace."""
    with open("/proc/thread-self/status", encoding="utf-8") as file:
        effective = next(line.partition(":")[2] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> capability.value & 1)


def why_denied(capability: Capability, otherwise: str) -> str:
    """Words for an EPERM or EACCES of what needs `capability`, or else what `otherwise` says."""
    agent = f"the agent runs as uid {os.geteuid()}"
    name = f"CAP_{capability.name}"
    if is_held(capability):
        return (
            f"{agent} and has {name}; so a security module (AppArmor, SELinux) forbids it, or it would need {name} in "
            "another user namespace"
        )
    return f"{agent} without {name}; it needs {name} {otherwise}"
