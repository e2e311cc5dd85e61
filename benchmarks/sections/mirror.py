"""What mirroring costs the target, and how much of it arrives.

Native is the target by itself. Target and client keep the processors busy, so whatever else runs slows them down: the
tool's own processes and the program that gets the copies take their time from them. What mirroring costs beyond that
shows where target and client have a processor of their own, on which the kernel makes the copies, natively too.

The agent is also stopped (SIGSTOP): the kernel goes on to copy packets for it until its buffer is full.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmarks import building, processes, target
from benchmarks.bench import Bench
from benchmarks.errors import MeasurementFailed, Unavailable
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.target import PORT, WEB_PORT, Target
from benchmarks.ways import NOTIFY, tool

SECTION: Final = "mirror"
WAYS: Final = (NATIVE, NOTIFY)
REQUESTS: Final = "requests to the target"
APART: Final = "requests to it on a processor of its own"
STOPPED: Final = "requests to it there while the agent is stopped"
USED: Final = "processors that the tool uses meanwhile"
PACED: Final = "paced throughput of the target's"
COPIED: Final = "of which the copy gets"
RATES: Final = (200, 400)
"""MB/s."""
_CONNECTIONS: Final = 32
_MESSAGE: Final = 65536
_REQUESTS_S: Final = 2
_PACED_MS: Final = 2000
_MEASURED_MS: Final = 300
_TIMEOUT_S: Final = 60.0

_CELLS: Final[Mapping[str, tuple[str, str, Mapping[str, int]]]] = {
    **{f"rtt:{size}": ("round trip of the target's", "ns", {"bytes": size}) for size in (1, _MESSAGE)},
    f"down:1:{_MESSAGE}": ("throughput out of the target", "B/s", {}),
}
"""What `traffic` is asked for: figure's name, unit and parameters by cell."""
_FIGURES: Final[Mapping[str, tuple[str, str, Mapping[str, int]]]] = {
    REQUESTS: (REQUESTS, "1/s", {}),
    APART: (APART, "1/s", {}),
    STOPPED: (STOPPED, "1/s", {}),
    USED: (USED, "1", {}),
    **_CELLS,
    **{f"{PACED}:{rate}": (PACED, "B/s", {"MB/s": rate}) for rate in RATES},
    **{f"{COPIED}:{rate}": (COPIED, "1", {"MB/s": rate}) for rate in RATES},
}
"""Figure's name, unit and parameters by what is measured."""


def measure(bench: Bench) -> list[Figure]:
    """Requests per second, shares, nanoseconds, bytes per second."""
    missing = bench.ways.missing_of(*WAYS)
    found: Mapping[str, Mapping[str, Sequence[float]]] = {}
    if NOTIFY not in missing:
        try:
            target.find_wrk()
            with target.open_target() as opened:
                # The cost is a small difference of large numbers.
                of_cost, of_rest = (1, 1) if bench.quick else (2 * bench.rounds, bench.rounds)
                cost = bench.alternate(_ways(opened, bench.quick, _cost_natively, _cost), of_cost)
                rest = bench.alternate(_ways(opened, bench.quick, _rest_natively, _rest), of_rest)
            found = {**cost.by_key, **rest.by_key}
            missing |= {**cost.missing, **rest.missing}
        except Unavailable as error:
            missing |= dict.fromkeys(WAYS, str(error))
    return [
        Figure(SECTION, name, unit, found.get(key, {}), parameters, missing)
        for key, (name, unit, parameters) in _FIGURES.items()
    ]


Measure = Callable[[Target, bool], Mapping[str, float]]


def _ways(
    opened: Target, quick: bool, natively: Measure, mirrored: Measure
) -> dict[str, Callable[[], Mapping[str, float]]]:
    return {NATIVE: partial(natively, opened, quick), NOTIFY: partial(mirrored, opened, quick)}


def _cost_natively(opened: Target, quick: bool) -> Mapping[str, float]:
    with _on_processors_of_their_own(opened, ()):
        apart = _requests(opened, quick)
    return {REQUESTS: _requests(opened, quick), APART: apart, STOPPED: apart}


