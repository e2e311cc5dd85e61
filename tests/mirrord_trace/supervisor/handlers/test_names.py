"""Names as this process would get them."""

import errno
import os

import pytest

from mirrord_syscalls.structs import OpenHow, Utsname
from mirrord_trace.supervisor.delivery.base import AT_FDCWD, PASS, Fail, Return, UsePath, Verdict
from mirrord_trace.supervisor.handlers.names import NameHandlers, has_capability
from tests.mirrord_trace.support import Page, call_of

HANDLERS = NameHandlers(b"web-0", b"cluster", {b"/etc/hosts": b"/stand-in"})
STAND_IN = UsePath(b"/stand-in")


def verdict_on(name: str, path: bytes, *, directory: int = AT_FDCWD, flags: int = 0) -> Verdict:
    memory = Page()
    place = memory.put(path + b"\0")
    if name == "openat2":
        how = memory.put(OpenHow(flags, 0, 0).encode())
        return HANDLERS.read_path(call_of(name, directory, place, how, OpenHow.SIZE, memory=memory))
    arguments = (place, flags) if name in ("open", "stat", "access", "readlink") else (directory, place, flags)
    return HANDLERS.read_path(call_of(name, *arguments, memory=memory))


@pytest.mark.parametrize("name", ["open", "openat", "openat2", "stat", "newfstatat", "access", "readlink", "statx"])
def test_names_files_are_read_where_their_stand_ins_lie(name: str) -> None:
    assert verdict_on(name, b"/etc/hosts") == STAND_IN
    assert verdict_on(name, b"/etc/resolv.conf") == Fail(errno.ENOENT)  # the target has none
    assert verdict_on(name, b"/etc/passwd") is PASS
    assert verdict_on(name, b"/home/hosts") is PASS


@pytest.mark.parametrize("name", ["open", "openat", "openat2"])
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC])
def test_writing_stays_here(name: str, flags: int) -> None:
    assert verdict_on(name, b"/etc/hosts", flags=flags) is PASS


def test_relative_paths_follow_their_directory() -> None:
    etc, tmp = os.open("/etc", os.O_RDONLY), os.open("/tmp", os.O_RDONLY)
    try:
        assert verdict_on("openat", b"hosts", directory=etc) == STAND_IN
        assert verdict_on("openat", b"hosts", directory=tmp) is PASS
        assert verdict_on("openat", b"../etc/hosts", directory=tmp) == STAND_IN
        assert verdict_on("openat", b"hosts", directory=9999) is PASS
        assert verdict_on("openat", b"/etc/hosts", directory=9999) == STAND_IN
    finally:
        os.close(etc)
        os.close(tmp)


def test_uname_names_the_target_and_this_machines_kernel() -> None:
    memory = Page()
    place = memory.put(bytes(Utsname.SIZE))
    verdict = HANDLERS.uname(call_of("uname", place, memory=memory))
    assert isinstance(verdict, Return)
    ((where, written),) = verdict.writes
    shown = Utsname.decode(written)
    assert (verdict.value, where, shown.nodename, shown.domainname) == (0, place, b"web-0", b"cluster")
    assert shown.release.decode() == os.uname().release


@pytest.mark.skipif(not has_capability(os.getpid(), 21), reason="setting a host name needs CAP_SYS_ADMIN")
def test_a_name_that_is_set_is_seen() -> None:
    handlers = NameHandlers(b"web-0", b"cluster", {})
    memory = Page()
    name = memory.put(b"renamed")
    room = memory.put(bytes(Utsname.SIZE))
    assert handlers.set_name(call_of("sethostname", name, 7, memory=memory)) == Return(0)
    assert handlers.set_name(call_of("sethostname", name, 65, memory=memory)) == Fail(errno.EINVAL)
    verdict = handlers.uname(call_of("uname", room, memory=memory))
    assert isinstance(verdict, Return)
    assert Utsname.decode(verdict.writes[0][1]).nodename == b"renamed"
    assert os.uname().nodename != "renamed"
