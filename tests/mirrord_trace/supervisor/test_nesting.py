"""Debuggers inside of a tree that has a tracer: refused by the kernel, explained by us, once."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from mirrord_syscalls.abi import native_abi
from mirrord_trace.supervisor.delivery.base import Call
from mirrord_trace.supervisor.delivery.ptrace import nesting
from tests.mirrord_trace.supervisor.harness import program, run
from tests.mirrord_trace.supervisor.test_lowering import FlatMemory

REASON = "a process has one tracer, and mirrord-trace is it"


def tool(name: str) -> str:
    found = shutil.which(name)
    assert found is not None, f"no {name}: apt-get install {name}"
    return found


def test_every_way_to_trace_the_tree_fails_and_is_explained_once() -> None:
    ended = run("nothing", program("debugs"))
    assert ended.stdout.splitlines() == [
        "traceme: EPERM",
        "attach: EPERM",
        "seize: EPERM",
        "cont, which is not ours: ESRCH",
    ]
    (warning,) = ended.warnings
    assert warning.startswith("debugs-")
    assert REASON in warning
    assert "use --delivery notify" in warning


def test_tracing_a_process_outside_of_the_tree_is_no_matter_of_ours() -> None:
    with subprocess.Popen(["sleep", "1000"]) as outsider:
        try:
            ended = run("nothing", program("debugs"), str(outsider.pid))
        finally:
            outsider.kill()
    assert ended.warnings == []
    # Where Yama lets only ancestors attach, the kernel's answer is EPERM, natively too.
    assert ended.stdout.splitlines() in (["seize an outsider: done"], ["seize an outsider: EPERM"])


@pytest.mark.parametrize(
    "command",
    [
        ("gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off", "-ex", "run", "/bin/true"),
        ("strace", "-f", "/bin/true"),
    ],
    ids=["gdb", "strace"],
)
def test_a_real_debugger_is_refused_and_explained_once(command: tuple[str, ...]) -> None:
    ended = run("nothing", tool(command[0]), *command[1:])
    assert ended.exit_code == 1
    assert any("Operation not permitted" in line for line in ended.said)
    (warning,) = ended.warnings
    assert warning.startswith(f"{command[0]} cannot debug or trace here (EPERM): {REASON}")


def test_gdb_attaching_to_its_own_relatives_is_refused() -> None:
    gdb = f"{tool('gdb')} -nx -batch -iex 'set debuginfod enabled off' -p $child"
    ended = run("nothing", "sh", "-c", f"sleep 1000 & child=$!; {gdb}; kill $child; wait")
    (warning,) = ended.warnings
    assert warning.startswith("gdb ")


@pytest.mark.parametrize(
    ("request_number", "pid", "refused"),
    [
        (nesting.PTRACE_TRACEME, 0, True),
        (nesting.PTRACE_ATTACH, 10, True),
        (nesting.PTRACE_SEIZE, 10, True),
        (nesting.PTRACE_SEIZE, 11, False),
    ],
)
def test_what_is_refused_because_of_us(request_number: int, pid: int, refused: bool) -> None:
    arguments = (request_number, pid, 0, 0, 0, 0)
    assert nesting.SUBSCRIPTION.matches("ptrace", arguments)
    call = Call(os.getpid(), "ptrace", arguments, FlatMemory(), native_abi())
    assert nesting.is_refused(call, {10}) == refused


def test_requests_of_a_tracer_to_its_tracee_are_not_stopped() -> None:
    for request_number in (1, 7, 24, 0x4207, 0x4208, 0x420E):  # PEEKTEXT, CONT, SYSCALL, INTERRUPT, LISTEN, …
        assert not nesting.SUBSCRIPTION.matches("ptrace", (request_number, 10, 0, 0, 0, 0))


def test_who_cannot_have_the_remedy_is_told_why() -> None:
    call = Call(os.getpid(), "ptrace", (0,) * 6, FlatMemory(), native_abi())
    text = nesting.warning(call, "the kernel has no pidfd_getfd(2)")
    assert "use --delivery notify" not in text
    assert text.endswith("cannot be had: the kernel has no pidfd_getfd(2)")
