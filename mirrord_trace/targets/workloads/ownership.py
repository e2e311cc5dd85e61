"""Whose an agent's job is, and whether the run that made it is over: written into its annotations, read by `clean`.

A process is known by its machine's boot, its pid namespace, its id and its start time; no other process, ever, has all
four. A run can be judged only where it was made: on another machine, in another container or for another user it may
well be alive and out of sight. Then the answer is that nobody knows.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import attrs

from mirrord_trace.targets.owner import user_at_host

MANAGED_BY: Final = {"app.kubernetes.io/managed-by": "mirrord-trace"}
"""The label of everything that we make in a cluster."""
RUN_ANNOTATION: Final = "mirrord-trace/run"
OWNER_ANNOTATION: Final = "mirrord-trace/owner"


class RunState(enum.Enum):
    """What is known of a run."""

    LIVES = "it runs on this machine"
    OVER = "its run on this machine is over"
    UNKNOWN = "whether its run is over cannot be told from here"


@attrs.frozen
class Ownership:
    """Who made something, in which process."""

    owner: str
    """user@host; "" when nobody says."""
    boot_id: str = ""
    pid_namespace: int = 0
    """The inode of /proc/PID/ns/pid (namespaces(7))."""
    pid: int = 0
    start_time: int = 0
    """In clock ticks since the boot (proc_pid_stat(5))."""

    @classmethod
    def ours(cls) -> Self:
        """That of this process."""
        start_time = _start_time(os.getpid())
        assert start_time is not None, "we run"
        return cls(
            user_at_host(),
            Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            os.stat("/proc/self/ns/pid").st_ino,
            os.getpid(),
            start_time,
        )

    @classmethod
    def read(cls, annotations: Mapping[str, str]) -> Self:
        """What an object's annotations say; what they do not say, or not in our form, is left out."""
        owner = annotations.get(OWNER_ANNOTATION, "")
        parts = annotations.get(RUN_ANNOTATION, "").split()
        if len(parts) != 4 or not all(re.fullmatch(r"[0-9]{1,20}", part) for part in parts[1:]):
            return cls(owner)
        return cls(owner, parts[0], *map(int, parts[1:]))

    def annotations(self) -> dict[str, str]:
        """For an object of this owner's."""
        return {
            OWNER_ANNOTATION: self.owner,
            RUN_ANNOTATION: f"{self.boot_id} {self.pid_namespace} {self.pid} {self.start_time}",
        }

    def state(self, here: Ownership) -> RunState:
        """Whether the run is over, as far as somebody who runs `here` can tell."""
        ours = here.owner, here.boot_id, here.pid_namespace
        if not self.pid or (self.owner, self.boot_id, self.pid_namespace) != ours:
            return RunState.UNKNOWN
        try:
            start_time = _start_time(self.pid)
        except OSError:
            return RunState.UNKNOWN
        return RunState.LIVES if start_time == self.start_time else RunState.OVER


def _start_time(pid: int) -> int | None:
    """When a process started; None when there is none. Raises OSError when that may not be known."""
    try:
        os.kill(pid, 0)  # /proc may hide the processes of others (hidepid)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    except OverflowError:
        return None
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except ProcessLookupError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
