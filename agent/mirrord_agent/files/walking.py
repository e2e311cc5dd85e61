"""A walk along a path, as the kernel makes it, that tells each step.

Each component is opened by itself (O_PATH, no link followed), so nothing here can leave the root: names without slashes
lead only downwards, links are read and their text is walked along, and `..` is a new walk to the parent, whose path is
known and free of links. The kernel checks rights at each step; what it would only check when it followed a link itself
is checked here: sticky directories, magic links, forty links at most.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from pathlib import Path

import attrs

from mirrord_agent import libc
from mirrord_agent.files.root import Root, check_name, way_to
from mirrord_agent.files.statuses import status_of
from mirrord_agent.wire.file_frames import Look, Looked
from mirrord_agent.wire.file_records import Status, Visited, pack_walk

#: Most links that one walk follows (MAXSYMLINKS, linux/namei.h).
_MOST_LINKS = 40
#: Steps that are told; of a longer walk the last ones. A path has at most 2047 components, and 2048 steps fit a frame.
_MOST_STEPS = 2048
#: Longest content that comes along, in bytes: with the steps it fits a frame.
MAX_CONTENT = 256 << 10
#: Filesystems whose files' sizes say nothing of what can be read (linux/magic.h): proc, sysfs, debugfs, tracefs,
#: cgroup, cgroup2, bpf, securityfs, configfs, efivarfs, selinuxfs.
_WITHOUT_SIZES = frozenset(
    {
        0x9FA0,
        0x62656572,
        0x64626720,
        0x74726163,
        0x27E0EB,
        0x63677270,
        0xCAFE4A11,
        0x73636673,
        0x62656570,
        0xDE5E81E4,
        0xF97CFF8C,
    }
)
_PROC = 0x9FA0
_STRAIGHT = libc.RESOLVE_IN_ROOT | libc.RESOLVE_NO_SYMLINKS
_OF_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOR_CONTENT = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def look(root: Root, uid: int, request: Look) -> Looked:
    """Walks and tells what was seen; `uid` is the target's fsuid. Raises OSError for a path that cannot be one."""
    check_name(request.path)
    walk = _Walk(root, uid, request.follow)
    try:
        walk.along(request.path, request.known)
        content, number = None, 0
        if request.content_limit and walk.ended_well and stat.S_ISREG(walk.last.mode):
            content, number = walk.read(min(request.content_limit, MAX_CONTENT))
    finally:
        walk.close()
    steps = pack_walk(walk.steps)
    if content is None:
        return Looked(request.stream, None, number, steps)
    return Looked(request.stream, len(content), 0, steps + content)


