"""Which pods of a workload are tried, how often and for how long, by a scripted API server that makes no agents.

`tests/cluster/test_all_pods.py` has pods that are served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mirrord_trace.cluster.resources import JOBS, PODS, SERVICES
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.reporting import Reporter, Step
from mirrord_trace.targets.workloads.choice import candidates
from mirrord_trace.targets.workloads.finding import Found
from mirrord_trace.targets.workloads.other_pods import OtherPods, other_pods
from mirrord_trace.targets.workloads.path import parse_path
from tests.mirrord_trace.targets.workloads.objects import container_status, pod
from tests.mirrord_trace.targets.workloads.scripted import ScriptedApi, Told, refusal

FIRST = pod("web-1")
CONFIG = AgentConfiguration(image="registry.test/agent:1")


class Background(Told):
    """What is told of others' agents besides."""

    def explain(self, text: str) -> None:
        """Is not kept."""


def follow(
    api: ScriptedApi, *pods: dict[str, Any], story: Callable[[OtherPods], Awaitable[None]], path: str = "deploy/web"
) -> Background:
    """What is told while pods are followed, by a clock that does not wait."""
    told = Background()
    parsed = parse_path(path)
    assert parsed is not None
    api.has(PODS, FIRST, *pods)

    async def main() -> None:
        found = Found([FIRST, *pods], None, "app=web")
        [first] = candidates([FIRST], None)
        async with other_pods(api.api, cast(Reporter, told), CONFIG, parsed, found, first) as others:
            await story(others)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return told


def refusing() -> ScriptedApi:
    api = ScriptedApi()
    api.refuses["create", JOBS] = refusal("create", JOBS, 403, "quota exceeded")
    return api


def test_the_first_is_not_one_of_them() -> None:
    api = refusing()

    async def story(_: OtherPods) -> None:
        await trio.sleep(1000)

    assert follow(api, story=story).warnings == []
    assert api.creations == 0


def test_a_failure_is_told_once_and_tried_again_after_growing_pauses() -> None:
    api = refusing()
    after: list[int] = []

    async def story(others: OtherPods) -> None:
        step = Told()
        await others.reached(cast(Step, step))
        assert step.reasons[-1] == "1 of 2 pods are served"
        for pause_s in (1, 2, 4, 8, 16):
            after.append(api.creations)
            await trio.sleep(pause_s)

    told = follow(api, pod("web-2"), story=story)
    assert after == [1, 1, 2, 3, 4]
    [warning] = told.warnings
    assert warning.startswith("pod web-2 is not served for the time being: cannot create the agent's job")


def test_a_pod_that_goes_is_tried_no_more() -> None:
    api = refusing()

    async def story(_: OtherPods) -> None:
        await trio.sleep(1)
        api.tell("DELETED", pod("web-2"))
        await trio.sleep(1000)

    follow(api, pod("web-2"), story=story)
    assert api.creations == 1


def test_a_pod_that_has_gone_unseen_is_not_told_of() -> None:
    api = refusing()

    async def story(_: OtherPods) -> None:
        del api.objects[PODS, "web-2"]
        await trio.sleep(1000)

    assert follow(api, pod("web-2"), story=story).warnings == []


@pytest.mark.parametrize(
    ("change", "tries"),
    [
        (pod("web-2", ready=False), 2),
        (pod("web-2", metadata={"deletionTimestamp": "2030-01-02T00:00:00Z"}), 2),
        (pod("web-2", statuses=({**container_status("app"), "containerID": f"containerd://{'cd' * 32}"},)), 2),
        (pod("web-2", statuses=(container_status("app", {"terminated": {"exitCode": 0}}, ready=False),)), 1),
    ],
    ids=["unready", "being deleted", "another container", "ended"],
)
def test_what_a_change_means(change: dict[str, Any], tries: int) -> None:
    """An unready pod is tried again as planned; another container is a fresh start."""
    api = refusing()

    async def story(_: OtherPods) -> None:
        await trio.sleep(1)
        api.tell("MODIFIED", change)
        await trio.sleep(1.5)

    follow(api, pod("web-2"), story=story)
    assert api.creations == tries


def test_a_pod_is_taken_up_when_it_is_ready() -> None:
    api = refusing()

    async def story(_: OtherPods) -> None:
        api.tell("ADDED", pod("web-2", ready=False))
        await trio.sleep(1)
        assert api.creations == 0
        api.tell("MODIFIED", pod("web-2"))
        await trio.sleep(1)

    follow(api, story=story)
    assert api.creations == 1


def test_four_start_at_once() -> None:
    api = ScriptedApi(takes_s={"create": 10})

    async def story(_: OtherPods) -> None:
        await trio.sleep(1)
        assert api.creations == 4

    follow(api, *(pod(f"web-{number}") for number in range(2, 9)), story=story)
    assert not [one for (kind, _), one in api.objects.items() if kind == JOBS]


def test_starts_that_hang_hold_nobody_up() -> None:
    """The command starts in due time."""
    api = ScriptedApi(takes_s={"create": 10_000})

    async def story(others: OtherPods) -> None:
        begun, step = trio.current_time(), Told()
        await others.reached(cast(Step, step))
        assert trio.current_time() - begun == CONFIG.startup_timeout_s
        assert step.reasons == ["for pod web-2", "1 of 2 pods are served"]

    follow(api, pod("web-2"), story=story)


def test_pods_that_may_not_be_watched_are_listed_now_and_then() -> None:
    api = refusing()
    api.refuses["watch", PODS] = refusal("watch", PODS, 403, "no")

    async def story(_: OtherPods) -> None:
        await trio.sleep(1)
        api.has(PODS, pod("web-2"))
        await trio.sleep(2)
        assert api.creations == 1

    told = follow(api, story=story)
    assert told.warnings[0].startswith("pods that come from now on may not be served: cannot watch the pods")
    assert sum("may not be served" in warning for warning in told.warnings) == 1


def test_a_services_selector_is_followed() -> None:
    api = refusing()
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}}}
    api.has(SERVICES, service)

    async def story(_: OtherPods) -> None:
        await trio.sleep(100)
        assert not api.selectors
        api.has(SERVICES, service | {"spec": {"selector": {"app": "new"}}})
        api.has(PODS, pod("new-1"))
        await trio.sleep(31)
        assert api.selectors == ["app=new"]

    told = follow(api, story=story, path="service/web")
    assert api.creations > 0
    assert told.warnings[0].startswith("pod new-1 is not served")


def test_the_first_becomes_one_of_them_when_it_is_lost() -> None:
    api = refusing()

    async def story(others: OtherPods) -> None:
        others.take_over_first()
        await trio.sleep(1)
        assert api.creations == 0
        await trio.sleep(2)
        assert api.creations == 1

    assert follow(api, story=story).warnings[0].startswith("pod web-1 is not served")


def test_the_first_does_not_when_it_is_gone() -> None:
    api = refusing()

    async def story(others: OtherPods) -> None:
        api.tell("DELETED", FIRST)
        await trio.testing.wait_all_tasks_blocked()
        others.take_over_first()
        await trio.sleep(100)

    follow(api, story=story)
    assert api.creations == 0
