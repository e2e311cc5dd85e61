"""The results as Markdown: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from benchmarks import units
from benchmarks.figures import NATIVE, Figure
from benchmarks.goals import judge
from benchmarks.ways import ALL, SSH

if TYPE_CHECKING:
    from benchmarks.results import Results

_ORDER: Final = (*ALL, SSH)
_TITLES: Final = {
    "calls": "System calls",
    "startup": "Start-up",
    "files": "Files",
    "network": "Network",
    "steal": "Stolen traffic",
    "mirror": "Mirrored traffic",
    "growth": "Growth",
    "cluster": "In a cluster",
}
_CHARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "calls": ("calls.svg",),
    "startup": ("startup.svg",),
    "files": (),
    "network": ("throughput.svg", "latency.svg", "datagrams.svg"),
    "steal": (),
    "mirror": (),
    "growth": ("growth.svg", "memory.svg"),
    "cluster": (),
}
_PARAMETERS: Final = {"bytes": units.size}


def markdown(results: Results, charts: Sequence[str]) -> str:
    """The page. `charts`: files beside it that may be shown."""
    lines = ["# What interception costs", ""]
    if results.quick:
        lines += ["**A quick run, which only shows that everything works. Its figures mean little.**", ""]
    lines += [
        "Cells show the median, in brackets the quartiles, and the ratio to native, which is the median of the ratios "
        "of the rounds. [docs/benchmarks.md](../../docs/benchmarks.md) says what each figure means.",
        "",
        *_goals(results),
        *_machine(results),
    ]
    for section, title in _TITLES.items():
        figures = [figure for figure in results.figures if figure.section == section]
        if figures:
            lines += [f"## {title}", ""]
            for chart in _CHARTS[section]:
                if chart in charts:
                    lines += [f"![{title}: {chart.removesuffix('.svg')}]({chart})", ""]
            for table in _tables(figures):
                lines += [*table, ""]
            lines += _missing(figures)
    if results.failures:
        lines += ["## What went wrong", "", "Once, and not at the second try, unless a table says otherwise.", ""]
        lines += [f"- {_first_lines(failure)}" for failure in results.failures] + [""]
    return "\n".join(lines)


def _goals(results: Results) -> list[str]:
    rows = [
        f"| {_cell(verdict.goal)} | {_cell(verdict.measured)} | {verdict.word} |" for verdict in judge(results.figures)
    ]
    return ["## Goals", "", "| goal | measured | |", "|---|---|---|", *rows, ""]


def _machine(results: Results) -> list[str]:
    machine = results.machine
    kind = f", {machine.virtualization}" if machine.virtualization else ""
    facts = {
        "machine": f"{machine.processor}, {machine.processors} processors, {units.size(machine.memory_bytes)}{kind}",
        "system": f"{machine.system}, {machine.kernel}",
        "Python": machine.python,
        "compiler": machine.compiler,
        "measured": f"{machine.revision}, {machine.taken_at}, {results.duration_s / 60:.0f} minutes, "
        f"{results.rounds} rounds",
        "load before": f"{machine.load_before:.2f}",
    }
    for name, tool in results.tools.items():
        if tool.missing is not None:
            facts[name] = f"not measured: {_first_lines(tool.missing)}"
        elif tool.version:
            facts[name] = tool.version
    return [
        "## Machine",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {_cell(text)} |" for name, text in facts.items()),
        "",
    ]


def _tables(figures: Sequence[Figure]) -> Iterator[list[str]]:
    """Figures that vary in the same parameters and were taken by the same ways share a table."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Figure]] = {}
    for figure in figures:
        ways = tuple(way for way in _ORDER if way in figure.samples or way in figure.missing)
        groups.setdefault((tuple(figure.parameters), ways), []).append(figure)
    for (parameters, ways), members in groups.items():
        heads = ["", *parameters, *ways]
        order = list(dict.fromkeys(figure.name for figure in members))
        rows = [
            [
                figure.name,
                *(_PARAMETERS.get(name, str)(value) for name, value in figure.parameters.items()),
                *(_value(figure, way) for way in ways),
            ]
            for figure in sorted(members, key=lambda figure: order.index(figure.name))
        ]
        yield [_row(heads), _row(["---"] + ["--:"] * (len(heads) - 1)), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _value(figure: Figure, way: str) -> str:
    summary = figure.summary(way)
    if summary is None:
        return "not measured"
    text = units.with_spread(summary.median, summary.lower, summary.upper, figure.unit)
    ratio = figure.ratio(way) if way != NATIVE else None
    return text if ratio is None else f"{text} \N{MULTIPLICATION SIGN}{units.significant(ratio.median)}"


def _missing(figures: Sequence[Figure]) -> list[str]:
    reasons = dict.fromkeys(f"{way}: {_first_lines(why)}" for figure in figures for way, why in figure.missing.items())
    return ["Not measured:", "", *(f"- {reason}" for reason in reasons), ""] if reasons else []


def _first_lines(text: str) -> str:
    """Enough to know what it was; all of it is in results.json."""
    first = " ".join(text.split())
    return first if len(first) <= 300 else f"{first[:140]} … {first[-150:]}"
