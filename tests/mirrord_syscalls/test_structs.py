import ctypes
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mirrord_syscalls.abi import ABIS
from mirrord_syscalls.structs import (
    ControlMessage,
    Iovec,
    Mmsghdr,
    Msghdr,
    OpenHow,
    SignalfdSiginfo,
    Statfs,
    Utsname,
    decode_control,
    decode_iovecs,
    encode_control,
)
from tests.mirrord_syscalls.compiler import check_in_c, output_of

words = st.integers(0, 2**64 - 1)
halves = st.integers(0, 2**32 - 1)
integers = st.integers(-(2**31), 2**31 - 1)
padding = st.binary(max_size=16)

msghdrs = st.builds(Msghdr, words, halves, words, words, words, words, integers)
mmsghdrs = st.builds(Mmsghdr, msghdrs, halves)
iovecs = st.builds(Iovec, words, words)
utsname_fields = st.binary(max_size=64).filter(lambda field: b"\0" not in field)
utsnames = st.builds(Utsname, *[utsname_fields] * 6)
open_hows = st.builds(OpenHow, words, words, words)
messages = st.lists(st.builds(ControlMessage, integers, integers, st.binary(max_size=40))).map(tuple)


@given(msghdrs | mmsghdrs | iovecs, padding, padding)
def test_what_is_encoded_decodes_to_itself_anywhere(
    value: Msghdr | Mmsghdr | Iovec, before: bytes, after: bytes
) -> None:
    raw = value.encode()
    assert len(raw) == value.SIZE
    assert value.decode(raw) == value
    assert value.decode(bytearray(before + raw + after), len(before)) == value
    assert value.decode(memoryview(before + raw + after), len(before)) == value


@given(utsnames, padding)
def test_a_utsname_decodes_to_itself(value: Utsname, after: bytes) -> None:
    raw = value.encode()
    assert len(raw) == Utsname.SIZE
    assert Utsname.decode(raw + after) == value
    assert Utsname.decode(memoryview(raw)) == value


@given(open_hows, padding.map(lambda bytes_: bytes(len(bytes_))))
def test_an_open_how_decodes_to_itself_and_may_grow_by_zeros(value: OpenHow, after: bytes) -> None:
    assert len(value.encode()) == OpenHow.SIZE
    assert OpenHow.decode(value.encode() + after) == value


def test_an_open_how_with_unknown_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="not zero"):
        OpenHow.decode(OpenHow(0, 0, 0).encode() + b"\0\0\1")


@pytest.mark.parametrize("kind", [Msghdr, Mmsghdr, Iovec, Utsname, OpenHow, SignalfdSiginfo])
def test_a_structure_that_is_cut_is_refused(
    kind: type[Msghdr | Mmsghdr | Iovec | Utsname | OpenHow | SignalfdSiginfo],
) -> None:
    kind.decode(bytes(kind.SIZE))
    for length in (0, 1, kind.SIZE - 1):
        with pytest.raises(ValueError, match=f"takes {kind.SIZE} bytes, not {length}"):
            kind.decode(bytes(length))


def test_a_structure_behind_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="takes 16 bytes, not 0"):
        Iovec.decode(bytes(16), 20)


@given(st.lists(iovecs))
def test_an_array_of_iovecs_decodes_to_itself(pieces: list[Iovec]) -> None:
    raw = b"".join(piece.encode() for piece in pieces)
    assert decode_iovecs(raw) == tuple(pieces)
    with pytest.raises(ValueError, match="multiple of 16"):
        decode_iovecs(raw + b"\0")


@pytest.mark.parametrize("field", [b"x" * 65, b"a\0b"])
def test_a_utsname_field_that_does_not_fit_is_refused(field: bytes) -> None:
    with pytest.raises(ValueError, match="up to 64 bytes"):
        Utsname(b"Linux", field, b"", b"", b"", b"").encode()


def test_what_uname_writes_is_what_the_system_says() -> None:
    buffer = ctypes.create_string_buffer(Utsname.SIZE)
    assert ctypes.CDLL(None).uname(buffer) == 0
    value = Utsname.decode(buffer.raw)
    said = os.uname()
    assert (value.sysname, value.nodename, value.release) == tuple(os.fsencode(name) for name in said[:3])
    assert (value.version, value.machine) == (os.fsencode(said.version), os.fsencode(said.machine))
    assert value.encode() == buffer.raw


