"""The sections, in the order in which they are run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from benchmarks.bench import Bench
from benchmarks.figures import Figure
from benchmarks.sections import calls, cluster, files, growth, mirror, network, startup, steal


@attrs.frozen
class Section:
    """One part of the benchmark."""

    title: str
    measure: Callable[[Bench], Sequence[Figure]]


SECTIONS: Final[Mapping[str, Section]] = {
    "calls": Section("System calls", calls.measure),
    "startup": Section("Start-up", startup.measure),
    "files": Section("Files", files.measure),
    "network": Section("Network", network.measure),
    "steal": Section("Stolen traffic", steal.measure),
    "mirror": Section("Mirrored traffic", mirror.measure),
    "growth": Section("Growth", growth.measure),
    "cluster": Section("In a cluster", cluster.measure),
}