@attrs.define
class _Walk:
    _root: Root
    _uid: int
    _follow: bool
    """Whether a link at the end is followed."""
    steps: deque[Visited] = attrs.Factory(lambda: deque(maxlen=_MOST_STEPS))
    ended_well: bool = False
    _here: int = -1
    """Descriptor of where the walk is."""
    _path: bytes = b""
    """The way from the root to there, real directories before the last component; empty for the root itself."""
    _going_on: bool = False
    """Whether an error is one of going on from what `_path` names, and not one of getting there."""
    _links: int = 0

    @property
    def last(self) -> Status:
        """The status of where a walk ended that ended well."""
        status = self.steps[-1].status
        assert status is not None
        return status

    def close(self) -> None:
        """Lets go of where the walk is."""
        if self._here >= 0:
            os.close(self._here)
            self._here = -1

    def along(self, path: bytes, known: int) -> None:
        """Walks, in one step to what is `known`. What stops it becomes the last step."""
        try:
            if not path:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            if known and path[known : known + 1] == b"/" and self._is_led_down(path[:known]):
                self._walk(path[known:])
            else:
                self._go_to_root()
                self._walk(path)
            self.ended_well = True
        except OSError as error:
            failed = self._path + b"/." if self._going_on or not self._path else self._path
            self.steps.append(Visited(failed, None, error.errno or errno.EIO, None))

    def _walk(self, path: bytes) -> None:
        rest = deque(path.split(b"/"))
        # A slash at the end wants a directory, and follows a link to get it.
        wants_directory = path.endswith(b"/")
        while rest:
            name = rest.popleft()
            if not name:
                continue
            if name in (b".", b".."):
                self._may_search()
                if name == b"..":
                    self._go_up()
                continue
            link = self._go_down(name)
            if link is None:
                continue
            is_last = not any(rest)
            if is_last and not (self._follow or wants_directory):
                os.close(link)
                return
            target = self._read_to_follow(link, name, is_last)
            rest.extendleft(reversed(target.split(b"/")))
            wants_directory |= is_last and target.endswith(b"/")
        here = self._path or b"/"
        if not self.steps or self.steps[-1].path != here or self.steps[-1].target is not None:
            self.steps.append(Visited(here, status_of(self._here), 0, None))
        self._going_on = True
        if wants_directory and not stat.S_ISDIR(self.last.mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))

    def _replace(self, descriptor: int) -> None:
        self.close()
        self._here = descriptor

    def _is_led_down(self, path: bytes) -> bool:
        """Goes down to a directory at once, if there is one and no link on the way."""
        if any(name in (b"", b".", b"..") for name in path[1:].split(b"/")):
            return False
        try:
            self._replace(libc.openat2(self._root.descriptor, path, os.O_PATH | os.O_DIRECTORY, _STRAIGHT))
        except OSError:
            return False
        self._path = path
        return True

    def _go_to_root(self) -> None:
        self._replace(os.dup(self._root.descriptor))
        self._path = b""

    def _may_search(self) -> None:
        """Raises OSError where not: the kernel asks for each component, `.` and `..` among them."""
        self._going_on = True
        os.close(os.open(b".", _OF_PATH, dir_fd=self._here))
        self._going_on = False

    def _go_up(self) -> None:
        parent = self._path.rpartition(b"/")[0]
        if parent:
            self._replace(libc.openat2(self._root.descriptor, parent, os.O_PATH | os.O_DIRECTORY, _STRAIGHT))
            self._path = parent
        else:
            self._go_to_root()

    def _go_down(self, name: bytes) -> int | None:
        """Goes to an entry of the directory, or stays and returns a descriptor of it if it is a link."""
        self._path += b"/" + name
        descriptor = os.open(name, _OF_PATH, dir_fd=self._here)
        try:
            status = status_of(descriptor)
            is_link = stat.S_ISLNK(status.mode)
            target = os.readlink(b"", dir_fd=descriptor) if is_link else None
        except BaseException:
            os.close(descriptor)
            raise
        self.steps.append(Visited(self._path, status, 0, target))
        if is_link:
            return descriptor
        self._replace(descriptor)
        return None

    def _read_to_follow(self, link: int, name: bytes, is_last: bool) -> bytes:
        """Goes back to where a link begins; returns what it says. Raises OSError if it may not be followed."""
        self._going_on = True
        try:
            self._links += 1
            if self._links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if libc.filesystem(link).type == _PROC:
                self._check_magic(name)
            if is_last:
                self._check_sticky()
        finally:
            os.close(link)
        self._going_on = False
        target = self.steps[-1].target
        assert target is not None
        if target.startswith(b"/"):
            self._go_to_root()
        else:
            self._path = self._path.rpartition(b"/")[0]
        return target

    def _check_magic(self, name: bytes) -> None:
        """Raises OSError for a link that leads elsewhere than its text says: out of the root, perhaps."""
        try:
            os.close(libc.openat2(self._here, name, os.O_PATH, libc.RESOLVE_NO_MAGICLINKS))
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from error

    def _check_sticky(self) -> None:
        """Raises OSError for somebody else's link in a sticky directory, if it is protected (proc_sys_fs(5))."""
        owner = self.last.uid
        if owner == self._uid:
            return
        directory = os.fstat(self._here)
        everybodys = stat.S_ISVTX | stat.S_IWOTH
        if directory.st_mode & everybodys == everybodys and directory.st_uid != owner and _protects_links():
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def read(self, limit_bytes: int) -> tuple[bytes | None, int]:
        """The content of the file at the end, its step made that of the descriptor; or why there is none."""
        if self.last.size > limit_bytes:
            return None, errno.EFBIG
        # Reading one whose size says nothing may mean to wait for something to happen. None of these have blocks.
        if not self.last.blocks and libc.filesystem(self._here).type in _WITHOUT_SIZES:
            return None, errno.EFBIG
        try:
            descriptor = os.open(way_to(self._here), _FOR_CONTENT)
            try:
                content = _read_whole(descriptor, limit_bytes)
                status = status_of(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            return None, error.errno or errno.EIO
        if len(content) > limit_bytes or len(content) != status.size:
            return None, errno.EFBIG
        self.steps[-1] = attrs.evolve(self.steps[-1], status=status)
        return content, 0


def _read_whole(descriptor: int, limit_bytes: int) -> bytes:
    """What is in a file, and of one that is longer than `limit_bytes` more than these."""
    content = os.read(descriptor, limit_bytes + 1)
    while content and len(content) <= limit_bytes and (more := os.read(descriptor, limit_bytes + 1 - len(content))):
        content += more
    return content


def _protects_links() -> bool:
    try:
        return Path("/proc/sys/fs/protected_symlinks").read_bytes().strip() != b"0"
    except OSError:
        return False
