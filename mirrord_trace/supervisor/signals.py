"""Signals that reach the supervisor, and what they mean for the user's process.

The process shares our process group, so what the terminal sends (Ctrl-C, Ctrl-Z, hang-up) reaches it without us. What
somebody sends to us is meant for it and is passed on; not so what the kernel sends for the terminal, or the process
itself to its group, for those have reached it already.

Signals are read from a signalfd(2), because only that tells who sent them. When job control stops the process we stop
too, in the same way: the shell watches us, not it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from mirrord_syscalls.structs import SignalfdSiginfo

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

FORWARDED: Final = frozenset(
    {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
)
JOB_CONTROL: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
WATCHED: Final = FORWARDED | JOB_CONTROL
"""Must be blocked in every thread."""
ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Those that end us while there is no process yet."""

DOORBELL: Final = signal.SIGRTMIN
"""Calls a delivery's thread out of a wait for the kernel."""
CHILD_AND_DOORBELL: Final = frozenset({signal.SIGCHLD, DOORBELL})
"""Must be blocked in every thread before the first thread starts; and SIGCHLD must not be ignored."""

_SI_KERNEL = 0x80
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def signal_descriptor(numbers: Collection[signal.Signals] = WATCHED) -> Iterator[int]:
    """A descriptor to read blocked signals from. Signals that are ignored (nohup(1)) stay ignored."""
    mask = sum(1 << (number - 1) for number in numbers)
    descriptor = _libc.signalfd(-1, struct.pack("=Q", mask) + bytes(120), os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def arriving(descriptor: int) -> AsyncIterator[SignalfdSiginfo]:
    """Signals as they come."""
    while True:
        await trio.lowlevel.wait_readable(descriptor)
        try:
            info = SignalfdSiginfo.decode(os.read(descriptor, SignalfdSiginfo.SIZE))
        except BlockingIOError:
            continue  # it was job control's, and `stop_ourselves` has taken it
        yield info


def is_to_be_passed_on(info: SignalfdSiginfo, tree: frozenset[int]) -> bool:
    """Whether the process has not got this signal itself. `tree` is the process and what it started."""
    return info.code != _SI_KERNEL and info.pid not in tree


def stop_ourselves(number: int) -> None:
    """Stops this process as `number` by default does; returns when SIGCONT comes. Call it in the main thread."""
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})  # delivered here, before the call returns
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
