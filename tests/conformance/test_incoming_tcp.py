"""Incoming TCP: what servers see of their clients, how connections end, and many of them at once."""

from __future__ import annotations

import re

import pytest

from tests.conformance import build
from tests.conformance.harness import nothing_left
from tests.conformance.serving import (
    CLIENTS,
    CLIENTS_6,
    FAR,
    IN_POD,
    POD,
    POD_6,
    PROCESS,
    TARGET,
    Case,
    ServingWorld,
    started,
)

PORT = 7300
WAYS = ("echo", "half", "half_of_client", "source", "reset", "client_resets", "client_goes", "silent", "slow")
HASTY = r"(?m)(?<=\d), getpeername [^;\n]*|, then .*$"
MODES = pytest.mark.parametrize("mode", ["steals", "mirrors"])


def case(library: str, bound: str, host: str, *ways: str, count: int = 0, clients: str = FAR) -> Case:
    server = (str(build.c_program("serve_tcp", library)), "{name}", bound, str(PORT), str(count or len(ways)))
    client = (*build.python_program("serve_clients"), host, str(PORT), *ways)
    return Case(server, client, clients, hasty=HASTY if {"reset", "client_resets", "client_goes"} & {*ways} else "")


@MODES
@pytest.mark.parametrize("way", WAYS)
def test_each_way_that_connections_go(serving: ServingWorld, mode: str, way: str) -> None:
    getattr(serving, mode)(case("musl", "0.0.0.0", POD, way))


@MODES
@pytest.mark.parametrize(
    ("bound", "host", "clients", "seen"),
    [
        ("0.0.0.0", POD, FAR, f"inet {CLIENTS} to inet {POD} {PORT}"),
        (POD, POD, FAR, f"inet {CLIENTS} to inet {POD} {PORT}"),
        ("::", POD_6, FAR, f"inet6 {CLIENTS_6} to inet6 {POD_6} {PORT}"),
        ("::", POD, FAR, f"inet6 ::ffff:{CLIENTS} to inet6 ::ffff:{POD} {PORT}"),
        (POD_6, POD_6, FAR, f"inet6 {CLIENTS_6} to inet6 {POD_6} {PORT}"),
        ("0.0.0.0", POD, IN_POD, f"inet {POD} to inet {POD} {PORT}"),
        ("0.0.0.0", "127.0.0.1", IN_POD, f"inet 127.0.0.1 to inet 127.0.0.1 {PORT}"),
        ("127.0.0.1", "127.0.0.1", IN_POD, f"inet 127.0.0.1 to inet 127.0.0.1 {PORT}"),
        ("::1", "::1", IN_POD, f"inet6 ::1 to inet6 ::1 {PORT}"),
    ],
)
def test_who_is_seen(serving: ServingWorld, mode: str, bound: str, host: str, clients: str, seen: str) -> None:
    outcome, told = getattr(serving, mode)(case("glibc", bound, host, "echo", "half_of_client", clients=clients))
    assert f"echo plain: from {seen}, getpeername the same" in outcome.stdout
    assert "my port" in told


@MODES
@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_all_ways_one_after_the_other(serving: ServingWorld, mode: str, library: str) -> None:
    getattr(serving, mode)(case(library, "::", POD, *WAYS))


@MODES
def test_a_crowd(serving: ServingWorld, mode: str) -> None:
    """A thousand connections are open at once."""
    _, told = getattr(serving, mode)(case("musl", "0.0.0.0", POD, "crowd", count=1000))
    assert told == "crowd: 1000 of 1000 greeted by their own port, 1000 echoed\n"


@MODES
def test_many_that_send_at_once(serving: ServingWorld, mode: str) -> None:
    _, told = getattr(serving, mode)(case("musl", "0.0.0.0", POD, "threads", count=50))
    assert told == "threads: 50 of 50 echoed\n"


def test_a_gigabyte_is_stolen(serving: ServingWorld) -> None:
    serving.steals(case("musl", "0.0.0.0", POD, "gigabyte"))


def test_a_gigabyte_is_mirrored_or_the_user_told(serving: ServingWorld) -> None:
    """The target takes it as fast as it did: then the copy may be cut, with a word about it."""
    gigabyte = case("musl", "0.0.0.0", POD, "gigabyte")
    outcome, told = serving.native(gigabyte)
    with (
        nothing_left(),
        started(serving.in_pod(gigabyte.of(TARGET))) as target,
        started(serving.tool(gigabyte.of(PROCESS), "--incoming", "mirror")) as server,
    ):
        assert serving.client(gigabyte.client) == told
        assert target.ended().stdout == outcome.stdout.replace(PROCESS, TARGET)
        now = server.ended()
    if now.stdout != outcome.stdout:
        assert "was cut: " in now.stderr
        assert re.search(r"sink a gigabyte: .*; got \d+ bytes [0-9a-f]{8}, then ECONNRESET$", now.stdout)
