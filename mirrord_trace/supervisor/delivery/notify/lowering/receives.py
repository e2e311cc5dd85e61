"""recvfrom(2), recvmsg(2), recvmmsg(2) of UDP sockets: datagrams are taken here and shown with their true sources.

All else the task's own call receives: only UDP sources are translated, and descriptors (SCM_RIGHTS) would be ours. A
datagram is copied to the task by us; a fault there loses it, as natively. Who waits when a signal comes is let go: the
task's own call finds the signal.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import attrs
import trio

from mirrord_syscalls.structs import Mmsghdr, Msghdr
from mirrord_trace.supervisor.delivery.base import MemoryFault, PresentAddresses
from mirrord_trace.supervisor.delivery.notify.lowering import kernel, messages
from mirrord_trace.supervisor.delivery.notify.lowering.kernel import Loan
from mirrord_trace.supervisor.delivery.notify.lowering.messages import MESSAGES_MAXIMUM
from mirrord_trace.supervisor.delivery.notify.lowering.names import shown, write_name
from mirrord_trace.supervisor.delivery.notify.lowering.waiting import Ended, patiently, touching_task
from mirrord_trace.supervisor.delivery.notify.replies import CONTINUE, NotifiedCall, Reply, Result

_MSG_WAITFORONE: Final = 0x10000
_NAME_LENGTH_OFFSET: Final = 8  # offsetof(struct msghdr, msg_namelen)
_CONTROL_LENGTH_OFFSET: Final = 40  # offsetof(struct msghdr, msg_controllen); msg_flags follows
_SECOND_NS: Final = 1_000_000_000
_unsigned = struct.Struct("=I")
_control_length_and_flags = struct.Struct("=QI")
_timespec = struct.Struct("=qq")


def lower_receive(call: NotifiedCall, verdict: PresentAddresses) -> Reply | Coroutine[Any, Any, Reply]:
    """See `lowering.lower`."""
    loan = Loan(call.borrow(call.integer(0)))
    try:
        if not kernel.is_udp(loan.number) or (call.name == "recvmmsg" and not call.arguments[2] & 0xFFFF_FFFF):
            loan.close()
            return CONTINUE
        kind = _Messages if call.name == "recvmmsg" else _Message
        receiver = kind(call, verdict, loan.number)
        result = receiver.receive()
        if result is None:
            return _receive_later(call, loan, receiver)
    except BaseException:
        loan.close()
        raise
    loan.close()
    return Result(result)


async def _receive_later(call: NotifiedCall, loan: Loan, receiver: _Receiver) -> Reply:
    def attempt() -> tuple[int | None] | None:
        before = receiver.received
        result = receiver.receive()
        return None if result is None and receiver.received == before else (result,)

    with loan:
        while True:
            deadline = trio.current_time() + kernel.timeout_s(loan.number, socket.SO_RCVTIMEO)  # for each message
            match await patiently(attempt, call, deadline, trio.lowlevel.wait_readable, loan.number):
                case (int(result),):
                    return Result(result)
                case Ended.SIGNAL if not receiver.received:
                    return CONTINUE
                case Ended.SIGNAL | Ended.TIMEOUT:
                    return Result(await touching_task(call, partial(receiver.outcome, -errno.EAGAIN)))


@attrs.define(eq=False)
class _Receiver:
    """A call that receives; `received` of its messages are there."""

    call: NotifiedCall
    verdict: PresentAddresses
    number: int
    received: int = 0

    def receive(self) -> int | None:
        """Takes what there is: what the call returns, or None where it must wait.

        Raises OSError, MemoryFault, MemoryHidden, TaskGone.
        """
        raise NotImplementedError

    def outcome(self, result: int) -> int:
        """What the call returns when it ends with this error. Raises MemoryFault, MemoryHidden, TaskGone."""
        return result

    def _take_message(self, place: int, flags: int) -> int:
        """Receives into the header at `place`, as ____sys_recvmsg (net/socket.c) does."""
        call = self.call
        header = messages.read_header(call, place)
        segments = messages.read_segments(call, header)
        room, control_room = messages.length_of(segments), header.control_length if header.control else 0
        call.check()
        got = kernel.receive_message(self.number, flags, room, control_room)
        if got.result < 0:
            return got.result
        call.check()
        messages.scatter(call, segments, got.data)
        control_length = self._write_control(header, got.control)
        if header.name:
            name = shown(got.name, self.verdict.translate)
            if header.name_length and name:
                call.memory.write(header.name, name[: header.name_length])
            call.memory.write(place + _NAME_LENGTH_OFFSET, _unsigned.pack(len(name)))
        call.memory.write(place + _CONTROL_LENGTH_OFFSET, _control_length_and_flags.pack(control_length, got.flags))
        return got.result

    def _write_control(self, header: Msghdr, control: bytes) -> int:
        """How many bytes there are; none where they cannot be written, which the kernel takes no notice of."""
        if control and self.verdict.control is not None:
            control = self.verdict.control(control)
        try:
            if control:
                self.call.memory.write(header.control, control)
        except MemoryFault:
            return 0
        return len(control)

    def _must_wait(self, result: int, flags: int) -> bool:
        """Whether the task's own call would block: not for the error queue (recv(2), MSG_ERRQUEUE)."""
        return (
            result == -errno.EAGAIN
            and not flags & (socket.MSG_DONTWAIT | socket.MSG_ERRQUEUE)
            and os.get_blocking(self.number)
        )


