"""The process between us and the user's: it is the parent of the user's process tree, and ends it if we die.

Closing the last duplicate of a seccomp listener gives ENOSYS to every intercepted call of living processes. So another
process than the supervisor must hold one, and must end the tree before it lets go. That is the guardian:

- It forks the user's process, so it is there before there is anything to guard, and takes the listener from it.
- It is a child subreaper (prctl(2)): whoever loses its parent in the tree becomes its child. So the tree is exactly
  what descends from it, and it can be ended without a race: kill all children, until there are none. A child that was
  not reaped keeps its process id, and children of the dead become children of the guardian.
- It forks before it moves to a session of its own. The user's process stays in the terminal's session and in our
  process group; signals of the terminal and kills of the whole group do not reach the guardian.
- The kernel closes our end of its socket when we end. That is its sign, and how we ask for the end in good order. After
  kill -9 of us it may not: a thread of ours that waits for the target's files, which are ours to serve, keeps our
  descriptors open. So it also asks for a signal when our main thread, which has forked it, ends (PR_SET_PDEATHSIG).
- It keeps nothing else open: neither a pipe that someone waits to see closed nor the connection to the agent.

If the guardian itself is killed, its children become the supervisor's, which is a subreaper too, and ends them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection
from typing import Final, NoReturn

import attrs
import trio

from mirrord_syscalls.structs import SignalfdSiginfo
from mirrord_trace.borrow import borrow_descriptor
from mirrord_trace.errors import Failure
from mirrord_trace.supervisor import launch, signals
from mirrord_trace.supervisor.descent import children_of, is_ending

_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NAME: Final = 15
_PR_SET_PDEATHSIG: Final = 1
_ORPHANED: Final = signal.SIGUSR1
"""Sent to the guardian when the supervisor's main thread has ended."""
_START_S: Final = 10.0
"""How long a fork and a seccomp(2) may take before something is wrong."""
_FIRST_PAUSE_S: Final = 0.0005
_LAST_PAUSE_S: Final = 0.02
_libc = ctypes.CDLL(None, use_errno=True)

_message = struct.Struct("=ci")
_number = struct.Struct("=i")
_STARTED, _NOT_STARTED, _STOPPED, _EXITED, _EMPTY = b"S", b"N", b"T", b"X", b"E"


@attrs.frozen
class Stopped:
    """Job control stopped the user's process with this signal."""

    signal: int


@attrs.frozen
class Exited:
    """The user's process ended with this wait status; what it started may still run."""

    status: int


@attrs.frozen
class Empty:
    """Nothing of the tree is left, and the guardian ends."""


News = Stopped | Exited | Empty


@attrs.define(eq=False)
class GuardedChild(launch.Child):
    """A forked child with its filter in place, waiting to be released, and its guardian."""

    listener: int = attrs.field(kw_only=True)
    """The seccomp listener, for whoever handles the calls to close."""
    guardian: Guardian = attrs.field(kw_only=True)


@attrs.define(eq=False)
class Guardian:
    """The supervisor's end."""

    pid: int
    _socket: socket.socket
    _others: frozenset[int]
    """Children of ours that have nothing to do with the tree."""

    async def news(self) -> News:
        """The next thing to know. Raises Failure when the guardian was killed."""
        await trio.lowlevel.wait_readable(self._socket)
        try:
            raw = self._socket.recv(_message.size)
        except ConnectionError:
            raw = b""
        if not raw:
            raise Failure(
                "the guardian process was killed: the command ends with it",
                "it is the command's parent and holds its seccomp listener; leave it running",
            )
        kind, number = _message.unpack(raw)
        if kind == _EMPTY:
            return Empty()
        return Stopped(number) if kind == _STOPPED else Exited(number)

    def end(self) -> None:
        """Has what is left of the tree killed. `news` goes on until all is gone."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def bury(self) -> None:
        """After `end`: returns when the guardian is gone, and, if it was killed, what it guarded."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        end_children(self._others)


def start(program: launch.Program, filter_program: bytes, inherited: launch.ProcessState) -> GuardedChild:
    """Forks the guardian and, from it, the child that will become the program. Call it in the main thread.

    The filter must answer RET_USER_NOTIF. Raises Failure when it cannot be installed with a listener.
    """
    gate_read, gate_write = os.pipe()
    outcome_read, outcome_write = os.pipe()
    filtering = launch.Filtering.of(filter_program)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = os.getpid()
    others = frozenset(children_of(supervisor))
    pid = os.fork()
    if pid == 0:
        try:
            os.close(gate_write)
            ours.close()
            _guard(supervisor, theirs, program, filtering, inherited, gate_read, outcome_write)
        finally:
            os._exit(1)
    for descriptor in (gate_read, outcome_write):
        os.close(descriptor)
    theirs.close()
    guardian = Guardian(pid, ours, others)
    try:
        child, listener = _started(ours)
    except BaseException:
        os.close(gate_write)
        os.close(outcome_read)
        guardian.bury()
        raise
    return GuardedChild(child, gate_write, outcome_read, program, listener=listener, guardian=guardian)


