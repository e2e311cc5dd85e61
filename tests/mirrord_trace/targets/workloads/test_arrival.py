"""The start of an agent, told by a scripted API server, in a time that does not pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from mirrord_trace.cluster.resources import EVENTS, POD_LOGS, PODS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter, Step
from mirrord_trace.targets.workloads.agents import JobAgent
from mirrord_trace.targets.workloads.arrival import Arrival
from mirrord_trace.targets.workloads.choice import Candidate
from tests.mirrord_trace.targets.workloads.objects import container_status, event, pod
from tests.mirrord_trace.targets.workloads.scripted import ScriptedApi, Told, refusal

WEB = Candidate("shop", "web-1", "uid-1", "n1", "app", "ab" * 32)
CONFIG = AgentConfiguration(image="registry.test/agent:1")
Script = Callable[[ScriptedApi], Any]


def agent(state: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    statuses = () if state is None else (container_status("agent", state, ready=False),)
    settled: dict[str, Any] = {"phase": "Pending", "ready": False} | rest
    return pod("agent-x-1", containers=("agent",), statuses=statuses, **settled)


RUNS = agent({"running": {}}, phase="Running")


def arrive(api: ScriptedApi, *changes: dict[str, Any] | str | float, told: Told | None = None) -> tuple[str, int]:
    """Where the agent listens, after what happens to its pod: a state, a deletion ("DELETED"), or seconds that pass."""

    async def happen() -> None:
        last: dict[str, Any] = {}
        for change in changes:
            if isinstance(change, dict):
                last = change
                api.tell("MODIFIED", change)
            elif isinstance(change, str):
                api.tell(change, last)
            else:
                await trio.sleep(change)

    async def main() -> tuple[str, int]:
        step = told or Told()
        making = JobAgent(api.api, cast(Reporter, step), CONFIG, "shop", WEB, "hash")
        arrival = Arrival(api.api, making, CONFIG, WEB, cast(Step, step))
        problem: Failure | None = None
        async with trio.open_nursery() as session:
            session.start_soon(happen)
            try:
                return await arrival.listening(session)
            except Failure as failure:
                problem = failure
            finally:
                session.cancel_scope.cancel()
        assert problem is not None
        raise problem

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def fail(api: ScriptedApi, *changes: dict[str, Any] | str | float) -> str:
    api.has(PODS, pod("web-1"))
    with pytest.raises(Failure) as caught:
        arrive(api, *changes)
    return f"{caught.value.message}\n{caught.value.advice}"


def test_it_listens() -> None:
    api, told = ScriptedApi(log_lines=["listening on 127.0.0.1:4711", "more"]), Told()
    arrived = arrive(
        api, agent(node=None), agent(), agent({"waiting": {"reason": "ContainerCreating"}}), RUNS, told=told
    )
    assert arrived == ("agent-x-1", 4711)
    assert api.asked == 2, "a watch and a log"
    assert told.reasons == [
        "for a node",
        "for node n1 to make the container",
        "for node n1 to make the container",
        "for it to listen",
    ]


def test_a_long_start_is_told_with_its_reason_and_costs_few_requests() -> None:
    api, told = ScriptedApi(log_lines=["listening on 127.0.0.1:1"]), Told()
    api.event(event("Pulling", "Pulling image"))
    arrive(api, agent(), 55.0, RUNS, told=told)
    assert "for node n1 to pull registry.test/agent:1" in told.reasons
    assert api.asked <= 8


def test_who_may_not_list_events_starts_without() -> None:
    api = ScriptedApi(log_lines=["listening on 127.0.0.1:1"], refuses={("list", EVENTS): refusal("list", EVENTS, 403)})
    assert arrive(api, 30.0, agent(), RUNS) == ("agent-x-1", 1)


def test_an_image_that_cannot_be_pulled_is_not_waited_for() -> None:
    told = fail(ScriptedApi(), agent(), agent({"waiting": {"reason": "ErrImagePull", "message": "not found"}}))
    assert "registry.test/agent:1 cannot be pulled: ErrImagePull: not found" in told


def test_events_say_more_than_a_back_off() -> None:
    api = ScriptedApi()
    api.event(event("Failed", "Failed to pull image: 401 Unauthorized"))
    told = fail(api, agent({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}))
    assert "401 Unauthorized" in told


def test_a_pod_that_may_not_be_made_is_found_out_soon() -> None:
    api = ScriptedApi()
    api.event(event("FailedCreate", 'Error creating: pods "x-" is forbidden: exceeded quota: q, requested: pods=1'))
    assert "exceeded quota: q" in fail(api)
    assert api.asked <= 3


def test_an_agent_that_ends_at_once_leaves_its_last_words() -> None:
    api = ScriptedApi(log_lines=["Traceback", "ImportError: no"], log_ends=True)
    told = fail(api, RUNS, 0.5, agent({"terminated": {"exitCode": 1, "reason": "Error"}}, phase="Failed"))
    assert told == "the agent ended as it started: exit code 1\nIts last words:\nTraceback\nImportError: no"


def test_an_agent_whose_running_nobody_saw() -> None:
    api = ScriptedApi(log_lines=["ImportError: no"], log_ends=True)
    told = fail(api, agent({"terminated": {"exitCode": 1, "reason": "Error"}}, phase="Failed"), "DELETED")
    assert "exit code 1\nIts last words:\nImportError: no" in told


def test_a_log_that_may_not_be_read() -> None:
    message = 'User "dev" cannot get resource "pods/log" in API group "" in the namespace "shop"'
    api = ScriptedApi(refuses={("get", POD_LOGS): refusal("get", POD_LOGS, 403, message)})
    assert "cannot read the agent's log: the user dev has no right to get pods/log" in fail(api, RUNS)


def test_a_pod_that_may_not_be_watched() -> None:
    message = 'User "dev" cannot watch resource "pods" in API group "" in the namespace "shop"'
    api = ScriptedApi(refuses={("watch", PODS): refusal("watch", PODS, 403, message)})
    assert "the user dev has no right to watch pods" in fail(api)


def test_an_api_server_that_is_lost() -> None:
    api = ScriptedApi(refuses={("watch", PODS): Failure("cannot reach it")})
    assert "cannot reach it" in fail(api)


def test_deleted_meanwhile() -> None:
    assert "pod agent-x-1 was deleted while the agent started" in fail(ScriptedApi(), agent(), "DELETED")


def test_too_late_for_want_of_a_node() -> None:
    api = ScriptedApi()
    api.event(event("FailedScheduling", "0/3 nodes are available"))
    told = fail(api, agent(node=None))
    assert "has not started within 60 s: it waits for a node" in told
    assert "FailedScheduling: 0/3 nodes are available" in told


def test_too_late_on_a_node_that_is_gone_with_its_target() -> None:
    api = ScriptedApi(refuses={("get", PODS): refusal("get", PODS, 404)})
    told = fail(api, agent())
    assert "Node n1 has taken no notice of the pod" in told
    assert "The target's pod web-1: gone." in told


def test_too_late_while_its_log_is_silent() -> None:
    told = fail(ScriptedApi(log_lines=["a program of another kind"]), RUNS)
    assert "has not said that it listens" in told
    assert "a program of another kind" in told
