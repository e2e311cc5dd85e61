"""`mirrord-trace port-forward` in a process of its own, with clients that are sockets of the test."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mirrord_trace.targets.demo import demo_pod
from tests.conformance.harness import descendants
from tests.mirrord_agent.incoming.networks import Network
from tests.mirrord_trace.forwarding.running import TIMEOUT_S, Command, command


@contextmanager
def forwarding(*arguments: str) -> Iterator[Command]:
    with command("port-forward", *arguments) as running:
        yield running


def client(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), TIMEOUT_S)


def get(port: int, host: str = "127.0.0.1") -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def pod_with_server(port: int = 7171) -> Iterator[tuple[int, socket.socket]]:
    """A pod and a listening socket in it."""
    pod = demo_pod()
    pod.start()
    try:
        descriptor = (Path("/proc") / str(pod.pid) / "ns/net").open()
        with descriptor, Network(descriptor.fileno()).open_socket(4) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("0.0.0.0", port))
            server.listen(1024)
            server.settimeout(TIMEOUT_S)
            yield pod.pid, server
    finally:
        pod.stop()


def test_names_and_addresses_of_the_target_are_reached() -> None:
    with forwarding("-L", "0:shop:8080", "-L", "0:198.18.0.10:8080", "-L", "localhost:0:shop.demo.svc:8080") as running:
        ports = [running.port_of(far) for far in ("shop:8080", "198.18.0.10:8080", "shop.demo.svc:8080")]
        running.tells("ready")
        assert all(b'"service": "shop"' in get(port) for port in ports)
        assert b'"service": "shop"' in get(ports[0], "::1")
        assert running.ends(signal.SIGINT) == 130


def test_what_cannot_be_had_is_reset_and_told_within_bounds() -> None:
    with forwarding("-L", "0:nowhere:80", "-L", "0:localhost:9") as running:
        unknown, refused = running.port_of("nowhere:80"), running.port_of("localhost:9")
        running.tells("ready")
        for port in [unknown] + [refused] * 20:
            with client(port) as one, pytest.raises(ConnectionResetError):
                one.recv(1)
        assert running.ends(signal.SIGTERM) == 143
    with pytest.raises(AssertionError):
        running.tells("nothing like this")
    assert sum("no such name" in line for line in running.told) == 1
    assert sum("Connection refused" in line for line in running.told) == 5


def test_a_port_in_use_is_told_before_the_target_is_disturbed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with forwarding("-t", "pod/nowhere", "-L", f"{port}:shop:8080") as running:
            assert running.ends() == 1
            running.tells(f"cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("arguments", [[], ["-L", "80"], ["-L", "there:1:shop:80"], ["-L", "[::1]"]])
def test_mistakes_are_told_with_exit_code_2(arguments: list[str]) -> None:
    with forwarding(*arguments) as running:
        assert running.ends() == 2


def test_half_closes_and_resets_travel_both_ways() -> None:
    with pod_with_server() as (pid, server), forwarding("-t", f"pid/{pid}", "-L", "0:localhost:7171") as running:
        port = running.port_of("localhost:7171")
        running.tells("ready")
        with client(port) as near, server.accept()[0] as far:
            far.settimeout(TIMEOUT_S)
            near.sendall(b"question")
            near.shutdown(socket.SHUT_WR)
            assert far.makefile("rb").read() == b"question"
            far.sendall(b"answer")
            far.shutdown(socket.SHUT_WR)
            assert near.makefile("rb").read() == b"answer"
        with client(port) as near, server.accept()[0] as far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
            with pytest.raises(ConnectionResetError):
                near.recv(1)
        with client(port) as near, server.accept()[0] as far:
            far.settimeout(TIMEOUT_S)
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            near.close()
            with pytest.raises(ConnectionResetError):
                far.recv(1)


def send_and_end(far: socket.socket, size: int) -> None:
    far.sendall(bytes(size))
    far.shutdown(socket.SHUT_WR)


def test_a_long_transfer_to_a_slow_reader_takes_little_memory() -> None:
    size = 100 << 20
    with pod_with_server() as (pid, server), forwarding("-t", f"pid/{pid}", "-L", "0:localhost:7171") as running:
        port = running.port_of("localhost:7171")
        running.tells("ready")
        with client(port) as near, server.accept()[0] as far:
            far.settimeout(TIMEOUT_S)
            sender = threading.Thread(target=send_and_end, args=(far, size))
            sender.start()
            received = 0
            while data := near.recv(1 << 16):
                received += len(data)
            sender.join(TIMEOUT_S)
        assert received == size
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        assert int(status.partition("VmHWM:")[2].split()[0]) < 150 << 10  # KiB; the program itself takes 45 MiB


def test_a_thousand_connections_at_once() -> None:
    with pod_with_server() as (pid, server), forwarding("-t", f"pid/{pid}", "-L", "0:127.0.0.1:7171") as running:
        port = running.port_of("127.0.0.1:7171")
        running.tells("ready")
        with ExitStack() as owned:
            pairs = []
            for number in range(1000):
                near = owned.enter_context(client(port))
                near.sendall(b"%4d" % number)
                pairs.append((near, owned.enter_context(server.accept()[0])))
            for _, far in pairs:
                far.settimeout(TIMEOUT_S)
                far.sendall(far.recv(4, socket.MSG_WAITALL))
            assert [near.recv(4, socket.MSG_WAITALL) for near, _ in pairs] == [b"%4d" % n for n in range(1000)]


def test_the_end_of_the_agent_is_the_end_with_a_reason() -> None:
    with pod_with_server() as (pid, _), forwarding("-t", f"pid/{pid}", "-L", "0:localhost:7171") as running:
        running.tells("ready")
        below = descendants(running.process.pid)
        [agent] = [each for each, line in below.items() if "-m mirrord_agent" in line]
        os.kill(agent, signal.SIGKILL)
        running.tells("the agent is gone")
        assert running.ends() == 1


def test_nothing_stays_behind_a_command_that_is_killed() -> None:
    with forwarding("-L", "0:shop:8080") as running:  # which looks for what is left
        running.tells("ready")
        assert running.ends(signal.SIGKILL) == -signal.SIGKILL
