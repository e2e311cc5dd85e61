"""What a system call costs: one that is not intercepted, and intercepted ones that stay local.

`getppid` is not subscribed to. `openat` and `stat` name an ordinary local file.
`connect` is a TCP connect to a listener of the same process. Each with one, two and four threads at once. There are
more rounds than elsewhere: where the scheduler puts a ptracer and its tracee differs from start to start, and with it
the cost of a stop, several times over.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from benchmarks import building, processes, world
from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.processes import Command
from benchmarks.ways import ALL, Way

SECTION: Final = "calls"
NAMES: Final = ("getppid", "openat", "stat", "connect")
THREADS: Final = (1, 2, 4)
_MEASURED_MS: Final = 60
_TIMEOUT_S: Final = 60.0


def measure(bench: Bench) -> list[Figure]:
    """Figures in nanoseconds for one call as a thread sees it."""
    file = world.inputs(1) / "input-0"
    duration_ms = _MEASURED_MS // 3 if bench.quick else _MEASURED_MS
    program: Command = [building.program("calls"), file, str(duration_ms), *map(str, THREADS)]

    def run(way: Way) -> Mapping[str, float]:
        return processes.numbers(processes.run(way.command(program), _TIMEOUT_S))

    ways = bench.ways.some(*ALL)
    samples = bench.alternate({way.name: partial(run, way) for way in ways}, 2 * bench.rounds + 1)
    missing = {**bench.ways.missing_of(*ALL), **samples.missing}
    return [
        Figure(SECTION, name, "ns", samples.of(f"{name} {threads}"), {"threads": threads}, missing)
        for name in NAMES
        for threads in THREADS
    ]
