"""A child whose opens come to a real listener, for the loops that let most of them go."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_USER_NOTIF, compile_filter
from mirrord_syscalls.subscription import Subscription
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.supervisor.delivery.notify.listener import Listener
from mirrord_trace.supervisor.delivery.notify.loop import Receive, library, receiver_in_c
from mirrord_trace.supervisor.delivery.path_tests import PathTests
from mirrord_trace.supervisor.launch import Filtering

ABI = native_abi()
PAGE = 4096
AT_FDCWD = -100
LAST = "getpgid"
"""The call that the child makes at its end, which has no path."""
Make = Callable[[Listener, PathTests], Receive]
"""See `mirrord_trace.supervisor.delivery.notify.loop`."""
_number = struct.Struct("=i")


def in_c(listener: Listener, tests: PathTests) -> Receive:
    found = library()
    assert found is not None, "the library was not built: apt-get install gcc libc6-dev, and `make venv` again"
    return receiver_in_c(listener, tests, found)


@attrs.frozen
class Child:
    """A child that opens what lies at some addresses, and writes each result to a pipe."""

    pid: int
    listener: Listener
    results: int

    def result(self) -> int:
        (value,) = _number.unpack(os.read(self.results, _number.size))
        return int(value)


@contextmanager
def opening(addresses: Sequence[int]) -> Iterator[Child]:
    filtering = Filtering.of(compile_filter(Subscription.of(["openat", LAST]), ABI, RET_USER_NOTIF))
    report_read, report_write = os.pipe()
    result_read, result_write = os.pipe()
    gate_read, gate_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            number = filtering.install_with_listener()
            os.write(report_write, _number.pack(number))
            os.read(gate_read, 1)
            for address in addresses:
                opened = libc.syscall(ABI.numbers["openat"], AT_FDCWD, ctypes.c_void_p(address), os.O_RDONLY, 0)
                os.write(result_write, _number.pack(opened if opened >= 0 else -ctypes.get_errno()))
            libc.syscall(ABI.numbers[LAST], 0)
        finally:
            os._exit(0)
    listener = Listener(borrow_descriptor(pid, _number.unpack(os.read(report_read, _number.size))[0]))
    os.write(gate_write, b"g")
    try:
        yield Child(pid, listener, result_read)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        listener.close()
        for descriptor in (report_read, report_write, result_read, result_write, gate_read, gate_write):
            os.close(descriptor)


@contextmanager
def memory(pages: int) -> Iterator[tuple[mmap.mmap, int]]:
    """Pages for paths, and where they are; nothing lies behind them."""
    with mmap.mmap(-1, PAGE * (pages + 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        pin = (ctypes.c_char * (PAGE * (pages + 1))).from_buffer(area)
        place = ctypes.addressof(pin)
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(place + PAGE * pages), ctypes.c_size_t(PAGE), 0)
        yield area, place
        ctypes.CDLL(None).mprotect(ctypes.c_void_p(place + PAGE * pages), ctypes.c_size_t(PAGE), 3)
        del pin


def handed_on(child: Child, receive: Receive) -> list[int]:
    """The addresses of the calls that may concern somebody, which go on, up to the child's last call."""
    addresses: list[int] = []
    while True:
        notified = receive()
        assert notified is not None
        if ABI.names[notified[3]] == LAST:
            return addresses
        addresses.append(notified[7])
        child.listener.let_go(notified[0])
