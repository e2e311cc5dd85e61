"""Names: what each resolver makes of the pod's, the files that it reads, the host's own name, the environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance import build, places
from tests.conformance.harness import World, run_outside, tool_command
from tests.conformance.pods import ConformancePod

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


HERE_IN_PYTHON = """
import os, pathlib, socket
print("gethostname:", socket.gethostname())
print("uname:", os.uname().nodename)
print("/etc/hostname:", pathlib.Path("/etc/hostname").read_text().strip() if os.path.exists("/etc/hostname") else "")
print("proc:", pathlib.Path("/proc/sys/kernel/hostname").read_text().strip())
print("resolver:", any(line.startswith("nameserver 198.18.0.53") for line in open("/etc/resolv.conf")))
"""


def test_the_host_name_stays_here_where_it_is_wanted(
    delivery: str, pod: ConformancePod, outside: ConformancePod, tmp_path: Path
) -> None:
    """Only the name: the resolver's files are the pod's."""
    configuration = tmp_path / "mirrord.json"
    configuration.write_text('{"feature": {"hostname": false}}')

    def lines(*program: str | Path) -> list[str]:
        options = ["-f", str(configuration)]
        outcome = run_outside(tool_command(outside, pod, delivery, list(map(str, program)), options))
        assert outcome.exit_status == 0, outcome.stderr
        return outcome.lines

    file_here = Path("/etc/hostname")
    name_in_file = file_here.read_text().strip() if file_here.exists() else ""
    assert lines(sys.executable, "-c", HERE_IN_PYTHON) == [
        "gethostname: outside-0",
        "uname: outside-0",
        f"/etc/hostname: {name_in_file}",
        "proc: outside-0",
        "resolver: True",
    ]
    in_c = lines(build.c_program("world", "musl"), "POD_NAME")
    assert "gethostname: outside-0" in in_c
    assert f"openat: {name_in_file or 'ENOENT'}" in in_c
    assert f"relative: {name_in_file or 'ENOENT'}" in in_c
    assert f"POD_NAME={places.HOSTNAME}" in in_c
    assert "host name: outside-0 OK" in lines(build.go_program("httpget"))
