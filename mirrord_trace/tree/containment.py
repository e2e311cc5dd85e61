"""Paths that stay inside the tree, whatever links and ".." are on the way.

The kernel follows links inside the tree as it does everywhere: an absolute one would lead out of it, and so would more
".." than there are directories. The pod's root is a wall for both. So an absolute target is told with the tree's root
before it, and what comes before a ".." is resolved by the agent, which knows the wall; what is left has neither.
"""

from __future__ import annotations

import os

from mirrord_trace.remote_files import RemoteFiles


def climbs(path: bytes) -> bool:
    """Whether a path has a ".." among its components."""
    return b".." in path and b".." in path.split(b"/")


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


async def contained_target(files: RemoteFiles, root: bytes, directory: bytes, target: bytes) -> bytes:
    """What a link in `directory`, a real one of the pod, must say so that it leads to the same place in the tree."""
    if target.startswith(b"/"):
        return root + await without_climbs(files, target)
    if climbs(target):
        return root + await without_climbs(files, directory + b"/" + target)
    return target


def pod_path(root: bytes, path: bytes) -> bytes | None:
    """What the pod calls a path below `root`; None for any other."""
    if not path.startswith(root):
        return None
    inside = path[len(root) :]
    if inside.startswith(b"/"):
        return inside
    return None if inside else b"/"
