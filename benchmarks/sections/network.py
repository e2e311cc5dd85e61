"""Connections and datagrams through relay and agent, beside native loopback and `ssh -D`.

Native is the same program inside the pod. Under the tool it runs outside, and every byte travels process, supervisor,
agent, service; with `ssh -D` process, ssh, sshd, service. So on two processors four processes take turns where natively
two do. Throughput is what has arrived: upwards as the service counts it, downwards as the process does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from benchmarks import building, processes, ssh
from benchmarks.bench import Bench
from benchmarks.errors import Unavailable
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.rounds import Samples
from benchmarks.ways import DELIVERIES, SSH
from benchmarks.world import ADDRESS, PORT

SECTION: Final = "network"
WAYS: Final = (NATIVE, *DELIVERIES, SSH)
CONNECT: Final = "connect"
ANSWER: Final = "connect and first answer"
"""`ssh -D` says that it is connected before it is; here it must be."""
ROUND_TRIP: Final = "round trip"
UP: Final = "throughput up"
DOWN: Final = "throughput down"
CONNECTED: Final = "datagrams, connected socket"
UNCONNECTED: Final = "datagrams, unconnected socket"
STREAMS: Final = (1, 8, 64)
MESSAGES: Final = (1, 1024, 65536, 1 << 20)
"""Bytes."""
_ROUND_TRIPS: Final = (1, 65536)
_DATAGRAMS: Final = (64, 1200)
_UNDER_WAY: Final = (1, 32)
_CONNECTS: Final = 200
_MEASURED_MS: Final = 120
_MOST_ROUNDS: Final = 4
_TIMEOUT_S: Final = 120.0
_NO_UDP: Final = "ssh -D carries no datagrams"

Cells = Mapping[str, tuple[str, str, Mapping[str, int]]]
"""What `traffic` is asked for: figure's name, unit and parameters by cell."""


def _stream_cells() -> Cells:
    return {
        f"connect:{_CONNECTS}": (CONNECT, "ns", {}),
        f"answer:{_CONNECTS}": (ANSWER, "ns", {}),
        **{f"rtt:{size}": (ROUND_TRIP, "ns", {"bytes": size}) for size in _ROUND_TRIPS},
        **{
            f"{word}:{streams}:{size}": (name, "B/s", {"streams": streams, "bytes": size})
            for word, name in (("up", UP), ("down", DOWN))
            for streams in STREAMS
            for size in MESSAGES
        },
    }


def _datagram_cells() -> Cells:
    return {
        f"{word}:{size}:{window}": (name, "1/s", {"bytes": size, "under way": window})
        for word, name in (("udp", CONNECTED), ("udpto", UNCONNECTED))
        for size in _DATAGRAMS
        for window in _UNDER_WAY
    }


def measure(bench: Bench) -> list[Figure]:
    """Times in nanoseconds, throughput in bytes per second, echoed datagrams per second."""
    missing = bench.ways.missing_of(*WAYS)
    try:
        with ssh.socks_server(bench.world) as proxy:
            samples = _measure(bench, proxy)
    except Unavailable as error:
        missing[SSH] = str(error)
        samples = _measure(bench, None)
    missing |= samples.missing
    figures = [
        Figure(SECTION, name, unit, samples.of(cell), parameters, missing)
        for cell, (name, unit, parameters) in _stream_cells().items()
    ]
    no_udp = {SSH: _NO_UDP} | {way: why for way, why in missing.items() if way != SSH}
    figures += [
        Figure(SECTION, name, unit, samples.of(cell), parameters, no_udp)
        for cell, (name, unit, parameters) in _datagram_cells().items()
    ]
    return figures


def _measure(bench: Bench, proxy: int | None) -> Samples[str]:
    traffic = building.program("traffic")
    duration_ms = _MEASURED_MS // 4 if bench.quick else _MEASURED_MS

    def program(cells: Cells, proxy: int = 0) -> Command:
        return [traffic, ADDRESS, str(PORT), str(proxy), str(duration_ms), *cells]

    everything = {**_stream_cells(), **_datagram_cells()}

    def runner(command: Command) -> Callable[[], Mapping[str, float]]:
        return lambda: processes.numbers(processes.run(command, _TIMEOUT_S))

    runners = {NATIVE: runner(bench.world.in_pod(program(everything)))}
    for way in bench.ways.some(*DELIVERIES):
        runners[way.name] = runner(way.command(program(everything)))
    if proxy is not None:
        runners[SSH] = runner(program(_stream_cells(), proxy))
    return bench.alternate(runners, min(bench.rounds, _MOST_ROUNDS))
