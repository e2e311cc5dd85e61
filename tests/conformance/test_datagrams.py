"""UDP: connected and unconnected sockets, true sources, messages with control data, refusals."""

from __future__ import annotations

import pytest

from tests.conformance import build, places
from tests.conformance.harness import World

NEAR, NEAR_6 = places.NEAR
FAR, FAR_6 = places.FAR


@pytest.mark.parametrize(("library", "host"), [("glibc", NEAR), ("musl", FAR), ("glibc", NEAR_6), ("musl", FAR_6)])
def test_datagrams_in_every_way_that_programs_use_them(world: World, library: str, host: str) -> None:
    ports = [places.UDP_ECHO, places.UDP_ELSEWHERE, places.UDP_CLOSED]
    outcome = world.run([build.c_program("datagrams", library), host, *map(str, ports)])
    family = "inet6" if ":" in host else "inet"
    assert outcome.value("from elsewhere").endswith(f"from {family} {host} {places.UDP_ANSWERING}")
    assert outcome.value("peek with MSG_TRUNC").startswith("10 bytes")
    assert outcome.value("second send") == "ECONNREFUSED"


@pytest.mark.parametrize("host", [FAR, f"[{NEAR_6}]"])
def test_go_datagrams(world: World, host: str) -> None:
    ports = [places.UDP_ECHO, places.UDP_ELSEWHERE, places.UDP_CLOSED]
    outcome = world.run([build.go_program("udp"), *(f"{host}:{port}" for port in ports)])
    assert outcome.value("closed port") == "ECONNREFUSED"
    assert outcome.value("sockets that got their own datagram") == "50 of 50"
