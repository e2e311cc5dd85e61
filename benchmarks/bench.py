"""What every section gets: where to measure, by which ways, how long."""

from __future__ import annotations

import attrs

from benchmarks.progress import Progress
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
