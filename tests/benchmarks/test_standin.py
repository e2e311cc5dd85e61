from typing import Any

import pytest

from benchmarks import standin
from mirrord_trace.targets.workloads.ownership import MANAGED_BY


def pod(name: str, state: str | None = None, *, agent: bool = True) -> dict[str, Any]:
    statuses = [{"name": "agent", "state": {state: {}}}] if state else []
    labels = dict(MANAGED_BY) if agent else {}
    return {"metadata": {"name": name, "labels": labels}, "status": {"containerStatuses": statuses}}


def test_an_agents_start_ends_when_its_container_first_runs() -> None:
    starts = standin.Starts()
    starts.take(pod("web", "running", agent=False), 9.0)
    starts.take(pod("a"), 10.0)
    starts.take(pod("a", "waiting"), 10.2)
    assert starts.last_s() is None
    starts.take(pod("a", "running"), 10.5)
    starts.take(pod("a", "running"), 11.0)
    assert starts.last_s() == pytest.approx(0.5)


def test_the_last_start_is_the_newest_agents() -> None:
    starts = standin.Starts()
    for name, created, running in (("a", 1.0, 2.0), ("b", 3.0, 6.0)):
        starts.take(pod(name), created)
        starts.take(pod(name, "running"), running)
    assert starts.last_s() == pytest.approx(3.0)
