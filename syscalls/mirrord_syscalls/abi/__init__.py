"""System call tables, one per architecture.

An `Abi` is what a tracer has to know to read and rewrite a call on one architecture. The numbers differ between
architectures, the meaning of the arguments does not: `arguments.py` says it once and each table takes what it has.
"""

import platform
from collections.abc import Mapping
from types import MappingProxyType

from mirrord_syscalls.abi.aarch64 import AARCH64
from mirrord_syscalls.abi.arguments import ARGUMENTS, ArgumentKind, PathArgument, path_arguments
from mirrord_syscalls.abi.model import Abi
from mirrord_syscalls.abi.x86_64 import X86_64

__all__ = [
    "AARCH64",
    "ABIS",
    "ARGUMENTS",
    "X86_64",
    "Abi",
    "ArgumentKind",
    "PathArgument",
    "native_abi",
    "path_arguments",
]

ABIS: Mapping[str, Abi] = MappingProxyType({abi.name: abi for abi in (X86_64, AARCH64)})
"""Every architecture we have a table for, by the name that uname(2) gives its machine."""


def native_abi() -> Abi:
    """Return the ABI of the machine we run on.

    Raises LookupError for an architecture without a table.
    """
    machine = platform.machine()
    try:
        return ABIS[machine]
    except KeyError:
        raise LookupError(f"no system call table for {machine!r}; there are tables for {', '.join(ABIS)}") from None
