"""What a stopped call is, and what may become of it.

A handler is a function from `Call` to a `Verdict`. It answers at once where it can; where it must wait (for the agent,
say) it returns a coroutine that ends in a verdict, and the call is held until then. Handlers state an intent and know
no mechanism; a delivery (ptrace, seccomp notification) carries the intent out.

Threads: a handler's synchronous part runs in the delivery's thread, its coroutine in Trio's. What both touch is either
immutable or replaced whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

import attrs

from mirrord_syscalls.abi import Abi
from mirrord_syscalls.sockaddr import SocketAddress
from mirrord_syscalls.subscription import Rule, Subscription
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.supervisor.delivery.concerns import Concerns
from mirrord_trace.supervisor.launch import ProcessState, Program
from mirrord_trace.tree.creations import Maker

PATH_MAX = 4096
AT_FDCWD = -100


class MemoryFault(Exception):
    """The task's memory is not readable (or writable) at that address; the kernel would say EFAULT."""


class MemoryHidden(Exception):
    """The kernel does not let us look into this process (it is not dumpable, and we are not privileged)."""


class TaskGone(Exception):
    """The task died while its call was being handled; nobody waits for a verdict any more."""


class Memory(Protocol):
    """The address space of a stopped task."""

    def read(self, address: int, length: int) -> bytes:
        """Exactly `length` bytes; raises MemoryFault or TaskGone."""

    def write(self, address: int, data: bytes) -> None:
        """Writes all of `data`; raises MemoryFault or TaskGone."""

    def read_string(self, address: int, limit: int = PATH_MAX) -> bytes:
        """The bytes up to (without) the first NUL; never reads past the page that holds it. Raises MemoryFault."""


@attrs.define(eq=False)
class Call:
    """A system call that a task is about to make. `arguments` are raw 64-bit registers."""

    tid: int
    name: str
    arguments: tuple[int, ...]
    memory: Memory
    abi: Abi
    lend: Callable[[int, int], int] = borrow_descriptor
    """How the delivery duplicates a task's descriptor (task, number) into this process."""
    interrupted: bool = False
    """Set by the delivery when job control stops the process while the call is held."""

    def integer(self, index: int) -> int:
        """Argument `index` as the C int that the kernel takes it for."""
        value = self.arguments[index] & 0xFFFF_FFFF
        return value - 0x1_0000_0000 if value & 0x8000_0000 else value

    def socket_inode(self, descriptor: int) -> int | None:
        """The inode of the socket behind a descriptor; None when it is not an open socket."""
        try:
            link = os.readlink(f"/proc/{self.tid}/fd/{descriptor}")
        except OSError:
            return None
        return int(link[8:-1]) if link.startswith("socket:[") else None

    def borrow(self, descriptor: int) -> int:
        """A duplicate of the task's descriptor in this process, for the caller to close.

        From any thread, for as long as the call has no verdict. Raises OSError or TaskGone.
        """
        return self.lend(self.tid, descriptor)

    def shares_namespace(self, kind: str) -> bool:
        """Whether the task still lives in the supervisor's namespace of this kind ("net", "uts").

        One that hides itself (PR_SET_DUMPABLE) is taken to live there: what concerns the target is not let through.
        """
        try:
            return os.stat(f"/proc/{self.tid}/ns/{kind}").st_ino == _own_namespace(kind)
        except PermissionError:
            return True
        except OSError:
            return False

    def directory(self, descriptor: int) -> bytes | None:
        """The path behind a dirfd argument, AT_FDCWD included; None when there is none."""
        where = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
        try:
            return os.readlink(f"/proc/{self.tid}/{where}".encode())
        except OSError:
            return None

    def has_pending_signal(self) -> bool:
        """Whether a signal waits that this task would act on: pending for it or its process, not blocked, not ignored.

        A held call must end then: natively a signal interrupts it (signal(7)). So does a stop of the whole process,
        which another thread of it may have taken the signal for.
        """
        if self.interrupted:
            return True
        try:
            with open(f"/proc/{self.tid}/status", "rb") as status:
                fields = dict(line.split(b":", 1) for line in status if line.startswith((b"Sig", b"ShdPnd")))
            pending = int(fields[b"SigPnd"], 16) | int(fields[b"ShdPnd"], 16)
            return bool(pending & ~int(fields[b"SigBlk"], 16) & ~int(fields[b"SigIgn"], 16))
        except (OSError, KeyError, ValueError):
            return False


