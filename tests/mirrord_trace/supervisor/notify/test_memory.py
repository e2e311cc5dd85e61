"""Another process's memory: a child's with known contents, at known addresses."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import attrs
import pytest

from mirrord_trace.supervisor.delivery.base import MemoryFault, TaskGone
from mirrord_trace.supervisor.delivery.notify.memory import TaskMemory

PAGE = 4096
PAGES = 4
PROT_NONE = 0


@attrs.frozen
class Child:
    """A forked copy of this process that waits; `area` is at the same address in both, its last page not readable."""

    pid: int
    area: int
    memory: TaskMemory


@pytest.fixture
def contents() -> bytearray:
    return bytearray(range(256)) * (PAGE * (PAGES - 1) // 256)


@pytest.fixture
def child(contents: bytearray) -> Iterator[Child]:
    with mmap.mmap(-1, PAGE * PAGES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[: len(contents)] = bytes(contents)
        pin = (ctypes.c_char * (PAGE * PAGES)).from_buffer(area)
        place = ctypes.addressof(pin)
        gate_read, gate_write = os.pipe()
        ready_read, ready_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            libc = ctypes.CDLL(None)
            libc.mprotect(ctypes.c_void_p(place + PAGE * (PAGES - 1)), ctypes.c_size_t(PAGE), PROT_NONE)
            libc.mprotect(ctypes.c_void_p(place), ctypes.c_size_t(PAGE), mmap.PROT_READ)
            os.close(gate_write)
            os.write(ready_write, b"r")
            os.read(gate_read, 1)
            os._exit(0)
        os.close(gate_read)
        os.read(ready_read, 1)
        os.close(ready_read)
        os.close(ready_write)
        try:
            yield Child(pid, place, TaskMemory(pid))
        finally:
            os.close(gate_write)
            os.waitpid(pid, 0)
            del pin


@pytest.mark.parametrize("length", [0, 1, 255, PAGE, PAGE + 1, PAGE * 3])
@pytest.mark.parametrize("offset", [0, 1, PAGE - 1])
def test_what_is_there_is_read(length: int, offset: int, child: Child, contents: bytearray) -> None:
    length = min(length, len(contents) - offset)
    assert child.memory.read(child.area + offset, length) == bytes(contents[offset : offset + length])


@pytest.mark.parametrize("length", [1, 100, PAGE, PAGE + 1])
def test_what_is_written_is_there(length: int, child: Child) -> None:
    data = os.urandom(length)
    child.memory.write(child.area + PAGE, data)
    assert child.memory.read(child.area + PAGE, length) == data


def test_nothing_is_written_where_nothing_is_to_be(child: Child) -> None:
    child.memory.write(0, b"")


@pytest.mark.parametrize("length", [1, 200, PAGE])
def test_a_read_only_page_is_a_fault_to_writers(length: int, child: Child, contents: bytearray) -> None:
    with pytest.raises(MemoryFault):
        child.memory.write(child.area, bytes(length))
    assert child.memory.read(child.area, length) == bytes(contents[:length])


@pytest.mark.parametrize(("offset", "length"), [(PAGE * 3, 1), (PAGE * 3 - 1, 2), (PAGE * 2, PAGE + 1), (0, PAGE * 4)])
def test_what_cannot_be_read_is_a_fault(offset: int, length: int, child: Child) -> None:
    with pytest.raises(MemoryFault):
        child.memory.read(child.area + offset, length)


@pytest.mark.parametrize("address", [0, 1, 1 << 47, (1 << 64) - 1])
def test_addresses_that_nobody_has_are_faults(address: int, child: Child) -> None:
    with pytest.raises(MemoryFault):
        child.memory.read(address, 8)
    with pytest.raises(MemoryFault):
        child.memory.write(address, b"x")


@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 4094])
@pytest.mark.parametrize("before_end", [0, 1, 100, 300, PAGE])
def test_strings_end_at_their_nul_wherever_pages_end(length: int, before_end: int, child: Child) -> None:
    """The page behind the string cannot be read, or the string crosses from one into the next."""
    place = child.area + PAGE * 3 - (length + 1) - before_end
    place = max(place, child.area + PAGE)
    text = b"x" * length
    child.memory.write(place, text + b"\0")
    assert child.memory.read_string(place) == text


def test_a_string_without_an_end_stops_at_the_limit(child: Child) -> None:
    child.memory.write(child.area + PAGE, b"x" * PAGE * 2)
    assert child.memory.read_string(child.area + PAGE, 300) == b"x" * 300
    assert child.memory.read_string(child.area + PAGE) == b"x" * PAGE


def test_a_string_that_runs_into_nothing_is_a_fault(child: Child) -> None:
    child.memory.write(child.area + PAGE * 3 - 10, b"x" * 10)
    with pytest.raises(MemoryFault):
        child.memory.read_string(child.area + PAGE * 3 - 10)


def test_a_task_that_is_gone(child: Child) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(TaskGone):
        TaskMemory(pid).read(child.area, 1)
    with pytest.raises(TaskGone):
        TaskMemory(pid).write(child.area, b"x")
