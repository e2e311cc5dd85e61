"""The programs as the kernel runs them, on this machine."""

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.bpf import RET_ERRNO, compile_filter, socket_filter_drop_all, socket_filter_half_word
from mirrord_syscalls.subscription import AnyBit, Equals, NonZero, Rule, Subscription
from tests.mirrord_syscalls import filtered_calls

ABI = native_abi()
NUMBERS = ABI.numbers
INT = 0xFFFF_FFFF
UNUSED = 0x5555_0000_0000
REFUSED = errno.EXDEV


def run_filtered(program: bytes, calls: list[list[int | str]]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(Path(filtered_calls.__file__))],
        input=json.dumps({"filter": program.hex(), "calls": calls}),
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def errors_of(subscription: Subscription, calls: list[list[int | str]]) -> list[int]:
    result = run_filtered(compile_filter(subscription, ABI, RET_ERRNO | REFUSED), calls)
    assert result.returncode == 0, result.stderr
    errors: list[int] = json.loads(result.stdout)
    return errors


def test_the_kernel_decides_as_the_subscription_says() -> None:
    subscription = Subscription.of(
        [
            "uname",
            Rule("socket", (Equals(0, socket.AF_INET, INT), AnyBit(1, socket.SOCK_CLOEXEC))),
            Rule("sendto", (NonZero(4),)),
        ]
    )
    cloexec = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    not_open = [-1, 0, 0, 0]
    assert errors_of(
        subscription,
        [
            [NUMBERS["uname"], 0],
            [NUMBERS["getppid"]],
            [NUMBERS["socket"], socket.AF_INET, cloexec, 0],
            [NUMBERS["socket"], socket.AF_INET | UNUSED, cloexec, 0],
            [NUMBERS["socket"], socket.AF_INET, socket.SOCK_DGRAM, 0],
            [NUMBERS["socket"], socket.AF_UNIX, cloexec, 0],
            [NUMBERS["sendto"], *not_open, 1 << 32, 0],
            [NUMBERS["sendto"], *not_open, 0, 0],
        ],
    ) == [REFUSED, 0, REFUSED, REFUSED, 0, 0, REFUSED, errno.EBADF]


def test_the_kernel_takes_a_long_program() -> None:
    kept = {"seccomp", "prctl", "exit_group", "exit", "rt_sigreturn"}
    calls = [call for call in ABI.arguments if call not in kept]
    magic = {call: NUMBERS[call] << 33 for call in calls}
    rules = [Rule(call, (Equals(0, magic[call]), Equals(1, value << 33))) for call in calls for value in range(3)]
    program = compile_filter(Subscription.of(rules), ABI, RET_ERRNO | REFUSED)
    assert len(program) // 8 > 1500
    result = run_filtered(program, [[NUMBERS[call], magic[call], 2 << 33] for call in calls])
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [REFUSED] * len(calls)


def test_io_uring_does_not_exist() -> None:
    calls: list[list[int | str]] = [[NUMBERS[f"io_uring_{what}"], 0, 0, 0] for what in ("setup", "enter", "register")]
    assert errors_of(Subscription(), calls) == [errno.ENOSYS] * 3


@pytest.mark.skipif(ABI.x32_bit is None, reason="this architecture has no x32")
def test_x32_does_not_exist() -> None:
    assert errors_of(Subscription(), [[0x4000_0000 | NUMBERS["getppid"]]]) == [errno.ENOSYS]


@pytest.mark.skipif(ABI.name != "x86_64", reason="int 0x80 is an instruction of x86")
def test_a_32_bit_call_from_64_bit_code_does_not_exist() -> None:
    getppid_of_i386 = 64
    if run_filtered(b"", [["int80", getppid_of_i386]]).returncode != 0:
        pytest.skip("this kernel has no 32-bit calls (IA32_EMULATION)")
    assert errors_of(Subscription(), [["int80", getppid_of_i386]]) == [errno.ENOSYS]


def test_a_socket_with_a_filter_for_two_bytes_receives_what_has_them() -> None:
    program = socket_filter_half_word(8 + 1, 0x6221)  # behind the header of UDP
    instructions = ctypes.create_string_buffer(program, len(program))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        receiver.setsockopt(
            socket.SOL_SOCKET, 26, struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(instructions))
        )
        for data in (b"ab?", b"ab!", b"a", b"!b!", b"a!b"):
            sender.sendto(data, receiver.getsockname())
        assert receiver.recv(100) == b"ab!"
        assert receiver.recv(100) == b"!b!"
        with pytest.raises(BlockingIOError):
            receiver.recv(100)


def test_a_socket_with_the_drop_all_filter_receives_nothing_until_it_is_removed() -> None:
    class SockFprog(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    so_attach_filter, so_detach_filter = 26, 27  # asm-generic/socket.h
    program = socket_filter_drop_all()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        receiver.setsockopt(socket.SOL_SOCKET, so_attach_filter, bytes(SockFprog(len(program) // 8, program)))
        # On loopback a datagram is delivered, or dropped, before sendto returns.
        sender.sendto(b"dropped", receiver.getsockname())
        with pytest.raises(BlockingIOError):
            receiver.recv(100)
        receiver.setsockopt(socket.SOL_SOCKET, so_detach_filter, 0)
        sender.sendto(b"delivered", receiver.getsockname())
        assert receiver.recv(100) == b"delivered"
