"""What calls that make files ask for, and FUSE does not tell.

The kernel takes the file mode creation mask from a mode before it asks us, although a default ACL may count instead
(umask(2)); and libfuse cannot be asked for a file without a name (O_TMPFILE of open(2)). So who lets a call into the
tree says what it asks for, and what then comes from the kernel is recognised: by the task, or by a name that nobody
else uses.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import attrs

_AT_MOST = 4096
"""So many calls are remembered whose requests have not come; most that are forgotten failed before."""
_PERMISSIONS = 0o777
"""What a mask can take away."""


@attrs.frozen
class Maker:
    """Whose call it is that a thread makes."""

    task: int
    """Its id in our pid namespace."""
    mask: int | None = None
    """Its file mode creation mask, where another thread makes the call in its stead."""


@attrs.frozen
class NewMode:
    """The mode that a new file was asked for with."""

    mode: int
    mask: int
    """What is taken away from it where no default ACL counts instead."""


@attrs.define(eq=False)
class Creations:
    """What calls that are under way make."""

    maker: Callable[[int], Maker] = Maker
    """Whose call a thread makes. The tree's user sets it, if there are threads that make others' calls."""
    _modes: dict[int, int] = attrs.field(factory=dict)
    _unnamed: dict[bytes, bool] = attrs.field(factory=dict)

    def expect(self, task: int, mode: int) -> None:
        """A task is about to make a call that may make a file with this mode. From any thread."""
        if len(self._modes) >= _AT_MOST:
            self._modes.clear()
        self._modes[task] = mode

    def mode_of(self, thread: int, mode: int, mask: int) -> NewMode:
        """What was asked for, when the kernel tells of a thread and its mask, and of a mode without what that takes."""
        maker = self.maker(thread)
        actual = mask if maker.mask is None else maker.mask
        asked = self._modes.pop(maker.task, 0)
        return NewMode(mode | asked & (mask | actual) & _PERMISSIONS, actual)

    def name_of_unnamed(self, *, may_get_a_name: bool) -> bytes:
        """The name under which a file without a name is to be made now, in a directory of the tree. From any thread."""
        if len(self._unnamed) >= _AT_MOST:
            self._unnamed.clear()
        name = b"#%d" % secrets.randbits(63)  # as the kernel calls it (d_tmpfile)
        self._unnamed[name] = may_get_a_name
        return name

    def take_unnamed(self, name: bytes) -> bool | None:
        """Whether what is made under this name, which is to have none, may get one; None: it is any other name."""
        return self._unnamed.pop(name, None)
