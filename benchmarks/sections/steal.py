"""Traffic that is stolen from the target, beside the same programs as its clients meet them in the pod.

A client's bytes travel client, agent, supervisor, process: four processes on two processors where natively two are.
What one passage through relay and agent takes is measured in the other direction, too, by the same programs: that is
what stealing is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Final

from benchmarks import building, processes, target
from benchmarks.bench import Bench
from benchmarks.errors import Unavailable
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.target import PORT, WEB_PORT, Target
from benchmarks.ways import DELIVERIES, tool

SECTION: Final = "steal"
WAYS: Final = (NATIVE, *DELIVERIES)
REQUEST: Final = "small request"
REQUESTS: Final = "requests"
NEW: Final = "requests, each on a new connection"
CONNECTIONS: Final = (32, 64)
RELAYED: Final = "the same, from here to the pod"
ROUND_TRIP: Final = "round trip"
MODES: Final = ("steal", "mirror")
START: Final = {mode: f"start, listen and end: {mode}" for mode in MODES}
_STREAMS: Final = (1, 8)
_MESSAGE: Final = 65536
_CONNECTS: Final = 100
_MEASURED_MS: Final = 300
_REQUESTS_S: Final = 2
_MOST_ROUNDS: Final = 3
_TIMEOUT_S: Final = 60.0
_FREE_PORT: Final = 7100

_CELLS: Final[Mapping[str, tuple[str, str, Mapping[str, int]]]] = {
    f"connect:{_CONNECTS}": ("connect", "ns", {}),
    f"answer:{_CONNECTS}": ("connect and first answer", "ns", {}),
    **{f"rtt:{size}": (ROUND_TRIP, "ns", {"bytes": size}) for size in (1, _MESSAGE)},
    **{
        f"{word}:{streams}:{_MESSAGE}": (f"throughput {name}", "B/s", {"streams": streams})
        for word, name in (("up", "in"), ("down", "out"))
        for streams in _STREAMS
    },
    **{f"udp:64:{window}": ("datagrams", "1/s", {"under way": window}) for window in (1, 32)},
}
"""What `traffic` is asked for: figure's name, unit and parameters by cell."""
_FIGURES: Final[Mapping[str, tuple[str, str, Mapping[str, int]]]] = {
    REQUEST: (REQUEST, "ns", {}),
    RELAYED: (RELAYED, "ns", {}),
    **_CELLS,
    **{f"{REQUESTS}:{count}": (REQUESTS, "1/s", {"connections": count}) for count in CONNECTIONS},
    NEW: (NEW, "1/s", {}),
    **{name: (name, "s", {}) for name in START.values()},
}
"""Everything: figure's name, unit and parameters by what is measured."""


def measure(bench: Bench) -> list[Figure]:
    """Nanoseconds, requests and bytes and datagrams per second, seconds."""
    missing = bench.ways.missing_of(*WAYS)
    found: Mapping[str, Mapping[str, Sequence[float]]] = {}
    try:
        target.find_wrk()
        with target.open_target() as opened:
            ways = [way.name for way in bench.ways.some(*WAYS)]
            rounds = 1 if bench.quick else min(bench.rounds, _MOST_ROUNDS)
            samples = bench.alternate({way: partial(_measure, opened, way, bench.quick) for way in ways}, rounds)
        found, missing = samples.by_key, {**missing, **samples.missing}
    except Unavailable as error:
        missing |= dict.fromkeys(WAYS, str(error))
    return [
        Figure(SECTION, name, unit, found.get(key, {}), parameters, missing)
        for key, (name, unit, parameters) in _FIGURES.items()
    ]


def _measure(opened: Target, way: str, quick: bool) -> Mapping[str, float]:
    """Everything in one way."""
    divisor = 4 if quick else 1
    far_side: Command = [building.program("far_side"), str(PORT)]
    web: Command = [building.go_program("http_server"), str(WEB_PORT)]
    with _server(opened, way, far_side):
        found = opened.traffic(list(_CELLS), _MEASURED_MS // divisor)
    with _server(opened, way, web):
        found |= _requests(opened, _duration_s(quick))
    outgoing = _command(opened, way, "off", target.wrk(1, _duration_s(quick)))
    found[RELAYED] = 1e9 / target.requests_per_second(processes.run(outgoing, _TIMEOUT_S))
    taken = building.OUTPUT / "taken"
    for mode in MODES:
        listen: Command = [building.program("listen"), str(_FREE_PORT)]
        processes.run([building.program("stopwatch"), taken, *_command(opened, way, mode, listen)], _TIMEOUT_S)
        found[START[mode]] = int(taken.read_text()) / 1e9
    return found


def _command(opened: Target, way: str, mode: str, program: Command) -> list[str]:
    """Natively in the pod, else outside with this mode of incoming traffic."""
    if way == NATIVE:
        return opened.in_pod(program)
    return tool(way, opened.far_side.pid, "--incoming", mode).command(program)


def _server(opened: Target, way: str, program: Command) -> AbstractContextManager[object]:
    """Natively it is there already."""
    if way == NATIVE:
        return nullcontext()
    return processes.serving(_command(opened, way, "steal", program), _TIMEOUT_S)


def _duration_s(quick: bool) -> int:
    return 1 if quick else _REQUESTS_S


def _requests(opened: Target, duration_s: int) -> dict[str, float]:
    found = {REQUEST: 1e9 / opened.requests(1, duration_s)}
    for count in CONNECTIONS:
        found[f"{REQUESTS}:{count}"] = opened.requests(count, duration_s)
    found[NEW] = opened.requests(min(CONNECTIONS), duration_s, "--header", "Connection: close")
    return found
