"""The type of an architecture's table."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from mirrord_syscalls.abi.arguments import ARGUMENTS, ArgumentKind


@attrs.frozen(eq=False)
class Abi:
    """How one architecture makes system calls. There is one object per architecture, compared by identity.

    All supported architectures are 64-bit and little-endian; the codecs of this package rely on it.
    """

    name: str
    """The machine's name as uname(2) gives it."""
    audit_arch: int
    """AUDIT_ARCH_*: what seccomp and PTRACE_GET_SYSCALL_INFO report (linux/audit.h)."""
    numbers: Mapping[str, int] = attrs.field(repr=False)
    """Every call of the architecture: name to number."""
    argument_registers: tuple[str, str, str, str, str, str]
    """The registers of the six arguments, in order, as python-ptrace's user_regs_struct names them."""
    number_register: str
    """The register a tracer reads the call's number from."""
    result_register: str
    """The register of the result, a value or -errno."""
    instruction_pointer: str
    stack_pointer: str
    instruction_length: int
    """Bytes of the instruction that makes a call: going back so far makes the task call again."""
    x32_bit: int | None = None
    """The bit in a call's number that marks the x32 ABI, where the architecture has one."""
    names: Mapping[int, str] = attrs.field(init=False, repr=False)
    """The inverse of `numbers`."""
    arguments: Mapping[str, tuple[ArgumentKind, ...]] = attrs.field(init=False, repr=False)
    """What the arguments of a call are, for the calls of `arguments.py` that this architecture has."""

    @names.default
    def _invert_numbers(self) -> Mapping[int, str]:
        return MappingProxyType({number: name for name, number in self.numbers.items()})

    @arguments.default
    def _select_arguments(self) -> Mapping[str, tuple[ArgumentKind, ...]]:
        return MappingProxyType({name: kinds for name, kinds in ARGUMENTS.items() if name in self.numbers})
