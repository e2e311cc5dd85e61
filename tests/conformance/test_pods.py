from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from tests.conformance.pods import ConformancePod

CONNECT = """
    import errno, socket, sys
    for host in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as client:
            print(host, errno.errorcode.get(client.connect_ex((host, 80)), "connected"))
"""
LISTEN = """
    import socket
    listener = socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True)
    print("ready", flush=True)
    while True:
        listener.accept()[0].close()
"""


def python(source: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-c", textwrap.dedent(source), *arguments]


@pytest.fixture(scope="module")
def pod() -> Iterator[ConformancePod]:
    with ConformancePod(
        hostname="far-0",
        addresses=["198.18.0.10", "fd00:198:18::10"],
        environment={"COLOUR": "green"},
        programs=[python(LISTEN)],
        far_side=True,
        far_programs=[python(LISTEN)],
    ) as pod:
        yield pod


@pytest.mark.parametrize(
    ("host", "outcome"),
    [
        ("198.18.0.10", "connected"),
        ("fd00:198:18::10", "connected"),
        ("198.18.1.2", "connected"),
        ("fd00:198:18:1::2", "connected"),
        ("198.18.2.1", "EHOSTUNREACH"),
        ("fd00:198:18:2::1", "ENETUNREACH"),
        ("198.18.3.1", "ETIMEDOUT"),
        ("fd00:198:18:3::1", "ETIMEDOUT"),
        ("198.18.4.1", "EHOSTUNREACH"),
        ("fd00:198:18:4::1", "EACCES"),
        ("198.18.5.1", "ENETUNREACH"),
        ("fd00:198:18:5::1", "ENETUNREACH"),
        ("198.18.6.1", "EHOSTUNREACH"),
        ("fd00:198:18:6::1", "EHOSTUNREACH"),
        ("198.18.7.1", "EINVAL"),
        ("fd00:198:18:7::1", "EINVAL"),
        ("198.18.8.1", "EACCES"),
        ("fd00:198:18:8::1", "EACCES"),
        ("198.18.99.1", "ENETUNREACH"),
        ("fd00:198:18:99::1", "ENETUNREACH"),
    ],
)
def test_the_map_is_true(pod: ConformancePod, host: str, outcome: str) -> None:
    done = pod.run(python(CONNECT, host))
    assert (done.stdout.decode(), done.stderr) == (f"{host} {outcome}\n", b"")


def test_run_gives_output_status_and_the_pods_environment(pod: ConformancePod) -> None:
    done = pod.run(["sh", "-c", "echo $COLOUR; hostname; cat; pwd; echo oops >&2; exit 3"], stdin=b"in\n", cwd="/usr")
    assert (done.stdout, done.stderr, done.returncode) == (b"green\nfar-0\nin\n/usr\n", b"oops\n", 3)


def test_run_that_takes_too_long_leaves_nothing(pod: ConformancePod) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        pod.run(["sh", "-c", "sleep 4711 & sleep 4711"], timeout_s=0.5)
    assert b"4711" not in pod.run(["sh", "-c", "cat /proc/[0-9]*/cmdline"]).stdout.replace(b"cat", b"")
