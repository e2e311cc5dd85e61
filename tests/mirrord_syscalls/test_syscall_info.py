import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_syscalls.abi import ABIS
from mirrord_syscalls.structs import (
    SYSCALL_INFO_BYTES,
    NoSyscall,
    SyscallEntry,
    SyscallExit,
    SyscallSeccomp,
    decode_exit_stop,
    decode_seccomp_stop,
    decode_syscall_info,
)
from tests.mirrord_syscalls.compiler import check_in_c, output_of

words = st.integers(0, 2**64 - 1)
places = st.tuples(st.integers(0, 2**32 - 1), words, words)
arguments = st.tuples(*[words] * 6)


def packed(operation: int, place: tuple[int, ...], form: str, *values: int) -> bytes:
    return struct.pack(f"<B3xIQQ{form}", operation, *place, *values).ljust(SYSCALL_INFO_BYTES, b"\xff")


@given(places, words, arguments, st.integers(0, 2**32 - 1))
def test_each_form_is_told_from_the_others(
    place: tuple[int, int, int], number: int, args: tuple[int, int, int, int, int, int], data: int
) -> None:
    result = number - 2**63
    seccomp, left = packed(3, place, "Q6QI", number, *args, data), packed(2, place, "q?", result, data & 1)
    assert decode_syscall_info(packed(0, place, "")) == NoSyscall(*place)
    assert decode_syscall_info(packed(1, place, "Q6Q", number, *args)) == SyscallEntry(*place, number, args)
    assert decode_syscall_info(left) == decode_exit_stop(left) == SyscallExit(*place, result, bool(data & 1))
    assert decode_syscall_info(seccomp) == decode_seccomp_stop(seccomp) == SyscallSeccomp(*place, number, args, data)
    with pytest.raises(ValueError, match="form 2"):
        decode_seccomp_stop(left)
    with pytest.raises(ValueError, match="form 3"):
        decode_exit_stop(seccomp)


# Bytes that the kernel says it has for each form (get_syscall_info in kernel/ptrace.c).
@pytest.mark.parametrize(("operation", "enough"), [(0, 24), (1, 80), (2, 33), (3, 84)])
def test_a_form_needs_no_more_than_the_kernel_gives(operation: int, enough: int) -> None:
    raw = bytes([operation]) + bytes(enough - 1)
    decode_syscall_info(raw)
    with pytest.raises(ValueError, match=f"not {enough - 1}"):
        decode_syscall_info(raw[:-1])


@given(st.binary(max_size=100))
def test_any_bytes_are_a_form_or_an_error(raw: bytes) -> None:
    try:
        decode_syscall_info(raw)
    except ValueError:
        return
    assert raw[0] <= 3


@pytest.mark.parametrize("raw", [b"", b"\4" + bytes(87)])
def test_no_form_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="ptrace_syscall_info"):
        decode_syscall_info(raw)


def test_fields_are_where_the_compiler_puts_them(tmp_path: Path) -> None:
    program = """
        #include <linux/ptrace.h>
        #include <stdio.h>
        #include <string.h>
        static void print(const struct ptrace_syscall_info *info) {
            for (unsigned at = 0; at < sizeof *info; at++) printf("%02x", ((const unsigned char *)info)[at]);
            puts("");
        }
        int main(void) {
            struct ptrace_syscall_info info;
            memset(&info, 0xff, sizeof info);
            info.op = PTRACE_SYSCALL_INFO_NONE;
            info.arch = 1, info.instruction_pointer = 2, info.stack_pointer = 3;
            print(&info);
            info.op = PTRACE_SYSCALL_INFO_ENTRY;
            info.entry.nr = 4;
            for (int at = 0; at < 6; at++) info.entry.args[at] = 5 + at;
            print(&info);
            info.op = PTRACE_SYSCALL_INFO_SECCOMP;
            info.seccomp.nr = 14;
            for (int at = 0; at < 6; at++) info.seccomp.args[at] = 15 + at;
            info.seccomp.ret_data = 21;
            print(&info);
            info.op = PTRACE_SYSCALL_INFO_EXIT;
            info.exit.rval = -22, info.exit.is_error = 1;
            print(&info);
        }
    """
    none, entry, seccomp, left = map(bytes.fromhex, output_of(program, tmp_path).split())
    assert decode_syscall_info(none) == NoSyscall(1, 2, 3)
    assert decode_syscall_info(entry) == SyscallEntry(1, 2, 3, 4, (5, 6, 7, 8, 9, 10))
    assert decode_syscall_info(seccomp) == SyscallSeccomp(1, 2, 3, 14, (15, 16, 17, 18, 19, 20), 21)
    assert decode_syscall_info(left) == SyscallExit(1, 2, 3, -22, is_error=True)


@pytest.mark.parametrize("architecture", ABIS)
def test_the_size_is_that_of_the_kernel_headers(architecture: str, tmp_path: Path) -> None:
    claims = [f"sizeof(struct ptrace_syscall_info) == {SYSCALL_INFO_BYTES}"]
    check_in_c(architecture, ["linux/ptrace.h"], claims, tmp_path)