@attrs.define(eq=False)
class _Message(_Receiver):
    """recvfrom and recvmsg."""

    def receive(self) -> int | None:
        call = self.call
        if call.name == "recvmsg":
            flags = call.integer(2)
            result = self._take_message(call.arguments[1], flags)
        else:
            flags = call.integer(3)
            result = self._take_plain(flags)
        return None if self._must_wait(result, flags) else result

    def _take_plain(self, flags: int) -> int:
        call = self.call
        _, data_place, room, _, place, length_place = call.arguments
        call.check()
        got = kernel.receive_from(self.number, flags, room)
        if got.result < 0:
            return got.result
        call.check()
        if got.data:
            call.memory.write(data_place, got.data)
        if not place:
            return got.result
        return write_name(call, place, length_place, shown(got.name, self.verdict.translate)) or got.result


@attrs.define(eq=False)
class _Messages(_Receiver):
    """recvmmsg. Its timeout is looked at after each message only, as the kernel does (recvmmsg(2), BUGS)."""

    _count: int = attrs.field(init=False)
    _end_ns: int | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._count = min(self.call.arguments[2] & 0xFFFF_FFFF, MESSAGES_MAXIMUM)
        self._end_ns = None
        if self.call.arguments[4]:
            seconds, nanoseconds = _timespec.unpack(self.call.memory.read(self.call.arguments[4], _timespec.size))
            if seconds < 0 or not 0 <= nanoseconds < _SECOND_NS:
                raise messages.fault(errno.EINVAL)
            self._end_ns = time.monotonic_ns() + seconds * _SECOND_NS + nanoseconds

    def receive(self) -> int | None:
        flags = self.call.integer(3)
        while self.received < self._count:
            try:
                waits_for_one = flags & _MSG_WAITFORONE and self.received
                result = self._take_next(flags | socket.MSG_DONTWAIT if waits_for_one else flags)
                if not waits_for_one and self._must_wait(result, flags):
                    return None
            except MemoryFault:
                result = -errno.EFAULT
            except OSError as error:
                result = -(error.errno or errno.EIO)
            if result < 0:
                return self.outcome(result)
            self.received += 1
            if self._end_ns is not None and time.monotonic_ns() >= self._end_ns:
                break
        return self.outcome(0)

    def outcome(self, result: int) -> int:
        """An error counts only if nothing was received before; the time that is left is handed out otherwise."""
        if not self.received:
            return result
        if self._end_ns is not None:
            left = divmod(max(self._end_ns - time.monotonic_ns(), 0), _SECOND_NS)
            self.call.check()
            self.call.memory.write(self.call.arguments[4], _timespec.pack(*left))
        return self.received

    def _take_next(self, flags: int) -> int:
        place = self.call.arguments[1] + self.received * Mmsghdr.SIZE
        result = self._take_message(place, flags & ~_MSG_WAITFORONE)
        if result >= 0:
            self.call.memory.write(place + Mmsghdr.LENGTH_OFFSET, _unsigned.pack(result))
        return result
