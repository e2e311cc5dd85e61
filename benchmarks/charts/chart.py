"""Draws charts: panels of grouped bars or of lines, with whiskers from the lower to the upper quartile.

The horizontal axis is always a row of named places. What was varied was varied by constant factors, so for lines this
is a logarithmic axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Final

import attrs

from benchmarks import units
from benchmarks.charts.scales import Scale
from benchmarks.figures import Summary

_PANEL_WIDTH: Final = 330
_PANEL_HEIGHT: Final = 190
_LEFT, _RIGHT, _ABOVE, _BELOW = 82, 14, 34, 48
_HEAD: Final = 76
_FOOT: Final = 14
_LABEL_FACTOR, _LABEL_SHARE = 4.0, 1.25
_TEXT, _FAINT, _GRID = "#222222", "#666666", "#e4e4e4"


@attrs.frozen
class Series:
    """One way's values at the places of a panel; None where there is none."""

    name: str
    color: str
    values: Sequence[Summary | None]


@attrs.frozen
class Panel:
    """One diagram. `unit` is one of `units.shown`; `places` name what is on the horizontal axis."""

    title: str
    unit: str
    y_label: str
    x_label: str
    places: Sequence[str]
    series: Sequence[Series]
    as_lines: bool = False
    is_logarithmic: bool = True


@attrs.frozen
class Chart:
    """Panels in rows of `columns`. `legend`: colours by name; `notes` are appended to a name in it."""

    title: str
    subtitle: str
    panels: Sequence[Panel]
    columns: int
    legend: Mapping[str, str]
    notes: Mapping[str, str] = attrs.field(factory=dict)

    def svg(self) -> str:
        """The whole file."""
        cell_width, cell_height = _LEFT + _PANEL_WIDTH + _RIGHT, _ABOVE + _PANEL_HEIGHT + _BELOW
        rows = -(-len(self.panels) // self.columns)
        width = cell_width * min(self.columns, len(self.panels))
        height = _HEAD + cell_height * rows + _FOOT
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="11" '
            f'fill="{_TEXT}" role="img">',
            f"<title>{escape(self.title)}</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            _text(14, 24, self.title, size=16, weight=600),
            _text(14, 42, self.subtitle, color=_FAINT),
            *self._legend(),
        ]
        for number, panel in enumerate(self.panels):
            row, column = divmod(number, self.columns)
            x, y = column * cell_width + _LEFT, _HEAD + row * cell_height + _ABOVE
            parts.append(f'<g transform="translate({x} {y})">')
            parts += _panel(panel)
            parts.append("</g>")
        return "\n".join([*parts, "</svg>", ""])

    def _legend(self) -> Iterator[str]:
        x = 14.0
        for name, color in self.legend.items():
            text = name + (f" ({self.notes[name]})" if name in self.notes else "")
            yield f'<rect x="{x:g}" y="56" width="11" height="11" rx="2" fill="{color}"/>'
            yield _text(x + 16, 66, text)
            x += 34 + 6.4 * len(text)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    size: float = 11,
    weight: int = 400,
    anchor: str = "start",
    color: str = _TEXT,
    turn: int = 0,
) -> str:
    turned = f' transform="rotate({turn} {x:g} {y:g})"' if turn else ""
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" text-anchor="{anchor}" fill="{color}"'
        f"{turned}>{escape(text)}</text>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width:g}"/>'


def _panel(panel: Panel) -> Iterator[str]:
    yield _text(0, -12, panel.title, size=12.5, weight=600)
    values = [value for series in panel.series for value in series.values if value is not None]
    if not values:
        yield _text(_PANEL_WIDTH / 2, _PANEL_HEIGHT / 2, "nothing was measured", anchor="middle", color=_FAINT)
        return
    extremes = [end for value in values for end in (value.lower, value.upper)]
    is_logarithmic = panel.is_logarithmic and max(extremes) > 0
    if not panel.as_lines:
        # Room for what is written above the highest bar.
        extremes.append(max(extremes) * (_LABEL_FACTOR if is_logarithmic else _LABEL_SHARE))
    scale = Scale.of(extremes, is_logarithmic=is_logarithmic)
    yield from _axes(panel, scale)
    yield from _lines(panel, scale) if panel.as_lines else _bars(panel, scale)
    yield _line(0, _PANEL_HEIGHT, _PANEL_WIDTH, _PANEL_HEIGHT, _TEXT)


