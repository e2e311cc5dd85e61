"""The user's process from its start to its end: signals, job control, exit status, and what it leaves running."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

import attrs
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.supervisor import signals
from mirrord_trace.supervisor.delivery.base import Delivery, Launched
from mirrord_trace.supervisor.launch import exit_code_of

TERM_GRACE_S: Final = 0.5
"""How long SIGTERM to us may take to end the tree, and what the process leaves running may take to end itself."""
LAST_BYTES_S: Final = 5.0
"""How long bytes that the process wrote before it ended may take to reach the agent, and from there the far side."""
_HURRIED_S: Final = 0.2
"""The same after SIGTERM: everything is to be gone within a second."""


@attrs.define(eq=False)
class Supervision:
    """One process and what it started. Tells the delivery's events to the user (see `base.ProcessEvents`)."""

    reporter: Reporter
    _child: Launched | None = None
    _delivery: Delivery | None = None
    _status: int | None = None
    _exited: trio.Event = attrs.field(factory=trio.Event)
    terminated: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set when SIGTERM has told us to end."""
    _tree_gone: trio.Event = attrs.field(factory=trio.Event)

    async def watch_signals(self, descriptor: int) -> None:
        """Acts on the signals that reach us. Raises Failure while there is no process to pass them to."""
        async for info in signals.arriving(descriptor):
            number = info.signo
            if self._child is None:
                if number in signals.ENDING:
                    name = signal.Signals(number).name
                    raise Failure(f"ended by {name} before the command was started", exit_code=128 + number)
                if number in signals.JOB_CONTROL:
                    signals.stop_ourselves(number)
            elif number in signals.FORWARDED and signals.is_to_be_passed_on(info, self._tree()):
                self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self._child is not None and self._status is None:
            _kill(self._child.pid, number)
        if number == signal.SIGTERM:
            self.terminated.set()

    def _tree(self) -> frozenset[int]:
        return frozenset() if self._delivery is None else self._delivery.process_ids()

    @property
    def exit_code(self) -> int:
        """How the process ended. Only after `run`."""
        assert self._status is not None, "the delivery tells how the process ended before it ends itself"
        return exit_code_of(self._status)

    async def hurry(self, finishing: trio.CancelScope) -> None:
        """Bounds what may outlast the process when SIGTERM tells us to end, before its end or after."""
        await self.terminated.wait()
        await trio.sleep(TERM_GRACE_S + _HURRIED_S)
        finishing.cancel()

    async def run(self, child: Launched, delivery: Delivery) -> None:
        """Runs the child as the user's process. Returns when it has ended and nothing of it is left.

        Raises Failure when it cannot be traced or executed.
        """
        self._child, self._delivery = child, delivery
        with contextlib.closing(child):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._deliver, child, delivery)
                await child.executed()
                self.reporter.ready()
                nursery.start_soon(self._hurry, nursery.cancel_scope)
                await self._exited.wait()
                await self._end_leftovers(delivery)
                nursery.cancel_scope.cancel()

    async def _deliver(self, child: Launched, delivery: Delivery) -> None:
        try:
            await delivery.run(child, self)
        except PermissionError as error:
            raise not_permitted() from error
        self._tree_gone.set()

    async def _hurry(self, everything: trio.CancelScope) -> None:
        """After SIGTERM the tree has a moment to end in good order."""
        await self.terminated.wait()
        await trio.sleep(TERM_GRACE_S)
        everything.cancel()

    async def _end_leftovers(self, delivery: Delivery) -> None:
        left = _names_of(delivery.process_ids())
        if not left:
            return
        shown = ", ".join(f"{name} ({pid})" for pid, name in left[:5]) + (", …" if len(left) > 5 else "")
        self.reporter.warning(f"the command ended and left {len(left)} running, ended with it: {shown}")
        for pid, _ in left:
            _kill(pid, signal.SIGTERM)
        with trio.move_on_after(TERM_GRACE_S):
            await self._tree_gone.wait()

    # what the delivery tells

    def root_exited(self, status: int) -> None:
        """See `ProcessEvents`."""
        self._status = status
        self._exited.set()

    def root_stopped(self, number: int) -> None:
        """See `ProcessEvents`."""
        if number in signals.JOB_CONTROL and self._child is not None and _is_stopped(self._child.pid):
            signals.stop_ourselves(number)

    def warn(self, text: str) -> None:
        """See `ProcessEvents`."""
        self.reporter.warning(text)

    def explain(self, text: str) -> None:
        """See `ProcessEvents`."""
        self.reporter.explain(text)


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped still; SIGCONT may have come while we were told that it was (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(") ")[2][0] in "Tt"
    except OSError:
        return False


def _names_of(pids: frozenset[int]) -> list[tuple[int, str]]:
    """Those that still run, with their names."""
    names = []
    for pid in sorted(pids):
        fields = dict(line.partition(":")[::2] for line in _read(f"/proc/{pid}/status").splitlines())
        if fields and fields["State"].split()[0] not in ("Z", "X"):
            names.append((pid, fields["Name"].strip()))
    return names


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def not_permitted() -> Failure:
    """What to tell the user when a child cannot be traced, by what forbids it here."""
    tracer = _status_field("TracerPid")
    if tracer not in ("", "0"):
        return Failure(
            f"cannot trace the command: process {tracer} traces mirrord-trace, and a process has one tracer only",
            "run the tracer inside instead: mirrord-trace run … -- strace COMMAND",
        )
    scope = _read("/proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        return Failure(
            "cannot trace the command: kernel.yama.ptrace_scope is 3, which forbids ptrace altogether until a reboot",
            "set kernel.yama.ptrace_scope to 2 or less in /etc/sysctl.d and reboot",
        )
    if scope == "2":
        return Failure(
            "cannot trace the command: kernel.yama.ptrace_scope is 2, which needs CAP_SYS_PTRACE",
            "sudo sysctl kernel.yama.ptrace_scope=1",
        )
    return Failure(
        "cannot trace the command: the kernel does not permit ptrace here",
        "in a container, add the SYS_PTRACE capability and a seccomp profile that allows ptrace(2)",
    )


def _status_field(name: str) -> str:
    for line in _read("/proc/self/status").splitlines():
        if line.startswith(name + ":"):
            return line.split(":", 1)[1].strip()
    return ""


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