@given(messages)
def test_control_messages_decode_to_themselves(row: tuple[ControlMessage, ...]) -> None:
    raw = encode_control(row)
    assert len(raw) == sum(socket.CMSG_SPACE(len(message.data)) for message in row)
    assert decode_control(raw) == decode_control(memoryview(raw)) == row


@given(messages, st.data())
def test_a_cut_control_buffer_gives_what_is_there(row: tuple[ControlMessage, ...], data: st.DataObject) -> None:
    raw = encode_control(row)
    found = decode_control(raw[: data.draw(st.integers(0, len(raw)))])
    assert len(found) <= len(row)
    for number, message in enumerate(found):
        assert (message.level, message.type) == (row[number].level, row[number].type)
        if number < len(found) - 1:
            assert message == row[number]
        else:
            assert row[number].data.startswith(message.data)


@pytest.mark.parametrize("length", [0, 1, 15])
def test_a_control_message_shorter_than_its_header_ends_the_row(length: int) -> None:
    whole = ControlMessage(1, 2, b"data")
    raw = encode_control([whole]) + struct.pack("<Qii", length, 3, 4) + encode_control([whole])
    assert decode_control(raw) == (whole,)


@given(st.binary(max_size=200))
@example(struct.pack("<Qii", 0, 1, 1) * 4)
@example(struct.pack("<Qii", 15, 1, 1) * 4)
@example(struct.pack("<Qii", 2**64 - 1, 1, 1) * 4)
@example(struct.pack("<Qii", 2**63, 1, 1) * 4)
def test_the_walk_over_any_control_buffer_ends(raw: bytes) -> None:
    assert sum(16 + len(message.data) for message in decode_control(raw)) <= len(raw)


def test_control_messages_of_the_kernel_are_read_as_python_reads_them() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        right.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_TIMESTAMP", 29), 1)
        rights = ControlMessage(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("<i", left.fileno()))
        payload, control = ctypes.create_string_buffer(b"x", 1), ctypes.create_string_buffer(encode_control([rights]))
        iov = ctypes.create_string_buffer(Iovec(ctypes.addressof(payload), 1).encode(), Iovec.SIZE)
        space = socket.CMSG_SPACE(4)
        header = Msghdr(0, 0, ctypes.addressof(iov), 1, ctypes.addressof(control), space, 0)
        for _ in range(2):
            assert libc.sendmsg(left.fileno(), header.encode(), 0) == 1

        received = ctypes.create_string_buffer(256)
        writable = ctypes.create_string_buffer(
            Msghdr(0, 0, ctypes.addressof(iov), 1, ctypes.addressof(received), 256, 0).encode(), Msghdr.SIZE
        )
        assert libc.recvmsg(right.fileno(), writable, 0) == 1
        ours = decode_control(received.raw[: Msghdr.decode(writable.raw).control_length])
        _, theirs, _, _ = right.recvmsg(1, 256)
        kinds = [(level, kind, len(data)) for level, kind, data in theirs]
        assert [(message.level, message.type, len(message.data)) for message in ours] == kinds
        assert (socket.SOL_SOCKET, socket.SCM_RIGHTS, 4) in kinds
        assert (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, 12) in kinds
        for message in (*ours, *(ControlMessage(*fields) for fields in theirs)):
            if message.type == socket.SCM_RIGHTS:
                os.close(struct.unpack("<i", message.data)[0])


def test_a_signal_is_read_as_the_kernel_wrote_it(tmp_path: Path) -> None:
    # glibc's structure, so that status and the other fields behind the kernel's reserved ones are checked too.
    program = """
        #include <signal.h>
        #include <stdio.h>
        #include <sys/signalfd.h>
        int main(void) {
            struct signalfd_siginfo info = {
                .ssi_signo = 17, .ssi_errno = -2, .ssi_code = -60, .ssi_pid = 4000000001u, .ssi_uid = 4000000002u,
                .ssi_fd = -1, .ssi_tid = ~0u, .ssi_band = ~0u, .ssi_overrun = ~0u, .ssi_trapno = ~0u,
                .ssi_status = -9, .ssi_int = -1, .ssi_ptr = ~0ull, .ssi_utime = ~0ull, .ssi_stime = ~0ull,
            };
            for (unsigned at = 0; at < sizeof info; at++) printf("%02x", ((unsigned char *)&info)[at]);
        }
    """
    raw = bytes.fromhex(output_of(program, tmp_path))
    expected = SignalfdSiginfo(signo=17, errno=-2, code=-60, pid=4000000001, uid=4000000002, status=-9)
    assert SignalfdSiginfo.decode(raw) == expected
    assert SignalfdSiginfo.decode(bytes(128) + raw, 128) == expected


