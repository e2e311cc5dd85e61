"""Whether a task can have another descriptor, before something is done for it that cannot be undone."""

from __future__ import annotations

import os
import resource


def has_room(tid: int) -> bool:
    """Whether a number below RLIMIT_NOFILE is free, as far as we are told; otherwise the kernel would say EMFILE.

    Other threads of the task may take it in the next moment.
    """
    try:
        limit, _ = resource.prlimit(tid, resource.RLIMIT_NOFILE)
        if limit == resource.RLIM_INFINITY or _at_most(tid) < limit:
            return True
        taken = set(map(int, os.listdir(f"/proc/{tid}/fd")))
    except OSError:  # not ours to see, or gone
        return True
    return any(number not in taken for number in range(limit))


def _at_most(tid: int) -> int:
    """So many descriptors are open, or fewer. Raises OSError."""
    count = os.stat(f"/proc/{tid}/fd").st_size
    if count:  # since Linux 6.2 (proc_pid_fd(5))
        return count
    with open(f"/proc/{tid}/status", "rb") as status:
        return next((int(line[7:]) for line in status if line.startswith(b"FDSize:")), 0)
