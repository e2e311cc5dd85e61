"""Starts the user's program: fork, wait for the word, filter, exec.

The child is a copy of this process and must do as little as possible: no Trio, no locks, only system calls on what was
prepared before the fork. It waits on a pipe until the delivery is ready for it, installs the filter and executes; what
goes wrong comes back through a close-on-exec pipe. It stays in our process group, so the terminal treats it as it would
without us; its signal mask and dispositions are those that we were started with.

A delivery that needs a listener gets it from a child that installs its filter before it waits: see `guardian`.

The filter needs no_new_privs or CAP_SYS_ADMIN (seccomp(2)): the latter is tried first, so that set-user-ID programs
keep working for root.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import struct
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

import attrs
import trio

from mirrord_syscalls.abi import native_abi
from mirrord_syscalls.structs.notification import FILTER_NEW_LISTENER, FILTER_WAIT_KILLABLE
from mirrord_trace.errors import Failure

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_report = struct.Struct("=ii")
_number = struct.Struct("=i")
_STEP_FILTER, _STEP_EXEC = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


@attrs.frozen
class Program:
    """What to execute, found and checked."""

    path: bytes
    argv: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]


def find_program(command: Sequence[str], environment: Mapping[bytes, bytes]) -> Program:
    """Looks the command up as execvp(3) does, in the PATH of the environment it will have.

    Raises Failure with the shells' exit codes: 127 when there is no such command, 126 when it cannot be executed.
    """
    argv = tuple(os.fsencode(word) for word in command)
    name = argv[0]
    if b"/" in name:
        candidates = [name]
    else:
        search = environment.get(b"PATH", os.defpath.encode())
        candidates = [os.path.join(directory or b".", name) for directory in search.split(b":")]
    found: list[bytes] = [path for path in candidates if name and os.path.exists(path)]
    for path in found:
        if not os.path.isdir(path) and os.access(path, os.X_OK, effective_ids=True):
            return Program(path, argv, environment)
    shown = os.fsdecode(name)
    if not found:
        advice = "check the name and PATH" if b"/" not in name else "check the path; it is looked up on this machine"
        raise Failure(f"{shown!r}: command not found", advice, exit_code=127)
    what = "is a directory" if os.path.isdir(found[0]) else "is not executable"
    raise Failure(f"{os.fsdecode(found[0])!r} {what}", "name a program, or chmod +x it", exit_code=126)


@attrs.define(eq=False)
class Child:
    """The forked child, waiting to be released. See `delivery.base.Launched`."""

    pid: int
    _gate: int
    _outcome: int
    _program: Program

    def release(self) -> None:
        """Lets it go on."""
        with contextlib.suppress(BrokenPipeError):  # it was killed; whoever waits for it is told
            os.write(self._gate, b"\n")
        os.close(self._gate)
        self._gate = -1

    async def executed(self) -> None:
        """Returns when the program runs; raises Failure when it could not be started."""
        await trio.lowlevel.wait_readable(self._outcome)
        report = os.read(self._outcome, _report.size)
        if report:
            raise _start_failure(self._program, *_report.unpack(report))

    def close(self) -> None:
        """Gives our ends of the pipes back; a child that was never released ends by that, and is reaped."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1
            with contextlib.suppress(ChildProcessError):  # a guardian's child is not ours to wait for
                os.waitpid(self.pid, 0)
        if self._outcome >= 0:
            os.close(self._outcome)
            self._outcome = -1


def filter_failure(error: int) -> Failure:
    """What to tell the user when seccomp(2) says no."""
    advice = "the kernel needs CONFIG_SECCOMP_FILTER, and a container may forbid seccomp(2): try outside of it"
    return Failure(f"cannot install the seccomp filter: {os.strerror(error)}", advice)


def _start_failure(program: Program, step: int, error: int) -> Failure:
    shown = os.fsdecode(program.path)
    if step == _STEP_FILTER:
        return filter_failure(error)
    if error == errno.ENOENT:
        advice = "the interpreter that its first line or its ELF header names is missing"
        return Failure(f"cannot execute {shown!r}: {os.strerror(error)}", advice, exit_code=127)
    return Failure(f"cannot execute {shown!r}: {os.strerror(error)}", exit_code=126)


