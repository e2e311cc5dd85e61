"""Links beside a tree of copies, on which calls are made whose path ends with a link of the pod.

The tree's own links lead nowhere. But a call that opens a path may refuse to follow a link at its end (O_NOFOLLOW,
RESOLVE_NO_SYMLINKS: ELOOP) or follow it, and we need not know which: it is given a link that leads to the right place,
or that fails as the pod's does.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

import attrs

_FILE: Final = b"file"
"""A regular file, in which nothing can be found."""
_BROKEN: Final[Mapping[int, tuple[bytes, bytes]]] = {
    errno.ENOENT: (b"to-nothing", b"nothing"),
    errno.ENOTDIR: (b"through-a-file", _FILE + b"/nothing"),
    errno.ELOOP: (b"to-itself", b"to-itself"),
}
"""Links that cannot be followed: what they are called, and what they say."""


@attrs.define(eq=False)
class Aliases:
    """Makes links in a directory of its own, one for each place. May raise OSError for what this machine refuses."""

    _directory: bytes
    _made: dict[bytes, bytes] = attrs.field(factory=dict)

    @classmethod
    def open(cls, directory: bytes) -> Aliases:
        """`directory` is made."""
        os.mkdir(directory)
        os.chmod(directory, 0o711)
        os.close(os.open(directory + b"/" + _FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        for name, text in _BROKEN.values():
            os.symlink(text, directory + b"/" + name)
        return cls(directory)

    def leading_to(self, place: bytes) -> bytes:
        """The path of a link that leads to an absolute path."""
        alias = self._made.get(place)
        if alias is None:
            alias = b"%s/%d" % (self._directory, len(self._made))
            os.symlink(place, alias)
            self._made[place] = alias
        return alias

    def failing_with(self, number: int) -> bytes | None:
        """The path of a link that cannot be followed, with this errno; None where no link fails so."""
        return self._directory + b"/" + _BROKEN[number][0] if number in _BROKEN else None
