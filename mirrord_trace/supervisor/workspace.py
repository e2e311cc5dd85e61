"""A directory for what the process is to see in place of its own files, and guardians that remove it.

Below it the target's files may be mounted. So whoever removes it unmounts first, and never reaches through a mount: see
`mirrord_trace.tree.unmounting`.

A guardian is a child that waits for the end of a pipe. The kernel closes the other end when the supervisor ends. After
kill -9 it may not: a thread that waits for the mounted files, which the supervisor serves, keeps the descriptors open.
So a guardian also asks for a signal when the main thread, which has forked it, ends (PR_SET_PDEATHSIG). That comes when
the thread has closed its descriptors, which may wait, too: for the answer to a FLUSH that only the supervisor could
give (close_files(), fuse_flush() in Linux). Of this nobody is told, so a guardian looks for it now and then.

It is there before the directory is, and lives in a session of its own, so that the terminal's signals do not reach it.
There are two, because either may be killed as well; the second acts once the first is gone. If all three are killed,
nobody is left to clean up but the next run: a workspace is locked (flock(2)) while its supervisor lives, so one that is
not locked is a dead one's. A child of the first guardian's looks for these, the sweeper: nobody waits for it, and it is
killed when the guardian ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import select
import signal
import stat
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mirrord_syscalls.structs import SignalfdSiginfo
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor import signals
from mirrord_trace.supervisor.descent import is_ending
from mirrord_trace.tree import unmounting

_PREFIX: Final = "mirrord-trace-"
_NAME: Final = re.compile(rf"{_PREFIX}[0-9a-f]{{12}}")
_MODE: Final = 0o711
"""Any user may search it, none list it. A workspace has this mode from when it is locked."""
_MOST_TOLD: Final = 4096
"""So many bytes of what went wrong are told."""
_PR_SET_PDEATHSIG: Final = 1
_ORPHANED: Final = signal.SIGUSR1
"""Sent to a guardian when the supervisor's main thread has ended."""
_LOOK_EVERY_S: Final = 2.0
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def workspace(tell: Callable[[str], None]) -> Iterator[Path]:
    """A fresh directory that any user may search but not list. Gone at the end, whatever the end is.

    Something may be mounted in it, which is unmounted first. Its path is free of links. Call it in the main thread,
    before another is started. `tell` hears at the end, in words for the user, of what went wrong without harm to the
    run. Raises Failure when the directory cannot be made.
    """
    directory = Path(os.path.realpath(tempfile.gettempdir())) / f"{_PREFIX}{secrets.token_hex(6)}"
    waiting, held = os.pipe()
    first_waiting, first_held = os.pipe()
    heard, telling = os.pipe()
    guardians = [
        _start_guardian(directory, telling, waiting, keeps=first_held),
        _start_guardian(directory, telling, waiting, waits_for=first_waiting),
    ]
    for descriptor in (telling, waiting, first_waiting, first_held):
        os.close(descriptor)
    try:
        lock = _make(directory, guardians)
        try:
            yield directory
        finally:
            unmounting.remove(directory)
            os.close(lock)
    finally:
        os.close(held)
        for guardian in guardians:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(guardian, 0)
        for line in _read_now(heard).splitlines():
            tell(line)
        if os.path.lexists(directory):
            tell(f"{directory} cannot be removed: see what is mounted below it, unmount that and remove it")


def _make(directory: Path, guardians: list[int]) -> int:
    """Makes it; a descriptor that holds its lock."""
    try:
        directory.mkdir(0o700)
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # where files cannot be locked nobody looks for dead runs
            fcntl.flock(lock, fcntl.LOCK_EX)
        directory.chmod(_MODE)
    except OSError as error:
        for guardian in guardians:
            os.kill(guardian, signal.SIGKILL)  # it shall remove nothing that is not ours
        raise Failure(f"cannot make {directory}: {error.strerror}", "set TMPDIR to a directory of yours") from error
    return lock


