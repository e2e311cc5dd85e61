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
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from tests.conformance import build
from tests.conformance.harness import descendants, nothing_left, wait_until_gone
from tests.conformance.serving import CLIENTS, POD, PROCESS, TARGET, Server, ServingWorld, started
from tests.conformance.stage import networks, read_line
from tests.mirrord_agent.incoming.networks import Network
from tests.waiting import holds_within

PORT = 7320
CONNECTIONS = 100
WHO = ("supervisor", "agent", "process", "guardian")
ORDERS: list[tuple[str, ...]] = [*((who,) for who in WHO), *itertools.permutations(WHO)]
ORDER = pytest.mark.parametrize("order", ORDERS, ids=" ".join)
_unused_ports = itertools.cycle(range(2000, 32000))
SERVES_WITHIN_S = 2.0
"""It is a second that is promised, on a machine that does nothing else."""


def server(name: str) -> list[str]:
    return [str(build.c_program("serve_tcp", "musl")), name, "0.0.0.0", str(PORT), "5000"]


@attrs.define
class Running:
    """A target and the tool, which has its port."""

    target: Server
    tool: Server
    clients: Network
    in_pod: Network
    delivery: str

    def pids(self, who: str) -> list[int]:
        """Whoever is called so: the supervisor alone, or some of the processes below it."""
        supervisor = self.tool.process.pid
        if who == "supervisor":
            return [supervisor]
        own = Path(f"/proc/{supervisor}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        below = descendants(supervisor)
        if who == "agent":
            return [pid for pid, command in below.items() if "-m mirrord_agent" in command]
        if who == "process":
            return [pid for pid, command in below.items() if command.startswith(server(PROCESS)[0])]
        return [pid for pid, command in below.items() if command in (own, "") or comm_of(pid) == "mirrord-guard"]

    def kill(self, order: Sequence[str]) -> None:
        found = [(who, self.pids(who)) for who in order]
        for who, pids in found:
            assert pids, f"there is no {who}: {descendants(self.tool.process.pid)}"
        for _, pids in found:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def connect(self, from_port: int | None = None) -> socket.socket:
        """A connection, from a port that none of these tests has used, unless one is given."""
        client = self.clients.open_socket(4)
        try:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind((CLIENTS, from_port or next(_unused_ports)))
            client.connect((POD, PORT))
        except BaseException:
            client.close()
            raise
        return client

    def served_by(self, from_port: int | None = None) -> str:
        """The name of whoever serves a new connection now; "" if nobody does."""
        try:
            with self.connect(from_port) as client:
                return read_line(client).split()[0]
        except (OSError, AssertionError):
            return ""

    def goes_on_after(self, order: Sequence[str]) -> bool:
        """Whether the session does not end: the guardians of a tracer only clear away what it leaves."""
        return self.delivery == "ptrace" and order == ("guardian",)

    def is_over(self, below: Sequence[int], order: Sequence[str]) -> None:
        """All are gone whoever was killed; but the process can do without an agent, and a tracer without a guardian."""
        if order != ("agent",) and not self.goes_on_after(order):
            self.tool.process.wait(SERVES_WITHIN_S)
            assert wait_until_gone(below, SERVES_WITHIN_S) == []

    def target_is_as_before(self) -> bool:
        return self.served_by() == TARGET and self.in_pod.ruleset() == ""


def comm_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def running(serving: ServingWorld, mode: str) -> Iterator[Running]:
    with (
        networks(serving) as (clients, in_pod),
        started(serving.in_pod(server(TARGET))) as target,
        nothing_left(),
        started(serving.tool(server(PROCESS), "--incoming", mode)) as tool,
    ):
        yield Running(target, tool, clients, in_pod, serving.delivery)


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


def ends(client: socket.socket) -> bool:
    """Whether a client learns that its connection is over, in time."""
    client.settimeout(SERVES_WITHIN_S)
    try:
        while client.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


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
    ports = [next(_unused_ports) for _ in range(12)]
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
        assert made.tool.process.wait(SERVES_WITHIN_S) == 128 + number
