"""Figures, samples and what is said of them: pure.

A figure is one quantity, measured under several ways by turns: sample i of every way was taken in round i. Ratios to
native are therefore taken round by round, so that what slows the whole machine for a while slows both sides of a ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import attrs

NATIVE = "native"


@attrs.frozen
class Summary:
    """The middle and the spread of samples: median, quartiles and extremes."""

    median: float
    lower: float
    upper: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Quartiles include the extremes (the "inclusive" method). Raises ValueError when there are no samples."""
        if not samples:
            raise ValueError("no samples")
        lower, upper = (samples[0], samples[0])
        if len(samples) > 1:
            lower, _, upper = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(statistics.median(samples), lower, upper, min(samples), max(samples))


@attrs.frozen
class Figure:
    """One quantity. `samples` has, for each way by which it was taken, one value in `unit` for each round."""

    section: str
    name: str
    unit: str
    """ns, s, B (memory), B/s or 1/s (rates), 1 (a number)."""
    samples: Mapping[str, Sequence[float]]
    parameters: Mapping[str, int] = attrs.field(factory=dict)
    """What was varied: threads, bytes of a message, streams, …"""
    missing: Mapping[str, str] = attrs.field(factory=dict)
    """Why a way has no samples."""

    def summary(self, way: str) -> Summary | None:
        """None when this way was not measured."""
        samples = self.samples.get(way)
        return Summary.of(samples) if samples else None

    def ratio(self, way: str, to: str = NATIVE) -> Summary | None:
        """This way's samples divided by those of another, round by round; None when either was not measured."""
        above, below = self.samples.get(way, ()), self.samples.get(to, ())
        pairs = [a / b for a, b in zip(above, below, strict=False) if b]
        return Summary.of(pairs) if pairs else None

    def difference(self, way: str, to: str = NATIVE) -> Summary | None:
        """This way's samples less those of another, round by round; None when either was not measured."""
        pairs = [a - b for a, b in zip(self.samples.get(way, ()), self.samples.get(to, ()), strict=False)]
        return Summary.of(pairs) if pairs else None


def find(figures: Sequence[Figure], section: str, name: str, **parameters: int) -> Figure | None:
    """The figure of that name whose parameters include these; None when there is none."""
    for figure in figures:
        if (figure.section, figure.name) == (section, name) and parameters.items() <= figure.parameters.items():
            return figure
    return None
