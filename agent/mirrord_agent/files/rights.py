"""The rights with which files are reached: those of the target's process, not the agent's.

What a process may do with files follows from its fsuid, its fsgid, its supplementary groups and its effective
capabilities (credentials(7), capabilities(7)). All four belong to a thread, so a worker thread takes them over once and
the kernel does all checking: the errno is the one that the target would get. The rest of the agent keeps its own
rights. That takes CAP_SETUID and CAP_SETGID where the target's ids are others; what the agent has fewer capabilities
than the target for, fails with words that say which.

A target in a user namespace of its own: the agent is in it by then (`mirrord_agent.namespaces`), so ids are the ones
that the target sees, and its capabilities count for what they count there.
"""

from __future__ import annotations

import errno
import os
import threading

import attrs

from mirrord_agent import libc
from mirrord_agent.capabilities import FILE_CAPABILITIES, Capability, why_denied
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind


@attrs.frozen
class Rights:
    """What the target's process is, to files."""

    uid: int
    gid: int
    groups: frozenset[int]
    capabilities: int
    """Its effective set, as bits."""

    def take(self) -> None:
        """Gives the calling thread these rights as far as it can have them.

        Raises PermissionError if ids are denied, and OSError if groups have no number here (EINVAL).

        Groups may not be had in a user namespace whose maker was nobody (`deny` in its /proc/PID/setgroups). The target
        has the groups of who made it there, and so has the agent as a rule; if not, `lacking` tells.
        """
        if self.groups != frozenset(os.getgroups()):
            try:
                libc.set_thread_groups(sorted(self.groups))
            except PermissionError:
                pass
        if libc.set_filesystem_ids(self.uid, self.gid) != (self.uid, self.gid):
            raise PermissionError(errno.EPERM, f"this thread may not have fsuid {self.uid} and fsgid {self.gid}")
        sets = libc.capabilities()
        libc.set_capabilities(attrs.evolve(sets, effective=sets.permitted & self.capabilities))

    def lacking(self) -> str:
        """Words for what the target may do and a thread of the agent may not; empty as a rule."""
        permitted = libc.capabilities().permitted
        names = [
            f"CAP_{capability.name}"
            for capability in Capability
            if capability in FILE_CAPABILITIES and (self.capabilities & ~permitted) >> capability.value & 1
        ]
        if self.groups != frozenset(os.getgroups()) and not permitted >> Capability.SETGID.value & 1:
            names.append("groups that take CAP_SETGID")
        return f"the target has {', '.join(names)}, which the agent has not" if names else ""


def rights_of(target: Target) -> Rights:
    """The rights of the target's process now. Raises OSError when it is gone."""
    descriptor = os.open("status", os.O_RDONLY, dir_fd=target.directory)
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in file)}
    return Rights(
        uid=int(fields["Uid"][3]),
        gid=int(fields["Gid"][3]),
        groups=frozenset(map(int, fields["Groups"])),
        capabilities=int(fields["CapEff"][0], 16),
    )


def check_rights(target: Target) -> None:
    """Raises TargetUnusable unless threads of ours can take the target's rights."""
    try:
        rights = rights_of(target)
    except OSError as error:
        raise target.gone(error) from error
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            rights.take()
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if not failures:
        return
    (failure,) = failures
    if isinstance(failure, PermissionError):
        why = why_denied(Capability.SETUID, Capability.SETGID, otherwise="or the same uid and gid")
    elif isinstance(failure, OSError):
        why = failure.strerror or str(failure)
    else:
        raise failure
    raise TargetUnusable(
        GoodbyeKind.PERMISSION,
        f"files cannot be reached with the rights of process {target.pid} (uid {rights.uid}, gid {rights.gid}): {why}",
    ) from failure
