"""Outgoing TCP: connects and their errnos, names of sockets, how connections end, and many of them at once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.conformance import build, places, services
from tests.conformance.harness import World

NEAR, NEAR_6 = places.NEAR
FAR, FAR_6 = places.FAR
BOTH_LIBRARIES = pytest.mark.parametrize("library", ["glibc", "musl"])
EACH_ADDRESS = pytest.mark.parametrize("host", [NEAR, FAR, FAR_6])


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        (NEAR, places.ECHO, "connected"),
        (NEAR_6, places.ECHO, "connected"),
        (FAR, places.ECHO, "connected"),
        (NEAR, places.CLOSED, "ECONNREFUSED"),
        (NEAR_6, places.CLOSED, "ECONNREFUSED"),
        (FAR, places.CLOSED, "ECONNREFUSED"),
        (FAR, places.UNACCEPTED, "connected"),
        ("198.18.2.1", 80, "EHOSTUNREACH"),
        ("198.18.4.1", 80, "EHOSTUNREACH"),
        ("198.18.5.1", 80, "ENETUNREACH"),
        ("198.18.6.1", 80, "EHOSTUNREACH"),
        ("198.18.8.1", 80, "EACCES"),
        ("198.18.99.1", 80, "ENETUNREACH"),
        ("fd00:198:18:4::1", 80, "EACCES"),
        ("fd00:198:18:99::1", 80, "ENETUNREACH"),
    ],
)
def test_connect_gives_the_far_sides_answer(world: World, host: str, port: int, expected: str) -> None:
    outcome = world.run([build.c_program("connect_errors", "glibc"), host, str(port)])
    assert outcome.value(f"non-blocking {host} {port}").startswith(f"{expected}, ")
    blocking = "OK" if expected == "connected" else expected
    assert outcome.value(f"blocking {host} {port}").startswith(f"{blocking}, ")


def test_a_connect_that_never_ends_is_timed_out(world: World) -> None:
    outcome = world.run([build.c_program("connect_errors", "musl"), "198.18.3.1", "80"])
    assert outcome.lines == [
        "blocking 198.18.3.1 80: ETIMEDOUT, then peer ENOTCONN",
        "non-blocking 198.18.3.1 80: ETIMEDOUT, then peer ENOTCONN",
        "again 198.18.3.1 80: ETIMEDOUT",
    ]


def test_wrong_arguments_are_refused_as_the_kernel_does(world: World) -> None:
    outcome = world.run([build.c_program("bad_arguments", "glibc"), NEAR, str(places.ECHO)])
    assert outcome.value("bad pointer") == "EFAULT"
    assert outcome.value("too short") == "EINVAL"
    assert outcome.value("echo after") == "echoed"


@EACH_ADDRESS
@BOTH_LIBRARIES
def test_sockets_have_the_names_that_they_have_in_the_pod(world: World, library: str, host: str) -> None:
    outcome = world.run([build.c_program("socket_names", library), host, str(places.ECHO)])
    family = "inet6" if ":" in host else "inet"
    source = {FAR: "198.18.1.1", FAR_6: "fd00:198:18:1::1"}.get(host, host)
    assert outcome.value("peer") == f"{family} {host} {places.ECHO}"
    assert outcome.value("local") == f"{family} {source}"
    assert outcome.value("echo in a child") == "echoed"


@EACH_ADDRESS
def test_connections_end_as_they_were_ended(world: World, host: str) -> None:
    ports = [places.ECHO, places.RESET, places.HALF, places.LEDGER]
    outcome = world.run([build.c_program("endings", "glibc"), host, *map(str, ports)])
    assert outcome.value("the far side received after its own shutdown") == "120000 bytes and end of file"
    assert outcome.value("the far side of a reset") == "reset"
    assert outcome.value("blocked read") == "ECONNRESET"


@EACH_ADDRESS
def test_sockets_are_connected_again_and_bound_before(world: World, host: str) -> None:
    source_port = str(places.SOURCE_PORTS.start)
    ports = [places.ECHO, places.WHO, places.CLOSED]
    outcome = world.run([build.c_program("reconnect", "glibc"), host, *map(str, ports), source_port])
    assert outcome.value("while connected") == "EISCONN"
    assert outcome.value("bound connect") == "OK"
    assert source_port in outcome.value("local")


@BOTH_LIBRARIES
def test_a_slow_connect_is_under_way_until_it_is_answered(world: World, library: str) -> None:
    ports = map(str, [places.SILENT, places.CONTROL])
    outcome = world.run([build.c_program("slow_connect", library), FAR, *ports])
    assert outcome.value("non-blocking") == "EINPROGRESS"
    assert outcome.value("events in half a second") == "none"
    assert outcome.value("late accept, echo") == "echoed"
    assert outcome.value("late refuse, SO_ERROR") == "ECONNREFUSED"
    assert outcome.value("blocking connect with a signal") == "EINTR"


@EACH_ADDRESS
def test_data_travels_with_the_connect(world: World, host: str) -> None:
    outcome = world.run([build.c_program("fast_open", "glibc"), host, str(places.ECHO), str(places.CLOSED)])
    assert outcome.lines[:3] == [
        "sendto: 6",
        "answer: early",
        f"peer: {'inet6' if ':' in host else 'inet'} {host} {places.ECHO}",
    ]
    assert outcome.value("refused") == "ECONNREFUSED"


def test_go_dials(world: World) -> None:
    silent = f"{FAR}:{places.SILENT}"
    addresses = [f"{NEAR}:{places.ECHO}", f"[{FAR_6}]:{places.ECHO}", f"{NEAR}:{places.CLOSED}"]
    dead_ends = ["198.18.2.1:80", "198.18.5.1:80", "198.18.8.1:80"]
    outcome = world.run([build.go_program("dial"), silent, *addresses, *dead_ends])
    assert outcome.value(f"{NEAR}:{places.CLOSED}") == "ECONNREFUSED"
    assert outcome.value(f"{silent}, canceled") == "canceled"
    assert outcome.value(f"{silent}, awaited") == "ETIMEDOUT"


def test_two_hundred_connections_from_one_go_process(world: World) -> None:
    outcome = world.run([build.go_program("concurrent"), f"http://shop:{places.HTTP}", f"{FAR}:{places.ECHO}", "200"])
    assert outcome.lines == [
        "requests: 200 x all 200 were here OK",
        *(f"echoes, round {round_number}: 200 x own line back: true OK" for round_number in (1, 2, 3)),
        "ends: 200 x ended OK",
    ]


def test_a_hundred_million_bytes_each_way(world: World) -> None:
    size = 100_000_000
    outcome = world.run([build.go_program("bulk"), f"{FAR}:{places.BULK}", str(size)])
    digest = hashlib.sha256()
    whole, rest = divmod(size, len(services.PATTERN))
    for _ in range(whole):
        digest.update(services.PATTERN)
    digest.update(services.PATTERN[:rest])
    assert outcome.lines[:2] == [
        f"downloaded {size} bytes {digest.hexdigest()}",
        f"uploaded {size} {digest.hexdigest()}",
    ]


def test_unix_sockets_that_are_asked_for_are_the_pods(world: World) -> None:
    pathname, abstract = places.UNIX_STREAMS
    program: list[str | Path] = [
        build.c_program("unix_streams", "glibc"),
        pathname,
        abstract,
        "/srv/pod/none",
        "@conformance/none",
    ]
    outcome = world.run(
        [*program, "/srv/pod/README"], options=["--unix-stream", "^/srv/pod/", "--unix-stream", "conformance"]
    )
    assert outcome.value(f"{pathname} echo") == "echoed"
    assert outcome.value(f"{abstract} peer") == f"unix {abstract}"
    assert outcome.value("/srv/pod/none") == "ENOENT"


def test_loopback_is_the_trees_own_or_the_pods(world: World) -> None:
    outcome = world.run([build.c_program("loopback", "glibc"), str(places.ECHO), str(places.FREE)])
    assert outcome.value("the pod's service, 127.0.0.1").startswith("ping, peer as asked")
    assert outcome.value("a sibling's listener, 127.0.0.1").startswith("own, peer as asked")
    assert outcome.value("when the child is gone, 127.0.0.1") == "ECONNREFUSED"
