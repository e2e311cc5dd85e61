"""Starts the user's program: fork, wait until somebody traces, filter, exec.

The child is a copy of this process and must do as little as possible: no Trio, no locks, only system calls on what was
prepared before the fork. It waits on a pipe until the delivery has seized it, installs the filter and executes; what
goes wrong comes back through a close-on-exec pipe. It stays in our process group, so the terminal treats it as it would
without us; its signal mask and dispositions are those that we were started with.

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

from mirrord_trace.errors import Failure

_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_SET_MODE_FILTER: Final = 1
_report = struct.Struct("=ii")
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
        if not os.path.isdir(path) and os.access(path, os.X_OK):
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
        """Lets it install the filter and execute."""
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
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
        if self._outcome >= 0:
            os.close(self._outcome)
            self._outcome = -1


def _start_failure(program: Program, step: int, error: int) -> Failure:
    shown = os.fsdecode(program.path)
    if step == _STEP_FILTER:
        advice = "the kernel needs CONFIG_SECCOMP_FILTER, and a container may forbid seccomp(2): try outside of it"
        return Failure(f"cannot install the seccomp filter: {os.strerror(error)}", advice)
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
    filter_buffer = ctypes.create_string_buffer(filter_program, len(filter_program))
    sock_fprog = struct.pack("=H6xQ", len(filter_program) // 8, ctypes.addressof(filter_buffer))
    number = _seccomp_number()
    pid = os.fork()
    if pid == 0:
        _become(program, sock_fprog, number, inherited, gate_read, gate_write, outcome_write)
    os.close(gate_read)
    os.close(outcome_write)
    return Child(pid, gate_write, outcome_read, program)


def _seccomp_number() -> int:
    from mirrord_syscalls.abi import native_abi

    return native_abi().numbers["seccomp"]


def _become(
    program: Program,
    sock_fprog: bytes,
    seccomp_number: int,
    inherited: ProcessState,
    gate: int,
    our_gate: int,
    outcome: int,
) -> NoReturn:
    try:
        os.close(our_gate)
        if not os.read(gate, 1):
            os._exit(1)
        _restore_signals(inherited)
        resource.setrlimit(resource.RLIMIT_NOFILE, inherited.open_files)
        error = _install_filter(sock_fprog, seccomp_number)
        if error:
            os.write(outcome, _report.pack(_STEP_FILTER, error))
            os._exit(1)
        try:
            _execute(program)
        except OSError as failure:
            os.write(outcome, _report.pack(_STEP_EXEC, failure.errno or 0))
    finally:
        os._exit(1)


def _restore_signals(inherited: ProcessState) -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them from its start on
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if inherited.ignores_children:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, inherited.signal_mask)


def _install_filter(sock_fprog: bytes, number: int) -> int:
    if _libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, sock_fprog) == 0:
        return 0
    if ctypes.get_errno() != errno.EACCES:
        return ctypes.get_errno()
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return ctypes.get_errno()
    return 0 if _libc.syscall(number, _SECCOMP_SET_MODE_FILTER, 0, sock_fprog) == 0 else ctypes.get_errno()


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
