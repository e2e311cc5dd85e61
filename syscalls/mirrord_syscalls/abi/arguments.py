"""What the arguments of the calls we may intercept are.

Source: the prototypes in the kernel's include/linux/syscalls.h and the manual pages of section 2. The calls are those
that name a file, act on a socket or a descriptor, tell the host's name, or start a program.
"""

import enum
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import attrs


class ArgumentKind(enum.Enum):
    """What one argument of a system call means."""

    FD = "file descriptor"
    DIRFD = "directory descriptor or AT_FDCWD, for the path that follows it"
    PATH = "pointer to a path that ends with NUL"
    STRING = "pointer to a string that ends with NUL and is not a path"
    POINTER = "pointer to data"
    SOCKADDR = "pointer to a socket address"
    MSGHDR = "pointer to one struct msghdr"
    MMSGHDR = "pointer to an array of struct mmsghdr"
    LENGTH = "number of bytes or elements"
    LENGTH_POINTER = "pointer to a socklen_t, in and out"
    FLAGS = "bit set"
    MODE = "file mode"
    INTEGER = "number"


_KINDS_BY_WORD = {
    "fd": ArgumentKind.FD,
    "dirfd": ArgumentKind.DIRFD,
    "path": ArgumentKind.PATH,
    "string": ArgumentKind.STRING,
    "pointer": ArgumentKind.POINTER,
    "sockaddr": ArgumentKind.SOCKADDR,
    "msghdr": ArgumentKind.MSGHDR,
    "mmsghdr": ArgumentKind.MMSGHDR,
    "length": ArgumentKind.LENGTH,
    "length*": ArgumentKind.LENGTH_POINTER,
    "flags": ArgumentKind.FLAGS,
    "mode": ArgumentKind.MODE,
    "integer": ArgumentKind.INTEGER,
}

# One call a line: its name, then its arguments in order.
_TABLE = """
socket integer flags integer
socketpair integer flags integer pointer
bind fd sockaddr length
connect fd sockaddr length
listen fd integer
accept fd sockaddr length*
accept4 fd sockaddr length* flags
getsockname fd sockaddr length*
getpeername fd sockaddr length*
sendto fd pointer length flags sockaddr length
recvfrom fd pointer length flags sockaddr length*
sendmsg fd msghdr flags
recvmsg fd msghdr flags
sendmmsg fd mmsghdr length flags
recvmmsg fd mmsghdr length flags pointer
setsockopt fd integer integer pointer length
getsockopt fd integer integer pointer length*
shutdown fd integer

close fd
close_range integer integer flags
dup fd
dup2 fd fd
dup3 fd fd flags
fcntl fd integer integer
ioctl fd integer pointer
read fd pointer length
write fd pointer length
fstat fd pointer
fchdir fd
fchmod fd mode
fchown fd integer integer
fstatfs fd pointer
getdents fd pointer length
getdents64 fd pointer length

open path flags mode
creat path mode
openat dirfd path flags mode
openat2 dirfd path pointer length
open_tree dirfd path flags
open_by_handle_at fd pointer flags
name_to_handle_at dirfd path pointer pointer flags
stat path pointer
lstat path pointer
newfstatat dirfd path pointer flags
statx dirfd path flags flags pointer
access path mode
faccessat dirfd path mode
faccessat2 dirfd path mode flags
readlink path pointer length
readlinkat dirfd path pointer length
statfs path pointer
truncate path length
chdir path
getcwd pointer length
chroot path
mkdir path mode
mkdirat dirfd path mode
mknod path mode integer
mknodat dirfd path mode integer
rmdir path
unlink path
unlinkat dirfd path flags
rename path path
renameat dirfd path dirfd path
renameat2 dirfd path dirfd path flags
link path path
linkat dirfd path dirfd path flags
symlink string path
symlinkat string dirfd path
chmod path mode
fchmodat dirfd path mode
fchmodat2 dirfd path mode flags
chown path integer integer
lchown path integer integer
fchownat dirfd path integer integer flags
utime path pointer
utimes path pointer
futimesat dirfd path pointer
utimensat dirfd path pointer flags
getxattr path string pointer length
lgetxattr path string pointer length
listxattr path pointer length
llistxattr path pointer length
setxattr path string pointer length flags
lsetxattr path string pointer length flags
removexattr path string
lremovexattr path string
getxattrat dirfd path flags string pointer length
listxattrat dirfd path flags pointer length
setxattrat dirfd path flags string pointer length
removexattrat dirfd path flags string
file_getattr dirfd path pointer length flags
file_setattr dirfd path pointer length flags
inotify_add_watch fd path flags
fanotify_mark fd flags flags dirfd path
umask mode

execve path pointer pointer
execveat dirfd path pointer pointer flags
uname pointer
sethostname string length
ptrace integer integer pointer pointer
seccomp integer flags pointer
"""


def _parse(table: str) -> dict[str, tuple[ArgumentKind, ...]]:
    rows = (line.split() for line in table.splitlines() if line)
    return {name: tuple(_KINDS_BY_WORD[word] for word in words) for name, *words in rows}


ARGUMENTS: Mapping[str, tuple[ArgumentKind, ...]] = MappingProxyType(_parse(_TABLE))
"""The arguments of each call, by its name, for all architectures together."""


@attrs.frozen
class PathArgument:
    """Where a path is among a call's arguments, and where the descriptor that it is relative to."""

    index: int
    directory: int | None
    """None: it is relative to the working directory."""


@cache
def path_arguments(name: str) -> tuple[PathArgument, ...]:
    """The paths among a call's arguments, in order. Raises KeyError for a call that is not in `ARGUMENTS`."""
    kinds = ARGUMENTS[name]
    return tuple(
        PathArgument(index, index - 1 if index and kinds[index - 1] is ArgumentKind.DIRFD else None)
        for index, kind in enumerate(kinds)
        if kind is ArgumentKind.PATH
    )
