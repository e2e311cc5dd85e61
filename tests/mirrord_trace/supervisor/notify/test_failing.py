"""What fails in a worker ends everything, as any bug does; after the end it means nothing any more."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.mirrord_trace.supervisor.harness import Ended, run


@pytest.fixture(autouse=True)
def under_notify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELIVERY", "notify")


def opening(scenario: str) -> Ended:
    return run(scenario, sys.executable, "-c", 'open("/presented")')


def test_a_bug_in_a_worker_ends_the_tree() -> None:
    ended = opening("bug_in_worker")
    assert ended.exit_code == 1
    assert any("ZeroDivisionError" in line for line in ended.said)
    assert not any("TrioInternalError" in line for line in ended.said)


def test_a_bug_in_a_worker_that_comes_too_late() -> None:
    ended = opening("bug_too_late")
    assert ended.exit_code == 128 + signal.SIGKILL
    assert ended.said[-1] == "driver: left: []"


def test_without_a_thread_a_call_that_needs_one_fails_and_programs_start_all_the_same() -> None:
    script = "cat /presented 2>&1; exec /bin/echo started"
    ended = run("no_worker", "env", "LC_ALL=C", "sh", "-c", script)
    assert ended.stdout == "cat: /presented: Resource temporarily unavailable\nstarted\n"
    assert ended.exit_code == 0
