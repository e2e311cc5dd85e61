"""Numbers as people read them: pure."""

from __future__ import annotations

from typing import Final

_TIMES: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_DECIMAL: Final = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_BINARY: Final = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


def shown(value: float, unit: str) -> str:
    """With a suitable prefix and three significant digits. Units: ns, s, B, B/s, 1/s, 1. Prefixes are decimal."""
    if value == 0:
        return "0"
    divisor, suffix = _scale(value, unit)
    return f"{significant(value / divisor)} {suffix}".rstrip()


def with_spread(value: float, lower: float, upper: float, unit: str) -> str:
    """A value and what it lies between, the unit said once: "1.3 µs (1.2 to 1.4)"."""
    divisor, suffix = _scale(value, unit)
    middle, low, high = (significant(number / divisor) for number in (value, lower, upper))
    return f"{middle} {suffix}".rstrip() + f" ({low} to {high})"


def _scale(value: float, unit: str) -> tuple[float, str]:
    if unit in ("ns", "s"):
        in_ns = 1e9 if unit == "s" else 1.0
        factor, suffix = next((step for step in _TIMES if abs(value) * in_ns >= step[0]), _TIMES[-1])
        return factor / in_ns, suffix
    factor, prefix = next((step for step in _DECIMAL if abs(value) >= step[0]), _DECIMAL[-1])
    return factor, prefix + unit.removeprefix("1")


def size(count: float) -> str:
    """Of a message or of the machine's memory, with binary prefixes where they fit: "1200 B", "64 KiB"."""
    is_round = count >= 1 << 20 or count % 1024 == 0
    factor, suffix = next((step for step in _BINARY if count >= step[0] and is_round), _BINARY[-1])
    return f"{significant(count / factor)} {suffix}"


def significant(number: float) -> str:
    """Three significant digits, no exponent: 0.0123, 1.23, 12.3, 123, 1234."""
    if number == 0:
        return "0"
    digits = 0
    magnitude = abs(number)
    while magnitude < 100 and digits < 6:
        magnitude *= 10
        digits += 1
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
