"""Calls made here with another path, for a task that is this process: its memory is real, its kernel too."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import attrs
import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.structs import OpenHow
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, MemoryFault, TaskGone, UsePath
from mirrord_trace.supervisor.delivery.notify.lowering.credentials import Credentials
from mirrord_trace.supervisor.delivery.notify.lowering.paths import lower_path
from mirrord_trace.supervisor.delivery.notify.replies import Descriptor, NotifiedCall, Reply, Result
from mirrord_trace.supervisor.delivery.ptrace import requests
from tests.forking import forked
from tests.mirrord_trace.supervisor.notify.working import settled_in_worker
from tests.rights import NOBODY, as_user

ABI = native_abi()
CONTENT = b"198.18.0.10 shop\n"
ASKED = ctypes.create_string_buffer(b"/nowhere/at/all")
ASKED_AT = ctypes.addressof(ASKED)
NO_ADDRESS = 1 << 63
AT_EACCESS, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS = 0x200, 0x100, 0x7FF
RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x04, 0x08


class OwnMemory:
    """This process's, as /proc/self/mem shows it: a wrong address is an error and no crash."""

    def read(self, address: int, length: int) -> bytes:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            try:
                memory.seek(address)
                return memory.read(length)
            except (OSError, OverflowError) as error:
                raise MemoryFault(hex(address)) from error

    def write(self, address: int, data: bytes) -> None:
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            try:
                memory.seek(address)
                memory.write(data)
            except (OSError, OverflowError) as error:
                raise MemoryFault(hex(address)) from error

    def read_string(self, address: int, limit: int = 4096) -> bytes:
        return ctypes.string_at(address)


@attrs.define
class StandIn:
    """A file and calls that are made with it in place of their own."""

    path: Path
    tid: int = attrs.field(factory=os.getpid)
    """Whose call it is. The memory is this process's all the same."""

    def call(self, name: str, *arguments: int, gone: bool = False) -> Reply:
        def check() -> None:
            if gone:
                raise TaskGone("ended")

        padded = (*(argument & (1 << 64) - 1 for argument in arguments), *(0,) * (6 - len(arguments)))
        call = NotifiedCall(self.tid, name, padded, OwnMemory(), ABI, check=check)
        return settled_in_worker(lower_path(call, UsePath(os.fsencode(self.path))))

    def opened(self, name: str, *arguments: int) -> tuple[int, bool]:
        reply = self.call(name, *arguments)
        assert isinstance(reply, Descriptor), reply
        return reply.number, reply.close_on_exec


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """Everybody may search the way to the file, so that its own mode decides."""
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory) / "hosts"
        path.write_bytes(CONTENT)
        yield StandIn(path)


@pytest.fixture(autouse=True)
def every_descriptor_is_given_or_closed() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def having(*names: str) -> list[str]:
    """Those calls that this architecture has."""
    return [name for name in names if name in ABI.numbers]


def how(flags: int, resolve: int = 0, more: bytes = b"") -> ctypes.Array[ctypes.c_char]:
    raw = OpenHow(flags, 0, resolve).encode() + more
    return ctypes.create_string_buffer(raw, len(raw))


def read_and_close(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_CLOEXEC, os.O_RDONLY | os.O_NONBLOCK])
@pytest.mark.parametrize("directory", [AT_FDCWD, -7])
def test_openat_opens_the_other_file(stand_in: StandIn, flags: int, directory: int) -> None:
    descriptor, close_on_exec = stand_in.opened("openat", directory, ASKED_AT, flags, 0)
    assert close_on_exec == bool(flags & os.O_CLOEXEC)
    assert not os.get_inheritable(descriptor)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~0o100000 == flags & ~os.O_CLOEXEC  # O_LARGEFILE
    assert read_and_close(descriptor) == CONTENT


@pytest.mark.parametrize("name", having("open"))
def test_open_without_a_directory(stand_in: StandIn, name: str) -> None:
    descriptor, close_on_exec = stand_in.opened(name, ASKED_AT, os.O_RDONLY)
    assert not close_on_exec
    assert read_and_close(descriptor) == CONTENT


def test_what_the_kernel_refuses_to_open_is_its_own_error(stand_in: StandIn) -> None:
    for flags, expected in [(os.O_DIRECTORY, errno.ENOTDIR), (os.O_CREAT | os.O_EXCL, errno.EEXIST)]:
        assert stand_in.call("openat", AT_FDCWD, ASKED_AT, flags) == Result(-expected)
    missing = StandIn(stand_in.path / "nothing")
    assert missing.call("openat", AT_FDCWD, ASKED_AT, os.O_RDONLY) == Result(-errno.ENOTDIR)
    assert missing.call("openat", AT_FDCWD, ASKED_AT, os.O_PATH) == Result(-errno.ENOTDIR)