def _y(scale: Scale, value: float) -> float:
    return _PANEL_HEIGHT * (1 - scale.place(value))


def _axes(panel: Panel, scale: Scale) -> Iterator[str]:
    if scale.is_logarithmic:
        for decade in scale.ticks[:-1]:
            for factor in range(2, 10):
                y = _y(scale, decade * factor)
                yield _line(0, y, _PANEL_WIDTH, y, "#f4f4f4")
    for tick in scale.ticks:
        y = _y(scale, tick)
        yield _line(0, y, _PANEL_WIDTH, y, _GRID)
        yield _text(-7, y + 4, units.shown(tick, panel.unit), anchor="end", color=_FAINT)
    for place, name in enumerate(panel.places):
        yield _text(_middle(panel, place), _PANEL_HEIGHT + 16, name, anchor="middle", color=_FAINT)
    scale_name = ", logarithmic" if scale.is_logarithmic else ""
    yield _text(_PANEL_WIDTH / 2, _PANEL_HEIGHT + 33, panel.x_label, anchor="middle")
    yield _text(-_LEFT + 14, _PANEL_HEIGHT / 2, panel.y_label + scale_name, anchor="middle", turn=-90)


def _middle(panel: Panel, place: int) -> float:
    return _PANEL_WIDTH * (place + 0.5) / len(panel.places)


def _whisker(x: float, value: Summary, scale: Scale, color: str, half_width: float = 2.5) -> Iterator[str]:
    top, bottom = _y(scale, value.upper), _y(scale, value.lower)
    if bottom - top >= 1:
        yield _line(x, top, x, bottom, color, 1.2)
        yield _line(x - half_width, top, x + half_width, top, color, 1.2)
        yield _line(x - half_width, bottom, x + half_width, bottom, color, 1.2)


def _bars(panel: Panel, scale: Scale) -> Iterator[str]:
    room = _PANEL_WIDTH / len(panel.places) * 0.84
    width = min(34.0, room / len(panel.series))
    for place in range(len(panel.places)):
        left = _middle(panel, place) - width * len(panel.series) / 2
        for number, series in enumerate(panel.series):
            value, x = series.values[place], left + number * width
            if value is None:
                yield _text(
                    x + width / 2 + 4, _PANEL_HEIGHT - 4, "not measured", size=8.5, color=series.color, turn=-90
                )
                continue
            y = _y(scale, value.median)
            yield (
                f'<rect x="{x + width * 0.06:.1f}" y="{y:.1f}" width="{width * 0.88:.1f}" '
                f'height="{_PANEL_HEIGHT - y:.1f}" fill="{series.color}">'
                f"<title>{escape(series.name)}: {escape(units.shown(value.median, panel.unit))}</title></rect>"
            )
            yield from _whisker(x + width / 2, value, scale, _TEXT)
            yield _bar_label(x + width / 2 + 3, y, _y(scale, value.upper), units.shown(value.median, panel.unit))


def _bar_label(x: float, bar: float, whisker: float, text: str) -> str:
    """Upright above bar and whisker, or within the bar where there is no room above."""
    top = min(bar, whisker)
    if top - 5.2 * len(text) - 4 >= 0:
        return _text(x, top - 4, text, size=8.5, turn=-90)
    return _text(x, bar + 6, text, size=8.5, turn=-90, anchor="end", color="#ffffff")


def _lines(panel: Panel, scale: Scale) -> Iterator[str]:
    for series in panel.series:
        points = [
            (_middle(panel, place), _y(scale, value.median), value)
            for place, value in enumerate(series.values)
            if value is not None
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
        stroke = f'stroke="{series.color}" stroke-width="2" stroke-linejoin="round"'
        yield f'<polyline points="{path}" fill="none" {stroke}/>'
        for x, y, value in points:
            yield from _whisker(x, value, scale, series.color)
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{series.color}" stroke="#ffffff">'
                f"<title>{escape(series.name)}: {escape(units.shown(value.median, panel.unit))}</title></circle>"
            )