def test_a_child_signal_names_child_and_status() -> None:
    # In a process of its own: another thread of this one, which does not block the signal, could get it instead.
    program = """
import ctypes, os, signal
libc = ctypes.CDLL(None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
mask = ctypes.create_string_buffer(128)
libc.sigemptyset(mask)
libc.sigaddset(mask, signal.SIGCHLD)
descriptor = libc.signalfd(-1, mask, 0)
child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 42"], {})
print(child, os.read(descriptor, 128).hex())
"""
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    child, raw = result.stdout.split()
    info = SignalfdSiginfo.decode(bytes.fromhex(raw))
    assert (info.signo, info.pid, info.uid, info.status) == (signal.SIGCHLD, int(child), os.getuid(), 42)
    assert info.code == os.CLD_EXITED


def test_a_file_system_that_counts_nothing() -> None:
    """NFS says -1 where it does not know (fs/nfs/super.c)."""
    told = Statfs(0x6969, 4096, 2**64 - 1, 0, 0, 2**64 - 1, 2**64 - 1, 2**64 - 1, 255, 4096, 0)
    assert Statfs.decode(told.encode()) == told


def test_a_real_file_system_is_told() -> None:
    libc, room = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(Statfs.SIZE)
    assert libc.statfs(b"/proc", room) == 0
    told, expected = Statfs.decode(room.raw), os.statvfs("/proc")
    assert (told.type, told.bsize, told.namelen) == (0x9FA0, expected.f_bsize, expected.f_namemax)
    assert told.encode() == room.raw


HEADERS = [
    "stddef.h",
    "sys/types.h",
    "sys/socket.h",
    "sys/uio.h",
    "sys/utsname.h",
    "sys/signalfd.h",
    "sys/statfs.h",
    "linux/openat2.h",
]


@pytest.mark.parametrize("architecture", ABIS)
def test_layouts_are_those_of_the_c_library(architecture: str, tmp_path: Path) -> None:
    def places(structure: str, **offsets: int) -> list[str]:
        return [f"offsetof({structure}, {field}) == {offset}" for field, offset in offsets.items()]

    claims = [
        f"sizeof(struct msghdr) == {Msghdr.SIZE}",
        f"offsetof(struct msghdr, msg_flags) == {Msghdr.FLAGS_OFFSET}",
        *places("struct msghdr", msg_name=0, msg_namelen=8, msg_iov=16, msg_iovlen=24, msg_control=32),
        *places("struct msghdr", msg_controllen=40),
        f"sizeof(struct mmsghdr) == {Mmsghdr.SIZE}",
        f"offsetof(struct mmsghdr, msg_len) == {Mmsghdr.LENGTH_OFFSET}",
        f"sizeof(struct iovec) == {Iovec.SIZE}",
        *places("struct iovec", iov_base=0, iov_len=8),
        f"sizeof(struct utsname) == {Utsname.SIZE}",
        *places("struct utsname", sysname=0, nodename=65, release=130, version=195, machine=260),
        f"sizeof(struct open_how) == {OpenHow.SIZE}",
        *places("struct open_how", flags=0, mode=8, resolve=16),
        f"sizeof(struct signalfd_siginfo) == {SignalfdSiginfo.SIZE}",
        *places("struct signalfd_siginfo", ssi_signo=0, ssi_code=8, ssi_pid=12, ssi_uid=16, ssi_status=40),
        f"sizeof(struct statfs) == {Statfs.SIZE}",
        *places("struct statfs", f_bsize=8, f_blocks=16, f_bavail=32, f_ffree=48, f_fsid=56, f_namelen=64),
        *places("struct statfs", f_frsize=72, f_flags=80),
        "sizeof(struct cmsghdr) == 16",
        *places("struct cmsghdr", cmsg_level=8, cmsg_type=12),
        "CMSG_SPACE(1) == 24 && CMSG_LEN(1) == 17 && CMSG_SPACE(8) == 24",
    ]
    check_in_c(architecture, HEADERS, claims, tmp_path)
