"""A Subscription compiled to classic BPF for seccomp(2).

The program runs at every system call of the user's process, so what matters is how few instructions a call needs that
nobody subscribed to. Numbers are found by binary search over ranges that share an outcome, so about log2 of the number
of subscribed calls comparisons decide. Linux 5.11 and later find out at load time which numbers are allowed whatever
the arguments, and skip the program for them altogether (seccomp_cache_prepare in kernel/seccomp.c).

Classic BPF jumps forward only, and a conditional jump at most 255 instructions. The program is therefore assembled from
its end: whatever an instruction may jump to is already in place, its distance is known, and a target that is
too far away gets a nearer copy (an answer) or an unconditional jump (code), which reaches anything.

Sources: linux/bpf_common.h, linux/filter.h, linux/seccomp.h; struct seccomp_data is {nr, arch, ip, args[6]}, and
BPF loads 32 bits at a time, so a 64-bit argument is tested in halves.
"""

import errno
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from mirrord_syscalls.abi import ABIS, Abi
from mirrord_syscalls.subscription import WORD, AnyBit, ArgumentTest, Equals, NonZero, Subscription

RET_ERRNO: Final = 0x0005_0000
"""Fail with the errno in the low 16 bits."""
RET_USER_NOTIF: Final = 0x7FC0_0000
"""Ask the listener (linux/seccomp.h, Linux 5.0)."""
RET_TRACE: Final = 0x7FF0_0000
"""Stop with PTRACE_EVENT_SECCOMP; the low 16 bits are its message."""
RET_ALLOW: Final = 0x7FFF_0000

MAXIMUM_INSTRUCTIONS: Final = 4096
"""BPF_MAXINSNS, linux/bpf_common.h."""

REFUSED_CALLS: Final = ("io_uring_setup", "io_uring_enter", "io_uring_register")
"""Calls that get ENOSYS: what a ring does is not seen by seccomp."""

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_LOAD_HALF_WORD = 0x28  # BPF_LD | BPF_H | BPF_ABS, in network order
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_JUMP_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_IF_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_IF_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_NUMBER_OFFSET = 0
_ARCH_OFFSET = 4
_ARGUMENTS_OFFSET = 16

_HALF = 0xFFFF_FFFF
_LONGEST_CONDITIONAL_JUMP = 255

_instruction = struct.Struct("=HBBI")


@attrs.frozen
class _Answer:
    """A way to end the program."""

    value: int


_NO_SUCH_CALL = _Answer(RET_ERRNO | errno.ENOSYS)

_Target = int | _Answer
"""Where a jump goes: an instruction in place, by its distance from the program's end, or an answer."""

_Alternatives = tuple[tuple[ArgumentTest, ...], ...]
"""The tests of each rule for one call."""

_Outcome = _Answer | _Alternatives
"""What a call's number decides: the answer, or that its arguments do."""


def compile_filter(subscription: Subscription, abi: Abi, action: int) -> bytes:
    """Return the seccomp program (an array of struct sock_filter, 8 bytes each) that intercepts what is subscribed.

    `action` is the program's 32-bit answer for a subscribed call: RET_TRACE, RET_USER_NOTIF or RET_ERRNO, with data.
    Calls of another architecture, of x32 and of io_uring fail with ENOSYS; all others are allowed. A call that this
    architecture does not have is left out: it cannot be made.

    Raises ValueError for a call that no architecture has or that is always refused, and for a subscription whose
    program would be longer than the kernel takes.
    """
    program = _Program()
    intercept, allow = _Answer(action), _Answer(RET_ALLOW)
    targets: list[tuple[int, _Target]] = []
    for first, outcome in _ranges(_outcomes(subscription, abi, intercept), abi):
        match outcome:
            case _Answer():
                targets.append((first, outcome))
            case alternatives:
                targets.append((first, program.add_alternatives(alternatives, intercept, allow)))
    program.add_search(targets)
    load_number = program.add(_LOAD, _NUMBER_OFFSET)
    program.add_branch(_JUMP_IF_EQUAL, abi.audit_arch, load_number, _NO_SUCH_CALL)
    program.add(_LOAD, _ARCH_OFFSET)
    return program.encode()


def socket_filter_drop_all() -> bytes:
    """Return the classic BPF program that, as a socket's filter (SO_ATTACH_FILTER), drops every packet."""
    return _instruction.pack(_RETURN, 0, 0, 0)


def socket_filter_half_word(offset: int, value: int) -> bytes:
    """Return the program that drops every packet but those with this value in the two bytes at `offset`."""
    return b"".join(
        (
            _instruction.pack(_LOAD_HALF_WORD, 0, 0, offset),
            _instruction.pack(_JUMP_IF_EQUAL, 0, 1, value),
            _instruction.pack(_RETURN, 0, 0, _HALF),
            _instruction.pack(_RETURN, 0, 0, 0),
        )
    )


def _outcomes(subscription: Subscription, abi: Abi, intercept: _Answer) -> dict[int, _Outcome]:
    """Return what is decided for each number that is not simply allowed."""
    tests_by_call: defaultdict[str, set[tuple[ArgumentTest, ...]]] = defaultdict(set)
    for rule in subscription.rules:
        tests_by_call[rule.call].add(rule.tests)
    outcomes: dict[int, _Outcome] = {abi.numbers[call]: _NO_SUCH_CALL for call in REFUSED_CALLS}
    for call, alternatives in tests_by_call.items():
        if call in REFUSED_CALLS:
            raise ValueError(f"{call} cannot be intercepted: it always fails with ENOSYS")
        if not any(call in known.numbers for known in ABIS.values()):
            raise ValueError(f"no architecture has a system call {call!r}")
        if call in abi.numbers:
            # Sorted, because a set's order must not show in the program.
            in_order = tuple(sorted(alternatives, key=repr))
            outcomes[abi.numbers[call]] = intercept if () in alternatives else in_order
    return outcomes


