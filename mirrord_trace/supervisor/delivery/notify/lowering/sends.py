"""sendto(2), sendmsg(2), sendmmsg(2) to other addresses than the task's memory says, made on a duplicate of its socket.

A datagram over loopback never waits for room. Where one must wait nevertheless (a message of a sendmmsg that leaves
this machine) a signal ends the call with EINTR, and is not followed by a restart: the task's own call must not go on,
for it would go to its own address.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import attrs
import trio

from mirrord_syscalls.sockaddr import encode_sockaddr
from mirrord_syscalls.structs import Iovec, Mmsghdr
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, UseAddress, UseAddresses
from mirrord_trace.supervisor.delivery.notify.lowering import kernel, messages
from mirrord_trace.supervisor.delivery.notify.lowering.connects import failed
from mirrord_trace.supervisor.delivery.notify.lowering.fast_open import lower_fast_open
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.lowering.messages import MESSAGES_MAXIMUM
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import Ended, patiently
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, NotifiedCall, Reply, Result

_DATAGRAM_MAXIMUM: Final = 0xFFFF
_TOO_LONG: Final = bytes(kernel.DATAGRAM_ROOM)
_unsigned = struct.Struct("=I")


def lower_send(call: NotifiedCall, verdict: UseAddress) -> Reply | Coroutine[Any, Any, Reply]:
    """See `lowering.lower`; for sendto and sendmsg."""
    try:
        loan = Loan(call.borrow(call.integer(0)))
    except OSError as error:
        return failed(verdict, error)
    try:
        name = encode_sockaddr(verdict.address)
        control = b""
        if call.name == "sendto":
            segments: Sequence[Iovec] = (Iovec(call.arguments[1], call.arguments[2]),)
            flags = call.integer(3)
        else:
            header = messages.read_header(call, call.arguments[1])
            segments = messages.read_segments(call, header)
            control = messages.read_control(call, header) if verdict.control is None else verdict.control
            flags = call.integer(2)
        if flags & socket.MSG_FASTOPEN and kernel.option(loan.number, socket.SO_TYPE) == socket.SOCK_STREAM:
            return lower_fast_open(call, verdict, loan, segments, flags, name, control)
        data = _datagram(call, segments)
        call.check()
        result = kernel.send_datagram(loan.number, data, flags, name, control)
        if result == -errno.EAGAIN and _may_wait(loan.number, flags):
            return _send_later(
                call, verdict, loan, lambda: kernel.send_datagram(loan.number, data, flags, name, control)
            )
    except (OSError, MemoryFault, MemoryHidden) as error:
        loan.close()
        return failed(verdict, error)
    except BaseException:
        loan.close()
        raise
    loan.close()
    return Result(verdict.done(result))


async def _send_later(call: NotifiedCall, verdict: UseAddress, loan: Loan, send: Callable[[], int]) -> Reply:
    def attempt() -> int | None:
        result = send()
        return None if result == -errno.EAGAIN else result

    with loan:
        try:
            result = await _when_there_is_room(call, loan.number, attempt)
        except OSError as error:
            return failed(verdict, error)
    return Result(verdict.done(result))


async def _when_there_is_room(call: NotifiedCall, number: int, attempt: Callable[[], int | None]) -> int:
    deadline = trio.current_time() + kernel.timeout_s(number, socket.SO_SNDTIMEO)
    match await patiently(attempt, call, deadline, trio.lowlevel.wait_writable, number):
        case Ended.SIGNAL:
            return -errno.EINTR
        case Ended.TIMEOUT:
            return -errno.EAGAIN
        case int(result):
            return result


def lower_sends(call: NotifiedCall, verdict: UseAddresses) -> Reply | Coroutine[Any, Any, Reply]:
    """See `lowering.lower`; for sendmmsg.

    Where all messages keep their addresses only UDP sockets matter: who else names an address in a message sends it
    himself, with descriptors and credentials that only he can give away (unix(7)).
    """
    loan = Loan(call.borrow(call.integer(0)))
    try:
        wanted = min(call.arguments[2] & 0xFFFF_FFFF, MESSAGES_MAXIMUM)
        if not any(verdict.addresses) and (len(verdict.addresses) >= wanted or not kernel.is_udp(loan.number)):
            loan.close()
            return CONTINUE
        batch = _Batch(call, verdict, loan.number, min(wanted, len(verdict.addresses)))
        result = batch.send()
        if result is None:
            return _send_rest(call, loan, batch)
    except BaseException:
        loan.close()
        raise
    loan.close()
    return Result(result)


async def _send_rest(call: NotifiedCall, loan: Loan, batch: _Batch) -> Reply:
    with loan:
        return Result(batch.outcome(await _when_there_is_room(call, loan.number, batch.send)))


@attrs.define(eq=False)
class _Batch:
    """The messages of a sendmmsg; `sent` of them are on their way."""

    call: NotifiedCall
    verdict: UseAddresses
    number: int
    count: int
    sent: int = 0

    def send(self) -> int | None:
        """Sends what is left: what the call returns, or None where it must wait. Raises MemoryHidden, TaskGone."""
        flags = self.call.integer(3)
        while self.sent < self.count:
            try:
                result = self._send_next(flags)
                if result == -errno.EAGAIN and _may_wait(self.number, flags):
                    return None
                if result < 0:
                    return self.outcome(result)
                place = self._place() + Mmsghdr.LENGTH_OFFSET
                self.call.memory.write(place, _unsigned.pack(result))
            except MemoryFault:
                return self.outcome(-errno.EFAULT)
            except OSError as error:
                return self.outcome(-(error.errno or errno.EIO))
            self.sent += 1
        return self.sent

    def outcome(self, result: int) -> int:
        """An error counts only if nothing was sent before (sendmmsg(2))."""
        return self.sent or result

    def _place(self) -> int:
        return self.call.arguments[1] + self.sent * Mmsghdr.SIZE

    def _send_next(self, flags: int) -> int:
        call = self.call
        header = messages.read_header(call, self._place())
        address = self.verdict.addresses[self.sent]
        name = messages.read_name(call, header) if address is None else encode_sockaddr(address)
        control = self.verdict.controls.get(self.sent)
        if control is None:
            control = messages.read_control(call, header)
        data = _datagram(call, messages.read_segments(call, header))
        call.check()
        return kernel.send_datagram(self.number, data, flags, name, control)


def _datagram(call: NotifiedCall, segments: Sequence[Iovec]) -> bytes:
    """The data of a datagram; of one that the kernel will find too long, only so much that it does."""
    length = messages.length_of(segments)
    return _TOO_LONG if length > _DATAGRAM_MAXIMUM else messages.gather(call, segments, 0, length)


def _may_wait(number: int, flags: int) -> bool:
    return not flags & socket.MSG_DONTWAIT and os.get_blocking(number)
