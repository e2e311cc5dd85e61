"""Who may ask a tree: the user whose mount it is, and the processes that the supervisor has started.

Root mounts for all, since the user's process may change its user. But the pod's files are reached with the rights of
the pod's process, not with those of whoever asks here; so others on this machine must find nothing.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import trio

_LIFETIME_S = 1.0
_REMEMBERED_AT_MOST = 4096


@attrs.define(eq=False)
class Askers:
    """Tells by a request's user and process whether it is to be answered."""

    owner: int
    """The user that has mounted the tree."""
    supervisor: int
    """The process from which all that may ask descend."""
    _allowed_until_s: dict[int, float] = attrs.field(factory=dict)

    def may_ask(self, uid: int, pid: int) -> bool:
        """Whether a request of a task (`pid` is its own number) may be answered."""
        if uid == self.owner:
            return True
        now_s = trio.current_time()
        if self._allowed_until_s.get(pid, 0) > now_s:
            return True
        if not self._descends(pid):
            return False
        if len(self._allowed_until_s) >= _REMEMBERED_AT_MOST:
            self._allowed_until_s.clear()
        self._allowed_until_s[pid] = now_s + _LIFETIME_S
        return True

    def _descends(self, pid: int) -> bool:
        while pid > 1:
            group, parent = _group_and_parent(pid)
            if self.supervisor in (group, parent):
                return True
            pid = parent
        return False


def _group_and_parent(pid: int) -> tuple[int, int]:
    """A task's thread group and its parent process (proc_pid_status(5)); zeros when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return 0, 0
    numbers = {name: value for name, _, value in (line.partition(":\t") for line in lines)}
    return int(numbers["Tgid"]), int(numbers["PPid"])
