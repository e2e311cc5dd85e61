"""How costs and memory grow with threads, processes and connections: 1, 10, 100 and 1000 of them.

A call's cost is measured while all others exist and wait, then (threads, processes) while all make calls at once.
Memory is looked at while all of them exist; every connection has exchanged 16 KiB each way by then.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import building, processes, world
from benchmarks.bench import Bench
from benchmarks.errors import MeasurementFailed
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.ways import DELIVERIES, FLOOR

SECTION: Final = "growth"
WAYS: Final = (NATIVE, FLOOR, *DELIVERIES)
THREADS, PROCESSES, CONNECTIONS = "threads", "processes", "connections"
COUNTS: Final = (1, 10, 100, 1000)
ROLES: Final = ("supervisor", "agent", "guardian")
UNITS: Final = {"openat": "ns", "busy": "1/s", "connect": "ns", "echo": "ns"}
_MEASURED_MS: Final = 50
_MOST_ROUNDS: Final = 3
_TIMEOUT_S: Final = 60.0


def memory_name(role: str, kind: str) -> str:
    """What the figure is called that has the memory of these processes of the tool."""
    return f"{role} {kind}"


def measure(bench: Bench) -> list[Figure]:
    """Nanoseconds, calls per second, bytes of memory; names are prefixed with what grows."""
    figures = []
    for kind in (THREADS, PROCESSES, CONNECTIONS):
        for count in COUNTS:
            figures += _measure(bench, kind, count)
    return figures


def _measure(bench: Bench, kind: str, count: int) -> list[Figure]:
    crowd = building.program("crowd")
    file = world.inputs(1) / "input-0"
    program: Command = [crowd, kind, str(count), str(_MEASURED_MS), file, world.ADDRESS, str(world.PORT)]
    bench.progress.step(f"{count} {kind}")
    # The floor relays nothing: where there are connections, native and the floor would be in the pod.
    names = (NATIVE, *DELIVERIES) if kind == CONNECTIONS else WAYS

    def runner(name: str, command: list[str]) -> Callable[[], Mapping[str, float]]:
        return lambda: _run(command, os.path.realpath(crowd), with_memory=name in DELIVERIES)

    runners = {way.name: runner(way.name, way.command(program)) for way in bench.ways.some(*names)}
    runners[NATIVE] = runner(NATIVE, bench.world.in_pod(program))
    rounds = 1 if bench.quick else min(bench.rounds, _MOST_ROUNDS)
    samples = bench.alternate(runners, rounds)
    missing = {**bench.ways.missing_of(*names), **samples.missing}
    return [
        Figure(SECTION, f"{kind}: {key}", UNITS.get(key, "B"), samples.of(key), {"count": count}, missing)
        for key in samples.by_key
    ]


def _run(command: list[str], crowd: str, *, with_memory: bool) -> Mapping[str, float]:
    """What the program says, and the memory of the tool's processes while all is there."""
    with processes.running(command, stdin=subprocess.PIPE) as process:
        output = _read_until_ready(process, command)
        found = processes.numbers(output)
        if with_memory:
            by_role = processes.memory_by_role(process.pid, frozenset({crowd}))
            for role, use in by_role.items():
                found[memory_name(role, "RSS")] = use.rss
                found[memory_name(role, "PSS")] = use.pss
            both = [by_role[role] for role in ("supervisor", "agent") if role in by_role]
            found["supervisor and agent RSS"] = sum(use.rss for use in both)
            found["supervisor and agent PSS"] = sum(use.pss for use in both)
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
        try:
            process.communicate(timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MeasurementFailed(f"does not end: {processes.shown(command)}") from None
    return found


def _read_until_ready(process: subprocess.Popen[str], command: list[str]) -> str:
    assert process.stdout is not None
    deadline = time.monotonic() + _TIMEOUT_S
    output = ""
    descriptor = process.stdout.fileno()
    os.set_blocking(descriptor, False)
    while not output.endswith("ready\n"):
        if not processes.wait_readable(descriptor, deadline - time.monotonic()):
            raise MeasurementFailed(f"not ready after {_TIMEOUT_S:g} s: {processes.shown(command)}")
        chunk = os.read(descriptor, 65536)
        if not chunk:
            _, stderr = process.communicate(timeout=_TIMEOUT_S)
            raise MeasurementFailed(f"ended before it was ready: {processes.shown(command)}\n{stderr[-800:]}")
        output += chunk.decode()
    return output.removesuffix("ready\n")