_namespaces: dict[str, int] = {}


def _own_namespace(kind: str) -> int:
    inode = _namespaces.get(kind)
    if inode is None:
        inode = _namespaces[kind] = os.stat(f"/proc/self/ns/{kind}").st_ino
    return inode


Done = Callable[[int], int]
"""Called once, in the delivery's thread, with the result of the call that ran (negative errno on failure; not for
results that mean "will be restarted"); what it returns is what the task sees. It must not block."""


def unchanged(result: int) -> int:
    """The `Done` that lets the task see what the kernel said."""
    return result


@attrs.frozen
class Pass:
    """The kernel carries the call out as it stands."""


PASS = Pass()


@attrs.frozen
class Fail:
    """The call fails with this errno and has no effect."""

    errno: int


@attrs.frozen
class Return:
    """The call is not made; it returns `value`, and each (address, data) of `writes` is in the task's memory."""

    value: int
    writes: tuple[tuple[int, bytes], ...] = ()


CONTROL_MAXIMUM = 4096
"""The longest buffer of control messages that a verdict may put in place of the call's own, in bytes."""


@attrs.frozen
class UseAddress:
    """The call (connect, sendto, sendmsg) is made with this address instead of its own."""

    address: SocketAddress
    done: Done = unchanged
    control: bytes | None = None
    """What sendmsg sends as control messages instead of its own; None: its own."""


@attrs.frozen
class UseAddresses:
    """A sendmmsg whose message number i goes to `addresses[i]`, or where it says where that is None.

    Fewer addresses than messages: only so many are sent, which the call may always do.
    """

    addresses: tuple[SocketAddress | None, ...]
    controls: Mapping[int, bytes] = attrs.field(factory=dict)
    """By message number, the control messages that take the place of its own."""


@attrs.frozen
class UsePath:
    """The call is made with this absolute path instead of its own."""

    path: bytes
    may_wait: bool = False
    """The path may lead into a file system that this process serves, or to a file that makes its opener wait.

    Whoever makes the call in the task's stead must be neither the delivery's thread nor Trio's.
    """
    is_guarded: bool = False
    """Whoever serves the path knows with whose rights files are reached there; the task's do not count."""
    is_name_of_new: bool = False
    """The call opens a file without a name (O_TMPFILE), and is to make one of this name instead: see `naming_flags`."""


def naming_flags(flags: int) -> int:
    """Flags of an open that makes a new file under a name, for those of one that makes it without."""
    return flags & ~os.O_TMPFILE | os.O_CREAT | os.O_EXCL


@attrs.frozen
class UsePaths:
    """The call (rename, link, …) is made with these absolute paths, one for each of its own in order; it may wait."""

    paths: tuple[bytes, ...]
    is_guarded: bool = False
    """See `UsePath`."""


@attrs.frozen
class PresentAddresses:
    """The call (getpeername, recvmsg, …) is made; every socket address it hands out is shown through `translate`."""

    translate: Callable[[SocketAddress], SocketAddress]
    control: Callable[[bytes], bytes] | None = None
    """What shows the control messages that recvmsg or recvmmsg hands out, in as many bytes; None: as they are."""
    accepted: Callable[[int], None] | None = None
    """Of an accept: gets the new socket's inode, after `translate` its peer and before the task has the socket.

    A delivery that does not make the socket itself need not tell.
    """


Verdict = Pass | Fail | Return | UseAddress | UseAddresses | UsePath | UsePaths | PresentAddresses
Handler = Callable[[Call], Verdict | Coroutine[Any, Any, Verdict]]
"""What decides on a call.

An OSError that it (or its coroutine) raises is the call's errno; but EBADF, ESRCH and ENOENT, which say that there is
nothing to look at, leave the call to the kernel, and so do MemoryFault and TaskGone. Any other exception is a fault of
ours and ends the whole tree.
"""