@attrs.frozen
class ProcessState:
    """What the user's process inherits from whoever started us, and we change for ourselves."""

    signal_mask: frozenset[int]
    open_files: tuple[int, int]
    """RLIMIT_NOFILE, soft and hard."""
    ignores_children: bool
    """Whether SIGCHLD is ignored, which would keep the kernel from telling us of ours."""

    @classmethod
    def take_over(cls, blocked: frozenset[signal.Signals]) -> ProcessState:
        """Blocks `blocked` in this thread and all that it will start, and raises our own limit of open files.

        SIGCHLD is no longer ignored. Call it in the main thread, before another is started.
        """
        mask = frozenset(int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, blocked))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        ignores_children = signal.signal(signal.SIGCHLD, signal.SIG_DFL) is signal.SIG_IGN
        return cls(mask, limits, ignores_children)


def fork(program: Program, filter_program: bytes, inherited: ProcessState) -> Child:
    """Forks a child that will become the program. Call it in the main thread."""
    gate_read, gate_write = os.pipe()
    outcome_read, outcome_write = os.pipe()
    filtering = Filtering.of(filter_program)
    pid = os.fork()
    if pid == 0:
        os.close(gate_write)
        become(program, filtering, inherited, gate_read, outcome_write)
    os.close(gate_read)
    os.close(outcome_write)
    return Child(pid, gate_write, outcome_read, program)


@attrs.frozen
class Filtering:
    """A seccomp program, ready to be installed by a child that can do little."""

    _number: int
    _sock_fprog: bytes
    _program: object

    @classmethod
    def of(cls, filter_program: bytes) -> Filtering:
        """For an array of struct sock_filter, as `compile_filter` makes it. Raises LookupError on a strange machine."""
        buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
        sock_fprog = struct.pack("=H6xQ", len(filter_program) // 8, ctypes.addressof(buffer))
        return cls(native_abi().numbers["seccomp"], sock_fprog, buffer)

    def install(self, flags: int = 0) -> int:
        """Filters this thread from now on; what seccomp(2) returns: a listener, say. Raises OSError.

        Without the right to do it (CAP_SYS_ADMIN) the thread first gives up all hope of new privileges.
        """
        result = self._try(flags)
        if result == -errno.EACCES:
            if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
            result = self._try(flags)
        if result < 0:
            raise OSError(-result, os.strerror(-result), "seccomp")
        return result

    def install_with_listener(self) -> int:
        """As `install`; the listener. It asks for WAIT_KILLABLE_RECV where the kernel has that."""
        try:
            return self.install(FILTER_NEW_LISTENER | FILTER_WAIT_KILLABLE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return self.install(FILTER_NEW_LISTENER)

    def _try(self, flags: int) -> int:
        result: int = _libc.syscall(self._number, _SECCOMP_SET_MODE_FILTER, flags, self._sock_fprog)
        return -ctypes.get_errno() if result < 0 else result


def become(
    program: Program,
    filtering: Filtering,
    inherited: ProcessState,
    gate: int,
    outcome: int,
    listener: int | None = None,
) -> NoReturn:
    """In the forked child: waits at the gate and becomes the program.

    With `listener`, a descriptor, the filter is installed before the wait, and the number of its own listener written
    there (or a negative errno). Otherwise after it: then a tracer is there already.
    """
    try:
        if listener is not None:
            os.write(listener, _number.pack(_installed(filtering)))
            os.close(listener)
        if not os.read(gate, 1):
            os._exit(1)
        _restore_signals(inherited)
        resource.setrlimit(resource.RLIMIT_NOFILE, inherited.open_files)
        try:
            if listener is None:
                filtering.install()
        except OSError as failure:
            os.write(outcome, _report.pack(_STEP_FILTER, failure.errno or 0))
            os._exit(1)
        try:
            _execute(program)
        except OSError as failure:
            os.write(outcome, _report.pack(_STEP_EXEC, failure.errno or 0))
    finally:
        os._exit(1)


def _installed(filtering: Filtering) -> int:
    try:
        return filtering.install_with_listener()
    except OSError as failure:
        return -(failure.errno or errno.EINVAL)


def _restore_signals(inherited: ProcessState) -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them from its start on
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if inherited.ignores_children:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, inherited.signal_mask)


def _execute(program: Program) -> None:
    try:
        os.execve(program.path, program.argv, program.environment)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    # A script without a first line: execvp(3) and every shell give it to the shell.
    os.execve(b"/bin/sh", (b"sh", program.path, *program.argv[1:]), program.environment)


def exit_code_of(status: int) -> int:
    """The exit code that a shell reports for a wait status: the process's own, or 128 + the signal that ended it."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
