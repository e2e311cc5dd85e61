"""Names as this process would get them."""

import errno
import os

import pytest

from mirrord_syscalls.structs import Utsname
from mirrord_trace.supervisor.delivery.base import Fail, Return
from mirrord_trace.supervisor.handlers.names import NameHandlers, has_capability
from tests.mirrord_trace.support import Page, call_of

HANDLERS = NameHandlers(b"web-0", b"cluster")


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
    handlers = NameHandlers(b"web-0", b"cluster")
    memory = Page()
    name = memory.put(b"renamed")
    room = memory.put(bytes(Utsname.SIZE))
    assert handlers.set_name(call_of("sethostname", name, 7, memory=memory)) == Return(0)
    assert handlers.set_name(call_of("sethostname", name, 65, memory=memory)) == Fail(errno.EINVAL)
    verdict = handlers.uname(call_of("uname", room, memory=memory))
    assert isinstance(verdict, Return)
    assert Utsname.decode(verdict.writes[0][1]).nodename == b"renamed"
    assert os.uname().nodename != "renamed"
