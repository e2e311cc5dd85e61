"""A send that connects: MSG_FASTOPEN on a stream socket (tcp(7)), made on a duplicate of it.

The flag does the same as natively. Only the waiting is done here: for the connection, then for room for what is left.
"""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final

import trio

from mirrord_syscalls.structs import Iovec
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, UseAddress
from mirrord_trace.supervisor.delivery.notify.lowering import kernel, messages
from mirrord_trace.supervisor.delivery.notify.lowering.connects import (
    UNDER_WAY,
    connect_patiently,
    failed,
    is_blocking,
)
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import Ended, patiently, touching_task
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, NotifiedCall, Reply, Result

_AT_ONCE: Final = 1 << 18
"""So many bytes are taken from the task's memory at once."""


def lower_fast_open(
    call: NotifiedCall,
    verdict: UseAddress,
    loan: Loan,
    segments: Sequence[Iovec],
    flags: int,
    name: bytes,
    control: bytes,
) -> Reply | Coroutine[Any, Any, Reply]:
    """See `lowering.lower`. `name` is the address of `verdict`. Closes the loan, unless it raises."""
    wanted = messages.length_of(segments)
    data = messages.gather(call, segments, 0, _AT_ONCE)
    call.check()
    result = kernel.send_stream(loan.number, data, flags, name, control)
    may_wait = not flags & socket.MSG_DONTWAIT and is_blocking(loan.number)
    if may_wait and (0 <= result < wanted or result in UNDER_WAY or result == -errno.EAGAIN):
        return _send_rest(call, verdict, loan, segments, flags, name, result)
    loan.close()
    _tell_of_broken_pipe(call, flags, result)
    return Result(verdict.done(result))


async def _send_rest(
    call: NotifiedCall,
    verdict: UseAddress,
    loan: Loan,
    segments: Sequence[Iovec],
    flags: int,
    name: bytes,
    result: int,
) -> Reply:
    with loan:
        try:
            if result in UNDER_WAY:
                connected = await connect_patiently(call, loan.number, name, result)
                if connected is None:
                    return CONTINUE
                if connected < 0:
                    return Result(verdict.done(connected))
            result = await _send_all(call, loan.number, segments, flags & ~socket.MSG_FASTOPEN, max(result, 0))
        except (OSError, MemoryFault, MemoryHidden) as error:
            return failed(verdict, error)
    _tell_of_broken_pipe(call, flags, result)
    return Result(verdict.done(result))


async def _send_all(call: NotifiedCall, number: int, segments: Sequence[Iovec], flags: int, sent: int) -> int:
    """How many bytes are sent in the end, or a negative errno where none are. Raises OSError, MemoryFault."""
    wanted = messages.length_of(segments)

    def attempt() -> int | None:
        result = kernel.send_stream(number, data, flags, None, b"")
        return None if result == -errno.EAGAIN else result

    while sent < wanted:
        try:
            data = await touching_task(
                call, partial(messages.gather, call, segments, sent, min(wanted - sent, _AT_ONCE))
            )
        except MemoryFault:
            if sent:
                break
            raise
        deadline = trio.current_time() + kernel.timeout_s(number, socket.SO_SNDTIMEO)
        match await patiently(attempt, call, deadline, trio.lowlevel.wait_writable, number):
            case Ended.SIGNAL:
                return sent or -errno.EINTR
            case Ended.TIMEOUT:
                return sent or -errno.EAGAIN
            case int(result) if result < 0:
                return sent or result
            case int(result):
                sent += result
    return sent


def _tell_of_broken_pipe(call: NotifiedCall, flags: int, result: int) -> None:
    """SIGPIPE, which the kernel has sent to nobody (send(2)): we asked it not to. Raises TaskGone."""
    if result == -errno.EPIPE and not flags & socket.MSG_NOSIGNAL:
        call.check()
        kernel.signal_task(call.abi, call.tid, signal.SIGPIPE)
