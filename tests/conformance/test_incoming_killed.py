"""kill -9 of agent, supervisor, process and guardian while 100 connections are open.

Within a second the target serves again, new connections included; the clients that were served by the process learn of
it; no rule and no process is left. In a mirror the target is undisturbed all the while.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import struct
from collections.abc import Sequence

import pytest

from tests.conformance.harness import GONE_WITHIN_S, descendants
from tests.conformance.killing import SERVES_WITHIN_S, WHO, Running, ends, running, unused_port
from tests.conformance.serving import PROCESS, TARGET, ServingWorld
from tests.conformance.stage import read_line
from tests.waiting import holds_within

CONNECTIONS = 100
ORDERS: list[tuple[str, ...]] = [*((who,) for who in WHO), *itertools.permutations(WHO)]
ORDER = pytest.mark.parametrize("order", ORDERS, ids=" ".join)


def opened(made: Running, resources: contextlib.ExitStack, by: str) -> list[socket.socket]:
    """Connections that are in use, most of them: one sends, one has sent, one says nothing."""
    assert "bind: OK" in made.tool.said, made.tool
    assert "bind: OK" in made.target.said, made.target
    clients = [resources.enter_context(made.connect()) for _ in range(CONNECTIONS)]
    for number, client in enumerate(clients):
        assert read_line(client).split()[0] == by
        if number % 3:
            client.sendall(b"echo %d\n" % number)
        if number % 3 == 2:
            client.sendall(b"x" * 10000)
    return clients


@ORDER
def test_the_target_serves_again(serving: ServingWorld, order: Sequence[str]) -> None:
    with running(serving, "steal") as made, contextlib.ExitStack() as resources:
        clients = opened(made, resources, PROCESS)
        below = [made.tool.process.pid, *descendants(made.tool.process.pid)]
        made.kill(order)
        if made.goes_on_after(order):
            assert made.served_by() == PROCESS
            return
        assert holds_within(SERVES_WITHIN_S, made.target_is_as_before)
        assert [number for number, client in enumerate(clients) if not ends(client)] == []
        made.is_over(below, order)


@pytest.mark.parametrize("who", ["supervisor", "agent"])
def test_a_client_that_comes_again_from_the_same_port(serving: ServingWorld, who: str) -> None:
    """What the kernel remembers of stolen connections leads nobody astray, be it to the target or in a new session."""
    ports = [unused_port() for _ in range(12)]
    with running(serving, "steal") as made, contextlib.ExitStack() as resources:
        for port in ports:
            client = resources.enter_context(made.connect(port))
            assert read_line(client).split()[0] == PROCESS
            client.sendall(b"echo again\n")
            # As clients do that end at once, and by a reset, which waits for nothing.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", port % 2, 0))
        made.kill([who])
        assert holds_within(SERVES_WITHIN_S, made.target_is_as_before)
        resources.close()
        assert [made.served_by(port) for port in ports[:6]] == [TARGET] * 6
    with running(serving, "steal") as made:
        assert [made.served_by(port) for port in ports[6:]] == [PROCESS] * 6


@ORDER
def test_a_target_that_is_mirrored_is_undisturbed(serving: ServingWorld, order: Sequence[str]) -> None:
    with running(serving, "mirror") as made, contextlib.ExitStack() as resources:
        clients = opened(made, resources, TARGET)
        below = [made.tool.process.pid, *descendants(made.tool.process.pid)]
        made.kill(order)
        assert made.target_is_as_before()
        for number, client in enumerate(clients):
            if number % 3:
                client.sendall(b"end")
                client.shutdown(socket.SHUT_WR)
                echoed = b"".join(iter(lambda client=client: client.recv(1 << 16), b""))  # type: ignore[misc]
                assert echoed == (b"end" if number % 3 == 1 else b"x" * 10000 + b"end")
        made.is_over(below, order)


def test_a_mirror_whose_agent_is_stopped(serving: ServingWorld) -> None:
    with running(serving, "mirror") as made:
        (agent,) = made.pids("agent")
        os.kill(agent, signal.SIGSTOP)
        try:
            with contextlib.ExitStack() as resources:
                for client in opened(made, resources, TARGET):
                    client.shutdown(socket.SHUT_WR)
                    assert ends(client)
            assert made.served_by() == TARGET
        finally:
            os.kill(agent, signal.SIGCONT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_an_end_in_good_order(serving: ServingWorld, number: signal.Signals) -> None:
    with running(serving, "steal") as made, contextlib.ExitStack() as resources:
        clients = opened(made, resources, PROCESS)
        made.tool.process.send_signal(number)
        assert holds_within(SERVES_WITHIN_S, made.target_is_as_before)
        assert all(map(ends, clients))
        assert made.tool.process.wait(GONE_WITHIN_S) == 128 + number
