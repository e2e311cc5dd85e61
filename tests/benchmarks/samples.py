"""Figures as a run would bring them, made up."""

from collections.abc import Mapping, Sequence

from benchmarks.figures import NATIVE, Figure
from benchmarks.sections import calls, cluster, files, growth, mirror, network, startup, steal
from benchmarks.ways import ALL, FLOOR, NOTIFY, PROOT, PTRACE, SSH, STRACE

OPENAT = {NATIVE: 600.0, FLOOR: 3000.0, NOTIFY: 4500.0, PTRACE: 20e3, STRACE: 30e3}
NO_PROOT = {PROOT: "not installed: apt-get install proot"}


def three(values: Mapping[str, float]) -> dict[str, Sequence[float]]:
    """Three rounds that are nearly the same."""
    return {way: [value * 0.99, value, value * 1.02] for way, value in values.items()}


def call_figures() -> list[Figure]:
    return [
        Figure(
            calls.SECTION,
            name,
            "ns",
            three(OPENAT if name != "getppid" else {**dict.fromkeys(OPENAT, 90.0), NATIVE: 80.0}),
            {"threads": threads},
            NO_PROOT,
        )
        for name in calls.NAMES
        for threads in calls.THREADS
    ]


def startup_figures() -> list[Figure]:
    names = (startup.TRUE, startup.PYTHON, startup.NODE, startup.WEB, startup.STORM)
    return [
        Figure(startup.SECTION, name, "s", three({NATIVE: 0.03, NOTIFY: 0.4, PTRACE: 0.6}), missing=NO_PROOT)
        for name in names
    ]


def network_figures(notify_rate: float = 1.1e9, native_rate: float = 4e9) -> list[Figure]:
    rates = {NATIVE: native_rate, NOTIFY: notify_rate, SSH: 2e8}
    streams = [
        Figure(
            network.SECTION,
            name,
            "B/s",
            three({way: rate * size / (1 << 20) for way, rate in rates.items()}),
            {"streams": count, "bytes": size},
        )
        for name in (network.UP, network.DOWN)
        for count in network.STREAMS
        for size in network.MESSAGES
    ]
    latencies = three({NATIVE: 8e3, NOTIFY: 1e6, SSH: 2e5})
    return [
        Figure(network.SECTION, network.CONNECT, "ns", latencies),
        Figure(network.SECTION, network.ANSWER, "ns", latencies),
        Figure(network.SECTION, network.ROUND_TRIP, "ns", latencies, {"bytes": 1}),
        *streams,
        *(
            Figure(
                network.SECTION,
                name,
                "1/s",
                three({NATIVE: 2e5, NOTIFY: 1e4}),
                {"bytes": 64, "under way": 32},
                {SSH: "carries none"},
            )
            for name in (network.CONNECTED, network.UNCONNECTED)
        ),
    ]


def growth_figures(memory_bytes: float = 140e6) -> list[Figure]:
    figures = []
    for kind in (growth.THREADS, growth.PROCESSES, growth.CONNECTIONS):
        for count in growth.COUNTS:
            figures += [
                Figure(growth.SECTION, f"{kind}: {key}", unit, three(OPENAT), {"count": count})
                for key, unit in growth.UNITS.items()
            ]
            figures += [
                Figure(
                    growth.SECTION,
                    f"{kind}: {growth.memory_name(role, measure)}",
                    "B",
                    three({NOTIFY: memory_bytes}),
                    {"count": count},
                )
                for role in (*growth.ROLES, "supervisor and agent")
                for measure in ("RSS", "PSS")
            ]
    return figures


def cluster_figures(
    *,
    start_s: float = 0.7,
    rate: float = 3e8,
    requests: float = 7.0,
    web_sockets: float = 1.0,
    memory_bytes: float = 27e6,
) -> list[Figure]:
    seconds = {
        cluster.START: start_s + 0.05,
        cluster.POD_START: 0.05,
        cluster.START_LESS: start_s,
        cluster.EPHEMERAL: 0.7,
    }
    counts = {cluster.REQUESTS: requests, cluster.WEB_SOCKETS: web_sockets}
    return [
        *(Figure(cluster.SECTION, name, "s", three({NOTIFY: value})) for name, value in seconds.items()),
        *(Figure(cluster.SECTION, name, "1", {NOTIFY: [value] * 3}) for name, value in counts.items()),
        *(
            Figure(cluster.SECTION, f"{cluster.MEMORY}: {kind}", "B", three({NOTIFY: memory_bytes}))
            for kind in ("RSS", "PSS")
        ),
        *(
            Figure(cluster.SECTION, name, "B/s", three({NATIVE: 4e9, NOTIFY: rate * factor}), {"bytes": size})
            for name, factor in ((cluster.UP, 1.0), (cluster.DOWN, 1.5))
            for size in cluster.MESSAGES
        ),
        Figure(cluster.SECTION, cluster.ROUND_TRIP, "ns", three({NATIVE: 5e3, NOTIFY: 5e5}), {"bytes": 1}),
    ]


