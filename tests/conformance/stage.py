"""Scenarios: a server that does what it is told, step by step, and its clients, which are sockets of the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from tests.conformance import build
from tests.conformance.harness import nothing_left
from tests.conformance.serving import POD, PROCESS, Server, ServingWorld, far_side_of, started
from tests.mirrord_agent.incoming.networks import Network

PORT = 7310


@attrs.define
class Stage:
    """A server that takes commands, and its clients."""

    server: Server
    clients: Network
    in_pod: Network
    heard: list[str] = attrs.field(factory=list)

    def do(self, *commands: str) -> str:
        """The last answer; all are compared."""
        for command in commands:
            self.heard.append(f"{command}: {self.server.ask(command)}")
        return self.heard[-1].partition(": ")[2]

    def connect(self, host: str = POD, port: int = PORT) -> socket.socket:
        return self.clients.connect(host, port)

    def refused(self, host: str = POD, port: int = PORT) -> None:
        """Nobody hears this port: who connects is refused, or reset at once where that cannot be had."""
        try:
            with self.connect(host, port) as client:
                said = client.recv(1)
        except ConnectionError:
            return
        raise AssertionError(f"somebody hears {host} {port}: {said!r}")

    def greeted(self, client: socket.socket, name: str = PROCESS) -> None:
        """A connection that a server has accepted is told its own address."""
        greeting = read_line(client)
        host, port = client.getsockname()[:2]
        assert greeting.split()[0] == name
        assert greeting.endswith(f"{host} {port}"), (greeting, host, port)

    def meets(self, command: str = "accept 0 1", host: str = POD, name: str = PROCESS) -> str:
        """One client, and what the server, who has this name, says of it."""
        with self.connect(host) as client:
            said = self.do(command)
            self.greeted(client, name)
        if command.startswith("accept"):
            self.do("close 1")
        return said


def read_line(client: socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        byte = client.recv(1)
        assert byte, f"the connection ends after {line!r}"
        line += byte
    return line.decode().rstrip("\n")


Scenario = Callable[[Stage], None]


@contextmanager
def networks(serving: ServingWorld) -> Iterator[tuple[Network, Network]]:
    """The clients' and the pod's."""
    pids = (far_side_of(serving.pod), serving.pod.pid)
    descriptors = [os.open(f"/proc/{pid}/ns/net", os.O_RDONLY) for pid in pids]
    try:
        yield Network(descriptors[0]), Network(descriptors[1])
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def program(name: str) -> list[str]:
    return [str(build.c_program("serve_script", "musl")), name, "first"]


def play(serving: ServingWorld, scenario: Scenario, command: list[str]) -> tuple[list[str], str]:
    """What the server said and what the tool said."""
    with networks(serving) as (clients, in_pod), nothing_left(), started(command) as server:
        stage = Stage(server, clients, in_pod)
        scenario(stage)
        assert server.process.stdin is not None
        server.process.stdin.close()
        server.process.stdin = None
        outcome = server.ended()
        assert outcome.exit_status == 0
    return stage.heard, outcome.stderr


def comes_to_the_same(serving: ServingWorld, scenario: Scenario, *options: str) -> str:
    """What the tool said."""
    native, _ = play(serving, scenario, serving.in_pod(program(PROCESS)))
    heard, errors = play(serving, scenario, serving.tool(program(PROCESS), "--steal", *options))
    assert heard == native, errors
    return errors


def listening(stage: Stage, host: str = "0.0.0.0", port: int = PORT, kind: str = "tcp") -> None:
    stage.do(f"{kind} 0", "set 0 reuseaddr 1", f"bind 0 {host} {port}", "listen 0 16", "name 0")
