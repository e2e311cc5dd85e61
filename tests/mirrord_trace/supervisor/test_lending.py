"""Descriptors of stopped tasks, where pidfd_getfd(2) is there and where it is denied, as in a container of Docker."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.mirrord_trace.supervisor.harness import HERE, TIMEOUT_S, UNPRIVILEGED, program, run

DENY = [sys.executable, str(HERE / "deny.py"), "pidfd_getfd"]


@pytest.fixture(params=["allowed", "denied"])
def surroundings(request: pytest.FixtureRequest) -> list[str]:
    return DENY if request.param == "denied" else []


@pytest.fixture
def listening_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("rights", [[], UNPRIVILEGED], ids=["root", "user"])
def test_descriptors_are_lent(surroundings: list[str], rights: list[str], listening_port: int) -> None:
    ended = run(
        "borrow", program("lends"), "once", prefix=[*surroundings, *rights], environment={"PORT": str(listening_port)}
    )
    assert ended.stdout.splitlines() == [
        "at once: its port",
        "later: its port",
        "bad descriptor: Bad file descriptor",
        "connect: made, keepalive 1",
        "descriptors: same",
        "signals blocked: none",
    ]
    assert ended.exit_code == 0
    chosen = "the process is made to send" if surroundings else "with pidfd_getfd(2)"
    assert any(chosen in line for line in ended.said)


def test_threads_lend_under_a_storm_of_signals(surroundings: list[str], listening_port: int) -> None:
    """No signal is lost and no call sees one in the middle: they are queued, and counted."""
    ended = run("borrow", program("lends"), "storm", prefix=surroundings, environment={"PORT": str(listening_port)})
    assert ended.stdout.splitlines() == ["lent: 400 of 400", "signals: all", "stopped and continued: yes"]
    assert ended.exit_code == 0


def test_task_that_is_killed_while_it_lends(surroundings: list[str]) -> None:
    ended = run("borrow", program("lends"), "killed", prefix=surroundings)
    assert ended.stdout.splitlines() == ["killed: 50", "executed: 20"]
    assert ended.exit_code == 0


def test_denied_it_is() -> None:
    """The filter of the tests works."""
    script = "from mirrord_trace import borrow; print(borrow.is_permitted())"
    outputs = [
        subprocess.run([*prefix, sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for prefix in ([], DENY)
    ]
    assert outputs == ["True\n", "False\n"]


def test_the_tool_works_where_it_is_denied() -> None:
    ask = "import urllib.request; print(urllib.request.urlopen('http://shop:8080/', timeout=20).status)"
    command = [*DENY, sys.executable, "-m", "mirrord_trace", "run", "--verbose", "--", sys.executable, "-c", ask]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stdout) == (0, "200\n"), ended.stderr
    assert "the process is made to send its descriptors" in ended.stderr
