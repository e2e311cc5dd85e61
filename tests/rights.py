"""Whose rights something that a test runs has."""

from __future__ import annotations

from collections.abc import Sequence

NOBODY = 65534


def as_user(
    user: int = NOBODY, group: int | None = None, *, groups: Sequence[int] = (), reads_everything: bool = False
) -> list[str]:
    """What runs a command as this user when it stands before it; for root only. The group is like the user by default.

    One who `reads_everything` can use this checkout and its Python wherever they are, below root's home, say. It is of
    no use for ptrace's access checks.
    """
    ids = [f"--reuid={user}", f"--regid={user if group is None else group}"]
    ids.append(f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups")
    read = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"] if reads_everything else []
    return ["setpriv", *ids, *read]