def test_o_path_of_a_task_that_cannot_be_traced_gets_a_readable_descriptor(stand_in: StandIn) -> None:
    descriptor, close_on_exec = stand_in.opened("openat", AT_FDCWD, ASKED_AT, os.O_PATH | os.O_CLOEXEC)
    assert close_on_exec
    assert read_and_close(descriptor) == CONTENT
    assert stand_in.call("openat", AT_FDCWD, ASKED_AT, os.O_PATH | os.O_DIRECTORY) == Result(-errno.ENOTDIR)


def test_o_path_of_a_task_that_cannot_be_traced_waits_for_no_writer(stand_in: StandIn) -> None:
    fifo = stand_in.path.with_name("fifo")
    os.mkfifo(fifo)
    os.close(StandIn(fifo).opened("openat", AT_FDCWD, ASKED_AT, os.O_PATH)[0])


def test_openat2(stand_in: StandIn) -> None:
    plain = how(os.O_RDONLY | os.O_CLOEXEC, RESOLVE_NO_SYMLINKS, bytes(8))
    descriptor, close_on_exec = stand_in.opened("openat2", AT_FDCWD, ASKED_AT, ctypes.addressof(plain), len(plain))
    assert close_on_exec
    assert read_and_close(descriptor) == CONTENT
    assert plain.raw == OpenHow(os.O_RDONLY | os.O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS).encode() + bytes(8)


@pytest.mark.parametrize(
    ("structure", "size", "expected"),
    [
        (how(0), 23, errno.EINVAL),
        (how(0), 4097, errno.E2BIG),
        (how(0, 0, b"\0\0\0\1"), 28, errno.E2BIG),
        (how(os.O_PATH | os.O_APPEND), 24, errno.EINVAL),
        (how(1 << 40), 24, errno.EINVAL),
        (how(0, RESOLVE_BENEATH), 24, errno.EXDEV),
    ],
)
def test_openat2_refuses(stand_in: StandIn, structure: ctypes.Array[ctypes.c_char], size: int, expected: int) -> None:
    assert stand_in.call("openat2", AT_FDCWD, ASKED_AT, ctypes.addressof(structure), size) == Result(-expected)


def test_an_open_how_that_is_not_there(stand_in: StandIn) -> None:
    with pytest.raises(MemoryFault):
        stand_in.call("openat2", AT_FDCWD, ASKED_AT, NO_ADDRESS, 24)


def natively(name: str, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ABI.numbers[name], *(ctypes.c_long(argument) for argument in arguments))
    return int(result) if result >= 0 else -ctypes.get_errno()


def attribute_call(name: str, path: int, buffer: int) -> tuple[int, ...]:
    """The arguments of a call that tells a file's attributes."""
    return {
        "stat": (path, buffer),
        "lstat": (path, buffer),
        "newfstatat": (AT_FDCWD, path, buffer, AT_SYMLINK_NOFOLLOW),
        "statx": (AT_FDCWD, path, 0, STATX_BASIC_STATS, buffer),
    }[name]


@pytest.mark.parametrize("name", having("stat", "lstat", "newfstatat", "statx"))
def test_attributes_are_those_of_the_other_file(stand_in: StandIn, name: str) -> None:
    real_path = ctypes.create_string_buffer(os.fsencode(stand_in.path))
    expected, seen = (ctypes.create_string_buffer(b"\xaa" * 300, 300) for _ in range(2))
    assert natively(name, *attribute_call(name, ctypes.addressof(real_path), ctypes.addressof(expected))) == 0
    assert stand_in.call(name, *attribute_call(name, ASKED_AT, ctypes.addressof(seen))) == Result(0)
    assert seen.raw == expected.raw

    missing = StandIn(stand_in.path.with_name("missing"))
    assert missing.call(name, *attribute_call(name, ASKED_AT, NO_ADDRESS)) == Result(-errno.ENOENT)
    with pytest.raises(MemoryFault):
        stand_in.call(name, *attribute_call(name, ASKED_AT, NO_ADDRESS))
    with pytest.raises(TaskGone):
        stand_in.call(name, *attribute_call(name, ASKED_AT, ctypes.addressof(seen)), gone=True)


