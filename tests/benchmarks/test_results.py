import json
from pathlib import Path

import attrs
import pytest

from benchmarks.machine import Machine
from benchmarks.report import markdown
from benchmarks.results import Results, Tool
from benchmarks.ways import NOTIFY
from tests.benchmarks import samples

MACHINE = Machine(
    processor="A processor",
    processors=2,
    memory_bytes=8 << 30,
    virtualization="virtual machine",
    kernel="Linux 6.1",
    system="Debian",
    python="CPython 3.11",
    compiler="cc 12",
    revision="0123456789ab",
    taken_at="2026-01-01T00:00:00+00:00",
    load_before=0.02,
)


@pytest.fixture
def results() -> Results:
    tools = {"strace": Tool("strace 6.1", ("strace", "-f"), None), "PRoot": Tool("", (), "not installed: apt-get …")}
    failures = ("ptrace: exit status 1: calls\nconnect: Connection refused",)
    return Results(MACHINE, tools, 5, False, 360.0, samples.all_figures(), failures)


def row(page: str, *cells: str) -> str:
    """The one row of all tables that begins with these cells."""
    start = "| " + " | ".join(cells) + " |"
    found = [line for line in page.splitlines() if line.startswith(start)]
    assert len(found) == 1, found
    return found[0]


def test_a_cell_has_median_quartiles_and_ratio(results: Results) -> None:
    line = row(markdown(results, []), "openat", "2")
    assert "| 600 ns (597 to 606) | 3 µs (2.98 to 3.03) \N{MULTIPLICATION SIGN}5 |" in line


def test_what_is_missing_is_in_the_table_and_explained_below(results: Results) -> None:
    page = markdown(results, [])
    assert row(page, "openat", "2").endswith("| not measured |")
    assert "- PRoot: not installed: apt-get install proot" in page
    assert row(page, "PRoot") == "| PRoot | not measured: not installed: apt-get … |"


def test_all_rows_of_a_table_have_as_many_cells_as_its_head(results: Results) -> None:
    lengths: list[int] = []
    for line in markdown(results, []).splitlines():
        if line.startswith("|"):
            lengths.append(line.count("|"))
            assert lengths[-1] == lengths[0]
        else:
            lengths = []


def test_goals_machine_and_what_went_wrong_are_told(results: Results) -> None:
    page = markdown(results, [])
    assert "| … and at most a fifth of strace --seccomp-bpf | 1/6.7 of it (30 µs) | met |" in page
    assert "| machine | A processor, 2 processors, 8 GiB, virtual machine |" in page
    assert "- ptrace: exit status 1: calls connect: Connection refused" in page


def test_a_quick_run_says_that_it_is_one(results: Results) -> None:
    assert "quick run" not in markdown(results, [])
    assert "quick run" in markdown(attrs.evolve(results, quick=True), [])


def test_plots_are_shown_that_are_there(results: Results) -> None:
    page = markdown(results, ["calls.svg"])
    assert "](calls.svg)" in page
    assert "](growth.svg)" not in page


def test_everything_is_written(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "new" / "results")
    written = {path.name for path in (tmp_path / "new" / "results").iterdir()}
    assert {"results.json", "results.md", "calls.svg", "memory.svg"} <= written


def test_json_has_every_sample_and_what_follows_from_them(results: Results) -> None:
    document = json.loads(results.to_json())
    assert document["machine"]["processors"] == 2
    assert [goal["met"] for goal in document["goals"]] == [True] * 19
    (figure,) = [f for f in document["figures"] if (f["name"], f["parameters"]) == ("openat", {"threads": 1})]
    notify = figure["ways"][NOTIFY]
    assert notify["samples"] == [4455, 4500, 4590]
    assert notify["summary"]["median"] == 4500
    assert notify["ratio_to_native"]["median"] == pytest.approx(7.5)
    assert figure["missing"] == samples.NO_PROOT