def _cost(opened: Target, quick: bool) -> Mapping[str, float]:
    found: dict[str, float] = {}
    with _mirroring(opened, [building.go_program("http_server"), str(WEB_PORT)]) as process:
        ours = [process.pid, *processes.descendants(process.pid)]
        found[REQUESTS], found[USED] = _requests_and_use(opened, quick, ours)
        (agent,) = filter(processes.is_agent, ours)
        with _on_processors_of_their_own(opened, ours):
            found[APART] = _requests(opened, quick)
            os.kill(agent, signal.SIGSTOP)
            try:
                opened.requests(_CONNECTIONS, 1)  # until the kernel's buffer is full
                found[STOPPED] = _requests(opened, quick)
            finally:
                os.kill(agent, signal.SIGCONT)
    return found


def _rest_natively(opened: Target, quick: bool) -> Mapping[str, float]:
    found = opened.traffic(list(_CELLS), _MEASURED_MS // (4 if quick else 1))
    for megabytes in RATES:
        found[f"{PACED}:{megabytes}"], _ = _paced(opened, megabytes, quick)
    return found


def _rest(opened: Target, quick: bool) -> Mapping[str, float]:
    far_side: Command = [building.program("far_side"), str(PORT)]
    with _mirroring(opened, far_side):
        found = opened.traffic(list(_CELLS), _MEASURED_MS // (4 if quick else 1))
    for megabytes in RATES:
        with _mirroring(opened, far_side) as process:
            found[f"{PACED}:{megabytes}"], sent = _paced(opened, megabytes, quick)
            found[f"{COPIED}:{megabytes}"] = _received(process) / sent
    return found


@contextmanager
def _mirroring(opened: Target, program: Command) -> Iterator[subprocess.Popen[str]]:
    command = tool(NOTIFY, opened.far_side.pid, "--incoming", "mirror").command(program)
    with processes.serving(command, _TIMEOUT_S) as process:
        yield process


def _requests(opened: Target, quick: bool) -> float:
    """Per second."""
    return opened.requests(_CONNECTIONS, 1 if quick else _REQUESTS_S)


def _requests_and_use(opened: Target, quick: bool, ours: Sequence[int]) -> tuple[float, float]:
    """Requests per second, and how many processors we use meanwhile."""
    before, began_s = processes.processor_times_s(ours), time.monotonic()
    rate = _requests(opened, quick)
    taken_s = time.monotonic() - began_s
    after = processes.processor_times_s(before)
    return rate, sum(after_s - before[pid] for pid, after_s in after.items()) / taken_s


@contextmanager
def _on_processors_of_their_own(opened: Target, ours: Iterable[int]) -> Iterator[None]:
    """Target and client on one, these processes on the others. Raises Unavailable where there is but one."""
    available = os.sched_getaffinity(0)
    first, others = {min(available)}, available - {min(available)}
    if not others:
        raise Unavailable("there is but one processor, and the target needs one of its own")
    # The client is a child of this process.
    where = [(opened.web.pid, first), (os.getpid(), first), *((pid, others) for pid in ours)]
    try:
        for pid, processors in where:
            processes.keep_on(pid, processors)
        yield
    finally:
        for pid, _ in where:
            processes.keep_on(pid, available)


def _paced(opened: Target, megabytes: int, quick: bool) -> tuple[float, float]:
    """Bytes per second that the target got, and how many bytes."""
    cell = f"paced:{megabytes * 1_000_000}:{_MESSAGE}"
    (rate,) = opened.traffic([cell], _PACED_MS // (4 if quick else 1)).values()
    return rate, _received(opened.far_side)


def _received(far_side: subprocess.Popen[str]) -> float:
    """How many bytes one says that it got. Raises MeasurementFailed."""
    line = processes.read_line(far_side, _TIMEOUT_S)
    word, _, number = line.rpartition(" ")
    if word not in ("received", "cut"):
        raise MeasurementFailed(f"the far side says {line!r}")
    return float(number)