SENDING_CALLS: Final = frozenset({"connect", "sendto", "sendmsg", "sendmmsg"})
"""Calls that reach out to an address: what may be meant for the target must not go out from here unseen."""


def verdict_for_hidden(call: str) -> Verdict:
    """What becomes of a call whose arguments the kernel does not let us see."""
    return Fail(errno.EPERM) if call in SENDING_CALLS else PASS


def hidden_warning(pid: int) -> str:
    """What to tell the user then, once."""
    return f"process {pid} hides its memory (PR_SET_DUMPABLE): its connects and sends fail (EPERM); run as root"


def verdict_for(error: OSError) -> Verdict:
    """What becomes of a call whose handler could not look at it: see `Handler`."""
    if error.errno in (errno.EBADF, errno.ESRCH, errno.ENOENT):
        return PASS
    return Fail(error.errno or errno.EIO)


@attrs.frozen
class Interest:
    """A handler and the rule that says which calls it serves."""

    rule: Rule
    handler: Handler
    concerns: Concerns | None = None
    """Of a call that names one path: for which paths the handler wants to see it at all.

    A delivery may look for this first, and let go of a call without building a `Call`: most are nobody's concern.
    """


@attrs.frozen
class Handlers:
    """All that is to be intercepted. The subscription is derived from it: no call is stopped that nobody serves."""

    subscription: Subscription
    by_name: Mapping[str, Handler]
    concerns: Mapping[str, Concerns] = attrs.field(factory=dict)
    """For calls by name, see `Interest.concerns`."""

    @classmethod
    def of(cls, *interests: Interest) -> Handlers:
        """Raises ValueError when two different handlers want the same call."""
        by_name: dict[str, Handler] = {}
        for interest in interests:
            if by_name.setdefault(interest.rule.call, interest.handler) != interest.handler:
                raise ValueError(f"two handlers for {interest.rule.call}")
        concerns = {interest.rule.call: interest.concerns for interest in interests if interest.concerns is not None}
        return cls(Subscription.of(interest.rule for interest in interests), by_name, concerns)


class Launched(Protocol):
    """A child that is ready to become the user's program: forked, waiting for the word."""

    pid: int

    def release(self) -> None:
        """Lets the child go on to exec."""

    async def executed(self) -> None:
        """Returns when the program runs; raises Failure when it could not be started."""

    def close(self) -> None:
        """Gives what belongs to the start back; a child that was never released ends by that."""


class Delivery(Protocol):
    """Brings stopped calls to the handlers and carries their verdicts out, for one process tree."""

    def launch(self, program: Program, inherited: ProcessState) -> Launched:
        """Forks the child that will become the program. Call it in the main thread; raises Failure."""

    async def run(self, child: Launched, events: ProcessEvents) -> None:
        """Releases the child that `launch` made and follows its tree until the last task is gone.

        When cancelled it ends the tree first. Raises PermissionError when the kernel does not let us follow the child;
        it is not released then.
        """

    def process_ids(self) -> frozenset[int]:
        """The processes of the tree (thread group ids). From any thread."""

    def living_tasks(self) -> frozenset[int]:
        """A task of each process of the tree, one that still runs where the first thread has ended. From any thread."""

    def maker(self, thread: int) -> Maker:
        """Whose call a thread makes that is about to make a file, if it is one of ours; else its own. From any thread.

        `thread` is its id as this process sees it.
        """

    def expect_mapped_files(self) -> None:
        """From now on memory of the tree may be mapped from files that this process serves, so touching it may wait.

        From any thread.
        """


class ProcessEvents(Protocol):
    """What a delivery tells the launcher; called in Trio's thread."""

    def root_exited(self, status: int) -> None:
        """The first process ended, with this wait status."""

    def root_stopped(self, signal: int) -> None:
        """The first process was stopped by job control (a group-stop), by this signal."""

    def warn(self, text: str) -> None:
        """Something the user must know."""

    def explain(self, text: str) -> None:
        """What was chosen and why."""
