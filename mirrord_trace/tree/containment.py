"""Paths that stay inside the tree, whatever links and ".." are on the way.

The kernel follows links inside the tree as it does everywhere: an absolute one would lead out of it, and so would more
".." than there are directories. The pod's root is a wall for both. So an absolute target is told with the tree's root
before it, and what comes before a ".." is resolved by the agent, which knows the wall; what is left has neither. A
relative target that climbs no higher than there are directories stays as it is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from mirrord_trace.policy.paths import climbs
from mirrord_trace.remote_files import RemoteFiles


def split_at_last_climb(path: bytes) -> tuple[bytes, bytes]:
    """A path up to its last ".." and with it, and the rest, which begins with a slash if there is one."""
    components = path.split(b"/")
    last = len(components) - components[::-1].index(b"..")
    rest = b"/".join(components[last:])
    return b"/".join(components[:last]), b"/" + rest if last < len(components) else rest


async def without_climbs(files: RemoteFiles, path: bytes) -> bytes:
    """An absolute path of the pod that leads where `path` does and has no "..". Raises OSError, SessionLost."""
    if not climbs(path):
        return path
    before, rest = split_at_last_climb(path)
    result = (await files.look(before, follow=True)).result
    if result.status is None:
        raise OSError(result.errno, os.strerror(result.errno))
    return (result.path.rstrip(b"/") + rest) or b"/"


async def contained_target(files: RemoteFiles, root: bytes, directories: Sequence[bytes], target: bytes) -> bytes:
    """What a link must say so that it leads to the same place in the tree. Raises OSError, SessionLost.

    `directories` are real ones of the pod, b"" for its root: all in which the link has a name, first the one that was
    met last.
    """
    if target.startswith(b"/"):
        return root + await without_climbs(files, target)
    if _stays_below(target, min(directory.count(b"/") for directory in directories)):
        return target
    return root + await without_climbs(files, directories[0] + b"/" + target)


def _stays_below(target: bytes, depth: int) -> bool:
    """Whether a relative target begins with all its "..", which are no more than `depth`: so it needs no wall."""
    components = target.split(b"/")
    above = list(itertools.takewhile(lambda component: component in (b"", b".", b".."), components))
    return b".." not in components[len(above) :] and above.count(b"..") <= depth


def pod_path(root: bytes, path: bytes) -> bytes | None:
    """What the pod calls a path below `root`; None for any other."""
    if not path.startswith(root):
        return None
    inside = path[len(root) :]
    if inside.startswith(b"/"):
        return inside
    return None if inside else b"/"
