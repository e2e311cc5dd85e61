"""Address spaces of traced tasks: their memory, and scratch room in it for rewritten arguments.

Kernel facts. A path or socket address that we substitute must lie in the task's own memory. Below the stack pointer is
not ours: goroutine stacks are small heap blocks. So the tracer makes the task map a region of its own (`mmap` in place
of the intercepted call, which is then made again). The region is writable, for the kernel writes there too, in the
task's name (sendmmsg(2), the lengths). /proc/PID/mem reads and writes in one call and ignores page protection. Opened
once it stays bound to the address space: it is reopened after an exec, and serves when a process hides itself later
(PR_SET_DUMPABLE).

Tasks made with CLONE_VM share the space object. A fork copies it: the region is at the same address in the child, with
every slot free, for the threads that held slots were not copied.
"""

from __future__ import annotations

import mmap
import os

import attrs

from mirrord_trace.supervisor.delivery.base import PATH_MAX, MemoryFault, MemoryHidden, TaskGone

PAGE_SIZE = 4096
SLOT_SIZE = 8192
"""Room for one rewritten call: two paths of PATH_MAX bytes, or a batch of messages with their addresses."""
REGION_SIZE = 16 * SLOT_SIZE
MAPPING = (0, REGION_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
"""The arguments of the mmap(2) that makes a region."""


@attrs.define(eq=False)
class ProcessMemory:
    """Memory of the address space that task `tid` lives in, through /proc/TID/mem."""

    tid: int
    _descriptor: int | None = None

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(f"/proc/{self.tid}/mem", os.O_RDWR | os.O_CLOEXEC)
            except PermissionError as error:
                raise MemoryHidden(f"/proc/{self.tid}/mem: {error.strerror}") from error
            except (FileNotFoundError, ProcessLookupError) as error:
                raise TaskGone(f"/proc/{self.tid}/mem: {error.strerror}") from error
        return self._descriptor

    def read(self, address: int, length: int) -> bytes:
        """See `Memory.read`. Raises MemoryHidden too, and OSError when we have no descriptor left."""
        descriptor = self._open()
        try:
            data = os.pread(descriptor, length, address)
        except (OSError, OverflowError) as error:
            raise MemoryFault(f"cannot read {length} bytes at {address:#x} of task {self.tid}") from error
        if len(data) != length:
            if not data:
                raise TaskGone(f"the address space of task {self.tid} is gone")
            raise MemoryFault(f"cannot read {length} bytes at {address:#x} of task {self.tid}")
        return data

    def write(self, address: int, data: bytes) -> None:
        """See `Memory.write`. Raises MemoryHidden too, and OSError when we have no descriptor left."""
        descriptor = self._open()
        try:
            written = os.pwrite(descriptor, data, address)
        except (OSError, OverflowError) as error:
            raise MemoryFault(f"cannot write {len(data)} bytes at {address:#x} of task {self.tid}") from error
        if written != len(data):
            raise MemoryFault(f"cannot write {len(data)} bytes at {address:#x} of task {self.tid}")

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """See `Memory.read_string`. Stops at `limit` bytes when there is no NUL before."""
        parts: list[bytes] = []
        while limit > 0:
            part = self.read(address, min(PAGE_SIZE - address % PAGE_SIZE, limit))
            end = part.find(0)
            if end >= 0:
                if not parts:
                    return part[:end]
                parts.append(part[:end])
                break
            parts.append(part)
            address += len(part)
            limit -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Gives the descriptor back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@attrs.define(eq=False)
class AddressSpace:
    """One address space, with as many `users` as tasks live in it."""

    memory: ProcessMemory
    users: int = 1
    _regions: tuple[int, ...] = ()
    _free_slots: list[int] = attrs.field(factory=list)
    _was_written: bool = True
    """Whether the newest region could be written to."""

    @classmethod
    def of(cls, tid: int) -> AddressSpace:
        """The fresh space of a task that was just executed."""
        return cls(ProcessMemory(tid))

    def share(self) -> AddressSpace:
        """For a new task with CLONE_VM."""
        self.users += 1
        return self

    def forked(self, tid: int) -> AddressSpace:
        """For a new task with a copy of this space."""
        copy = AddressSpace(ProcessMemory(tid), regions=self._regions)
        for region in self._regions:
            copy._add_slots(region)
        return copy

    def leave(self) -> None:
        """One task less; the last one closes the space."""
        self.users -= 1
        if self.users == 0:
            self.memory.close()

    def take_slot(self) -> int | None:
        """The address of SLOT_SIZE bytes for one call; None when a region must be mapped first."""
        return self._free_slots.pop() if self._free_slots else None

    def give_back(self, slot: int) -> None:
        """The call is over. A slot of a region that was forgotten since is forgotten too."""
        ours = any(region <= slot < region + REGION_SIZE for region in self._regions)
        if ours and slot not in self._free_slots:
            self._free_slots.append(slot)

    @property
    def is_unused(self) -> bool:
        """Whether no room was ever made here."""
        return not self._regions

    def add_region(self, address: int) -> None:
        """REGION_SIZE bytes at `address` were mapped for us."""
        self._regions += (address,)
        self._was_written = False
        self._add_slots(address)

    def fill_slot(self, slot: int, data: bytes) -> bool:
        """Writes to a slot. False when the program has unmapped our room: the call that needs some maps it anew.

        Raises MemoryFault when there is no writing to what was just mapped: then mapping it again is no help.
        """
        try:
            self.memory.write(slot, data)
        except MemoryFault:
            if not self._was_written:
                raise
            self._regions = ()
            self._free_slots.clear()
            return False
        self._was_written = True
        return True

    def _add_slots(self, region: int) -> None:
        self._free_slots.extend(range(region + REGION_SIZE - SLOT_SIZE, region - 1, -SLOT_SIZE))
