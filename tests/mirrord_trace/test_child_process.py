from __future__ import annotations

import os
import signal
import tempfile

import trio

from mirrord_trace.child_process import ChildProcess


async def end_of(child: ChildProcess) -> int | None:
    with trio.fail_after(10):
        status = await child.wait()
    os.close(child.pidfd)
    return status


def test_a_child_has_no_blocked_or_ignored_signal_and_a_session_of_its_own() -> None:
    with tempfile.TemporaryFile() as output:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGINT})
        try:
            own_session = "read -r _ _ _ _ _ session _ < /proc/$$/stat; test $session = $$"
            program = f"grep -E 'Sig(Blk|Ign)' /proc/self/status; {own_session}"
            child = ChildProcess.spawn(["sh", "-c", program], standard_files=(output.fileno(),) * 3, own_session=True)
            assert trio.run(end_of, child) == 0
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        output.seek(0)
        blocked, ignored = (int(line.split()[1], 16) for line in output.read().splitlines())
    assert blocked == 0
    # Signals 32 and 33 are glibc's own; nobody can change them through it.
    assert ignored & ~(0b11 << 31) == 0


def test_wait_tells_the_exit_status() -> None:
    assert trio.run(end_of, ChildProcess.spawn(["sh", "-c", "exit 7"])) == 7


def test_wait_tells_the_signal() -> None:
    assert trio.run(end_of, ChildProcess.spawn(["sh", "-c", "kill -KILL $$"])) == -signal.SIGKILL


def test_the_environment_is_the_one_that_is_given() -> None:
    child = ChildProcess.spawn(
        ["sh", "-c", 'test "$COLOUR" = green && test -z "$HOME"'], environment={"COLOUR": "green"}
    )
    assert trio.run(end_of, child) == 0


def test_wait_does_not_mind_that_somebody_else_reaped() -> None:
    child = ChildProcess.spawn(["true"])
    os.waitpid(child.pid, 0)
    assert trio.run(end_of, child) is None
