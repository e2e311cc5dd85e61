"""What a run leaves: results.json with every sample, results.md to be read, the plots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks.charts import plots
from benchmarks.figures import Figure
from benchmarks.goals import judge
from benchmarks.machine import Machine
from benchmarks.report import markdown


@attrs.frozen
class Tool:
    """A way as it was on this machine: how a command is run, or why it is not."""

    version: str
    prefix: Sequence[str]
    missing: str | None


@attrs.frozen
class Results:
    """One run. `failures`: what went wrong on the way, whether or not it then went well."""

    machine: Machine
    tools: Mapping[str, Tool]
    rounds: int
    quick: bool
    duration_s: float
    figures: Sequence[Figure]
    failures: Sequence[str]

    def to_json(self) -> str:
        """Everything, medians included, so that nobody has to compute them."""
        document = {
            "machine": attrs.asdict(self.machine),
            "tools": {name: attrs.asdict(tool) for name, tool in self.tools.items()},
            "rounds": self.rounds,
            "quick": self.quick,
            "duration_s": round(self.duration_s, 1),
            "goals": [attrs.asdict(verdict) for verdict in judge(self.figures)],
            "failures": list(self.failures),
            "figures": [_figure(figure) for figure in self.figures],
        }
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def write(self, directory: Path) -> None:
        """All files; what else is in the directory stays."""
        directory.mkdir(parents=True, exist_ok=True)
        charts = plots.draw(self.figures)
        (directory / "results.json").write_text(self.to_json())
        (directory / "results.md").write_text(markdown(self, list(charts)))
        for name, svg in charts.items():
            (directory / name).write_text(svg)


def _figure(figure: Figure) -> Mapping[str, object]:
    ways = {}
    for way, samples in figure.samples.items():
        summary, ratio = figure.summary(way), figure.ratio(way)
        ways[way] = {
            "samples": list(samples),
            "summary": summary and attrs.asdict(summary),
            "ratio_to_native": ratio and attrs.asdict(ratio),
        }
    return {
        "section": figure.section,
        "name": figure.name,
        "unit": figure.unit,
        "parameters": dict(figure.parameters),
        "ways": ways,
        "missing": dict(figure.missing),
    }
