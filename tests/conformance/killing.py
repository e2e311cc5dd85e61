"""What tests share that kill parts of the tool: a target, the tool that has its port, and who is who below it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.conformance import build
from tests.conformance.harness import GONE_WITHIN_S, descendants, nothing_left, wait_until_gone
from tests.conformance.serving import CLIENTS, POD, PROCESS, TARGET, Server, ServingWorld, started
from tests.conformance.stage import networks, read_line
from tests.mirrord_agent.incoming.networks import Network

PORT = 7320
WHO = ("supervisor", "agent", "process", "guardian")
SERVES_WITHIN_S = 1.0
"""As it is promised."""
_unused_ports = itertools.cycle(range(2000, 32000))


def unused_port() -> int:
    """A port for a client that none of these tests has used."""
    return next(_unused_ports)


def server(name: str) -> list[str]:
    """A program that serves what comes to the port."""
    return [str(build.c_program("serve_tcp", "musl")), name, "0.0.0.0", str(PORT), "5000"]


@attrs.define
class Running:
    """A target and the tool, which has its port."""

    target: Server
    tool: Server
    clients: Network
    in_pod: Network
    delivery: str
    program: str
    """What the tool runs."""

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
            return [pid for pid, command in below.items() if command.startswith(self.program)]
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
            client.bind((CLIENTS, from_port or unused_port()))
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
            self.tool.process.wait(GONE_WITHIN_S)
            assert wait_until_gone(below, GONE_WITHIN_S) == []

    def target_is_as_before(self) -> bool:
        return self.served_by() == TARGET and self.in_pod.ruleset() == ""


def comm_of(pid: int) -> str:
    """A process's name of itself; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def running(serving: ServingWorld, mode: str, program: Sequence[str] = ()) -> Iterator[Running]:
    """The tool runs a server unless it gets another program."""
    program = program or server(PROCESS)
    with (
        networks(serving) as (clients, in_pod),
        started(serving.in_pod(server(TARGET))) as target,
        nothing_left(),
        started(serving.tool(program, "--incoming", mode)) as tool,
    ):
        yield Running(target, tool, clients, in_pod, serving.delivery, program[0])


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