def _started(ours: socket.socket) -> tuple[int, int]:
    """The child's process id and listener."""
    ours.settimeout(_START_S)
    try:
        raw, descriptors, _, _ = socket.recv_fds(ours, _message.size, 1, socket.MSG_CMSG_CLOEXEC)
    except TimeoutError:
        raw, descriptors = b"", []
    finally:
        ours.setblocking(False)
    if not raw:
        raise Failure("the guardian process did not start the command", "it may have been killed: try again")
    kind, number = _message.unpack(raw)
    if kind != _STARTED:
        raise launch.filter_failure(number)
    return number, descriptors[0]


def end_children(spared: Collection[int] = frozenset(), reaped: Callable[[int, int], None] | None = None) -> None:
    """Kills the children of this process and all that becomes one thereby; returns when they are reaped.

    `reaped` is told of each, with its wait status. A child that a debugger from outside holds cannot be reaped before
    that lets go of it (ptrace(2)); all others are killed meanwhile.
    """
    pause_s = _FIRST_PAUSE_S
    while doomed := [child for child in children_of(os.getpid()) if child not in spared]:
        for child in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if sum(_reap_killed(child, reaped) for child in doomed):
            pause_s = _FIRST_PAUSE_S
        else:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_PAUSE_S)


def _reap_killed(child: int, reaped: Callable[[int, int], None] | None) -> bool:
    try:
        pid, status = os.waitpid(child, os.WNOHANG)
    except ChildProcessError:
        return False
    if pid and reaped is not None:
        reaped(pid, status)
    return bool(pid)


# -- the guardian's side ----------------------------------------------------------------------------------------------


def _guard(
    supervisor: int,
    theirs: socket.socket,
    program: launch.Program,
    filtering: launch.Filtering,
    inherited: launch.ProcessState,
    gate: int,
    outcome: int,
) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _libc.prctl(_PR_SET_PDEATHSIG, _ORPHANED, 0, 0, 0)
    report_read, report_write = os.pipe()
    child = os.fork()
    if child == 0:
        theirs.close()
        os.close(report_read)
        launch.become(program, filtering, inherited, gate, outcome, report_write)
    os.setsid()
    _libc.prctl(_PR_SET_NAME, b"mirrord-guard", 0, 0, 0)
    os.close(report_write)
    listener = _take_listener(child, report_read)
    _close_all_but(theirs.fileno(), listener)
    os.chdir("/")
    try:
        if listener >= 0:
            socket.send_fds(theirs, [_message.pack(_STARTED, child)], [listener])
            if os.getppid() == supervisor:  # it may have ended before it was asked for the signal
                _watch(theirs, child, supervisor)
        else:
            theirs.send(_message.pack(_NOT_STARTED, -listener))
    finally:
        with contextlib.suppress(OSError):  # nobody may be there to be told
            end_children(reaped=lambda pid, status: _tell_end(theirs, status) if pid == child else None)
            theirs.send(_message.pack(_EMPTY, 0))
        end_children()
        os._exit(0)


def _take_listener(child: int, report: int) -> int:
    """A duplicate of the child's listener, or a negative errno."""
    raw = os.read(report, _number.size)
    number: int = _number.unpack(raw)[0] if raw else -1
    if number < 0:
        return number
    try:
        return borrow_descriptor(child, number)
    except OSError as error:
        return -(error.errno or 1)


def _close_all_but(*kept: int) -> None:
    low = 0
    for descriptor in sorted(descriptor for descriptor in kept if descriptor >= 0):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _watch(theirs: socket.socket, child: int, supervisor: int) -> None:
    """Tells of the child until nothing of the tree is left or the supervisor ends or wants the end."""
    with signals.signal_descriptor({signal.SIGCHLD, _ORPHANED}) as arriving:
        poll = select.poll()
        poll.register(theirs, select.POLLIN)
        poll.register(arriving, select.POLLIN)
        while _reap(theirs, child):
            ready = [descriptor for descriptor, _ in poll.poll()]
            if theirs.fileno() in ready:
                return
            info = SignalfdSiginfo.decode(os.read(arriving, SignalfdSiginfo.SIZE))
            if info.signo == _ORPHANED and is_ending(supervisor):  # anybody may signal his parent
                return


def _reap(theirs: socket.socket, child: int) -> bool:
    """Takes what the kernel has to tell of our children; whether there are any."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        if pid == child and os.WIFSTOPPED(status):
            theirs.send(_message.pack(_STOPPED, os.WSTOPSIG(status)))
        elif pid == child:
            _tell_end(theirs, status)


def _tell_end(theirs: socket.socket, status: int) -> None:
    theirs.send(_message.pack(_EXITED, status))
