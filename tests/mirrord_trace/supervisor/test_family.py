"""Tasks of every kind under each delivery: each is followed, and (traced) has room for its rewritten calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mirrord_trace.supervisor.harness import UNPRIVILEGED, Ended, program, run

pytestmark = pytest.mark.usefixtures("delivery")


@pytest.fixture(params=[[], UNPRIVILEGED], ids=["root", "user"])
def rights(request: pytest.FixtureRequest) -> list[str]:
    chosen: list[str] = request.param
    return chosen


@pytest.fixture
def stand_in(tmp_path: Path) -> str:
    path = tmp_path / "stand-in"
    path.write_text("the stand-in")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    return str(path)


def family(what: str, stand_in: str, rights: list[str]) -> Ended:
    return run("redirect_paths", program("family"), what, prefix=rights, environment={"STAND_IN": stand_in})


UNTRACED = {
    "clones": [
        "untraced: 1",
        "clone3: 1",
        "clone3, untraced: made",
        "clone3, no arguments: Bad address",
        "clone3, a sibling: 1",
    ],
    "unmap": ["unmapped: 1 0 2"],
    "own_filter": [
        "asks for a tracer: Function not implemented",
        "no such call: Function not implemented",
        "no mmap: opened",
    ],
    "limits": ["no memory: opened", "locked: 1"],
}
"""What differs where there is no tracer to escape from, and nothing of ours in the process's memory."""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("threads", ["threads: 1000"]),
        ("forks", ["forks: 200"]),
        ("forking_threads", ["forking threads: 200"]),
        ("vforks", ["reads: 1", "vforks: 1 1 1"]),
        (
            "clones",
            [
                "untraced: 1",
                "clone3: 1",
                "clone3, untraced: Function not implemented",
                "clone3, no arguments: Bad address",
                "clone3, a sibling: 1",
            ],
        ),
        ("shared_memory", ["shared memory: 4 1"]),
        ("thread_executes", ["reads: 1"]),
        ("unmap", ["unmapped: 1 1 2"]),
        (
            "own_filter",
            [
                "asks for a tracer: Function not implemented",
                "no such call: Function not implemented",
                "no mmap: Cannot allocate memory",
            ],
        ),
        ("limits", ["no memory: Cannot allocate memory", "locked: 1"]),
    ],
)
def test_tasks(what: str, expected: list[str], stand_in: str, rights: list[str], delivery: str) -> None:
    if delivery == "notify":
        expected = UNTRACED.get(what, expected)
    ended = family(what, stand_in, rights)
    assert (ended.stdout.splitlines(), ended.exit_code) == (expected, 0)
    assert ended.said[-1] == "driver: left: []"


def test_process_whose_first_thread_has_ended(stand_in: str, rights: list[str]) -> None:
    ended = family("leader_ends", stand_in, rights)
    assert (ended.stdout, ended.exit_code) == ("leader ended: 1\n", 3)


def test_process_that_hides_its_memory_runs_without_us(stand_in: str) -> None:
    ended = family("hides", stand_in, UNPRIVILEGED)
    assert (ended.stdout, ended.exit_code) == ("hidden: 7\n", 0)
    assert len([warning for warning in ended.warnings if "hides its memory" in warning]) == 1