def test_flags_that_the_kernel_does_not_know(stand_in: StandIn) -> None:
    buffer = ctypes.create_string_buffer(256)
    assert stand_in.call("newfstatat", AT_FDCWD, ASKED_AT, ctypes.addressof(buffer), 1) == Result(-errno.EINVAL)
    assert stand_in.call("faccessat2", AT_FDCWD, ASKED_AT, os.R_OK, 1) == Result(-errno.EINVAL)
    assert stand_in.call("faccessat", AT_FDCWD, ASKED_AT, 0o10) == Result(-errno.EINVAL)


@pytest.mark.parametrize("name", ["faccessat", "faccessat2"])
def test_access(stand_in: StandIn, name: str) -> None:
    for mode in (os.F_OK, os.R_OK, os.R_OK | os.W_OK):
        assert stand_in.call(name, AT_FDCWD, ASKED_AT, mode) == Result(0)
    assert stand_in.call(name, AT_FDCWD, ASKED_AT, os.X_OK) == Result(-errno.EACCES)
    assert stand_in.call("faccessat2", AT_FDCWD, ASKED_AT, os.X_OK, AT_EACCESS) == Result(-errno.EACCES)
    assert StandIn(stand_in.path / "below").call(name, AT_FDCWD, ASKED_AT, os.F_OK) == Result(-errno.ENOTDIR)


@pytest.mark.parametrize("name", having("access"))
def test_access_without_a_directory(stand_in: StandIn, name: str) -> None:
    assert stand_in.call(name, ASKED_AT, os.R_OK) == Result(0)
    assert stand_in.call(name, ASKED_AT, os.X_OK) == Result(-errno.EACCES)


LINKED = b"../run/resolv.conf"


@pytest.mark.parametrize("name", having("readlink", "readlinkat"))
@pytest.mark.parametrize(("room", "expected"), [(100, LINKED), (5, LINKED[:5]), (2**31 - 1, LINKED)])
def test_readlink(stand_in: StandIn, tmp_path: Path, name: str, room: int, expected: bytes) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.fsdecode(LINKED))
    buffer = ctypes.create_string_buffer(b"\xaa" * 100, 100)
    address = ctypes.addressof(buffer)
    arguments = (AT_FDCWD, ASKED_AT, address, room) if name == "readlinkat" else (ASKED_AT, address, room)
    assert StandIn(link).call(name, *arguments) == Result(len(expected))
    assert buffer.raw == expected + b"\xaa" * (100 - len(expected))
    assert stand_in.call(name, *arguments) == Result(-errno.EINVAL)  # no symbolic link


@pytest.mark.parametrize("room", [0, -1, -(2**31)])
def test_readlink_without_room(stand_in: StandIn, room: int) -> None:
    assert stand_in.call("readlinkat", AT_FDCWD, ASKED_AT, NO_ADDRESS, room) == Result(-errno.EINVAL)


SOME_GROUP = 4711


@contextmanager
def somebody_else(**options: Any) -> Iterator[int]:
    """A task with other rights. Needs root, as all tests do that put off rights."""
    child = subprocess.Popen(["sleep", "1000"], **options)
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


@contextmanager
def debugged(tid: int) -> Iterator[None]:
    """Another process traces the task."""

    def trace(begin: Callable[[], None]) -> None:
        requests.seize(tid, 0)
        begin()
        signal.pause()

    with forked(trace):
        yield


SOMEBODYS_RIGHTS = pytest.mark.parametrize(
    ("mode", "groups", "expected"),
    [
        (0o644, [], 0),
        (0o640, [SOME_GROUP], 0),
        (0o640, [], errno.EACCES),
        (0o600, [SOME_GROUP], errno.EACCES),
        (0o604, [SOME_GROUP], errno.EACCES),  # the group's bits decide, where there is a group
    ],
)


@SOMEBODYS_RIGHTS
def test_o_path_of_a_debuggers_task_needs_the_right_to_read(
    stand_in: StandIn, mode: int, groups: list[int], expected: int
) -> None:
    os.chown(stand_in.path, 0, SOME_GROUP)
    stand_in.path.chmod(mode)
    plain = how(os.O_PATH)
    with somebody_else(user=NOBODY, group=NOBODY, extra_groups=groups) as tid, debugged(tid):
        theirs = StandIn(stand_in.path, tid)
        for reply in (
            theirs.call("openat", AT_FDCWD, ASKED_AT, os.O_PATH),
            theirs.call("openat2", AT_FDCWD, ASKED_AT, ctypes.addressof(plain), len(plain)),
        ):
            if expected:
                assert reply == Result(-expected)
            else:
                assert isinstance(reply, Descriptor)
                assert read_and_close(reply.number) == CONTENT


