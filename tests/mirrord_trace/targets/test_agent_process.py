from __future__ import annotations

import os
import signal
import socket
import tempfile

import pytest
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.targets.agent_process import ChildProcess, running_agent


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


def test_wait_does_not_mind_that_somebody_else_reaped() -> None:
    child = ChildProcess.spawn(["true"])
    os.waitpid(child.pid, 0)
    assert trio.run(end_of, child) is None


def test_the_socket_is_standard_input_and_output_is_kept() -> None:
    program = "import socket, sys; s = socket.socket(fileno=0); s.send(s.recv(9)); print('a\\nb'); s.recv(1)"

    async def main() -> None:
        command = ["python3", "-I", "-c", program]
        async with running_agent(command, own_session=True) as agent:
            await agent.stream.send_all(b"ping")
            assert await agent.stream.receive_some(9) == b"ping"
            await agent.stream.send_eof()
            with trio.fail_after(10):
                await agent.child.wait()
            assert await agent.last_words() == "a\nb"

    trio.run(main)


def test_one_that_does_not_leave_is_killed_and_reaped() -> None:
    async def main() -> int:
        async with running_agent(["sleep", "1000"], own_session=True) as agent:
            return agent.child.pid

    with pytest.raises(ProcessLookupError):
        os.kill(trio.run(main), 0)


def test_one_that_cannot_be_started_is_a_failure_and_leaks_nothing() -> None:
    async def main() -> None:
        before = os.listdir("/proc/self/fd")
        with pytest.raises(Failure, match="/no/such/python: No such file"):
            async with running_agent(["/no/such/python"], own_session=True):
                pass
        assert os.listdir("/proc/self/fd") == before

    trio.run(main)


def test_the_agents_end_of_the_socket_is_the_only_one() -> None:
    async def main() -> None:
        async with running_agent(["true"], own_session=True) as agent:
            with trio.fail_after(10):
                assert await agent.stream.receive_some(1) == b""
            assert agent.stream.socket.family == socket.AF_UNIX

    trio.run(main)
