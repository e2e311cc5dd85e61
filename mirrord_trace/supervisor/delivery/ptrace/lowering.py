"""How an intent becomes changed registers and memory, and what remains to be done when the call returns.

A task is stopped just before its call. What is substituted (an address, a path, a message header) goes into a slot of
scratch memory, the argument registers are pointed there, and at the call's end the registers are put back. The
program's own buffers are not touched before the kernel has written its results: they may be shared or read-only.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import attrs

from mirrord_syscalls.abi import Abi, ArgumentKind, path_arguments
from mirrord_syscalls.sockaddr import SocketAddress, decode_sockaddr, encode_sockaddr
from mirrord_syscalls.structs import Mmsghdr, Msghdr, OpenHow
from mirrord_trace.supervisor.delivery.base import (
    PATH_MAX,
    Call,
    Memory,
    PresentAddresses,
    UseAddress,
    UseAddresses,
    UsePath,
    UsePaths,
    naming_flags,
)
from mirrord_trace.supervisor.delivery.ptrace.spaces import SLOT_SIZE

_socklen = struct.Struct("=I")
_NAME_ROOM = 128  # sizeof(struct sockaddr_storage)

AtExit = Callable[[int], int]
"""Gets the call's result and returns what the task is to see."""


@attrs.frozen
class Plan:
    """How to make a call differently: what to write into the slot, which arguments change, what to do at its end."""

    slot_data: bytes
    arguments: tuple[tuple[int, int], ...]
    """(index, value) of the argument registers that change."""
    at_exit: AtExit


def argument_index(abi: Abi, name: str, kind: ArgumentKind) -> int:
    """The position of the first argument of that kind; raises LookupError when the call has none."""
    for index, candidate in enumerate(abi.arguments[name]):
        if candidate is kind:
            return index
    raise LookupError(f"{name} has no argument of kind {kind.name}")


def plan(call: Call, verdict: UseAddress | UseAddresses | UsePath | UsePaths, slot: int) -> Plan:
    """Raises MemoryFault when the call's own arguments cannot be read."""
    match verdict:
        case UsePath(path, is_name_of_new=True):
            return _plan_naming_open(call, path, slot)
        case UsePath(path):
            return _plan_paths(call, (path,), slot)
        case UsePaths(paths):
            return _plan_paths(call, paths, slot)
        case UseAddresses():
            return _plan_messages(call, verdict, slot)
        case UseAddress(address, done, control):
            if call.name == "sendmsg":
                header = Msghdr.decode(call.memory.read(call.arguments[1], Msghdr.SIZE))
                header, behind = _changed(header, slot + Msghdr.SIZE, address, control)
                return Plan(header.encode() + behind, ((1, slot),), done)
            raw = encode_sockaddr(address)
            index = argument_index(call.abi, call.name, ArgumentKind.SOCKADDR)
            return Plan(raw, ((index, slot), (index + 1, len(raw))), done)


def _plan_paths(call: Call, paths: tuple[bytes, ...], slot: int) -> Plan:
    """One path behind the other. A slot has room for two; the kernel finds one too long of which it sees no end."""
    data = b""
    changes = []
    for place, path in zip(path_arguments(call.name), paths, strict=True):
        changes.append((place.index, slot + len(data)))
        data += (path + b"\0")[:PATH_MAX]
    return Plan(data, tuple(changes), lambda result: result)


def _plan_naming_open(call: Call, path: bytes, slot: int) -> Plan:
    """An open that makes a file under a name, not one without."""
    with_path = _plan_paths(call, (path,), slot)
    data = with_path.slot_data
    if call.name == "openat2":
        how = OpenHow.decode(call.memory.read(call.arguments[2], OpenHow.SIZE))
        changed = (2, slot + len(data))
        data += attrs.evolve(how, flags=naming_flags(how.flags)).encode()
    else:
        index = argument_index(call.abi, call.name, ArgumentKind.PATH) + 1
        changed = (index, naming_flags(call.integer(index)))
    return Plan(data, (*with_path.arguments, changed), with_path.at_exit)


def _changed(header: Msghdr, place: int, address: SocketAddress | None, control: bytes | None) -> tuple[Msghdr, bytes]:
    """A header with what takes the place of its own, and the bytes of that, to be written at `place`."""
    behind = b""
    if control is not None:  # first, for its alignment (cmsg(3)); slots and what lies behind messages are aligned
        header = attrs.evolve(header, control=place if control else 0, control_length=len(control))
        behind = control
    if address is not None:
        name = encode_sockaddr(address)
        header = attrs.evolve(header, name=place + len(behind), name_length=len(name))
        behind += name + bytes(-len(name) % 8)
    return header, behind


