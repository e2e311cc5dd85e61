"""How long programs take from start to end, the tool's own start and end included.

Each program has a second figure, "… once started": the same less what the way adds to /bin/true (by the medians). It
shows what the program itself is slowed down by.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks import building, processes, world
from benchmarks.bench import Bench
from benchmarks.errors import Unavailable
from benchmarks.figures import NATIVE, Figure
from benchmarks.processes import Command
from benchmarks.ways import ALL, Way

SECTION: Final = "startup"
TRUE: Final = "/bin/true"
PYTHON: Final = "Python, 200 modules"
NODE: Final = "Node, 50 modules"
WEB: Final = "Python web application"
STORM: Final = "process storm"
_PYTHON_MODULES: Final = 200
_NODE_MODULES: Final = 50
_WEB_FILES: Final = 1000
_STORM_STEPS, _STORM_FILES, _STORM_AT_ONCE = 100, 20, 2
_TIMEOUT_S: Final = 120.0


def measure(bench: Bench) -> list[Figure]:
    """Figures in seconds."""
    programs: dict[str, Command] = {}
    absent: dict[str, str] = {}
    makers: dict[str, Callable[[], Command]] = {
        TRUE: lambda: ["/bin/true"],
        PYTHON: _python,
        NODE: _node,
        WEB: _web,
        STORM: lambda: _storm(10 if bench.quick else 1),
    }
    for name, make in makers.items():
        try:
            programs[name] = make()
        except Unavailable as error:
            absent[name] = str(error)
    stopwatch = building.program("stopwatch")
    taken = building.OUTPUT / "taken"

    for program in programs.values():  # once, so that files are in memory and bytecode is compiled
        processes.run(program, _TIMEOUT_S)

    def run(way: Way) -> Mapping[str, float]:
        found = {}
        for name, program in programs.items():
            processes.run([stopwatch, taken, *way.command(program)], _TIMEOUT_S)
            found[name] = int(taken.read_text()) / 1e9
        return found

    ways = bench.ways.some(*ALL)
    samples = bench.alternate({way.name: partial(run, way) for way in ways}, bench.rounds)
    missing = {**bench.ways.missing_of(*ALL), **samples.missing}
    figures = []
    for name in makers:
        reasons = dict.fromkeys(ALL, absent[name]) if name in absent else missing
        figures.append(Figure(SECTION, name, "s", samples.of(name), missing=reasons))
        if name != TRUE and name in programs:
            figures.append(_once_started(name, samples.of(name), samples.of(TRUE), missing))
    return figures


def _once_started(
    name: str, whole: Mapping[str, Sequence[float]], true: Mapping[str, Sequence[float]], missing: Mapping[str, str]
) -> Figure:
    native_s = statistics.median(true[NATIVE])
    started = {
        way: [total - (statistics.median(true[way]) - native_s) for total in totals] for way, totals in whole.items()
    }
    return Figure(SECTION, f"{name}, once started", "s", started, missing=missing)


def _python() -> Command:
    """A program that imports 200 modules of its own, whose bytecode is at hand, in this interpreter."""
    directory = _generated(
        "python",
        {
            "program.py": "import sys\nhere = __file__.rpartition('/')[0]\n"
            "sys.path[:0] = [here + '/empty', here + '/modules']\n"
            + "".join(f"import module_{number}\n" for number in range(_PYTHON_MODULES)),
            "empty/README": "searched first, as a virtual environment makes Python search several directories\n",
            **{
                f"modules/module_{number}.py": textwrap.dedent(f"""\
                    import module_{number + 1 if number % 10 != 9 else 0}


                    class Thing:
                        def method(self, argument):
                            return argument + {number}
                    """)
                for number in range(_PYTHON_MODULES)
            },
        },
    )
    cache = f"pycache_prefix={directory / 'cache'}"
    return [sys.executable, "-I", "-X", cache, directory / "program.py"]


def _web() -> Command:
    """What a web application does before it serves: looks at its templates and messages, and reads them all."""
    names = [f"{kind}/{number}.html" for kind in ("templates", "messages") for number in range(_WEB_FILES // 2)]
    directory = _generated(
        "web",
        {
            "program.py": "import os\nhere = __file__.rpartition('/')[0]\n"
            f"for name in {names!r}:\n"
            "    path = here + '/' + name\n"
            "    os.stat(path)\n"
            "    os.close(os.open(path, os.O_RDONLY))\n",
            **{name: f"<p>{name}</p>\n" for name in names},
        },
    )
    return [sys.executable, "-I", directory / "program.py"]


def _node() -> Command:
    node = shutil.which("node")
    if node is None:
        raise Unavailable("no node: apt-get install nodejs")
    modules = range(_NODE_MODULES)
    directory = _generated(
        "node",
        {
            "program.js": "require('http'); require('fs'); require('crypto');\n"
            + "".join(f"require('./modules/module{number}');\n" for number in modules),
            **{f"modules/module{number}.js": f"exports.number = () => {number};\n" for number in modules},
        },
    )
    return [node, directory / "program.js"]


def _storm(divisor: int) -> Command:
    program = building.program("storm", static=False)
    directory = world.inputs(_STORM_FILES)
    return [program, "build", directory, str(_STORM_STEPS // divisor), str(_STORM_FILES), str(_STORM_AT_ONCE)]


def _generated(name: str, files: Mapping[str, str]) -> Path:
    directory = building.OUTPUT / name
    for path, text in files.items():
        file = directory / path
        if not file.exists() or file.read_text() != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
    return directory
