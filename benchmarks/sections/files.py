"""What the target's files cost: cold and warm, small, large and many; natively inside the pod, and through the tree.

The pod's files lie in memory, so natively nothing is waited for but the kernel. Every round has files of its own, which
nobody has read before. A second pod is in the calls' way only: see `calls` and `startup` for what local files cost.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from benchmarks import building, processes
from benchmarks.bench import Bench
from benchmarks.figures import NATIVE, Figure
from benchmarks.ways import DELIVERIES, Way

SECTION: Final = "files"
COLD: Final = "stat, open, read, close of a small file: cold, one of many in a directory"
LONE: Final = "the same, each alone in a directory"
WARM: Final = "the same of a file that was read before"
PREAD: Final = "pread of a small file"
FSTAT: Final = "fstat"
STAT: Final = "stat by path"
SEQUENTIAL: Final = "sequential read of 1 GB: cold"
AGAIN: Final = "the same again: from the page cache"
MAPPED: Final = "one byte of each page, mapped"
LISTING: Final = "listing of 10,000 entries with their attributes"
NAMES: Final = "the names once more"
WAYS: Final = (NATIVE, *DELIVERIES)
POD_FILES: Final = {"/srv/bench/README": b"Directories are made here while the benchmark runs.\n"}
"""What the pod must have so that /srv/bench is its own."""

_CONTENT: Final = b"a line of a small file\n" * 20
_SMALL: Final = 200
_BIG_BYTES: Final = 1 << 30
_MANY: Final = 10_000
_TIMEOUT_S: Final = 120.0
_CELLS: Final[Mapping[str, tuple[str, str]]] = {
    "cold small file": (COLD, "ns"),
    "cold lone file": (LONE, "ns"),
    "warm small file": (WARM, "ns"),
    "pread": (PREAD, "ns"),
    "fstat": (FSTAT, "ns"),
    "stat": (STAT, "ns"),
    "sequential read": (SEQUENTIAL, "B/s"),
    "the same again": (AGAIN, "B/s"),
    "mapped": (MAPPED, "B/s"),
    "listing": (LISTING, "s"),
    "names alone": (NAMES, "s"),
}
"""What the program prints: figure's name and unit."""


def measure(bench: Bench) -> list[Figure]:
    """Figures in nanoseconds, bytes per second and seconds."""
    program = building.program("files")
    files = _Files(bench.world.pod.pid, 10 if bench.quick else 1)

    def run(way: Way) -> Mapping[str, float]:
        directory = files.fresh()
        try:
            command = [program, directory]
            if way.name == NATIVE:
                inside = f"--mount=/proc/{bench.world.pod.pid}/ns/mnt"
                return processes.numbers(processes.run(["nsenter", inside, "--", *map(str, command)], _TIMEOUT_S))
            return processes.numbers(processes.run(way.command(command), _TIMEOUT_S))
        finally:
            files.remove(directory)

    ways = bench.ways.some(*WAYS)
    samples = bench.alternate({way.name: partial(run, way) for way in ways}, bench.rounds)
    missing = {**bench.ways.missing_of(*WAYS), **samples.missing}
    return [Figure(SECTION, name, unit, samples.of(cell), missing=missing) for cell, (name, unit) in _CELLS.items()]


@attrs.define
class _Files:
    """Directories in the pod, made from outside through its root."""

    pid: int
    divisor: int
    _made: int = 0

    def fresh(self) -> Path:
        """A directory as `files.c` wants it, by its path in the pod."""
        self._made += 1
        directory = Path(f"/srv/bench/files-{self._made}")
        there = self._outside(directory)
        (there / "small").mkdir(parents=True)
        for number in range(_SMALL // self.divisor):
            (there / f"small/{number}").write_bytes(_CONTENT)
            (there / f"lone/{number}").mkdir(parents=True)
            (there / f"lone/{number}/file").write_bytes(_CONTENT)
        with (there / "big").open("wb") as big:
            piece = os.urandom(1 << 20)
            for _ in range(_BIG_BYTES // self.divisor // len(piece)):
                big.write(piece)
        (there / "many").mkdir()
        for number in range(_MANY // self.divisor):
            (there / f"many/entry-{number}").touch()
        return directory

    def remove(self, directory: Path) -> None:
        """Room for the next one."""
        shutil.rmtree(self._outside(directory))

    def _outside(self, directory: Path) -> Path:
        return Path(f"/proc/{self.pid}/root{directory}")
