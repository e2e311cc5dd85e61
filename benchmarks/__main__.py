"""The command: `python -m benchmarks [--quick] [SECTION]...`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

from benchmarks import building, machine, processes, ssh, world
from benchmarks.bench import Bench
from benchmarks.errors import Unavailable
from benchmarks.figures import Figure
from benchmarks.goals import judge
from benchmarks.progress import Progress
from benchmarks.results import Results, Tool
from benchmarks.sections import SECTIONS, files
from benchmarks.ways import ALL, SSH, Ways, find_ways
from mirrord_trace.errors import Failure

RESULTS = Path(__file__).with_name("results")
_ROUNDS = 5
_QUICK_ROUNDS = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)), metavar="[SECTION]...")
@click.option("--quick", is_flag=True, help="Only see that everything works: three minutes, figures that mean little.")
@click.option("--rounds", type=click.IntRange(min=1), help=f"How often each way is measured.  [default: {_ROUNDS}]")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where results go.  [default: benchmarks/results for a whole run, else build/benchmarks/results]",
)
@click.option("--list", "list_sections", is_flag=True, help="List the sections.")
def main(sections: tuple[str, ...], quick: bool, rounds: int | None, output: Path | None, list_sections: bool) -> None:
    """Measure what interception costs: all SECTIONs, or those named.

    Run it on a machine that does nothing else.
    """
    if list_sections:
        for name, section in SECTIONS.items():
            click.echo(f"{name:10} {section.title}")
        return
    is_whole = not quick and set(sections or SECTIONS) == set(SECTIONS)
    output = output or (RESULTS if is_whole else building.OUTPUT / "results")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    progress = Progress()
    try:
        results = _measure(
            sections or tuple(SECTIONS), quick, rounds or (_QUICK_ROUNDS if quick else _ROUNDS), progress
        )
    except (Unavailable, Failure) as error:
        progress.say(f"cannot measure: {error}")
        sys.exit(1)
    finally:
        progress.close()
    results.write(output)
    for verdict in judge(results.figures):
        progress.say(f"{verdict.word:12} {verdict.goal}: {verdict.measured}")
    progress.say(f"written to {os.path.relpath(output)}")


def _measure(sections: tuple[str, ...], quick: bool, rounds: int, progress: Progress) -> Results:
    began = time.monotonic()
    described = machine.describe()
    world.leave_the_network()
    processes.become_subreaper()
    progress.section("looking at what is here")
    figures: list[Figure] = []
    with world.open_world({**ssh.POD_FILES, **files.POD_FILES}) as opened:
        ways = find_ways(opened.pod.pid)
        for name, reason in ways.missing.items():
            progress.say(f"{name} is not measured: {reason}")
        bench = Bench(opened, ways, rounds, quick, progress)
        for name in SECTIONS:
            if name in sections:
                progress.section(name)
                figures += SECTIONS[name].measure(bench)
    return Results(described, _tools(ways), rounds, quick, time.monotonic() - began, figures, tuple(bench.failures))


def _tools(ways: Ways) -> dict[str, Tool]:
    tools = {}
    for name in ALL:
        way = ways.available.get(name)
        tools[name] = Tool(way.version, way.prefix, None) if way else Tool("", (), ways.missing[name])
    try:
        ssh.find_sshd()
        tools[SSH] = Tool(ssh.version(), (), None)
    except Unavailable as error:
        tools[SSH] = Tool("", (), str(error))
    return tools


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """As Ctrl-C does: every block that holds something is left."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
