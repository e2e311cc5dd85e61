"""What the calls that name files do with them: which arguments are paths, and whether a call only reads.

Where the paths are, `mirrord_syscalls.abi.path_arguments` tells; what is done there is said here, for every call that
is intercepted. Calls that only root may make in a mount namespace of its own (mount, chroot, open_tree, …) are not:
they concern this machine.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from mirrord_syscalls.abi import PathArgument, path_arguments
from mirrord_syscalls.structs import OpenHow
from mirrord_syscalls.subscription import AnyBit, Equals, Rule
from mirrord_trace.supervisor.delivery.base import Call
from mirrord_trace.tree.base import Need

_AT_SYMLINK_NOFOLLOW: Final = 0x100  # linux/fcntl.h
_AT_SYMLINK_FOLLOW: Final = 0x400
_AT_EMPTY_PATH: Final = 0x1000
_NEGATIVE: Final = 0x8000_0000
"""The sign of a C int: AT_FDCWD is negative, and no descriptor is."""
_RESOLVE_BENEATH: Final = 0x08  # linux/openat2.h
_RESOLVE_IN_ROOT: Final = 0x10
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
"""Flags of an open that is to write, as mirrord has it."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_EXAMINING_TARGETS: Final = _words("stat newfstatat statx")
EXAMINING: Final = (*_EXAMINING_TARGETS, "lstat")
"""Calls that ask for attributes, and for no more."""
_READING: Final = _words(
    """
    access faccessat faccessat2 statfs getxattr listxattr getxattrat listxattrat file_getattr inotify_add_watch
    fanotify_mark
    """
)
_READING_LINKS: Final = _words("readlink readlinkat lgetxattr llistxattr name_to_handle_at")
_MAKING: Final = _words("mkdir mkdirat mknod mknodat symlink symlinkat")
_CHANGING: Final = _words(
    """
    rmdir unlink unlinkat rename renameat renameat2 link linkat chmod fchmodat fchmodat2 chown lchown fchownat utime
    utimes futimesat utimensat truncate setxattr lsetxattr removexattr lremovexattr setxattrat removexattrat
    file_setattr
    """
)
_FLAGS: Final = {
    "newfstatat": 3,
    "statx": 2,
    "faccessat2": 3,
    "getxattrat": 2,
    "listxattrat": 2,
    "file_getattr": 4,
    "execveat": 4,
}
"""Which argument says whether links are followed, and whether an empty path means the descriptor itself."""
_MOSTLY_ON_DESCRIPTORS: Final = ("newfstatat", "statx")
_OPENING: Final[Mapping[str, int | None]] = {"open": 1, "openat": 2, "openat2": None, "creat": None}
"""Which argument has the flags, where one has."""
_CREAT_FLAGS: Final = os.O_CREAT | os.O_WRONLY | os.O_TRUNC  # creat(2)
_MAKES_FILE: Final = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)
_MODES: Final = {"mkdir": 1, "mkdirat": 2, "mknod": 1, "mknodat": 2}
"""Which argument has the mode of what is made."""
EXECUTING: Final = ("execve", "execveat")


PATHS: Final[Mapping[str, tuple[PathArgument, ...]]] = MappingProxyType(
    {
        name: path_arguments(name)
        for name in (
            *EXAMINING,
            *_READING,
            *_READING_LINKS,
            *_MAKING,
            *_CHANGING,
            *_OPENING,
            *EXECUTING,
            "chdir",
        )
    }
)
"""The calls, and their paths."""

READING_LINKS: Final = frozenset(("readlink", "readlinkat"))
NAMES_READING: Final = _words(
    "open openat openat2 stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat"
)
"""Calls by which a program reads the files that tell names."""


def rules_of(name: str) -> tuple[Rule, ...]:
    """When a call is to be intercepted: always, unless it says by its flags that it is about a descriptor.

    The C library's fstat(3) is newfstatat with AT_EMPTY_PATH, and so frequent that it must cost nothing. Who gives a
    path nevertheless, and a descriptor that it may be relative to, is not seen.
    """
    if name not in _MOSTLY_ON_DESCRIPTORS:
        return (Rule(name),)
    return (Rule(name, (Equals(_FLAGS[name], 0, _AT_EMPTY_PATH),)), Rule(name, (AnyBit(0, _NEGATIVE),)))


@attrs.frozen
class Use:
    """What a call does with its path."""

    writes: bool
    is_local_write: bool
    """Whether it writes here even where nothing is here yet: what makes something new, and every open for writing."""
    need: Need
    examines: bool = False
    """Whether it asks for no more than attributes."""


@attrs.frozen
class Unnamed:
    """An open that makes a file without a name."""

    may_get_a_name: bool
    follows: bool
    """Whether a link at the end of the directory's path is followed."""