def _ranges(outcomes: Mapping[int, _Outcome], abi: Abi) -> list[tuple[int, _Outcome]]:
    """Return the number at which each range of one outcome begins, in order; the first is 0."""
    allow = _Answer(RET_ALLOW)
    starts: dict[int, _Outcome] = {0: allow}
    for number in sorted(outcomes):
        starts[number] = outcomes[number]
        starts[number + 1] = allow
    if abi.x32_bit is not None:
        starts[abi.x32_bit] = _NO_SUCH_CALL
    ranges: list[tuple[int, _Outcome]] = []
    for first, outcome in starts.items():
        if not ranges or ranges[-1][1] != outcome:
            ranges.append((first, outcome))
    return ranges


class _Program:
    """A program under assembly, from its last instruction to its first."""

    def __init__(self) -> None:
        self._backwards: list[tuple[int, int, int, int]] = []
        self._nearest_answers: dict[_Answer, int] = {}

    def add(self, code: int, operand: int, jump_if_true: int = 0, jump_if_false: int = 0) -> int:
        """Put an instruction in front of all others and return its position."""
        self._backwards.append((code, jump_if_true, jump_if_false, operand))
        return len(self._backwards) - 1

    def add_branch(self, code: int, operand: int, if_true: _Target, if_false: _Target) -> int:
        """Put a conditional jump and return its position."""
        true_position, false_position = self._within_reach(if_true), self._within_reach(if_false)
        end = len(self._backwards) - 1
        return self.add(code, operand, end - true_position, end - false_position)

    def add_search(self, targets: Sequence[tuple[int, _Target]]) -> _Target:
        """Put a binary search for the range that the loaded number is in; a range begins at its first member."""
        if len(targets) == 1:
            return targets[0][1]
        middle = len(targets) // 2
        upper = self.add_search(targets[middle:])
        lower = self.add_search(targets[:middle])
        return self.add_branch(_JUMP_IF_AT_LEAST, targets[middle][0], upper, lower)

    def add_alternatives(self, alternatives: _Alternatives, if_any: _Target, if_none: _Target) -> _Target:
        """Put the check whether all tests of any alternative hold."""
        next_alternative = if_none
        for tests in reversed(alternatives):
            next_test = if_any
            for test in reversed(tests):
                next_test = self._add_test(test, next_test, next_alternative)
            next_alternative = next_test
        return next_alternative

    def encode(self) -> bytes:
        """Return the program. Raises ValueError if the kernel would refuse it for its length."""
        if len(self._backwards) > MAXIMUM_INSTRUCTIONS:
            length = len(self._backwards)
            raise ValueError(f"the program takes {length} instructions; the kernel takes {MAXIMUM_INSTRUCTIONS}")
        return b"".join(_instruction.pack(*fields) for fields in reversed(self._backwards))

    def _add_test(self, test: ArgumentTest, if_true: _Target, if_false: _Target) -> _Target:
        match test:
            case NonZero(index):
                return self._add_any_bit(index, WORD, if_true, if_false)
            case AnyBit(index, mask):
                return self._add_any_bit(index, mask, if_true, if_false)
            case Equals(index, value, mask):
                return self._add_equals(index, value, mask, if_true, if_false)

    def _add_any_bit(self, index: int, mask: int, if_true: _Target, if_false: _Target) -> _Target:
        target = if_false
        for offset, shift in _halves(index):
            if half_mask := mask >> shift & _HALF:
                self.add_branch(_JUMP_IF_ANY_BIT, half_mask, if_true, target)
                target = self.add(_LOAD, offset)
        return target

    def _add_equals(self, index: int, value: int, mask: int, if_true: _Target, if_false: _Target) -> _Target:
        target = if_true
        for offset, shift in _halves(index):
            if half_mask := mask >> shift & _HALF:
                self.add_branch(_JUMP_IF_EQUAL, value >> shift & _HALF, target, if_false)
                if half_mask != _HALF:
                    self.add(_AND, half_mask)
                target = self.add(_LOAD, offset)
        return target

    def _within_reach(self, target: _Target) -> int:
        position = self._nearest_answers.get(target) if isinstance(target, _Answer) else target
        # The other target of the same branch may still need an instruction in between.
        if position is not None and len(self._backwards) - position <= _LONGEST_CONDITIONAL_JUMP:
            return position
        return self._bring_near(target)

    def _bring_near(self, target: _Target) -> int:
        """Put an instruction that goes on at `target`, however far it is, and return its position."""
        if isinstance(target, _Answer):
            self._nearest_answers[target] = self.add(_RETURN, target.value)
            return self._nearest_answers[target]
        return self.add(_JUMP, len(self._backwards) - 1 - target)


def _halves(index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return offset and shift of an argument's upper and lower half, in the order in which they are assembled."""
    offset = _ARGUMENTS_OFFSET + 8 * index
    return (offset + 4, 32), (offset, 0)
