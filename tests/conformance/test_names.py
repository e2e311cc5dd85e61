"""Names: what each resolver makes of the pod's, the files that it reads, the host's own name, the environment."""

from __future__ import annotations

import pytest

from tests.conformance import build, places
from tests.conformance.harness import World

NAMES = ["shop", "shop.demo.svc.cluster.local", "four", "six", "alias", "many.example.com", "unknown", "from-hosts"]
EACH_LIBRARY = pytest.mark.parametrize("library", ["glibc", "musl", "musl-stripped"])


@EACH_LIBRARY
def test_the_c_librarys_resolver(world: World, library: str) -> None:
    outcome = world.run([build.c_program("resolve", library), *NAMES, "localhost"])
    assert outcome.value("shop inet") == "inet 198.18.0.10 canonical shop.demo.svc.cluster.local"
    assert outcome.value("unknown any") == "EAI_NONAME"
    assert outcome.value("from-hosts inet").startswith("inet 198.18.0.10 ")
    assert outcome.value("fd00:198:18::10") == "shop.demo.svc.cluster.local"


def test_gos_resolver(world: World) -> None:
    outcome = world.run([build.go_program("resolve"), *NAMES])
    assert "many.example.com: 100 addresses OK" in outcome.lines
    assert outcome.value("TXT") == '["another" "one text"] OK'
    assert outcome.lines[-1] == "PTR: [from-hosts from-hosts.example.com.] OK"


@pytest.mark.parametrize("stripped", [False, True], ids=["whole", "stripped"])
def test_http_by_name_from_a_static_go_program(world: World, stripped: bool) -> None:
    urls = [f"http://shop:{places.HTTP}/", f"http://far:{places.HTTP}/who", f"http://six:{places.HTTP}/"]
    outcome = world.run([build.go_program("httpget", stripped=stripped), *urls, "http://unknown.example.com/"])
    assert outcome.lines[0] == f"{urls[0]}: 200 OK, OK hello from conformance-0: you asked shop:{places.HTTP} for /"
    assert outcome.lines[2] == f"{urls[1]}: 200 OK, OK you are 198.18.1.1"
    assert "http://unknown.example.com/: no such host" in outcome.lines
    assert outcome.value("POD_NAME") == '"conformance-0" true'


@EACH_LIBRARY
def test_the_world_that_a_process_is_told_about(world: World, library: str) -> None:
    outcome = world.run([build.c_program("world", library), *places.ENVIRONMENT, "NOT_SET"])
    assert outcome.value("uname") == "Linux conformance-0 x86_64"
    assert "\nGREETING=hello, wörld\nWITH_NEWLINE=one\ntwo\n" in outcome.stdout
    assert "/etc/resolv.conf: nameserver 198.18.0.53" in outcome.lines
    assert outcome.value("relative") == "conformance-0"
    assert outcome.value("/var/run/nscd/socket") == "ENOENT"


@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_a_cleared_environment_hides_nothing(world: World, library: str) -> None:
    outcome = world.run([build.c_program("cleared", library), places.NEAR[0], str(places.ECHO), "shop"])
    assert outcome.lines == [
        "variables at first: some",
        "variables after exec: none",
        "echo: echoed",
        "shop: inet 198.18.0.10",
        "host name: conformance-0",
    ]
