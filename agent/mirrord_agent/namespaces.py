"""Entering the target's namespaces: network, UTS and user, never mount or pid.

A socket belongs for ever to the network namespace in which it was made, so the agent opens the client's socket first
and enters afterwards; from then on everything it opens is the pod's. Must run before there is a second thread: setns(2)
moves one thread, and a user namespace can only be joined by a process that has just one.

Joining needs CAP_SYS_ADMIN in the user namespace that owns the namespace. Who lacks it here may have it there, as the
one who made that user namespace has; so on EPERM the target's user namespace is joined first. In the end it is joined
in any case: ids are then the ones that the target sees, and capabilities count for files as the target's do. What the
agent could do outside, it can no longer do.
"""

from __future__ import annotations

import os
from contextlib import suppress

import attrs

from mirrord_agent import libc
from mirrord_agent.capabilities import Capability, why_denied
from mirrord_agent.files.rights import rights_of
from mirrord_agent.target import Target, TargetUnusable
from mirrord_agent.wire.frames import GoodbyeKind


@attrs.frozen
class _Kind:
    file: str
    """Name below /proc/PID/ns."""
    flag: int
    name: str
    """For people."""


_USER = _Kind("user", libc.CLONE_NEWUSER, "user")
_NEEDED = (_Kind("net", libc.CLONE_NEWNET, "network"), _Kind("uts", libc.CLONE_NEWUTS, "UTS"))


def enter(target: Target) -> None:
    """Moves this process into the target's network, UTS and user namespaces. Raises TargetUnusable."""
    for kind in _NEEDED:
        if _is_ours(target, kind):
            continue
        try:
            _join(target, kind)
        except PermissionError as error:
            if _is_ours(target, _USER):
                raise _not_permitted(target, kind) from error
            try:
                _join_user(target)
                _join(target, kind)
            except OSError as second:
                raise _not_permitted(target, kind) from second
    if not _is_ours(target, _USER):
        try:
            _join_user(target)
        except OSError as error:
            raise _not_permitted(target, _USER) from error


def _join_user(target: Target) -> None:
    """Raises OSError, TargetUnusable."""
    # Inside, groups may be had by nobody (user_namespaces(7)), and ours would open what is not the target's.
    try:
        groups = rights_of(target).groups
    except OSError as error:
        raise target.gone(error) from error
    with suppress(PermissionError):
        os.setgroups(sorted(groups))
    _join(target, _USER)


def _is_ours(target: Target, kind: _Kind) -> bool:
    try:
        theirs = os.stat(f"ns/{kind.file}", dir_fd=target.directory)
    except PermissionError as error:
        raise _not_permitted(target, kind) from error
    except OSError as error:
        raise target.gone(error) from error
    return os.path.samestat(theirs, os.stat(f"/proc/self/ns/{kind.file}"))


def _join(target: Target, kind: _Kind) -> None:
    try:
        descriptor = os.open(f"ns/{kind.file}", os.O_RDONLY, dir_fd=target.directory)
    except PermissionError:
        raise
    except OSError as error:
        raise target.gone(error) from error
    try:
        libc.setns(descriptor, kind.flag)
    finally:
        os.close(descriptor)


def _not_permitted(target: Target, kind: _Kind) -> TargetUnusable:
    return TargetUnusable(
        GoodbyeKind.PERMISSION,
        f"the {kind.name} namespace of process {target.pid} may not be entered: "
        + why_denied(
            Capability.SYS_ADMIN,
            otherwise="in the user namespace that owns it (as root has), or to own that user namespace",
        ),
    )
