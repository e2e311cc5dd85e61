"""Process trees: children of every kind, sockets that change hands, signals, exit codes, other languages' runtimes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance import build, places
from tests.conformance.harness import World

NEAR, FAR = places.NEAR[0], places.FAR[0]
BOTH_LIBRARIES = pytest.mark.parametrize("library", ["glibc", "musl"])


@BOTH_LIBRARIES
@pytest.mark.parametrize("host", [*places.NEAR, FAR])
def test_sockets_that_change_hands_keep_their_connection(world: World, library: str, host: str) -> None:
    ports = map(str, [places.ECHO, places.UDP_ECHO])
    outcome = world.run([build.c_program("passing", library), host, *ports])
    assert outcome.value("after a time in flight, echo") == "echoed"
    assert outcome.value("used by the parent, echo") == "echoed"
    assert outcome.value("after exec, echo") == "echoed"
    assert outcome.value("same number again") == "yes, peer: ENOTCONN"


@BOTH_LIBRARIES
def test_every_way_to_make_a_process(world: World, library: str) -> None:
    outcome = world.run([build.c_program("process_tree", library), NEAR, str(places.ECHO)])
    assert outcome.value("a daemon") == "echoed"
    assert outcome.value("a child cloned untraced") == "echoed"
    assert outcome.value("vfork and failed exec") == "exit 7"
    assert outcome.value("a killed child") == "signal 9"
    assert outcome.value("no children are left") == "ECHILD"


@BOTH_LIBRARIES
def test_a_thread_that_is_not_the_leader_executes(world: World, library: str) -> None:
    outcome = world.run([build.c_program("thread_exec", library), NEAR, str(places.ECHO)], exit_status=7)
    assert sum(line == "echo: echoed" for line in outcome.lines) == 6
    assert sum(line.startswith("inherited: inet ") and line.endswith(", echoed") for line in outcome.lines) == 5


@BOTH_LIBRARIES
def test_signals_stop_continue_and_interrupt(world: World, library: str) -> None:
    ports = [places.SILENT, places.ECHO, places.UDP_ECHO]
    outcome = world.run([build.c_program("signals", library), FAR, *map(str, ports)])
    assert outcome.value("connect across a stop") == "ETIMEDOUT"
    assert outcome.value("recvfrom, interrupted") == "EINTR"
    assert outcome.value("connect, restarted") == "ETIMEDOUT"
    assert outcome.value("in a storm of signals") == "200 of 200"


def test_go_starts_processes_and_gets_signals(world: World) -> None:
    outcome = world.run([build.go_program("execs"), f"{FAR}:{places.ECHO}"], exit_status=17)
    assert "child 19 OK: exit 19" in outcome.lines
    assert outcome.lines[-2:] == ["signal: user defined signal 1", "signal: terminated"]


def test_a_tree_of_shell_python_and_go(world: World) -> None:
    leaf: list[str | Path] = [
        build.go_program("httpget"),
        f"http://shop:{places.HTTP}/",
        f"http://far:{places.HTTP}/who",
    ]
    outcome = world.run([*build.shell_program("tree"), *build.python_program("branch"), "--", *leaf], exit_status=6)
    assert outcome.lines[0] == "shell: host name conformance-0, file conformance-0, POD_NAME conformance-0"
    assert f"  http://far:{places.HTTP}/who: 200 OK, OK you are 198.18.1.1" in outcome.lines
    assert '  POD_NAME: "" false' in outcome.lines
    assert "shell: in the background it ended with 5" in outcome.lines


def test_a_shells_own_sockets(world: World) -> None:
    ports = [str(places.ECHO), str(places.CLOSED)]
    outcome = world.run([*build.shell_program("sockets"), FAR, *ports, "shop", str(places.HTTP)], exit_status=12)
    assert outcome.value("echo in a subshell") == "from a subshell"
    assert outcome.value("http") == "hello from conformance-0: you asked shop for /shell"


def test_pythons_clients(world: World) -> None:
    ports = [str(places.ECHO), str(places.CLOSED)]
    outcome = world.run([*build.python_program("clients"), "shop", str(places.HTTP), FAR, *ports])
    assert outcome.value("asyncio") == "40 of 40"
    assert outcome.value("threads") == "160 of 160"
    assert outcome.value("multiprocessing, forkserver").startswith("True")


def test_nodes_clients(world: World) -> None:
    ports = [str(places.ECHO), str(places.CLOSED), str(places.UDP_ECHO)]
    outcome = world.run([*build.node_program("clients"), "shop", str(places.HTTP), FAR, *ports], exit_status=8)
    assert outcome.value("net, closed port") == "ECONNREFUSED"
    assert outcome.value("resolve4, many") == "100"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -INT $$", 128 + 2),
        ("ulimit -c 0; kill -SEGV $$", 128 + 11),
    ],
)
def test_the_exit_status_is_the_processs_own(world: World, script: str, status: int) -> None:
    world.run(["/bin/sh", "-c", script], exit_status=status)


def test_what_fails_everywhere_fails_its_test(world: World) -> None:
    with pytest.raises(AssertionError, match="exit status 3"):
        world.run(["/bin/sh", "-c", "exit 3"])