_EXAMINES_LINK: Final = Use(False, False, Need.ATTRIBUTES, True)
_EXAMINES: Final = Use(False, False, Need.TARGET, True)
_READS_LINK: Final = Use(False, False, Need.ATTRIBUTES)
_READS: Final = Use(False, False, Need.TARGET)
_READS_CONTENT: Final = Use(False, False, Need.CONTENT)
_LISTS: Final = Use(False, False, Need.LISTING)
_WRITES: Final = Use(True, True, Need.CHANGE)
_OPENS_TO_WRITE: Final = Use(True, True, Need.OUTPUT)
_CHANGES: Final = Use(True, False, Need.CHANGE)
_BY_NAME: Final[Mapping[str, Use]] = MappingProxyType(
    {
        **dict.fromkeys(_EXAMINING_TARGETS, _EXAMINES),
        "lstat": _EXAMINES_LINK,
        **dict.fromkeys(_READING, _READS),
        **dict.fromkeys(_READING_LINKS, _READS_LINK),
        **dict.fromkeys(_MAKING, _WRITES),
        **dict.fromkeys(_CHANGING, _CHANGES),
        **dict.fromkeys(EXECUTING, _READS_CONTENT),
        "creat": _OPENS_TO_WRITE,
        "chdir": _LISTS,
    }
)


def use_of(call: Call) -> Use:
    """What this very call does. Raises MemoryFault; ValueError for an openat2 that the kernel will refuse."""
    if call.name in ("open", "openat", "openat2"):
        return _use_of_open(_open_flags(call))
    use = _BY_NAME[call.name]
    if leaves_links(call):
        return _EXAMINES_LINK if use.examines else _READS_LINK
    return use


def leaves_links(call: Call) -> bool:
    """Whether a flag says that a link at the end of the path is not followed."""
    index = _FLAGS.get(call.name)
    return index is not None and bool(call.arguments[index] & _AT_SYMLINK_NOFOLLOW)


def is_confined(call: Call) -> bool:
    """Whether the path must not lead out of the directory it begins at: openat2(2). Raises as `use_of` does."""
    return call.name == "openat2" and bool(_how(call).resolve & (_RESOLVE_BENEATH | _RESOLVE_IN_ROOT))


def follows_link(call: Call) -> bool:
    """Whether linkat(2) is to make a name for what a link leads to, and not for the link."""
    return call.name == "linkat" and bool(call.arguments[4] & _AT_SYMLINK_FOLLOW)


def links_descriptor(call: Call) -> bool:
    """Whether linkat(2) may mean the descriptor itself, by an empty path."""
    return call.name == "linkat" and bool(call.arguments[4] & _AT_EMPTY_PATH)


def mode_of_new(call: Call) -> int | None:
    """The mode that a call asks for what it may make; None if it makes nothing that has one. Raises as `use_of`."""
    index = _MODES.get(call.name)
    if index is not None:
        return call.integer(index)
    if call.name not in _OPENING:
        return None
    flags, mode = _open_words(call)
    return mode if flags & _MAKES_FILE else None


def unnamed_of_open(call: Call) -> Unnamed | None:
    """How a file without a name is to be made, if that is what a call asks for (O_TMPFILE). Raises as `use_of`."""
    if call.name not in _OPENING or (call.name == "openat2" and call.arguments[3] != OpenHow.SIZE):
        return None
    flags, _ = _open_words(call)
    if flags & os.O_TMPFILE != os.O_TMPFILE or flags & os.O_CREAT or flags & os.O_ACCMODE == os.O_RDONLY:
        return None
    return Unnamed(may_get_a_name=not flags & os.O_EXCL, follows=not flags & os.O_NOFOLLOW)


def _use_of_open(flags: int) -> Use:
    if flags & os.O_PATH:
        return _READS_LINK if flags & os.O_NOFOLLOW else _READS
    if flags & os.O_ACCMODE == os.O_WRONLY:
        return _OPENS_TO_WRITE
    if flags & _WRITING:
        return _WRITES
    return _LISTS if flags & os.O_DIRECTORY else _READS_CONTENT


def _open_flags(call: Call) -> int:
    index = _OPENING[call.name]
    if index is not None:
        return call.integer(index)
    return _how(call).flags


def _open_words(call: Call) -> tuple[int, int]:
    """Flags and mode of an open."""
    if call.name == "creat":
        return _CREAT_FLAGS, call.integer(1)
    index = _OPENING[call.name]
    if index is not None:
        return call.integer(index), call.integer(index + 1)
    how = _how(call)
    return how.flags, how.mode


def _how(call: Call) -> OpenHow:
    return OpenHow.decode(call.memory.read(call.arguments[2], OpenHow.SIZE))
