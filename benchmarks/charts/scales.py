"""From values to places on an axis: pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs


@attrs.frozen
class Scale:
    """A vertical axis from `low` to `high`; `ticks` are the values that are named on it."""

    low: float
    high: float
    is_logarithmic: bool
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """0 at `low`, 1 at `high`; values beyond are moved to the end."""
        if self.is_logarithmic:
            value = max(value, self.low)
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    @classmethod
    def of(cls, values: Sequence[float], *, is_logarithmic: bool) -> Scale:
        """An axis on which all the values have room. Raises ValueError if a logarithmic one is to hold none above 0."""
        return _logarithmic(values) if is_logarithmic else _linear(values)


def _linear(values: Sequence[float]) -> Scale:
    """From zero: what is compared by length must start there."""
    highest = max((*values, 0.0)) or 1.0
    step = _round_up(highest / 5)
    count = math.ceil(highest / step - 1e-9)
    return Scale(0.0, step * count, False, tuple(step * number for number in range(count + 1)))


def _logarithmic(values: Sequence[float]) -> Scale:
    positive = [value for value in values if value > 0]
    if not positive:
        raise ValueError("a logarithmic axis needs a value above zero")
    first = math.floor(math.log10(min(positive)) - 0.05)
    last = max(first + 1, math.ceil(math.log10(max(positive)) - 1e-9))
    decades = [10.0**exponent for exponent in range(first, last + 1)]
    return Scale(decades[0], decades[-1], True, tuple(decades))


def _round_up(step: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))
