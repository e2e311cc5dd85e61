"""A directory for what the process is to see in place of its own files, and a guardian that removes it.

The guardian is a child that waits for the end of a pipe. The kernel closes the other end however the supervisor ends,
kill -9 included. It is there before the directory is, and lives in a session of its own, so that the terminal's signals
do not reach it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from mirrord_trace.errors import Failure


@contextmanager
def workspace() -> Iterator[Path]:
    """A fresh directory that any user may search but not list. Gone at the end, whatever the end is.

    Call it before the first thread is started. Raises Failure when it cannot be made.
    """
    directory = Path(tempfile.gettempdir()) / f"mirrord-trace-{secrets.token_hex(8)}"
    waiting, held = os.pipe()
    guardian = os.fork()
    if guardian == 0:
        _guard(directory, waiting)
    os.close(waiting)
    try:
        _make(directory, guardian)
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    finally:
        os.close(held)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(guardian, 0)


def _make(directory: Path, guardian: int) -> None:
    try:
        directory.mkdir(0o700)
        directory.chmod(0o711)
    except OSError as error:
        os.kill(guardian, signal.SIGKILL)  # it shall remove nothing that is not ours
        raise Failure(f"cannot make {directory}: {error.strerror}", "set TMPDIR to a directory of yours") from error


def _guard(directory: Path, waiting: int) -> NoReturn:
    try:
        os.setsid()
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        os.closerange(0, waiting)
        os.closerange(waiting + 1, os.sysconf("SC_OPEN_MAX"))
        while os.read(waiting, 1):
            pass
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        os._exit(0)
