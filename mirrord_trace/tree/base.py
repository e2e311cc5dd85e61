"""What a tree is to those who send calls into it: a local directory that looks like the pod's root.

A call on a path of the pod is made by the kernel on the same path below `root`. What the kernel then asks for comes
from the pod, and whoever serves it must not be waited for by its own thread: no path below `root` is ever touched by
Trio's thread. `ensure` brings what a call will need beforehand, in one round trip where the kernel would ask piece by
piece; without it a call is merely slower in a FUSE tree, and wrong in a copied one.

What is known of a path is good for a second, here and in the kernel: `LIFETIME_S`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol

import attrs

from mirrord_trace.session_requests import Request
from mirrord_trace.tree.creations import Creations

LIFETIME_S = 1.0
"""How long what is known of a path counts, seconds: its attributes, where it leads, or that it is absent."""


class Need(enum.Enum):
    """What a call will want of a path."""

    ATTRIBUTES = enum.auto()
    """Its own attributes; a symbolic link is not followed."""
    TARGET = enum.auto()
    """The attributes of what it leads to."""
    CONTENT = enum.auto()
    """To read the file that it leads to."""
    LISTING = enum.auto()
    """To open the directory that it leads to, or to go there."""
    CHANGE = enum.auto()
    """To change it, make it or write to it: what leads there must be known, no more."""
    OUTPUT = enum.auto()
    """To open it for writing only: as CHANGE, but the pod's reader gets what is written to a FIFO."""


@attrs.frozen
class Asked:
    """A walk that the agent was asked for ahead of `Tree.ensure`."""

    request: Request
    since_s: float
    """When, by the clock of what is known."""
    content_limit: int
    """Content of so many bytes comes along."""


class Tree(Protocol):
    """The pod's files as a local directory tree."""

    root: bytes
    """The tree's root: absolute, free of links, without a slash at its end."""
    may_write: bool
    """Whether anything at all may be changed in the pod."""
    answers_always: bool
    """Whether the kernel itself asks for what `ensure` has not brought."""
    creations: Creations
    """Is told of calls that make files in the tree before they are made."""
    on_mapped: Callable[[], None]
    """Called once, in Trio's thread, before a regular file of the tree is opened for the first time: from then on its
    pages may be mapped into tasks, and touching their memory may mean to wait for us. Its user sets it."""

    def is_ready(self, path: bytes, need: Need) -> bool:
        """Whether `ensure` would do nothing now and answer `root + path`. A few dictionary look-ups; from any thread.

        `path` is absolute in the pod.
        """

    def ask(self, path: bytes, need: Need) -> Asked | None:
        """Asks the pod for what `ensure` is about to wait for, and saves waking Trio's thread first.

        From any thread, and never waits. None where there is nothing to ask, or it cannot be asked just now.
        """

    def begin(self, path: bytes, need: Need) -> bool:
        """Has the pod asked for attributes that a call on `root + path` wants, which may be made meanwhile.

        The kernel's own requests then wait for that answer. From any thread, and never waits. False where it is
        `ensure` that must bring it.
        """

    async def ensure(self, path: bytes, need: Need, asked: Asked | None = None) -> bytes:
        """Brings what the kernel will ask for, and answers with the path on which the call is to be made.

        That is `root + path`, unless the path has "..", or leads to a FIFO that is to be opened: then it is a local one
        that is connected with the pod's. `path` is absolute in the pod; `asked` is what `ask` gave for it just now. In
        Trio's thread. Raises OSError with the pod's
        errno where the kernel could not find it out by itself, SessionLost among them.
        """

    async def read_link(self, path: bytes) -> bytes:
        """The target of the link at `path` as it is in the pod. Raises OSError with the pod's errno."""

    async def give_name(self, number: int, path: bytes) -> None:
        """Links a file that is open, whether it has a name or not, to `path`, which is absolute in the pod.

        `number` is its inode's in the tree. Raises OSError with the pod's errno.
        """

    def pod_path(self, path: bytes) -> bytes | None:
        """What the pod calls `path`, which is as getcwd(2) or /proc/PID/fd tell it; None if not in the tree."""

    def abandon(self) -> None:
        """Fails whatever waits for the pod, and all that is asked from now on.

        For the end: a task that waits for a FUSE answer cannot be killed.
        """
