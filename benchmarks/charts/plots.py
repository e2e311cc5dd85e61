"""Which charts are drawn of which figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks import units
from benchmarks.charts.chart import Chart, Panel, Series
from benchmarks.figures import NATIVE, Figure, find
from benchmarks.sections import calls, growth, network, startup
from benchmarks.ways import ALL, FLOOR, NOTIFY, PROOT, PTRACE, SSH, STRACE

COLORS: Final[Mapping[str, str]] = {
    NATIVE: "#6b6b6b",
    FLOOR: "#009e73",
    NOTIFY: "#0072b2",
    PTRACE: "#e69f00",
    STRACE: "#cc79a7",
    PROOT: "#d55e00",
    SSH: "#882255",
}
"""Told apart by people who are colour-blind, too (after Okabe and Ito)."""
_ROLE_COLORS: Final = dict(zip(growth.ROLES, ("#0072b2", "#009e73", "#e69f00"), strict=True))
_SPREAD: Final = "Medians; whiskers show the quartiles."


def draw(figures: Sequence[Figure]) -> dict[str, str]:
    """SVG files by name, of those sections that there are figures of."""
    sections = {figure.section for figure in figures}
    charts = {}
    if calls.SECTION in sections:
        charts["calls.svg"] = _calls(figures)
    if startup.SECTION in sections:
        charts["startup.svg"] = _startup(figures)
    if network.SECTION in sections:
        charts["throughput.svg"] = _throughput(figures)
        charts["latency.svg"] = _latency(figures)
        charts["datagrams.svg"] = _datagrams(figures)
    if growth.SECTION in sections:
        charts["growth.svg"] = _growth(figures)
        charts["memory.svg"] = _memory(figures)
    return {name: chart.svg() for name, chart in charts.items()}


def _series(ways: Sequence[str], figures: Sequence[Figure | None]) -> list[Series]:
    return [Series(way, COLORS[way], [figure.summary(way) if figure else None for figure in figures]) for way in ways]


def _chart(title: str, subtitle: str, panels: Sequence[Panel], columns: int, ways: Sequence[str]) -> Chart:
    absent = {
        way: "not measured"
        for way in ways
        if not any(
            value for panel in panels for series in panel.series if series.name == way for value in series.values
        )
    }
    return Chart(title, f"{subtitle} {_SPREAD}", panels, columns, {way: COLORS[way] for way in ways}, absent)


def _calls(figures: Sequence[Figure]) -> Chart:
    titles = {
        "getppid": "getppid: not intercepted",
        "openat": "openat: intercepted, stays local",
        "stat": "stat: intercepted, stays local",
        "connect": "connect to a local listener",
    }
    panels = [
        Panel(
            title,
            "ns",
            "time of a call",
            "threads",
            [str(threads) for threads in calls.THREADS],
            _series(ALL, [find(figures, calls.SECTION, name, threads=threads) for threads in calls.THREADS]),
        )
        for name, title in titles.items()
    ]
    return _chart("What a system call costs", "As each thread sees it.", panels, 2, ALL)


def _startup(figures: Sequence[Figure]) -> Chart:
    names = (startup.TRUE, startup.PYTHON, startup.NODE, startup.STORM)
    panels = [
        Panel(
            name,
            "s",
            "time",
            "",
            ["from start to end"] if name == startup.TRUE else ["from start to end", "once started"],
            _series(
                ALL,
                [
                    find(figures, startup.SECTION, name),
                    *([] if name == startup.TRUE else [find(figures, startup.SECTION, f"{name}, once started")]),
                ],
            ),
            is_logarithmic=False,
        )
        for name in names
    ]
    subtitle = "Whole runs, the tool's own start and end included; “once started” is without what /bin/true takes."
    return _chart("How long programs take", subtitle, panels, 2, ALL)


def _throughput(figures: Sequence[Figure]) -> Chart:
    panels = [
        Panel(
            f"{word}, {streams} stream{'s' if streams > 1 else ''}",
            "B/s",
            "throughput",
            "bytes of a message",
            [units.size(size) for size in network.MESSAGES],
            _series(
                network.WAYS,
                [find(figures, network.SECTION, name, streams=streams, bytes=size) for size in network.MESSAGES],
            ),
            as_lines=True,
        )
        for word, name in (("Up", network.UP), ("Down", network.DOWN))
        for streams in network.STREAMS
    ]
    subtitle = "What has arrived at the service behind the agent (up), or at the process (down)."
    return _chart("TCP throughput", subtitle, panels, len(network.STREAMS), network.WAYS)


def _latency(figures: Sequence[Figure]) -> Chart:
    round_trips = [
        figure for figure in figures if (figure.section, figure.name) == (network.SECTION, network.ROUND_TRIP)
    ]
    panels = [
        Panel(
            "Connect",
            "ns",
            "time",
            "",
            ["until connected", "until the first answer"],
            _series(network.WAYS, [find(figures, network.SECTION, name) for name in (network.CONNECT, network.ANSWER)]),
        ),
        Panel(
            "Round trip",
            "ns",
            "time",
            "bytes there and back",
            [units.size(figure.parameters["bytes"]) for figure in round_trips],
            _series(network.WAYS, round_trips),
        ),
    ]
    return _chart(
        "TCP latency",
        "One connection at a time. ssh -D says that it is connected before it is.",
        panels,
        2,
        network.WAYS,
    )


def _datagrams(figures: Sequence[Figure]) -> Chart:
    panels = []
    ways = [way for way in network.WAYS if way != SSH]
    for name in (network.CONNECTED, network.UNCONNECTED):
        found = [figure for figure in figures if (figure.section, figure.name) == (network.SECTION, name)]
        places = [f"{units.size(f.parameters['bytes'])}, {f.parameters['under way']}" for f in found]
        title = name[0].upper() + name[1:]
        panels.append(
            Panel(title, "1/s", "echoes per second", "size, datagrams under way", places, _series(ways, found))
        )
    return _chart("UDP datagrams", "Sent, echoed by the service and received. ssh -D carries none.", panels, 2, ways)


def _growth(figures: Sequence[Figure]) -> Chart:
    titles = {
        (growth.THREADS, "openat"): ("openat and close, one of many threads", "ns", "time of a call"),
        (growth.THREADS, "busy"): ("openat and close, all threads at once", "1/s", "calls per second"),
        (growth.PROCESSES, "openat"): ("openat and close, one of many processes", "ns", "time of a call"),
        (growth.PROCESSES, "busy"): ("openat and close, all processes at once", "1/s", "calls per second"),
        (growth.CONNECTIONS, "connect"): ("Connect, connections staying open", "ns", "time of each"),
        (growth.CONNECTIONS, "echo"): ("16 KiB there and back on one of them", "ns", "time"),
    }
    panels = [
        Panel(
            title,
            unit,
            y_label,
            kind,
            [str(count) for count in growth.COUNTS],
            _series(
                growth.WAYS,
                [find(figures, growth.SECTION, f"{kind}: {key}", count=count) for count in growth.COUNTS],
            ),
            as_lines=True,
        )
        for (kind, key), (title, unit, y_label) in titles.items()
    ]
    return _chart("Growth", "With 1 to 1000 threads, processes, connections.", panels, 2, growth.WAYS)


def _memory(figures: Sequence[Figure]) -> Chart:
    way = NOTIFY if any(figure.samples.get(NOTIFY) for figure in figures) else PTRACE
    panels = [
        Panel(
            f"{measure} with many {kind}",
            "B",
            "memory",
            kind,
            [str(count) for count in growth.COUNTS],
            [
                Series(
                    role,
                    _ROLE_COLORS[role],
                    [
                        figure.summary(way)
                        if (figure := find(figures, growth.SECTION, f"{kind}: {role} {short}", count=count))
                        else None
                        for count in growth.COUNTS
                    ],
                )
                for role in growth.ROLES
            ],
            as_lines=True,
            is_logarithmic=False,
        )
        for short, measure in (("RSS", "Resident"), ("PSS", "Proportional"))
        for kind in (growth.THREADS, growth.PROCESSES, growth.CONNECTIONS)
    ]
    subtitle = f"Of the tool's own processes, delivery {way}. Proportional: shared pages divided by who shares them. "
    return Chart("Memory", subtitle + _SPREAD, panels, 3, _ROLE_COLORS)
