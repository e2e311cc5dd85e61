"""connect(2) to another address than the task's memory says, made on a duplicate of its socket.

A blocking connect is made without blocking and waited for. That takes O_NONBLOCK, which belongs to the open socket and
not to our duplicate: it is set for two system calls' time, under a lock, and always put back. (Nobody reads from a
stream socket before it is connected.) Over loopback the second of two connects in a row already says 0.

An interrupted wait ends by letting the task's own call go on: the socket is in SYN_SENT then, where the kernel ignores
the address, and EINTR, a restart or the success of a moment later are its own.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Final

import trio

from mirrord_syscalls.sockaddr import Unspecified, encode_sockaddr
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, UseAddress
from mirrord_trace.supervisor.delivery.notify.lowering import kernel
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import RETRY_S, Ended, patiently
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, NotifiedCall, Reply, Result

UNDER_WAY: Final = (-errno.EINPROGRESS, -errno.EALREADY)
"""What a connect says that has not come to its end."""
_flags = threading.Lock()
"""Held while a socket's O_NONBLOCK may not be what its process made it."""


def lower_connect(call: NotifiedCall, verdict: UseAddress) -> Reply | Coroutine[Any, Any, Reply]:
    """See `lowering.lower`."""
    try:
        loan = Loan(call.borrow(call.integer(0)))
    except OSError as error:
        return failed(verdict, error)
    try:
        name = encode_sockaddr(verdict.address)
        call.check()
        if isinstance(verdict.address, Unspecified):
            result, is_waiting = kernel.connect(loan.number, name), False
        else:
            result, is_waiting = connect_at_once(loan.number, name)
    except OSError as error:
        loan.close()
        return failed(verdict, error)
    except BaseException:
        loan.close()
        raise
    if is_waiting:
        return _connect_later(call, verdict, loan, name, result)
    loan.close()
    return Result(verdict.done(result))


async def _connect_later(call: NotifiedCall, verdict: UseAddress, loan: Loan, name: bytes, result: int) -> Reply:
    with loan:
        try:
            connected = await connect_patiently(call, loan.number, name, result)
        except OSError as error:
            return failed(verdict, error)
    return CONTINUE if connected is None else Result(verdict.done(connected))


def is_blocking(number: int) -> bool:
    """Whether the process left O_NONBLOCK unset on a socket, which may be a stream socket. Raises OSError."""
    with _flags:
        return os.get_blocking(number)


def connect_at_once(number: int, name: bytes) -> tuple[int, bool]:
    """One attempt: what connect(2) says, and whether a call of the process would wait on. Raises OSError."""
    if not is_blocking(number) or kernel.option(number, socket.SO_TYPE) != socket.SOCK_STREAM:
        return kernel.connect(number, name), False
    with _flags:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        fcntl.fcntl(number, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        try:
            result = kernel.connect(number, name)
            if result == -errno.EINPROGRESS:
                now = kernel.connect(number, name)
                result = result if now in UNDER_WAY else now
        finally:
            fcntl.fcntl(number, fcntl.F_SETFL, flags)
    return result, result in UNDER_WAY or result == -errno.EAGAIN


async def connect_patiently(call: NotifiedCall, number: int, name: bytes, first_result: int) -> int | None:
    """What a blocking connect says in the end, after a first attempt; None: the task's own call must go on.

    Raises OSError or TaskGone.
    """
    is_unix = first_result == -errno.EAGAIN
    deadline = trio.current_time() + kernel.timeout_s(number, socket.SO_SNDTIMEO)

    def attempt() -> int | None:
        result, is_waiting = connect_at_once(number, name)
        return None if is_waiting else result

    if is_unix:  # the listener's backlog is full, and nothing tells when it is not
        result = await patiently(attempt, call, deadline, trio.sleep, RETRY_S)
    else:
        result = await patiently(attempt, call, deadline, trio.lowlevel.wait_writable, number)
    match result:
        case Ended.TIMEOUT:
            return first_result
        case Ended.SIGNAL:
            return -errno.EINTR if is_unix else None
        case _:
            return result


def failed(verdict: UseAddress, error: OSError | MemoryFault | MemoryHidden) -> Reply:
    """The call could not be made: whoever waits for its result is told. Raises MemoryHidden again."""
    number = (error.errno or errno.EIO) if isinstance(error, OSError) else errno.EFAULT
    result = Result(verdict.done(-number))
    if isinstance(error, MemoryHidden):
        raise error
    return result
