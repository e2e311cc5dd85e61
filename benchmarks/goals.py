"""The goals of the issues, and whether the figures meet them: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from benchmarks import units
from benchmarks.figures import NATIVE, Figure, find
from benchmarks.sections import calls, cluster, files, growth, mirror, network, startup, steal
from benchmarks.ways import FLOOR, NOTIFY, STRACE

_FLOOR_FACTOR: Final = 1.6
_STRACE_FRACTION: Final = 0.2
_NOT_INTERCEPTED_NS: Final = 50.0
_STREAM_RATE: Final = 1e9
_NATIVE_RATE: Final = 4e9
_CONNECTIONS: Final = 1000
_MEMORY_BYTES: Final = 150e6
_START_S: Final = 0.5
_CLUSTER_START_S: Final = 1.5
_CLUSTER_RATE: Final = 250e6
_REQUESTS: Final = 15
_AGENT_BYTES: Final = 45e6
_COLD_FILE_NS: Final = 0.5e6
_FILE_RATE: Final = 500e6
_LISTING_S: Final = 0.3
_WARM_FACTOR: Final = 1.5
_STOLEN_REQUESTS: Final = 5000.0
_MIRROR_COST: Final = 0.02
_MIRROR_RATE: Final = 200
_NOTHING: Final = 0.02
"""Of a throughput: two measurements of the same thing differ by as much."""


@attrs.frozen
class Verdict:
    """A goal, what was measured, and whether that meets it; None: it was not measured."""

    goal: str
    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        """For tables."""
        return {True: "met", False: "missed", None: "not measured"}[self.met]


def judge(figures: Sequence[Figure]) -> list[Verdict]:
    """Every goal, in the order of the issues."""
    return [
        _openat_and_floor(figures),
        _openat_and_strace(figures),
        _not_intercepted(figures),
        _stream(figures),
        _connections(figures),
        _start(figures),
        _cluster_start(figures),
        _cluster_rate(figures),
        _cluster_requests(figures),
        _agent_memory(figures),
        _warm_files(figures),
        _cold_file(figures),
        _file_rate(figures),
        _listing(figures),
        _steal_trip(figures),
        _stolen_requests(figures),
        _mirror_cost(figures),
        _stopped_mirror(figures),
        _mirror_rate(figures),
    ]


def _unmeasured(goal: str, figure: Figure | None, *ways: str) -> Verdict:
    reasons = [f"{way}: {figure.missing[way].splitlines()[0]}" for way in ways if figure and way in figure.missing]
    return Verdict(goal, "; ".join(reasons) or "its section was not run", None)


def _openat_and_floor(figures: Sequence[Figure]) -> Verdict:
    goal = f"An intercepted local openat costs at most {_FLOOR_FACTOR} times the C floor"
    figure = find(figures, calls.SECTION, "openat", threads=1)
    ratio, ours, floor = (
        (figure.ratio(NOTIFY, FLOOR), figure.summary(NOTIFY), figure.summary(FLOOR)) if figure else (None, None, None)
    )
    if ratio is None or ours is None or floor is None:
        return _unmeasured(goal, figure, NOTIFY, FLOOR)
    values = f"{units.shown(ours.median, 'ns')}, floor {units.shown(floor.median, 'ns')}"
    return Verdict(goal, f"{ratio.median:.2f} times ({values})", ratio.median <= _FLOOR_FACTOR)


def _openat_and_strace(figures: Sequence[Figure]) -> Verdict:
    goal = "… and at most a fifth of strace --seccomp-bpf"
    figure = find(figures, calls.SECTION, "openat", threads=1)
    ratio = figure.ratio(NOTIFY, STRACE) if figure else None
    strace = figure.summary(STRACE) if figure else None
    if ratio is None or strace is None:
        return _unmeasured(goal, figure, NOTIFY, STRACE)
    measured = f"1/{1 / ratio.median:.1f} of it ({units.shown(strace.median, 'ns')})"
    return Verdict(goal, measured, ratio.median <= _STRACE_FRACTION)


def _not_intercepted(figures: Sequence[Figure]) -> Verdict:
    goal = f"A call that is not intercepted costs at most {_NOT_INTERCEPTED_NS:g} ns more than natively"
    figure = find(figures, calls.SECTION, "getppid", threads=1)
    more = figure.difference(NOTIFY) if figure else None
    if more is None:
        return _unmeasured(goal, figure, NOTIFY)
    return Verdict(goal, f"{more.median:+.1f} ns", more.median <= _NOT_INTERCEPTED_NS)


def _stream(figures: Sequence[Figure]) -> Verdict:
    """What arrives at the service behind the agent; messages of the size that is best for us."""
    goal = "A single TCP stream moves at least 1 GB/s from process to agent when native loopback moves 4"
    candidates = [
        figure
        for figure in figures
        if (figure.section, figure.name, figure.parameters.get("streams")) == (network.SECTION, network.UP, 1)
    ]
    best = max(candidates, key=_notify_median, default=None)
    ours, native = (best.summary(NOTIFY), best.summary(NATIVE)) if best else (None, None)
    if best is None or ours is None or native is None:
        return _unmeasured(goal, best, NOTIFY, NATIVE)
    measured = (
        f"{units.shown(ours.median, 'B/s')} on to the service, native {units.shown(native.median, 'B/s')} "
        f"(messages of {units.size(best.parameters['bytes'])})"
    )
    # A machine whose loopback is slower is asked for the same share.
    wanted = _STREAM_RATE * min(1.0, native.median / _NATIVE_RATE)
    return Verdict(goal, measured, ours.median >= wanted)


def _notify_median(figure: Figure) -> float:
    summary = figure.summary(NOTIFY)
    return summary.median if summary else 0.0


def _connections(figures: Sequence[Figure]) -> Verdict:
    goal = f"{_CONNECTIONS} concurrent connections hold with supervisor and agent together below 150 MB"
    name = f"{growth.CONNECTIONS}: {growth.memory_name('supervisor and agent', 'RSS')}"
    figure = find(figures, growth.SECTION, name, count=_CONNECTIONS)
    memory = figure.summary(NOTIFY) if figure else None
    if memory is None:
        other = find(figures, growth.SECTION, f"{growth.CONNECTIONS}: connect", count=_CONNECTIONS)
        return _unmeasured(goal, figure or other, NOTIFY)
    return Verdict(goal, f"{memory.median / 1e6:.0f} MB resident", memory.median < _MEMORY_BYTES)


def _start(figures: Sequence[Figure]) -> Verdict:
    goal = f"mirrord-trace run -t pid/N -- /bin/true takes at most {_START_S:g} s"
    return _within(goal, find(figures, startup.SECTION, startup.TRUE), _START_S)


def _cluster_start(figures: Sequence[Figure]) -> Verdict:
    goal = f"mirrord-trace run -t deploy/web -- /bin/true takes at most {_CLUSTER_START_S:g} s plus the pod's own start"
    return _within(goal, find(figures, cluster.SECTION, cluster.START_LESS), _CLUSTER_START_S)


def _within(goal: str, figure: Figure | None, most_s: float) -> Verdict:
    """Whether something under notify takes no longer."""
    taken = figure.summary(NOTIFY) if figure else None
    if taken is None:
        return _unmeasured(goal, figure, NOTIFY)
    return Verdict(goal, units.shown(taken.median, "s"), taken.median <= most_s)


def _cluster_rate(figures: Sequence[Figure]) -> Verdict:
    """The worse direction, each with messages of the size that is best for us."""
    goal = f"A connection through a cluster's API server moves at least {units.shown(_CLUSTER_RATE, 'B/s')} either way"
    names = (cluster.UP, cluster.DOWN)
    directions = [
        [figure for figure in figures if (figure.section, figure.name) == (cluster.SECTION, name)] for name in names
    ]
    rates = [max(map(_notify_median, candidates), default=0.0) for candidates in directions]
    if not all(rates):
        return _unmeasured(goal, next(iter(directions[0]), None), NOTIFY)
    measured = ", ".join(
        f"{name.split()[-1]} {units.shown(rate, 'B/s')}" for name, rate in zip(names, rates, strict=True)
    )
    return Verdict(goal, measured, min(rates) >= _CLUSTER_RATE)


def _cluster_requests(figures: Sequence[Figure]) -> Verdict:
    goal = f"A session costs the API server at most {_REQUESTS} requests and one WebSocket"
    figure = find(figures, cluster.SECTION, cluster.REQUESTS)
    sockets_figure = find(figures, cluster.SECTION, cluster.WEB_SOCKETS)
    requests = figure.summary(NOTIFY) if figure else None
    sockets = sockets_figure.summary(NOTIFY) if sockets_figure else None
    if requests is None or sockets is None:
        return _unmeasured(goal, figure, NOTIFY)
    met = requests.maximum <= _REQUESTS and sockets.maximum <= 1
    return Verdict(goal, f"{requests.maximum:g} and {sockets.maximum:g}", met)


def _agent_memory(figures: Sequence[Figure]) -> Verdict:
    goal = f"An idle agent has at most {_AGENT_BYTES / 1e6:g} MB of memory"
    figure = find(figures, cluster.SECTION, f"{cluster.MEMORY}: RSS")
    memory = figure.summary(NOTIFY) if figure else None
    if memory is None:
        return _unmeasured(goal, figure, NOTIFY)
    return Verdict(goal, f"{memory.median / 1e6:.1f} MB resident", memory.median <= _AGENT_BYTES)


def _warm_files(figures: Sequence[Figure]) -> Verdict:
    """Reads and attributes of an open file: the calls that nobody intercepts."""
    goal = f"Warm reads and stats of remote files take at most {_WARM_FACTOR:g} times their native time"
    found = [find(figures, files.SECTION, name) for name in (files.PREAD, files.FSTAT)]
    ratios = [figure.ratio(NOTIFY) if figure else None for figure in found]
    if None in ratios:
        return _unmeasured(goal, found[0], NOTIFY)
    by_path = find(figures, files.SECTION, files.STAT)
    summary = by_path.summary(NOTIFY) if by_path else None
    shown = [f"{ratio.median:.2f} times" for ratio in ratios if ratio]
    measured = f"pread {shown[0]}, fstat {shown[1]}"
    if summary:
        measured += f"; a stat by path, which is intercepted, {units.shown(summary.median, 'ns')}"
    return Verdict(goal, measured, all(ratio.median <= _WARM_FACTOR for ratio in ratios if ratio))


def _cold_file(figures: Sequence[Figure]) -> Verdict:
    goal = "A cold small file (stat, open, read, close) takes at most one round trip and 0.5 ms"
    figure = find(figures, files.SECTION, files.COLD)
    taken = figure.summary(NOTIFY) if figure else None
    if taken is None:
        return _unmeasured(goal, figure, NOTIFY)
    trip_figure = find(figures, network.SECTION, network.ROUND_TRIP, bytes=1)
    trip = trip_figure.summary(NOTIFY) if trip_figure else None
    allowed = _COLD_FILE_NS + (trip.median if trip else 0.0)
    lone_figure = find(figures, files.SECTION, files.LONE)
    lone = lone_figure.summary(NOTIFY) if lone_figure else None
    if lone is None:
        return _unmeasured(goal, lone_figure, NOTIFY)
    measured = (
        f"{units.shown(taken.median, 'ns')} as one of many in a directory, {units.shown(lone.median, 'ns')} alone"
    )
    if trip:
        measured += f", a round trip {units.shown(trip.median, 'ns')}"
    return Verdict(goal, measured, max(taken.median, lone.median) <= allowed)


def _file_rate(figures: Sequence[Figure]) -> Verdict:
    goal = f"A sequential read of 1 GB moves at least {units.shown(_FILE_RATE, 'B/s')} through the local agent"
    figure = find(figures, files.SECTION, files.SEQUENTIAL)
    rate = figure.summary(NOTIFY) if figure else None
    if rate is None:
        return _unmeasured(goal, figure, NOTIFY)
    return Verdict(goal, units.shown(rate.median, "B/s"), rate.median >= _FILE_RATE)


def _listing(figures: Sequence[Figure]) -> Verdict:
    goal = f"Listing 10,000 entries takes at most {_LISTING_S:g} s"
    return _within(goal, find(figures, files.SECTION, files.LISTING), _LISTING_S)


def _steal_trip(figures: Sequence[Figure]) -> Verdict:
    """A small request by the same program both ways: through the relay to the pod, and to a stolen port."""
    goal = "Stealing a port adds at most one round trip through the relay to a small request"
    figure = find(figures, steal.SECTION, steal.REQUEST)
    relay_figure = find(figures, steal.SECTION, steal.RELAYED)
    more = figure.difference(NOTIFY) if figure else None
    trip = relay_figure.difference(NOTIFY) if relay_figure else None
    if more is None or trip is None:
        return _unmeasured(goal, figure, NOTIFY)
    measured = f"{units.shown(more.median, 'ns')} more, the relay {units.shown(trip.median, 'ns')}"
    return Verdict(goal, measured, more.median <= trip.median)


def _stolen_requests(figures: Sequence[Figure]) -> Verdict:
    """The worse number of connections counts."""
    goal = f"A stolen static Go server answers at least {_STOLEN_REQUESTS:g} requests of wrk per second"
    found = [find(figures, steal.SECTION, steal.REQUESTS, connections=count) for count in steal.CONNECTIONS]
    rates = [summary.median for figure in found if figure and (summary := figure.summary(NOTIFY))]
    if len(rates) < len(found):
        return _unmeasured(goal, found[0], NOTIFY)
    words = (f"{rate:.0f} on {count} connections" for rate, count in zip(rates, steal.CONNECTIONS, strict=True))
    return Verdict(goal, ", ".join(words), min(rates) >= _STOLEN_REQUESTS)


def _mirror_cost(figures: Sequence[Figure]) -> Verdict:
    goal = f"Mirroring costs the target at most {_MIRROR_COST:.0%} of its throughput beyond the processor time it takes"
    return _throughput_kept(goal, find(figures, mirror.SECTION, mirror.APART), _MIRROR_COST)


def _stopped_mirror(figures: Sequence[Figure]) -> Verdict:
    goal = "… and nothing while the agent is stopped"
    return _throughput_kept(goal, find(figures, mirror.SECTION, mirror.STOPPED), _NOTHING)


def _throughput_kept(goal: str, figure: Figure | None, may_lose: float) -> Verdict:
    ratio = figure.ratio(NOTIFY) if figure else None
    if ratio is None:
        return _unmeasured(goal, figure, NOTIFY)
    spread = f"{ratio.lower - 1:+.1%} to {ratio.upper - 1:+.1%}"
    return Verdict(goal, f"{ratio.median - 1:+.1%} ({spread})", ratio.median >= 1 - may_lose)


def _mirror_rate(figures: Sequence[Figure]) -> Verdict:
    """Every round counts: what is cut once is cut."""
    goal = f"Mirroring keeps up with {_MIRROR_RATE} MB/s without a cut"
    figure = find(figures, mirror.SECTION, mirror.COPIED, **{"MB/s": _MIRROR_RATE})
    share = figure.summary(NOTIFY) if figure else None
    if share is None:
        return _unmeasured(goal, figure, NOTIFY)
    return Verdict(goal, f"{share.minimum:.0%} of it arrived in the worst round", share.minimum >= 1)