def _start_guardian(
    directory: Path, telling: int, waiting: int, *, keeps: int | None = None, waits_for: int | None = None
) -> int:
    """The process id of one that removes the directory when the supervisor has ended, and `waits_for` has, if any.

    The one that `keeps` a descriptor is the first; it has somebody look for what dead runs left.
    """
    supervisor = os.getpid()

    def guard(telling: int, waiting: int, other: int) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, _ORPHANED, 0, 0, 0)
        if keeps is not None:
            _start_sweeper(directory.parent, telling)
        if os.getppid() == supervisor:  # it may have ended before it was asked for the signal
            _wait_for_end(supervisor, waiting)
        if waits_for is not None:
            _wait_for_close(other)
        unmounting.remove(directory)

    other = keeps if waits_for is None else waits_for
    assert other is not None, "one of the two is there"
    words = f"a guardian of {directory} failed; if mirrord-trace had been killed, that might have stayed"
    return _start(guard, words, telling, waiting, other)


def _start_sweeper(parent: Path, telling: int) -> None:
    """Starts who looks for what dead runs left. It may take as long as it likes, and does not outlive its starter."""
    guardian = os.getpid()

    def sweep(telling: int) -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == guardian:
            _remove_dead_ones(parent)

    words = f"the look for what killed runs left in {parent} failed"
    try:
        _start(sweep, words, telling)
    except OSError as error:
        _tell(telling, words, error)


def _start(duty: Callable[..., None], words: str, telling: int, *pipes: int) -> int:
    """The process id of a child in a session of its own that does its duty, with these descriptors and no others.

    The duty gets them as arguments. What it raises is told, after `words`.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.setsid()
        os.chdir("/")
        telling, *kept = _moved_up([telling, *pipes])
        _close_all_but([telling, *kept])
        duty(telling, *kept)
    except Exception as error:
        _tell(telling, words, error)
    finally:
        os._exit(0)


def _tell(telling: int, words: str, error: Exception) -> None:
    """To the supervisor, if that is still there."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    with contextlib.suppress(OSError):
        os.write(telling, f"{words}: {error!r} ({where})\n".encode(errors="replace"))


def _read_now(pipe: int) -> str:
    """What is in a pipe; closes it."""
    os.set_blocking(pipe, False)
    with os.fdopen(pipe, "rb", buffering=0) as reader:
        return (reader.read(_MOST_TOLD) or b"").decode(errors="replace")


def _wait_for_end(supervisor: int, waiting: int) -> None:
    """Returns when the pipe is closed, or the supervisor has ended or cannot."""
    with signals.signal_descriptor({_ORPHANED}) as arriving:
        poll = select.poll()
        poll.register(waiting, select.POLLIN)
        poll.register(arriving, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll(_LOOK_EVERY_S * 1000)]
            if arriving in ready:
                os.read(arriving, SignalfdSiginfo.SIZE)
            if waiting in ready or is_ending(supervisor):
                return


def _wait_for_close(pipe: int) -> None:
    while os.read(pipe, 1):
        pass


def _moved_up(descriptors: list[int]) -> list[int]:
    """Duplicates whose numbers are not those of standard input, output and error."""
    return [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) for descriptor in descriptors]


def _close_all_but(kept: list[int]) -> None:
    """Leaves these descriptors, and /dev/null for standard input, output and error."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _remove_dead_ones(parent: Path) -> None:
    """Removes workspaces of ours whose supervisor is dead, and its guardians with it."""
    try:
        found_here = [entry for entry in os.scandir(parent) if _NAME.fullmatch(entry.name)]
    except PermissionError:  # a directory that not everybody may list
        return
    secrets.SystemRandom().shuffle(found_here)  # none that takes long comes first in every run
    for entry in found_here:
        with contextlib.suppress(OSError):  # others look for the same, and it may be somebody else's
            found = entry.stat(follow_symlinks=False)
            if found.st_uid == os.geteuid() and found.st_mode == stat.S_IFDIR | _MODE:
                _remove_if_dead(Path(entry.path))


def _remove_if_dead(directory: Path) -> None:
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unmounting.remove(directory)
    finally:
        os.close(lock)