@SOMEBODYS_RIGHTS
def test_files_are_read_with_the_tasks_rights(stand_in: StandIn, mode: int, groups: list[int], expected: int) -> None:
    os.chown(stand_in.path, 0, SOME_GROUP)
    stand_in.path.chmod(mode)
    before = Credentials.of(os.getpid())
    with somebody_else(user=NOBODY, group=NOBODY, extra_groups=groups) as tid:
        theirs = StandIn(stand_in.path, tid)
        reply = theirs.call("openat", AT_FDCWD, ASKED_AT, os.O_RDONLY)
        if expected:
            assert reply == Result(-expected)
        else:
            assert isinstance(reply, Descriptor)
            assert read_and_close(reply.number) == CONTENT
        for name in having("access", "faccessat", "faccessat2"):
            where = (ASKED_AT,) if name == "access" else (AT_FDCWD, ASKED_AT)
            assert theirs.call(name, *where, os.R_OK) == Result(-expected)
            assert theirs.call(name, *where, os.W_OK) == Result(-errno.EACCES)
    assert Credentials.of(os.getpid()) == before
    assert read_and_close(stand_in.opened("openat", AT_FDCWD, ASKED_AT, os.O_RDWR)[0]) == CONTENT


WITHOUT_CAPABILITIES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


@contextmanager
def running(command: list[str]) -> Iterator[int]:
    """A task that is what it will be: it has said so."""
    with subprocess.Popen([*command, "sh", "-c", "echo; exec sleep 1000"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.mark.parametrize(
    ("command", "reads", "writes", "is_accessible"),
    [
        ([], True, True, True),
        (WITHOUT_CAPABILITIES, False, False, False),
        (as_user(reads_everything=True), True, False, False),
    ],
)
def test_capabilities_are_the_tasks(
    stand_in: StandIn, command: list[str], reads: bool, writes: bool, is_accessible: bool
) -> None:
    os.chown(stand_in.path, 4712, 4712)
    stand_in.path.chmod(0o600)
    before = Credentials.of(os.getpid())
    with running(command) as tid:
        theirs = StandIn(stand_in.path, tid)
        for flags, may in ((os.O_RDONLY, reads), (os.O_WRONLY, writes)):
            reply = theirs.call("openat", AT_FDCWD, ASKED_AT, flags)
            assert (reply != Result(-errno.EACCES)) == may
            if isinstance(reply, Descriptor):
                os.close(reply.number)
        allowed = theirs.call("faccessat2", AT_FDCWD, ASKED_AT, os.R_OK, 0)
        assert allowed == Result(0 if is_accessible else -errno.EACCES)
        assert theirs.call("faccessat2", AT_FDCWD, ASKED_AT, os.R_OK, AT_EACCESS) == Result(
            0 if reads else -errno.EACCES
        )
    assert Credentials.of(os.getpid()) == before


def test_capabilities_in_a_user_namespace_of_its_own_count_for_nothing(stand_in: StandIn) -> None:
    os.chown(stand_in.path, 4712, 4712)
    stand_in.path.chmod(0o600)
    with running(["unshare", "--user", "--map-root-user"]) as tid:
        assert StandIn(stand_in.path, tid).call("openat", AT_FDCWD, ASKED_AT, os.O_RDONLY) == Result(-errno.EACCES)


def test_access_asks_for_the_real_user(stand_in: StandIn) -> None:
    stand_in.path.chmod(0o600)
    program = "import os, time; os.setresuid(65534, 0, 0); print(flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        theirs = StandIn(stand_in.path, child.pid)
        assert theirs.call("faccessat2", AT_FDCWD, ASKED_AT, os.R_OK, 0) == Result(-errno.EACCES)
        assert theirs.call("faccessat2", AT_FDCWD, ASKED_AT, os.R_OK, AT_EACCESS) == Result(0)
        child.kill()


def test_a_task_that_is_gone_has_no_rights(stand_in: StandIn) -> None:
    with somebody_else() as tid:
        pass
    with pytest.raises(TaskGone):
        StandIn(stand_in.path, tid).call("openat", AT_FDCWD, ASKED_AT, os.O_RDONLY)
