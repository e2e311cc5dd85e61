"""Installs a seccomp program on itself, makes the calls it is told, and prints the errno of each (0 for success).

Run as a program: standard input has a JSON object with `filter` (hexadecimal; empty for none) and `calls`, a list of
lists of a number and its arguments. A number may be the string "int80", for the i386 call that follows it.
"""

import ctypes
import json
import mmap
import sys
from collections.abc import Sequence

from mirrord_syscalls.abi import native_abi

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _make_call(call: Sequence[int]) -> int:
    result = _libc.syscall(*(ctypes.c_long(word) for word in call))
    return ctypes.get_errno() if result == -1 else 0


def _int80(number: int) -> int:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x80\xc3")  # mov eax, number; int 0x80; ret
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result: int = function()
    return -result if result < 0 else 0


def main() -> None:
    """Do what standard input says."""
    task = json.load(sys.stdin)
    program = bytes.fromhex(task["filter"])
    if program:
        description = _SockFprog(len(program) // 8, program)
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        seccomp = native_abi().numbers["seccomp"]
        if _libc.syscall(seccomp, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(description)) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")
    results = [_int80(call[1]) if call[0] == "int80" else _make_call(call) for call in task["calls"]]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
