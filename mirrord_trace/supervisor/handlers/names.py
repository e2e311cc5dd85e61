"""Names: the host and domain name of uname(2). The files that a resolver reads are among other files: `files`.

No resolver library is hooked. The process reads the target's resolv.conf and hosts, and its queries then travel like
any other datagram.
"""

from __future__ import annotations

import ctypes
import errno

import attrs

from mirrord_syscalls.structs import Utsname
from mirrord_syscalls.subscription import Rule
from mirrord_trace.supervisor.delivery.base import PASS, Call, Fail, Interest, Return, Verdict

_CAP_SYS_ADMIN = 21
_NAME_MAXIMUM = 64  # __NEW_UTS_LEN
_FIELDS_BY_SETTER = {"sethostname": "nodename", "setdomainname": "domainname"}


@attrs.define(eq=False)
class NameHandlers:
    """The target's names, for every process of the tree that has no UTS namespace of its own."""

    hostname: bytes
    domain_name: bytes
    _names: Utsname = attrs.field(init=False)

    @_names.default
    def _of_the_target(self) -> Utsname:
        return attrs.evolve(_local_utsname(), nodename=self.hostname, domainname=self.domain_name)

    def interests(self) -> tuple[Interest, ...]:
        """Our calls."""
        return (
            Interest(Rule("uname"), self.uname),
            *(Interest(Rule(name), self.set_name) for name in _FIELDS_BY_SETTER),
        )

    def uname(self, call: Call) -> Verdict:
        """uname(2) with the target's host name; a UTS namespace that the process made itself keeps its own."""
        if not call.shares_namespace("uts"):
            return PASS
        return Return(0, ((call.arguments[0], self._names.encode()),))

    def set_name(self, call: Call) -> Verdict:
        """sethostname(2), setdomainname(2): the process tree sees what it set; nothing is renamed, here or there."""
        if not call.shares_namespace("uts"):
            return PASS
        if not has_capability(call.tid, _CAP_SYS_ADMIN):
            return Fail(errno.EPERM)
        length = call.integer(1)
        if not 0 <= length <= _NAME_MAXIMUM:
            return Fail(errno.EINVAL)
        name = call.memory.read(call.arguments[0], length).partition(b"\0")[0]
        self._names = attrs.evolve(self._names, **{_FIELDS_BY_SETTER[call.name]: name})
        return Return(0)


def has_capability(tid: int, number: int) -> bool:
    """Whether a task has a capability in effect (proc_pid_status(5), capabilities(7))."""
    try:
        with open(f"/proc/{tid}/status", "rb") as status:
            return any(line.startswith(b"CapEff:") and int(line[7:], 16) >> number & 1 for line in status)
    except OSError:
        return False


def _local_utsname() -> Utsname:
    buffer = ctypes.create_string_buffer(Utsname.SIZE)
    if ctypes.CDLL(None, use_errno=True).uname(buffer) != 0:
        raise OSError(ctypes.get_errno(), "uname")
    return Utsname.decode(buffer.raw)
