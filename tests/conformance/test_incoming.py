"""Servers: programs that listen in the pod, and that steal its ports from outside, see and do the same."""

from __future__ import annotations

import pytest

from tests.conformance import build, places
from tests.conformance.harness import World

STEAL = ["--steal"]
VISITORS = pytest.mark.parametrize(
    ("visitor", "host"),
    [
        (places.NEAR[0], places.NEAR[0]),
        (places.NEAR[1], places.NEAR[1]),
        (places.FAR[0], places.POD[0]),
        (places.FAR[1], places.POD[1]),
        (places.NEAR[0], "127.0.0.1"),
    ],
)
"""Where the visitor is, and which address of the pod it visits."""


@VISITORS
@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_a_server_sees_its_clients_and_itself(world: World, library: str, visitor: str, host: str) -> None:
    outcome = world.run(
        [build.c_program("serving", library), visitor, str(places.VISITOR), host, str(places.SERVED)], options=STEAL
    )
    for label in (
        "blocking",
        "non-blocking",
        "in a child",
        "after another listen",
        "on a dual socket",
        "at one address",
    ):
        assert outcome.value(label).endswith(", true")
        assert outcome.value(f"{label}, heard") == "got welcome"
    assert outcome.value("accepted unseen").endswith(", true")
    assert outcome.value("negative length") == "EINVAL"
    assert outcome.value("interrupted accept") == "EINTR"
    assert outcome.value("the port again") == "EADDRINUSE"
    assert outcome.value("after it was closed") == "ECONNREFUSED"
    assert outcome.value("after it was shut down") == "ECONNREFUSED"
    assert outcome.value("datagram").endswith(", true")
    assert outcome.value("datagram heard") == "got welcome"


@VISITORS
def test_go_serves(world: World, visitor: str, host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    asked = f"[{visitor}]" if ":" in visitor else visitor
    addresses = [f"{shown}:{places.SERVED}", f"{shown}:{places.SERVED + 1}"]
    outcome = world.run([build.go_program("serve"), f"{asked}:{places.VISITOR}", *addresses], options=STEAL)
    assert outcome.lines.count("client is the visitor: true") == 2
    assert outcome.lines.count("heard: got HTTP/1.0 200 OK welcome") == 2


@VISITORS
def test_python_serves(world: World, visitor: str, host: str) -> None:
    arguments = [visitor, str(places.VISITOR), host, str(places.SERVED)]
    outcome = world.run([*build.python_program("serving"), *arguments], options=STEAL)
    assert outcome.lines.count("threads, client is the visitor: True") == 20
    assert outcome.value("datagram, heard") == "got answer"


@VISITORS
def test_node_serves(world: World, visitor: str, host: str) -> None:
    arguments = [visitor, str(places.VISITOR), host, str(places.SERVED)]
    outcome = world.run([*build.node_program("server"), *arguments], options=STEAL)
    assert outcome.value("client is the visitor") == "true"
    assert outcome.value("heard") == "welcome"
