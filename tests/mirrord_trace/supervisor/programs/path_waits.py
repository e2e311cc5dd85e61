"""`path_waits WHAT ROOT` opens FIFOs below ROOT, which makes it wait: for a peer, for a signal, for its end."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from mirrord_syscalls.abi import native_abi

ROOT = os.fsencode(sys.argv[2])
AT_FDCWD = -100
MANY = 40
libc = ctypes.CDLL(None, use_errno=True)


def opened(name: str, flags: int) -> int:
    """As the kernel says it: Python makes no call again."""
    path = ctypes.create_string_buffer(ROOT + b"/" + name.encode())
    result: int = libc.syscall(native_abi().numbers["openat"], AT_FDCWD, path, ctypes.c_long(flags), 0)
    return result if result >= 0 else -ctypes.get_errno()


def say(*found: object) -> None:
    sys.stdout.write(" ".join(map(str, found)) + "\n")
    sys.stdout.flush()


def make(name: str) -> None:
    os.mkfifo(ROOT + b"/" + name.encode())


def in_thread(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def many() -> None:
    """More than there are threads that are kept: each reader waits for a writer that comes after all of them."""
    names = [f"fifo{number}" for number in range(MANY)]
    got: list[bytes] = []

    def read(name: str) -> None:
        descriptor = opened(name, os.O_RDONLY)
        got.append(os.read(descriptor, 100))
        os.close(descriptor)

    for name in names:
        make(name)
    readers = [in_thread(lambda name=name: read(name)) for name in names]  # type: ignore[misc]
    for name in names:
        descriptor = opened(name, os.O_WRONLY)
        os.write(descriptor, name.encode())
        os.close(descriptor)
    for reader in readers:
        reader.join()
    say(sorted(got) == sorted(name.encode() for name in names))


def interrupt() -> None:
    """A signal with a handler ends the wait."""
    make("fifo")
    signal.signal(signal.SIGALRM, lambda *_: say("handled"))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    result = opened("fifo", os.O_RDONLY)
    say("opened", errno.errorcode.get(-result, result))


def restart() -> None:
    """A handler with SA_RESTART: the call goes on until there is a writer."""
    make("fifo")
    handled = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: handled.set())
    signal.siginterrupt(signal.SIGALRM, False)

    def write_later() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        handled.wait()
        descriptor = opened("fifo", os.O_WRONLY)
        os.write(descriptor, b"written")
        os.close(descriptor)

    # Python runs the handler only when the call has returned, so a thread tells that the signal came.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)

    def watch() -> None:
        os.read(reading, 1)
        handled.set()

    writer, watcher = in_thread(write_later), in_thread(watch)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    descriptor = opened("fifo", os.O_RDONLY)
    say("opened", descriptor >= 0 and os.read(descriptor, 100))
    writer.join()
    watcher.join()


def ignored() -> None:
    """A signal that nobody acts on does not."""
    make("fifo")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0.05)

    def write() -> None:
        time.sleep(0.3)
        os.close(opened("fifo", os.O_WRONLY))

    writer = in_thread(write)
    say("opened", opened("fifo", os.O_RDONLY) >= 0)
    writer.join()


def alone() -> None:
    """Whoever has closed his descriptor was the only one who had the FIFO open: nobody reads it then."""
    make("fifo")
    found = set()
    for _ in range(500):
        os.close(opened("fifo", os.O_RDONLY | os.O_NONBLOCK))
        found.add(opened("fifo", os.O_WRONLY | os.O_NONBLOCK))
    say("opened", *(errno.errorcode.get(-result, result) for result in found))


def wait() -> None:
    """For ever."""
    make("fifo")
    sys.stderr.write(f"pid {os.getpid()}\n")
    sys.stderr.flush()
    descriptor = opened("fifo", os.O_RDONLY)
    say("opened", os.read(descriptor, 100))


if __name__ == "__main__":
    {function.__name__: function for function in (many, interrupt, restart, ignored, alone, wait)}[sys.argv[1]]()
