"""Measures several ways by turns, so that what happens to the machine meanwhile happens to all of them.

Each round runs every way once; the next begins with the one that was second, so that none always follows the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from benchmarks.errors import MeasurementFailed
from benchmarks.progress import Progress

Key = TypeVar("Key", bound=Hashable)


@attrs.frozen
class Samples(Generic[Key]):
    """What was measured: by key and way, one value for each round; and why a way was given up."""

    by_key: Mapping[Key, Mapping[str, Sequence[float]]]
    missing: Mapping[str, str]
    failures: Sequence[str]
    """What went wrong, including what then went well."""

    def of(self, key: Key) -> Mapping[str, Sequence[float]]:
        """By way."""
        return self.by_key.get(key, {})


def alternate(ways: Mapping[str, Callable[[], Mapping[Key, float]]], rounds: int, progress: Progress) -> Samples[Key]:
    """Call each way's function once in each round.

    One that fails is tried again at once; at its second failure it is given up: it has no samples, but a reason.
    """
    taken: dict[str, list[Mapping[Key, float]]] = {name: [] for name in ways}
    missing: dict[str, str] = {}
    failures: list[str] = []
    failed_once: set[str] = set()
    names = list(ways)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if name not in missing:
                progress.step(f"round {number + 1} of {rounds}, {name}")
            while name not in missing:
                try:
                    taken[name].append(ways[name]())
                    break
                except MeasurementFailed as error:
                    progress.say(f"{name}: {error}")
                    failures.append(f"{name}: {error}")
                    if name in failed_once:
                        missing[name] = str(error)
                    failed_once.add(name)
    by_key: dict[Key, dict[str, list[float]]] = {}
    for name, found in taken.items():
        if name not in missing:
            for values in found:
                for key, value in values.items():
                    by_key.setdefault(key, {}).setdefault(name, []).append(value)
    return Samples(by_key, missing, failures)
