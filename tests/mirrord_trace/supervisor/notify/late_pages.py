"""Memory whose pages come late, from Trio's thread, as those of a mapped file of the mirror tree do: userfaultfd(2)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import trio

from mirrord_syscalls.abi import native_abi

PAGE = 4096
_API = 0xAA
_IOCTL_API, _IOCTL_REGISTER, _IOCTL_COPY = 0xC018_AA3F, 0xC020_AA00, 0xC028_AA03  # linux/userfaultfd.h
_MISSING = 1
_EVENT_PAGEFAULT = 0x12
_message = struct.Struct("=B15xQ8x")
_copy = struct.Struct("=QQQQq")


@attrs.define(eq=False)
class LatePages:
    """Some pages of this process; whoever touches one waits until `serve` has put it there."""

    address: int
    descriptor: int
    content: bytes
    served: int = 0

    async def serve(self) -> None:
        """Puts every page there when it is wanted."""
        source = ctypes.create_string_buffer(self.content, PAGE)
        while True:
            await trio.lowlevel.wait_readable(self.descriptor)
            event, address = _message.unpack(os.read(self.descriptor, _message.size))
            assert event == _EVENT_PAGEFAULT
            request = _copy.pack(address & -PAGE, ctypes.addressof(source), PAGE, 0, 0)
            fcntl.ioctl(self.descriptor, _IOCTL_COPY, request)
            self.served += 1


@contextmanager
def late_pages(count: int, content: bytes = b"") -> Iterator[LatePages]:
    """Needs root, or the sysctl vm.unprivileged_userfaultfd."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(native_abi().numbers["userfaultfd"], os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"userfaultfd: {errno.errorcode[ctypes.get_errno()]}; run the tests as root")
    with mmap.mmap(-1, PAGE * count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        pin = (ctypes.c_char * (PAGE * count)).from_buffer(area)
        try:
            address = ctypes.addressof(pin)
            fcntl.ioctl(descriptor, _IOCTL_API, struct.pack("=QQQ", _API, 0, 0))
            fcntl.ioctl(descriptor, _IOCTL_REGISTER, struct.pack("=QQQQ", address, PAGE * count, _MISSING, 0))
            yield LatePages(address, descriptor, content)
        finally:
            os.close(descriptor)
            del pin
