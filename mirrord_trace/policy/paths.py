"""Paths as text: what is done with them without a look at any file system."""

from __future__ import annotations


def normalised(path: bytes) -> bytes:
    """An absolute path without `.`, `..` and empty components, taken out as text; `..` stops at the root."""
    if b"//" not in path and b"/." not in path and not (path.endswith(b"/") and len(path) > 1):
        return path
    kept: list[bytes] = []
    for component in path.split(b"/"):
        if component == b"..":
            if kept:
                kept.pop()
        elif component not in (b"", b"."):
            kept.append(component)
    return b"/" + b"/".join(kept)


def climbs(path: bytes) -> bool:
    """Whether a component is `..`: then links on the way matter."""
    return b".." in path and b".." in path.split(b"/")


def below(directory: bytes, name: bytes) -> bytes:
    """The path of something in a directory."""
    return b"%s/%s" % (directory.rstrip(b"/"), name)


def ancestors(path: bytes) -> list[bytes]:
    """A normalised path and the directories above it, without the root; the longest first."""
    found = []
    while len(path) > 1:
        found.append(path)
        path = path[: path.rfind(b"/")]
    return found
