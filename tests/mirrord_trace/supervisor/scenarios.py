"""Handlers for tests, by the name of the scenario that they make.

A number in the environment variable PORT is where connects are sent. The calls that no program of the tests needs for
itself (getppid, getpriority, …) serve as signs: a program makes one to have something done to it.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address
from typing import Any, cast

import attrs
import trio

from mirrord_syscalls.abi import ARGUMENTS, ArgumentKind, native_abi
from mirrord_syscalls.sockaddr import Inet4, SocketAddress, decode_sockaddr
from mirrord_syscalls.structs import Mmsghdr
from mirrord_syscalls.subscription import Equals, Rule
from mirrord_trace.config.model import FilesConfiguration
from mirrord_trace.policy.default_paths import Surroundings
from mirrord_trace.policy.files import FilesPolicy
from mirrord_trace.policy.local_trees import LocalTrees
from mirrord_trace.remote_files import RemoteFiles
from mirrord_trace.supervisor.delivery.base import (
    PASS,
    Call,
    Fail,
    Handler,
    Interest,
    PresentAddresses,
    Return,
    UseAddress,
    UseAddresses,
    UsePath,
    UsePaths,
    Verdict,
)
from mirrord_trace.supervisor.delivery.concerns import LocalPaths
from mirrord_trace.supervisor.delivery.notify.replies import NotifiedCall
from mirrord_trace.supervisor.handlers.files import FileHandlers
from mirrord_trace.tree.base import Asked, Need
from mirrord_trace.tree.creations import Creations

ELSEWHERE = Inet4(IPv4Address("198.18.0.1"), 80)
"""The address that programs name; PORT of loopback is what they get."""
_HELD_PRIORITY = 77


def here() -> Inet4:
    return Inet4(IPv4Address("127.0.0.1"), int(os.environ["PORT"]))


def on(name: str, handler: Handler) -> Interest:
    return Interest(Rule(name), handler)


def pass_all(_: trio.Nursery) -> list[Interest]:
    names = ("openat", "getppid", "connect", "sendto", "sendmsg", "socket", "wait4", "pause", "read", "kill")
    return [on(name, lambda call: PASS) for name in names]


def local_paths(_: trio.Nursery) -> list[Interest]:
    """Whatever is opened is local but for /etc/passwd and what is in /usr/share: what comes here fails (EUCLEAN)."""
    known = LocalPaths(LocalTrees({b"/": True, b"/etc/passwd": False, b"/usr/share": False}))
    return [Interest(Rule("openat"), lambda call: Fail(errno.EUCLEAN), known)]


def nothing(_: trio.Nursery) -> list[Interest]:
    return []


def verdicts(_: trio.Nursery) -> list[Interest]:
    """Every kind of verdict."""

    def connect(call: Call) -> Verdict:
        return UseAddress(here())

    def send_many(call: Call) -> Verdict:
        raw = call.memory.read(call.arguments[1], call.arguments[2] * Mmsghdr.SIZE)
        headers = [Mmsghdr.decode(raw, index * Mmsghdr.SIZE).header for index in range(call.arguments[2])]
        return UseAddresses(tuple(here() if header.name else None for header in headers))

    def show(address: SocketAddress) -> SocketAddress:
        return ELSEWHERE

    async def later() -> Verdict:
        await trio.lowlevel.checkpoint()
        return Return(4343)

    async def fault_later(call: Call) -> Verdict:
        call.memory.read(8, 8)
        return PASS

    return [
        on("getppid", lambda call: Return(4242)),
        on("getuid", lambda call: Fail(errno.EDOM)),
        on("getpgrp", lambda call: later()),
        on("getegid", lambda call: Return(0, ((8, b"nowhere"),))),
        on("getgid", fault_later),
        on("uname", lambda call: Return(0, ((call.arguments[0], b"presented\0"),))),
        on("openat", lambda call: _redirect(call)),
        on("connect", connect),
        on("sendto", connect),
        on("sendmsg", connect),
        on("sendmmsg", send_many),
        on("getpeername", lambda call: PresentAddresses(show)),
        on("recvfrom", lambda call: PresentAddresses(show)),
        on("recvmsg", lambda call: PresentAddresses(show)),
    ]


def _redirect(call: Call) -> Verdict:
    path = call.memory.read_string(call.arguments[1])
    return UsePath(os.environb[b"STAND_IN"]) if path.endswith(b"/presented") else PASS


def redirect_paths(_: trio.Nursery) -> list[Interest]:
    return [on("openat", _redirect)]


MIRRORED = b"/mirrored"
"""What programs call the directory TREE."""
LEFT_ALONE = ("chroot", "open_tree")


def mirror(_: trio.Nursery) -> list[Interest]:
    """Every call that names files below MIRRORED, which is nowhere, is made in the directory TREE."""
    tree = os.environb[b"TREE"]

    def lead(call: Call) -> Verdict:
        places = [index for index, kind in enumerate(ARGUMENTS[call.name]) if kind is ArgumentKind.PATH]
        paths = [call.memory.read_string(call.arguments[index]) for index in places]
        if not all(path.startswith(MIRRORED) for path in paths):
            return PASS
        led = tuple(tree + path.removeprefix(MIRRORED) for path in paths)
        return UsePath(*led, may_wait=True) if len(led) == 1 else UsePaths(led)

    return [
        on(name, lead)
        for name in native_abi().arguments
        if ArgumentKind.PATH in ARGUMENTS[name] and name not in LEFT_ALONE
    ]


def hold_reads(nursery: trio.Nursery) -> list[Interest]:
    """read(2) of descriptor 0 is held until a signal is pending; then it goes on in the kernel.

    getpriority(PRIO_PROCESS, 77) is held for good, unless the process is stopped.
    """

    def is_stopped(call: Call) -> bool:
        # A tracer is told of stops; of a notified call one asks, and a signal that is pending looks the same.
        return call.has_pending_signal() if isinstance(call, NotifiedCall) else call.interrupted

    async def until_signal(call: Call) -> Verdict:
        os.write(2, b"driver: holds\n")
        while not call.has_pending_signal():  # noqa: ASYNC110 - as handlers ask
            await trio.sleep(0.001)
        return PASS

    async def for_good(call: Call) -> Verdict:
        os.write(2, b"driver: holds for good\n")
        try:
            while not is_stopped(call):  # noqa: ASYNC110
                await trio.sleep(0.001)
        finally:
            os.write(2, b"driver: held no more\n")
        return PASS

    return [
        Interest(Rule("read", (Equals(0, 0),)), until_signal),
        Interest(Rule("getpriority", (Equals(1, _HELD_PRIORITY),)), for_good),
    ]


def errors(_: trio.Nursery) -> list[Interest]:
    """The priority that is asked for is the errno that the handler raises, or its coroutine when it is negative."""

    def fail(call: Call) -> Verdict | Coroutine[Any, Any, Verdict]:
        number = call.integer(1)
        if number < 0:
            return fail_later(-number)
        raise OSError(number, os.strerror(number))

    async def fail_later(number: int) -> Verdict:
        await trio.lowlevel.checkpoint()
        raise OSError(number, os.strerror(number))

    return [on("getpriority", fail)]


def bug(_: trio.Nursery) -> list[Interest]:
    def fail(call: Call) -> Verdict:
        raise ZeroDivisionError("a bug in a handler")

    return [on("getppid", fail)]


def bug_later(_: trio.Nursery) -> list[Interest]:
    async def fail(call: Call) -> Verdict:
        raise ZeroDivisionError("a bug in a coroutine")

    return [on("getppid", fail)]


def bug_at_exit(_: trio.Nursery) -> list[Interest]:
    def fail(result: int) -> int:
        raise ZeroDivisionError("a bug at a call's end")

    return [on("connect", lambda call: UseAddress(here(), fail))]


class _Unusable(bytes):
    """A path with which no call can be made: whoever has called `then` trips over it."""

    then: Callable[[], object]

    def __add__(self, other: object) -> bytes:
        self.then()
        raise ZeroDivisionError("a bug in a worker")


def _unusable(call: Call, then: Callable[[], object]) -> Verdict:
    path = _Unusable(b"/nowhere")
    path.then = then
    return UsePath(path, may_wait=True) if call.memory.read_string(call.arguments[1]).endswith(b"/presented") else PASS


def bug_in_worker(_: trio.Nursery) -> list[Interest]:
    return [on("openat", lambda call: _unusable(call, lambda: None))]


def no_worker(_: trio.Nursery) -> list[Interest]:
    """There are no threads for path calls."""
    start = threading.Thread.start

    def start_others(thread: threading.Thread) -> None:
        if thread.name.startswith("path call"):
            raise RuntimeError("can't start new thread")
        start(thread)

    threading.Thread.start = start_others  # type: ignore[method-assign, assignment]
    return [on("openat", lambda call: _unusable(call, lambda: None))]


def bug_too_late(nursery: trio.Nursery) -> list[Interest]:
    """The worker fails when its task, the delivery and what belongs to that are gone."""
    is_over = threading.Event()

    async def end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            is_over.set()
            with trio.CancelScope(shield=True):
                for worker in [thread for thread in threading.enumerate() if thread.name == "path call"]:
                    await trio.to_thread.run_sync(worker.join)

    def fail(call: Call) -> Verdict:
        def see_the_end() -> None:
            os.kill(call.tid, signal.SIGKILL)
            is_over.wait()

        return _unusable(call, see_the_end)

    nursery.start_soon(end)
    return [on("openat", fail)]


def borrow(_: trio.Nursery) -> list[Interest]:
    """fsync(2) of a socket says the port that it is bound to, as seen by us; in the coroutine with fdatasync(2)."""

    def look(call: Call) -> Verdict:
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            return Return(borrowed.getsockname()[1])

    async def look_later(call: Call) -> Verdict:
        await trio.lowlevel.checkpoint()
        return look(call)

    def look_and_redirect(call: Call) -> Verdict:
        address = decode_sockaddr(call.memory.read(call.arguments[1], call.integer(2)))
        assert address == ELSEWHERE
        with socket.socket(fileno=call.borrow(call.integer(0))) as borrowed:
            borrowed.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return UseAddress(here())

    return [on("fsync", look), on("fdatasync", look_later), on("connect", look_and_redirect)]


@attrs.define(eq=False)
class EmptyTree:
    """A target that has nothing: the directory in $TREE."""

    root: bytes = attrs.field(factory=lambda: os.environb[b"TREE"])
    may_write: bool = False
    answers_always: bool = True
    creations: Creations = attrs.field(factory=Creations)
    on_mapped: Callable[[], None] = lambda: None

    def is_ready(self, path: bytes, need: Need) -> bool:
        return False

    def ask(self, path: bytes, need: Need) -> None:
        return None

    def begin(self, path: bytes, need: Need) -> bool:
        return False

    async def ensure(self, path: bytes, need: Need, asked: Asked | None = None) -> bytes:
        return self.root + path

    async def read_link(self, path: bytes) -> bytes:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    async def give_name(self, number: int, path: bytes) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    def pod_path(self, path: bytes) -> bytes | None:
        return path[len(self.root) :] if path.startswith(self.root + b"/") else None

    def abandon(self) -> None:
        """Nothing waits."""


def files(_: trio.Nursery) -> list[Interest]:
    """What is in $MOUNT, but for "here", is read at the target, where nothing is, and written on this machine."""
    configuration = FilesConfiguration(read_only=(re.compile(f"^{re.escape(os.environ['MOUNT'])}/(?!here)"),))
    surroundings = Surroundings(
        working_directory=os.getcwdb(),
        home=b"/root",
        executable=os.fsencode(sys.executable),
        temporary=b"/tmp",
        search_path=tuple(os.fsencode(path) for path in sys.path if path),
    )
    policy = FilesPolicy.of(configuration, surroundings, ())
    handlers = FileHandlers(policy, {}, EmptyTree(), cast(RemoteFiles, None))
    return list(handlers.interests(native_abi().numbers))


SCENARIOS: dict[str, Callable[[trio.Nursery], list[Interest]]] = {
    scenario.__name__: scenario
    for scenario in (
        pass_all,
        local_paths,
        nothing,
        verdicts,
        redirect_paths,
        mirror,
        hold_reads,
        errors,
        bug,
        bug_later,
        bug_at_exit,
        bug_in_worker,
        no_worker,
        bug_too_late,
        borrow,
        files,
    )
}


def interests(name: str, nursery: trio.Nursery) -> list[Interest]:
    return SCENARIOS[name](nursery)
