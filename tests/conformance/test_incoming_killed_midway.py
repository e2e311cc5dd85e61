"""kill -9 while the process's `listen` waits: before the agent has heard of the port, and when it has it.

The target serves all the while in the first case, and within a second again in the other; a client that came in between
learns that nobody serves it; no rule and no process is left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from mirrord_trace.borrow import borrow_descriptor
from tests.conformance.harness import descendants
from tests.conformance.killing import PORT, SERVES_WITHIN_S, WHO, Running, ends, running
from tests.conformance.serving import PROCESS, TARGET, ServingWorld
from tests.conformance.stage import program
from tests.mirrord_agent.incoming.networks import SHORT_S
from tests.waiting import holds_within

ORDER = pytest.mark.parametrize("order", [*((who,) for who in WHO), WHO, WHO[::-1]], ids=" ".join)
MODES = pytest.mark.parametrize("mode", ["steal", "mirror"])


@contextlib.contextmanager
def about_to_listen(serving: ServingWorld, mode: str) -> Iterator[Running]:
    with running(serving, mode, program(PROCESS)) as made:
        for command in ("tcp 0", "set 0 reuseaddr 1", f"bind 0 0.0.0.0 {PORT}"):
            assert made.tool.ask(command) == "OK"
        yield made


@contextlib.contextmanager
def stopped(made: Running, who: str) -> Iterator[None]:
    """One of them does nothing during the block."""
    (pid,) = made.pids(who)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def is_asked(agent: int) -> bool:
    """Whether something waits for an agent to read it."""
    return any(map(partial(has_something_to_read, agent), map(int, os.listdir(f"/proc/{agent}/fd"))))


def has_something_to_read(pid: int, number: int) -> bool:
    """Whether a process's descriptor is a Unix socket for which something has come."""
    if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
        return False
    with socket.socket(fileno=borrow_descriptor(pid, number)) as borrowed:
        if borrowed.family != socket.AF_UNIX:
            return False
        (waiting,) = struct.unpack("=i", fcntl.ioctl(borrowed, termios.FIONREAD, bytes(4)))
        return bool(waiting)


def ask(made: Running) -> None:
    """The process listens, and waits: the agent, which is stopped, has been asked for the port."""
    made.tool.tell("listen 0 16")
    (agent,) = made.pids("agent")
    assert holds_within(SHORT_S, lambda: is_asked(agent))


def is_over(made: Running, below: Sequence[int], order: Sequence[str]) -> None:
    if made.goes_on_after(order):
        assert made.tool.line() == "OK"
        return
    assert holds_within(SERVES_WITHIN_S, made.target_is_as_before)
    made.is_over(below, order)


@MODES
@ORDER
def test_the_agent_has_not_heard_of_it(serving: ServingWorld, mode: str, order: Sequence[str]) -> None:
    with about_to_listen(serving, mode) as made:
        below = [made.tool.process.pid, *descendants(made.tool.process.pid)]
        with stopped(made, "agent"):
            ask(made)
            assert made.target_is_as_before()
            made.kill(order)
            assert made.target_is_as_before()
        is_over(made, below, order)


@ORDER
def test_the_port_is_stolen_and_nobody_knows(serving: ServingWorld, order: Sequence[str]) -> None:
    with about_to_listen(serving, "steal") as made:
        below = [made.tool.process.pid, *descendants(made.tool.process.pid)]
        with contextlib.ExitStack() as resources:
            with stopped(made, "agent"):
                ask(made)
                resources.enter_context(stopped(made, "supervisor"))
            assert holds_within(SHORT_S, lambda: f"{PORT} : " in made.in_pod.ruleset())
            client = resources.enter_context(made.connect())
            made.kill(order)
            if {"agent", "supervisor"} & {*order}:
                assert holds_within(SERVES_WITHIN_S, made.target_is_as_before)
                assert ends(client)
        is_over(made, below, order)


@pytest.mark.parametrize("who", ["supervisor", "agent"])
def test_somebody_is_stopped_and_goes_on(serving: ServingWorld, who: str) -> None:
    """Then it is as if nothing had been."""
    with about_to_listen(serving, "steal") as made:
        with stopped(made, "agent"):
            ask(made)
            assert made.served_by() == TARGET
        assert made.tool.line() == "OK"
        with stopped(made, who), made.connect() as client:
            client.sendall(b"early")
        assert made.tool.ask("accept 0 1").startswith("OK")
