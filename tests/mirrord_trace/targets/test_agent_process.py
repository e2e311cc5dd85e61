from __future__ import annotations

import os
import socket

import pytest
import trio

from mirrord_trace.errors import Failure
from mirrord_trace.targets.agent_process import running_agent


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