def file_figures(
    *,
    warm_factor: float = 1.1,
    cold_ns: float = 4e5,
    lone_ns: float | None = None,
    rate: float = 7e8,
    listing_s: float = 0.2,
) -> list[Figure]:
    natively = {
        **dict.fromkeys((files.PREAD, files.FSTAT, files.STAT), ("ns", 170.0)),
        **dict.fromkeys((files.COLD, files.LONE, files.WARM), ("ns", 2500.0)),
        **dict.fromkeys((files.SEQUENTIAL, files.AGAIN, files.MAPPED), ("B/s", 6e9)),
        **dict.fromkeys((files.LISTING, files.NAMES), ("s", 0.01)),
    }
    through_tree = {
        **dict.fromkeys((files.PREAD, files.FSTAT), 170.0 * warm_factor),
        files.STAT: 25e3,
        files.COLD: cold_ns,
        files.LONE: cold_ns if lone_ns is None else lone_ns,
        files.WARM: 1e5,
        files.SEQUENTIAL: rate,
        files.LISTING: listing_s,
    }
    return [
        Figure(files.SECTION, name, unit, three({NATIVE: native, NOTIFY: through_tree.get(name, native)}))
        for name, (unit, native) in natively.items()
    ]


def steal_figures(
    *, request_ns: float = 3e5, relayed_ns: float = 3.2e5, rates: Mapping[int, float] | None = None
) -> list[Figure]:
    answered = rates or dict.fromkeys(steal.CONNECTIONS, 9e3)
    return [
        Figure(steal.SECTION, steal.REQUEST, "ns", three({NATIVE: 2e4, NOTIFY: 2e4 + request_ns})),
        Figure(steal.SECTION, steal.RELAYED, "ns", three({NATIVE: 2e4, NOTIFY: 2e4 + relayed_ns})),
        *(
            Figure(steal.SECTION, steal.REQUESTS, "1/s", three({NATIVE: 9e4, NOTIFY: rate}), {"connections": count})
            for count, rate in answered.items()
        ),
        *(Figure(steal.SECTION, name, "s", three({NATIVE: 2e-3, NOTIFY: 0.45})) for name in steal.START.values()),
    ]


def mirror_figures(*, kept: float = 0.99, kept_while_stopped: float = 1.0, copied: float = 1.0) -> list[Figure]:
    apart = {mirror.APART: kept, mirror.STOPPED: kept_while_stopped}
    return [
        Figure(mirror.SECTION, mirror.REQUESTS, "1/s", three({NATIVE: 9e4, NOTIFY: 6e4})),
        *(
            Figure(mirror.SECTION, name, "1/s", three({NATIVE: 4e4, NOTIFY: 4e4 * share}))
            for name, share in apart.items()
        ),
        *(
            Figure(mirror.SECTION, mirror.COPIED, "1", {NOTIFY: [1.0, copied, 1.0]}, {"MB/s": rate})
            for rate in mirror.RATES
        ),
    ]


def all_figures() -> list[Figure]:
    return [
        *call_figures(),
        *startup_figures(),
        *file_figures(),
        *network_figures(),
        *steal_figures(),
        *mirror_figures(),
        *growth_figures(),
        *cluster_figures(),
    ]


def without(figures: Sequence[Figure], way: str, why: str) -> list[Figure]:
    """The figures as they are when a way could not be measured."""
    return [
        Figure(
            figure.section,
            figure.name,
            figure.unit,
            {name: values for name, values in figure.samples.items() if name != way},
            figure.parameters,
            {**figure.missing, way: why},
        )
        for figure in figures
    ]


assert set(OPENAT) | {PROOT} == set(ALL)
