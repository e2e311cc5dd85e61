"""A session in a cluster: how long it takes to begin and end, what its connection moves, what it costs others.

The cluster is the tests' stand-in, in a process of its own, so nothing here waits for an image or a scheduler, and no
byte crosses a network. On two processors that process, which encrypts as the API server does, takes its share: with a
real cluster it is another machine's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import building, processes
from benchmarks.bench import Bench
from benchmarks.errors import MeasurementFailed, Unavailable
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.ways import NOTIFY
from benchmarks.world import PORT

SECTION: Final = "cluster"
WAYS: Final = (NATIVE, NOTIFY)
START: Final = "run -t deploy/web -- /bin/true"
POD_START: Final = "of this the pod's own start"
START_LESS: Final = "the rest"
EPHEMERAL: Final = "the same with an ephemeral container"
UP: Final = "throughput up"
DOWN: Final = "throughput down"
ROUND_TRIP: Final = "round trip"
REQUESTS: Final = "requests to the API server"
WEB_SOCKETS: Final = "WebSockets"
MEMORY: Final = "idle agent"
MESSAGES: Final = (65536, 1 << 20)
_ROUND_TRIPS: Final = (1, 65536)
_MEASURED_MS: Final = 500
_TIMEOUT_S: Final = 60.0

_CELLS: Final[Mapping[str, tuple[str, str, Mapping[str, int]]]] = {
    **{f"rtt:{size}": (ROUND_TRIP, "ns", {"bytes": size}) for size in _ROUND_TRIPS},
    **{
        f"{word}:1:{size}": (name, "B/s", {"bytes": size})
        for word, name in (("up", UP), ("down", DOWN))
        for size in MESSAGES
    },
}
"""What `traffic` is asked for: figure's name, unit and parameters by cell."""
_SESSION: Final[Mapping[str, str]] = {
    START: "s",
    POD_START: "s",
    START_LESS: "s",
    EPHEMERAL: "s",
    REQUESTS: "1",
    WEB_SOCKETS: "1",
    f"{MEMORY}: RSS": "B",
    f"{MEMORY}: PSS": "B",
}


def measure(bench: Bench) -> list[Figure]:
    """Seconds, nanoseconds, bytes per second, numbers of requests, bytes of memory."""
    missing = bench.ways.missing_of(*WAYS)
    sessions: Mapping[str, Mapping[str, Any]] = {}
    cells: Mapping[str, Mapping[str, Any]] = {}
    if NOTIFY not in missing:
        try:
            with _cluster() as cluster:
                found = bench.alternate({NOTIFY: cluster.session}, bench.rounds)
                traffic = bench.alternate(cluster.traffic(bench.quick), bench.rounds)
                sessions, cells = found.by_key, traffic.by_key
                missing |= {**found.missing, **traffic.missing}
        except (Unavailable, MeasurementFailed) as error:
            missing |= dict.fromkeys(WAYS, str(error))
    of_sessions = {way: why for way, why in missing.items() if way == NOTIFY}
    return [
        *(Figure(SECTION, name, unit, sessions.get(name, {}), missing=of_sessions) for name, unit in _SESSION.items()),
        *(
            Figure(SECTION, name, unit, cells.get(cell, {}), parameters, missing)
            for cell, (name, unit, parameters) in _CELLS.items()
        ),
    ]


@attrs.frozen
class _Cluster:
    """The stand-in's process, and where things are in it."""

    process: subprocess.Popen[str]
    kubeconfig: str
    address: str
    pid: int
    """The process of the pod that is the target."""

    def ask(self, question: str) -> dict[str, Any]:
        """Asks the stand-in (see `benchmarks.standin`)."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{question}\n")
        self.process.stdin.flush()
        return _answer(self.process)

    def command(self, program: Command, *options: str) -> list[str]:
        """The command line that runs a program at the target."""
        tool = Path(sys.executable).with_name("mirrord-trace")
        where = ("--kubeconfig", self.kubeconfig, "-n", "shop", "--target", "deploy/web", "--delivery", NOTIFY)
        return [str(tool), "run", "--quiet", *where, *options, "--", *map(str, program)]

    def session(self) -> dict[str, float]:
        """One session of each kind, with nothing to do, and one that is looked at."""
        self.ask("session")
        taken = self._timed(self.command(["/bin/true"]))
        facts = self.ask("session")
        ephemeral = self._timed(self.command(["/bin/true"], "--agent-mode", "ephemeral"))
        with processes.running(self.command(["sh", "-c", "echo ready; exec sleep 1000"])) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                _, stderr = process.communicate(timeout=_TIMEOUT_S)
                raise MeasurementFailed(f"no session: {stderr[-800:]}")
            memory = self.ask("memory")
        return {
            START: taken,
            POD_START: facts["pod_start_s"],
            START_LESS: taken - facts["pod_start_s"],
            EPHEMERAL: ephemeral,
            REQUESTS: facts["requests"],
            WEB_SOCKETS: facts["web_sockets"],
            **{f"{MEMORY}: {kind}": size for kind, size in memory.items()},
        }

    def traffic(self, quick: bool) -> dict[str, Any]:
        """The runners of `traffic`, natively in the pod and through the cluster."""
        duration_ms = _MEASURED_MS // 4 if quick else _MEASURED_MS
        program: Command = [building.program("traffic"), self.address, str(PORT), "0", str(duration_ms), *_CELLS]
        in_pod = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *map(str, program)]
        commands = {NATIVE: in_pod, NOTIFY: self.command(program)}
        return {
            way: lambda command=command: processes.numbers(processes.run(command, _TIMEOUT_S))
            for way, command in commands.items()
        }

    def _timed(self, command: list[str]) -> float:
        taken = building.OUTPUT / "taken"
        processes.run([building.program("stopwatch"), taken, *command], _TIMEOUT_S)
        return int(taken.read_text()) / 1e9


@contextmanager
def _cluster() -> Iterator[_Cluster]:
    with tempfile.TemporaryDirectory(prefix="cluster-") as directory:
        command = [sys.executable, "-m", "benchmarks.standin", directory]
        with processes.running(command, stdin=subprocess.PIPE) as process:
            facts = _answer(process)
            yield _Cluster(process, facts["kubeconfig"], facts["address"], facts["pid"])
            assert process.stdin is not None
            process.stdin.close()
            process.wait(_TIMEOUT_S)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """A line of the stand-in's. Raises Unavailable with its last words when it has none."""
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    if not line:
        words = process.stderr.read().strip().splitlines()
        raise Unavailable(f"the stand-in for a cluster ended: {words[-1] if words else 'without a word'}")
    answer: dict[str, Any] = json.loads(line)
    return answer
