"""The process that removes a session's table when the agent has ended, where the kernel does not (before Linux 5.12).

Run as a script (`python -I -S guardian.py PID REQUEST…`) with the standard library only, so that it is there within
some 20 ms; a mere fork of the agent would have its threads' locks. It is there before the table is. PID is the agent's,
and each REQUEST a netlink batch that removes a table, in hexadecimal.

Its standard input is a pipe that nobody writes to and whose other end the agent holds: the kernel closes that when the
agent ends, however it does. While a thread of the agent's waits for a disk it does not; so the guardian also asks for a
signal when the thread that has started it ends (PR_SET_PDEATHSIG). Either comes while other descriptors are still being
closed, connections among them, whose ends need the table; so the agent is given a moment to be gone. The guardian lives
in a session of its own, and no signal but SIGKILL ends it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import sys
import time

_PR_SET_PDEATHSIG = 1
_NETLINK_NETFILTER = 12
_ORPHANED = signal.SIGUSR1
_GRACE_S = 0.5
_PAUSE_S = 0.002
_SIGNALFD_SIGINFO_BYTES = 128
#: Signal, errno, code and sender: the first fields of struct signalfd_siginfo.
_signal = struct.Struct("=IiiI")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Waits for the agent's end; then has removed what is there."""
    agent, requests = int(sys.argv[1]), [bytes.fromhex(text) for text in sys.argv[2:]]
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    arriving = _signal_descriptor()
    os.chdir("/")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        _libc.prctl(_PR_SET_PDEATHSIG, _ORPHANED, 0, 0, 0)
        if os.getppid() == agent:  # it may have ended before it was asked for the signal
            os.write(1, b"ready\n")
            _wait_for_end(agent, arriving)
            _let_it_go(agent)
        for request in requests:
            netlink.send(request)


def _signal_descriptor() -> int:
    descriptor = int(_libc.signalfd(-1, struct.pack("=Q", 1 << (_ORPHANED - 1)) + bytes(120), os.O_CLOEXEC))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "signalfd")
    return descriptor


def _wait_for_end(agent: int, arriving: int) -> None:
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(arriving, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if 0 in ready:
            return
        *_, sender = _signal.unpack_from(os.read(arriving, _SIGNALFD_SIGINFO_BYTES))
        if sender == agent:  # anybody may signal us
            return


def _let_it_go(agent: int) -> None:
    """Returns when all its threads have ended, or it will not."""
    deadline = time.monotonic() + _GRACE_S
    while os.getppid() == agent and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main()
    os._exit(0)
