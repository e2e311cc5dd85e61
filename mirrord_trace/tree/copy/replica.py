"""The local directory in which things stand for the pod's files, and what is known to stand there.

Everything here is quick and is done in Trio's thread, one thing after the other, so nothing needs a lock. What comes
from an older look at the pod never replaces what comes from a newer one.

A file gets its content in place, for programs compare the inode that they have looked at with the one that they have
opened. Once it has content, another version is another inode, made aside and renamed into place: whoever has opened the
one before keeps it. And whoever was told that the content is there, and has not opened it yet, must not find an empty
file because somebody else has just seen a newer version: so content is promised for a while.

Modes, times and sizes are the pod's, a link's too; but links lead nowhere, lest the kernel follows one out of the tree.
What a path leads to is found out at the pod, every time.

Root can give files their owners. Whom modes bind, as an ordinary user, owns all, and his modes are widened: he may
always read files and change directories, for what the pod refuses the pod is asked. Set-user-ID and set-group-ID bits
are left out, because every user of this machine can reach the workspace. Nothing can stand for a device; it looks like
a socket, which cannot be opened either (ENXIO).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Final

import attrs

from mirrord_trace.remote_files import Status
from mirrord_trace.tree.known import is_settled, version_of

_LONGEST_LINK: Final = 4095
"""Bytes: symlink(2), PATH_MAX."""
_LINK: Final = b"?"
"""What links say, as often as their target is long."""
_CAP_DAC_OVERRIDE: Final = 1 << 1


@attrs.frozen
class Held:
    """What stands for a path, as the pod told."""

    status: Status
    since_s: float
    """When the pod was asked, by the monotonic clock."""
    is_whole: bool = False
    """Whether a regular file has its content. Otherwise it has its size, and nothing in it."""
    is_sure: bool = True
    """Whether another content would have another version: the file had not been changed just before."""
    promised_until_s: float = 0.0
    """Before that nothing without content stands here, as long as there is a file at all."""

    def is_promised_instead_of(self, status: Status, since_s: float) -> bool:
        """Whether this stays although another version was seen at `since_s`."""
        is_other = stat.S_ISREG(status.mode) and version_of(self.status) != version_of(status)
        return is_other and since_s < self.promised_until_s


@attrs.frozen
class Filling:
    """A file that is getting its content."""

    path: bytes
    since_s: float
    descriptor: int
    aside: bytes | None
    """Where it is until it is put in place. None: it stands there already."""


def _may_override_modes() -> bool:
    """Whether we may read and write files whatever their modes say. Root may, unless his container took it away."""
    lines = Path("/proc/self/status").read_bytes().splitlines()
    return any(int(line[7:], 16) & _CAP_DAC_OVERRIDE for line in lines if line.startswith(b"CapEff:"))


@attrs.define(eq=False)
class Replica:
    """`root` is the directory that looks like the pod's, `aside` one on the same file system. Both are empty at first.

    Every method may raise OSError for what this machine refuses: call it within `complaining`.
    """

    root: bytes
    _aside: bytes
    _warn: Callable[[str], None]
    _held: dict[bytes, Held] = attrs.field(factory=dict)
    _changed: set[bytes] = attrs.field(factory=set)
    """Directories whose times are not the pod's any more."""
    _names: Iterator[int] = attrs.field(factory=itertools.count)
    _warned: set[int] = attrs.field(factory=set)
    """Errors that the user has been told of."""
    _is_free_of_modes: bool = attrs.field(factory=_may_override_modes)

    @contextlib.contextmanager
    def complaining(self) -> Iterator[None]:
        """The user is told of what this machine refuses, once of each kind; the call gets the errno."""
        try:
            yield
        except OSError as error:
            if error.errno is not None and error.errno not in self._warned:
                self._warned.add(error.errno)
                self._warn(
                    f"cannot keep copies of the target's files in {os.fsdecode(self.root)}: {error.strerror}"
                    " (calls that need them fail with this error)"
                )
            raise

    def held(self, path: bytes) -> Held | None:
        """What stands for a real path of the pod."""
        return self._held.get(path)

    def is_whole(self, path: bytes, status: Status) -> bool:
        """Whether the content of a regular file is here, in the version that this status tells of."""
        held = self._held.get(path)
        return held is not None and held.is_whole and held.is_sure and version_of(held.status) == version_of(status)

    def place(self, path: bytes, status: Status, since_s: float) -> None:
        """Makes something stand for a path: a directory, a link, a file without its content.

        What stands there already stays if it is the same, or promised.
        """
        held = self._held.get(path)
        if held is not None and (held.since_s > since_s or held.is_promised_instead_of(status, since_s)):
            return
        if held is not None and _is_like(held.status, status):
            if held.status != status:
                self._dress(path, status)
            self._held[path] = attrs.evolve(held, status=status, since_s=since_s)
            return
        if stat.S_ISDIR(status.mode):
            self._make_directory(path)
            self._dress(path, status)
        else:
            self._put(self._made(status), path, status)
        self._held[path] = Held(status, since_s)

    def promise(self, path: bytes, until_s: float) -> None:
        """Whoever opens the file at a path until then finds content."""
        held = self._held.get(path)
        if held is not None and held.is_whole:
            self._held[path] = attrs.evolve(held, promised_until_s=until_s)

    def place_unknown(self, path: bytes, since_s: float) -> None:
        """Makes an empty file stand for what has a name and may not be looked at."""
        nothing = Status(stat.S_IFREG, 0, 1, os.geteuid(), os.getegid(), 0, 0, 0, 4096, 0, 0, 0, 0, False)
        self.place(path, nothing, since_s)

    def fill(self, path: bytes, status: Status, content: bytes, since_s: float) -> None:
        """Makes a regular file with its content stand for a path."""
        if self._has(path, status, content):
            self._held[path] = attrs.evolve(
                self._held[path], status=status, since_s=since_s, is_sure=is_settled(status)
            )
            return
        filling = self.begin(path, status, since_s)
        try:
            with open(filling.descriptor, "wb", closefd=False) as file:
                file.write(content)
        except OSError:
            self.give_up(filling)
            raise
        self.finish(filling, status, len(content))

    def begin(self, path: bytes, status: Status, since_s: float, *, in_place: bool = True) -> Filling:
        """A regular file to write content to, for `finish` or `give_up`; the one that stands there if it has none."""
        self.place(path, status, since_s)
        held = self._held[path]
        if in_place and not held.is_whole and version_of(held.status) == version_of(status):
            return Filling(path, since_s, self._open_to_fill(path), None)
        aside = self._name_aside()
        return Filling(path, since_s, os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), aside)

    def finish(self, filling: Filling, status: Status, length: int, *, is_sure: bool = True) -> bool:
        """The content is written; whether it stands there now: not if the path has got another version meanwhile.

        If it is not `is_sure`, the file has changed while it was read.
        """
        path = filling.path
        try:
            os.ftruncate(filling.descriptor, length)
            if filling.aside is not None:
                self._put(filling.aside, path, status)
            elif self._stands_there(filling):
                self._dress(path, status)
            else:
                return False
        finally:
            os.close(filling.descriptor)
        self._held[path] = Held(status, filling.since_s, is_whole=True, is_sure=is_sure and is_settled(status))
        return True

    def give_up(self, filling: Filling) -> None:
        """It will have no content."""
        os.close(filling.descriptor)
        if filling.aside is not None:
            with contextlib.suppress(OSError):
                os.unlink(filling.aside)

    def _open_to_fill(self, path: bytes) -> int:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self.root + path, flags)
        except PermissionError:  # not root, and by its mode it is only read
            os.chmod(self.root + path, stat.S_IRUSR | stat.S_IWUSR)
            return os.open(self.root + path, flags)

    def _stands_there(self, filling: Filling) -> bool:
        try:
            there = os.lstat(self.root + filling.path)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(filling.descriptor))

    def _has(self, path: bytes, status: Status, content: bytes) -> bool:
        """Whether the file that stands there is whole and is the same still, though it might not have been."""
        held = self._held.get(path)
        if held is None or not held.is_whole or version_of(held.status) != version_of(status):
            return False
        with contextlib.suppress(OSError), open(self.root + path, "rb") as file:
            return file.read(len(content) + 1) == content
        return False

    def remove(self, path: bytes, since_s: float) -> None:
        """Nothing is at the path in the pod, so nothing stands here."""
        held = self._held.get(path)
        if path == b"/" or (held is not None and held.since_s > since_s):
            return
        try:
            self._move_away(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise

    def free_bytes(self) -> int:
        """How much may still be written here, bytes."""
        room = os.statvfs(self._aside)
        return room.f_bavail * room.f_frsize

    def keep_only(self, directory: bytes, names: Set[bytes], since_s: float) -> None:
        """Removes all entries of a directory but these."""
        for name in os.listdir(self.root + directory):
            if name not in names:
                self.remove(directory.rstrip(b"/") + b"/" + name, since_s)

    def settle(self) -> None:
        """Gives directories the pod's times again, after something was made in them."""
        for path in self._changed:
            if (held := self._held.get(path)) is not None:
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    os.utime(self.root + path, ns=(held.status.atime_ns, held.status.mtime_ns), follow_symlinks=False)
        self._changed.clear()

    def _make_directory(self, path: bytes) -> None:
        """It may be there already: the root is, and a parent that was needed before anything was known of it."""
        try:
            os.mkdir(self.root + path)
        except FileNotFoundError:
            os.makedirs(self.root + path)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(self.root + path).st_mode):
                self._move_away(path)
                os.mkdir(self.root + path)
        self._touch_parent(path)

    def _made(self, status: Status) -> bytes:
        """Anything but a directory, aside."""
        aside = self._name_aside()
        if stat.S_ISREG(status.mode):
            with open(aside, "xb") as file, contextlib.suppress(OSError):  # larger than this file system allows
                os.ftruncate(file.fileno(), status.size)
        elif stat.S_ISLNK(status.mode):
            os.symlink(_LINK * max(1, min(status.size, _LONGEST_LINK)), aside)
        elif stat.S_ISFIFO(status.mode):
            os.mkfifo(aside, 0o600)
        else:
            os.mknod(aside, stat.S_IFSOCK | 0o600)
        return aside

    def _put(self, aside: bytes, path: bytes, status: Status) -> None:
        self._dress_local(aside, status)
        try:
            os.rename(aside, self.root + path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.root + path))
            os.rename(aside, self.root + path)
        except IsADirectoryError:
            self._move_away(path)
            os.rename(aside, self.root + path)
        self._touch_parent(path)

    def _dress(self, path: bytes, status: Status) -> None:
        self._dress_local(self.root + path, status)

    def _dress_local(self, local: bytes, status: Status) -> None:
        mode = stat.S_IMODE(status.mode)
        is_directory = stat.S_ISDIR(status.mode)
        if not is_directory:
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if not (self._give(local, status) and self._is_free_of_modes):
            mode |= stat.S_IRWXU if is_directory else stat.S_IRUSR
        if not stat.S_ISLNK(status.mode):
            os.chmod(local, mode)
        os.utime(local, ns=(status.atime_ns, status.mtime_ns), follow_symlinks=False)

    def _give(self, local: bytes, status: Status) -> bool:
        """Gives the pod's owner what stands for a path; whether it is his now."""
        if not self._is_free_of_modes and status.uid != os.geteuid():
            return False  # we could not use it any more
        try:
            os.chown(local, status.uid, status.gid, follow_symlinks=False)
        except OSError:  # only root may, and not to a user that his user namespace does not know
            return False
        return True

    def _move_away(self, path: bytes) -> None:
        """Out of sight. Directories are removed with the workspace; somebody may still be in them."""
        local = self.root + path
        if stat.S_ISDIR(os.lstat(local).st_mode):
            os.rename(local, self._name_aside())
            below = path + b"/"
            for inner in [inner for inner in self._held if inner.startswith(below)]:
                del self._held[inner]
        else:
            os.unlink(local)
        self._held.pop(path, None)
        self._touch_parent(path)

    def _touch_parent(self, path: bytes) -> None:
        self._changed.add(os.path.dirname(path))

    def _name_aside(self) -> bytes:
        return b"%s/%d" % (self._aside, next(self._names))


def _is_like(old: Status, new: Status) -> bool:
    """Whether what stands for the old may stand for the new."""
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return False
    return not (stat.S_ISREG(new.mode) or stat.S_ISLNK(new.mode)) or version_of(old) == version_of(new)