def _plan_messages(call: Call, verdict: UseAddresses, slot: int) -> Plan:
    array = call.arguments[1]
    count = _fitting(verdict)
    raw = call.memory.read(array, count * Mmsghdr.SIZE)
    headers, behind = bytearray(), bytearray()
    for position, address in enumerate(verdict.addresses[:count]):
        message = Mmsghdr.decode(raw, position * Mmsghdr.SIZE)
        place = slot + count * Mmsghdr.SIZE + len(behind)
        header, more = _changed(message.header, place, address, verdict.controls.get(position))
        behind += more
        headers += attrs.evolve(message, header=header).encode()

    def report_lengths(result: int) -> int:
        for position in range(max(result, 0)):
            offset = position * Mmsghdr.SIZE + Mmsghdr.LENGTH_OFFSET
            call.memory.write(array + offset, call.memory.read(slot + offset, _socklen.size))
        return result

    return Plan(bytes(headers + behind), ((1, slot), (2, count)), report_lengths)


def _fitting(verdict: UseAddresses) -> int:
    """How many messages, at least one, fit into a slot."""
    room = SLOT_SIZE
    for position in range(len(verdict.addresses)):
        room -= Mmsghdr.SIZE + _NAME_ROOM + len(verdict.controls.get(position, b""))
        if room < 0:
            return position
    return len(verdict.addresses)


def presenter(call: Call, verdict: PresentAddresses) -> AtExit:
    """What shows the addresses of a call through the verdict's translation once it returned.

    Raises MemoryFault when the arguments cannot be read.
    """
    memory, arguments = call.memory, call.arguments
    show = _Presenter(memory, verdict.translate, verdict.control)
    if call.name == "recvmsg":
        header = Msghdr.decode(memory.read(arguments[1], Msghdr.SIZE))
        return lambda result: show.header(result, arguments[1], header)
    if call.name == "recvmmsg":
        array, count = arguments[1], min(arguments[2] & 0xFFFF_FFFF, 1024)  # UIO_MAXIOV, as the kernel caps it
        raw = memory.read(array, count * Mmsghdr.SIZE)
        headers = [Msghdr.decode(raw, position * Mmsghdr.SIZE) for position in range(count)]

        def show_all(result: int) -> int:
            for position in range(min(max(result, 0), count)):
                show.header(result, array + position * Mmsghdr.SIZE, headers[position])
            return result

        return show_all
    index = argument_index(call.abi, call.name, ArgumentKind.SOCKADDR)
    address, length_address = arguments[index], arguments[index + 1]
    if not address or not length_address:
        return lambda result: result
    (capacity,) = _socklen.unpack(memory.read(length_address, _socklen.size))
    return lambda result: show.argument(result, address, length_address, capacity)


@attrs.frozen
class _Presenter:
    memory: Memory
    translate: Callable[[SocketAddress], SocketAddress]
    show_control: Callable[[bytes], bytes] | None

    def argument(self, result: int, address: int, length_address: int, capacity: int) -> int:
        """An address handed out through a pointer and a value-result length (getpeername(2))."""
        if result >= 0:
            (length,) = _socklen.unpack(self.memory.read(length_address, _socklen.size))
            shown = self._shown(address, capacity, length)
            if shown is not None:
                self.memory.write(address, shown[:capacity])
                self.memory.write(length_address, _socklen.pack(len(shown)))
        return result

    def header(self, result: int, place: int, before: Msghdr) -> int:
        """An address, and control messages, handed out through a message header (recvmsg(2))."""
        if result >= 0 and (before.name or before.control):
            after = Msghdr.decode(self.memory.read(place, Msghdr.SIZE))
            shown = self._shown(before.name, before.name_length, after.name_length) if before.name else None
            if shown is not None:
                self.memory.write(before.name, shown[: before.name_length])
                self.memory.write(place + _NAME_LENGTH_OFFSET, _socklen.pack(len(shown)))
            if self.show_control is not None and before.control and after.control_length:
                raw = self.memory.read(before.control, min(after.control_length, before.control_length))
                control = self.show_control(raw)
                if control != raw:
                    self.memory.write(before.control, control)
        return result

    def _shown(self, address: int, capacity: int, length: int) -> bytes | None:
        """None: leave it; there is no address, it was cut off, or the translation does not change it."""
        if length == 0 or length > capacity:
            return None
        try:
            real = decode_sockaddr(self.memory.read(address, length))
        except ValueError:
            return None
        shown = self.translate(real)
        return None if shown == real else encode_sockaddr(shown)


_NAME_LENGTH_OFFSET = 8  # offsetof(struct msghdr, msg_namelen)
