"""`path_waits WHAT ROOT` opens FIFOs below ROOT, which makes it wait: for a peer, for a signal, for its end."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from mirrord_syscalls.abi import native_abi
from tests.waiting import holds_within, sleeps_in

ROOT = os.fsencode(sys.argv[2])
AT_FDCWD = -100
MANY = 40
LIMIT_S = 20
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


def write(name: str, text: bytes) -> None:
    """Opens it to write, when there is a reader."""
    descriptor = opened(name, os.O_WRONLY)
    os.write(descriptor, text)
    os.close(descriptor)


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
    threads = [Path(f"/proc/self/task/{reader.native_id}") for reader in readers]
    assert holds_within(LIMIT_S, lambda: all(sleeps_in("openat", thread) for thread in threads)), "not all wait"
    for name in names:
        write(name, name.encode())
    for reader in readers:
        reader.join()
    say(sorted(got) == sorted(name.encode() for name in names))


def signal_it_once_it_waits() -> threading.Thread:
    """Has SIGALRM sent to this process when its main thread waits for an open."""

    def send() -> None:
        until_main_thread_waits()
        os.kill(os.getpid(), signal.SIGALRM)

    return in_thread(send)


def until_main_thread_waits() -> None:
    """In an open, with no signal that is still to be seen to."""
    thread = Path(f"/proc/self/task/{threading.main_thread().native_id}")
    assert holds_within(LIMIT_S, lambda: not pending(thread) and sleeps_in("openat", thread)), "nobody waits"


def pending(thread: Path) -> bool:
    """Whether there are signals for a thread, or for all of its process."""
    fields = dict(line.split(":\t") for line in (thread / "status").read_text().splitlines())
    return any(int(fields[name], 16) for name in ("SigPnd", "ShdPnd"))


def interrupt() -> None:
    """A signal with a handler ends the wait."""
    make("fifo")
    signal.signal(signal.SIGALRM, lambda *_: say("handled"))
    sender = signal_it_once_it_waits()
    result = opened("fifo", os.O_RDONLY)
    sender.join()
    say("opened", errno.errorcode.get(-result, result))


def restart() -> None:
    """A handler with SA_RESTART: the call goes on until there is a writer."""
    make("fifo")
    handled = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: handled.set())
    signal.siginterrupt(signal.SIGALRM, False)

    def write_later() -> None:
        handled.wait()
        until_main_thread_waits()
        write("fifo", b"written")

    # Python runs the handler only when the call has returned, so a thread tells that the signal came.
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)

    def watch() -> None:
        os.read(reading, 1)
        handled.set()

    others = [in_thread(write_later), in_thread(watch), signal_it_once_it_waits()]
    descriptor = opened("fifo", os.O_RDONLY)
    say("opened", descriptor >= 0 and os.read(descriptor, 100))
    for other in others:
        other.join()


def ignored() -> None:
    """A signal that nobody acts on does not."""
    make("fifo")
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    sender = signal_it_once_it_waits()

    def write_later() -> None:
        sender.join()
        until_main_thread_waits()
        write("fifo", b"written")

    writer = in_thread(write_later)
    descriptor = opened("fifo", os.O_RDONLY)
    say("opened", descriptor >= 0 and os.read(descriptor, 100))
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
