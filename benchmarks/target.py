"""A target that has clients: a pod's network, and another one beside it where they are, joined by a veth pair.

The networks are those of the tests. Programs run in them with all else of this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs

from benchmarks import building, processes
from benchmarks.errors import MeasurementFailed, Unavailable
from benchmarks.processes import Command
from tests.mirrord_agent.incoming import networks

ADDRESS: Final = networks.POD[4]
PORT: Final = 7000
"""Of `programs/far_side.c`, which runs in the pod."""
WEB_PORT: Final = 8080
"""Of `programs/http_server.go`."""
_TIMEOUT_S: Final = 60.0


@attrs.frozen
class Target:
    """The two networks, and the servers that run in the pod."""

    networks: networks.Networks
    far_side: subprocess.Popen[str]
    web: subprocess.Popen[str]

    def in_pod(self, program: Command) -> list[str]:
        """The command line that runs a program in the pod's network."""
        return _within(self.networks.pod, program)

    def outside(self, program: Command) -> list[str]:
        """The command line that runs a program where the clients are."""
        return _within(self.networks.outside, program)

    def traffic(self, cells: Sequence[str], duration_ms: int) -> dict[str, float]:
        """What `programs/traffic.c` measures as a client. Raises MeasurementFailed."""
        return processes.numbers(processes.run(self.outside(traffic(cells, duration_ms)), _TIMEOUT_S))

    def requests(self, connections: int, duration_s: int, *options: str) -> float:
        """Requests for a few bytes per second, as wrk counts them. Raises MeasurementFailed."""
        command = self.outside(wrk(connections, duration_s, *options))
        return requests_per_second(processes.run(command, _TIMEOUT_S))


def _within(network: networks.Network, program: Command) -> list[str]:
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{network.descriptor}", "--", *map(str, program)]


def traffic(cells: Sequence[str], duration_ms: int) -> list[str | Path]:
    """The command line of `programs/traffic.c` that measures these cells."""
    return [building.program("traffic"), ADDRESS, str(PORT), "0", str(duration_ms), *cells]


def wrk(connections: int, duration_s: int, *options: str) -> list[str]:
    """The command line of wrk(1) that asks the web server. Raises Unavailable."""
    return [
        find_wrk(),
        f"--threads={min(connections, 2)}",
        f"--connections={connections}",
        f"--duration={duration_s}s",
        *options,
        f"http://{ADDRESS}:{WEB_PORT}/",
    ]


def find_wrk() -> str:
    """The path of wrk(1). Raises Unavailable."""
    found = shutil.which("wrk")
    if found is None:
        raise Unavailable("not installed: apt-get install wrk")
    return found


def requests_per_second(output: str) -> float:
    """From what wrk(1) prints. Raises MeasurementFailed when requests have failed."""
    rate = re.search(r"^Requests/sec: *([\d.]+)$", output, re.MULTILINE)
    failures = re.search(r"^ *(Socket errors: .*|Non-2xx .*)$", output, re.MULTILINE)
    if failures or not rate:
        raise MeasurementFailed(f"wrk: {failures[1] if failures else output}")
    return float(rate[1])


@contextmanager
def open_target() -> Iterator[Target]:
    """Makes the networks and starts both servers in the pod. Raises Unavailable."""
    programs: list[Command] = [
        [building.program("far_side"), str(PORT)],
        [building.go_program("http_server"), str(WEB_PORT)],
    ]
    with ExitStack() as resources:
        try:
            both = resources.enter_context(networks.pod_and_outside([4]))
            servers = [
                resources.enter_context(processes.serving(_within(both.pod, program), _TIMEOUT_S))
                for program in programs
            ]
        except (OSError, AssertionError, MeasurementFailed) as error:
            raise Unavailable(f"cannot make a target with clients: {error}") from error
        yield Target(both, *servers)
