"""The loop of the listener's thread, in which every microsecond is paid by each intercepted call.

Most calls open or examine files that concern nobody. They are answered here, in one function, with three system calls
(receive, read the path, let go) whose arguments were prepared before the loop; what `Listener` and `TaskMemory` do in
general is done here once more in particular, because Python's calls of functions would cost a third of the whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from mirrord_syscalls.structs import notification
from mirrord_trace.supervisor.delivery.base import MemoryFault, MemoryHidden, PathTest, TaskGone
from mirrord_trace.supervisor.delivery.notify.listener import (
    RECEIVE,
    SEND,
    ZEROS,
    Listener,
    Room,
    answering,
    check_received,
    check_sent,
    receiving,
)
from mirrord_trace.supervisor.delivery.notify.memory import (
    MOST_PATHS,
    NO_FLAGS,
    ONE,
    OUR_LENGTH,
    PAGE,
    Scratch,
    TaskMemory,
    pack_transfer,
    readv,
)

_beginning = struct.Struct("=QI4xi12x2Q")
"""Of a notification: id, task, call number, first and second argument."""
_pack_identity = struct.Struct("=Q").pack_into

PathTests = Mapping[int, tuple[PathTest, bool]]
"""By call number: what tells whether a path concerns anybody, and whether it is the second argument, not the first."""


def receive_calls(
    listener: Listener,
    path_tests: PathTests,
    take: Callable[[tuple[int, ...]], None],
    is_over: Callable[[], bool],
) -> None:
    """Lets go of calls whose path concerns nobody, and gives all others to `take`: fields of NOTIFICATION.

    Returns when a wait is interrupted and `is_over`. Raises OSError.
    """
    room, response, scratch = Room(notification.NOTIFICATION_BYTES), Room(notification.RESPONSE_BYTES), Scratch()
    notification.RESPONSE.pack_into(response.buffer, 0, 0, 0, 0, notification.FLAG_CONTINUE)
    number, received, raw, continued, answer = (
        listener.number,
        room.buffer,
        room.address,
        response.buffer,
        response.address,
    )
    text, iovecs, ours, theirs = scratch.room, scratch.iovecs, scratch.ours, scratch.theirs
    decode, find_test = _beginning.unpack_from, path_tests.get
    while True:
        received[:] = ZEROS
        if receiving(number, RECEIVE, raw) != 0:
            check_received()
            if is_over():
                return
            continue
        identity, tid, call, first, second = decode(received)
        test = find_test(call)
        if test is not None:
            concerns, is_second = test
            address = second if is_second else first
            length = PAGE - (address & 4095)
            if length > MOST_PATHS:
                length = MOST_PATHS
            pack_transfer(iovecs, OUR_LENGTH, length, address, length)
            if readv(tid, ours, ONE, theirs, ONE, NO_FLAGS) == length:
                end = text.find(0, 0, length)
                is_wanted = concerns(text[:end]) if end >= 0 else _concerns_long(concerns, tid, address)
                if not is_wanted:
                    _pack_identity(continued, 0, identity)
                    if answering(number, SEND, answer) != 0:
                        check_sent()
                    continue
        take(notification.NOTIFICATION.unpack(received))


def _concerns_long(concerns: PathTest, tid: int, address: int) -> bool:
    """For a path that is long, or crosses a page. One that cannot be read is for the handler to find out."""
    try:
        return concerns(TaskMemory(tid).read_string(address))
    except (MemoryFault, MemoryHidden, TaskGone):
        return True
