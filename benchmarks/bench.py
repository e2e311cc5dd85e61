"""What every section gets: where to measure, by which ways, how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from benchmarks.progress import Progress
from benchmarks.rounds import Key, Samples, alternate
from benchmarks.ways import Ways
from benchmarks.world import World


@attrs.frozen
class Bench:
    """`rounds` may be lessened by sections whose rounds are long. `quick`: only to see that all works."""

    world: World
    ways: Ways
    rounds: int
    quick: bool
    progress: Progress
    failures: list[str] = attrs.field(factory=list)
    """What went wrong so far; `alternate` adds to it."""

    def alternate(self, ways: Mapping[str, Callable[[], Mapping[Key, float]]], rounds: int) -> Samples[Key]:
        """`rounds.alternate`, which keeps what went wrong."""
        samples = alternate(ways, rounds, self.progress)
        self.failures.extend(samples.failures)
        return samples
