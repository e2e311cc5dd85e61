"""That whatever is made is removed, at whatever moment we are told to end."""

from __future__ import annotations

from typing import cast

import pytest
import trio
from trio.testing import MockClock

from mirrord_trace.cluster.api import Unreachable
from mirrord_trace.cluster.resources import JOBS, POD_EPHEMERAL_CONTAINERS
from mirrord_trace.config import AgentConfiguration
from mirrord_trace.errors import Failure
from mirrord_trace.reporting import Reporter
from mirrord_trace.targets.workloads.agents import EphemeralAgent, JobAgent
from mirrord_trace.targets.workloads.choice import Candidate
from tests.mirrord_trace.targets.workloads.scripted import ScriptedApi, Told, refusal

WEB = Candidate("shop", "web-1", "uid-1", "n1", "app", "ab" * 32)


def job_agent(api: ScriptedApi, told: Told) -> JobAgent:
    return JobAgent(api.api, cast(Reporter, told), AgentConfiguration(), "shop", WEB, "hash")


def ephemeral_agent(api: ScriptedApi, told: Told) -> EphemeralAgent:
    return EphemeralAgent(api.api, cast(Reporter, told), AgentConfiguration(mode="ephemeral"), WEB, "hash")


def jobs(api: ScriptedApi) -> list[str]:
    return [name for kind, name in api.objects if kind == JOBS]


def run_made(api: ScriptedApi, told: Told, cancel_after_s: float | None = None) -> None:
    """Makes an agent and removes it, or is cancelled in between."""

    async def main() -> None:
        agent = job_agent(api, told)
        with trio.move_on_after(cancel_after_s if cancel_after_s is not None else 1000):
            async with agent.made() as warnings:
                assert warnings == ["a warning"]
                assert jobs(api) == [agent.name]
                if cancel_after_s is not None:
                    await trio.sleep_forever()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_made_and_removed() -> None:
    api, told = ScriptedApi(), Told()
    run_made(api, told)
    assert (jobs(api), told.warnings, api.asked) == ([], [], 2)


@pytest.mark.parametrize("cancel_after_s", [0, 0.5, 1.5, 3.5, 10])
def test_cancelled_at_any_moment(cancel_after_s: float) -> None:
    """The request takes a second to have an effect and two more until its answer."""
    api, told = ScriptedApi(takes_s={"create": 1}, answers_after_s={"create": 2}), Told()
    run_made(api, told, cancel_after_s)
    assert (jobs(api), told.warnings) == ([], [])


def test_an_answer_that_never_comes() -> None:
    """The job is there, and nobody has said so."""
    api, told = ScriptedApi(answers_after_s={"create": 1000}), Told()
    run_made(api, told, 5)
    assert jobs(api) == []


def test_a_create_that_is_carried_out_after_we_have_looked() -> None:
    """Abandoned at 3.5 s, carried out at 6 s: by an API server that waits for an admission webhook."""
    api, told = ScriptedApi(takes_s={"create": 6}), Told()
    run_made(api, told, 0.5)
    assert (jobs(api), told.warnings) == ([], [])
    assert api.asked > 2, "the first that was asked for its removal did not find it"


def test_a_create_that_may_be_carried_out_after_we_have_gone() -> None:
    api, told = ScriptedApi(takes_s={"create": 30}), Told()
    run_made(api, told, 0.5)
    (warning,) = told.warnings
    for part in ("may yet be made", "it ends 75 s after its start", "mirrord-trace clean -n shop"):
        assert part in warning


def test_what_fails_in_the_block_is_passed_on() -> None:
    api, told = ScriptedApi(), Told()

    async def main() -> None:
        async with job_agent(api, told).made():
            raise Failure("no")

    with pytest.raises(Failure, match="no"):
        trio.run(main)
    assert jobs(api) == []


def test_a_refusal_leaves_nothing_to_remove() -> None:
    message = (
        'jobs.batch is forbidden: User "dev" cannot create resource "jobs" in API group "batch" in the namespace "shop"'
    )
    api, told = ScriptedApi(refuses={("create", JOBS): refusal("create", JOBS, 403, message)}), Told()
    with pytest.raises(Failure, match="cannot create the agent's job: the user dev has no right to create jobs"):
        run_made(api, told)
    assert api.asked == 1, "who may not create may not delete either, and shall not be told so"


def test_a_server_that_was_never_reached_has_nothing_to_remove() -> None:
    unreachable = Unreachable("cannot reach the API server", None, sent=False)
    api, told = ScriptedApi(refuses={("create", JOBS): unreachable, ("delete", JOBS): unreachable}), Told()
    with pytest.raises(Unreachable):
        run_made(api, told)
    assert (api.asked, told.warnings) == (1, [])


@pytest.mark.parametrize(
    "trouble",
    [
        refusal("create", JOBS, 504, "timed out"),
        refusal("create", JOBS, 403, "exceeded quota: of one job, which an attempt before has made", repeated=True),
        refusal("get", JOBS, 403, "the job is there already, and you may not look at it", repeated=True),
        Unreachable("the connection broke", None, sent=True),
        Failure("what answers in the API server's place does not speak its language"),
    ],
)
def test_a_failure_that_may_have_made_it_all_the_same(trouble: Exception) -> None:
    api, told = ScriptedApi(), Told()

    async def main() -> None:
        agent = job_agent(api, told)
        api.has(JOBS, {"metadata": {"name": agent.name}})
        api.refuses["create", JOBS] = trouble  # type: ignore[assignment]
        async with agent.made():
            raise AssertionError("not made")

    with pytest.raises(Failure):
        trio.run(main)
    assert jobs(api) == []


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (refusal("delete", JOBS, 403, "you may not"), "you may not"),
        (Failure("cannot reach the API server"), "cannot reach the API server"),
    ],
)
def test_what_cannot_be_removed_is_told_and_how(trouble: Failure, why: str) -> None:
    api, told = ScriptedApi(refuses={("delete", JOBS): trouble}), Told()
    run_made(api, told)
    (warning,) = told.warnings
    assert jobs(api)[0] in warning
    for part in (why, "it ends 75 s after its start", "mirrord-trace clean -n shop"):
        assert part in warning


def test_a_server_that_says_nothing_is_not_waited_for_long() -> None:
    api, told = ScriptedApi(takes_s={"delete": 1000}), Told()

    async def main() -> float:
        began = trio.current_time()
        async with job_agent(api, told).made():
            pass
        return trio.current_time() - began

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == pytest.approx(5)
    assert "did not answer" in told.warnings[0]
    assert "waiting for the API server" in told.notes[0]


def test_settled_it_lives_as_long_as_its_session() -> None:
    api, told = ScriptedApi(), Told()

    async def main() -> None:
        agent = job_agent(api, told)
        async with agent.made():
            await agent.settle()
            assert api.objects[JOBS, agent.name]["spec"]["activeDeadlineSeconds"] is None
            api.refuses["delete", JOBS] = Failure("gone")

    trio.run(main)
    assert "its agent leaves after 30 s without us" in told.warnings[0]


def test_a_deadline_that_cannot_be_lifted() -> None:
    api, told = ScriptedApi(refuses={("patch", JOBS): refusal("patch", JOBS, 403)}), Told()

    async def main() -> None:
        agent = job_agent(api, told)
        async with agent.made():
            await agent.settle()

    with pytest.raises(Failure, match="cannot lift the deadline of the agent's job"):
        trio.run(main)
    assert jobs(api) == []


def test_an_ephemeral_container_stays_on_the_list() -> None:
    api, told = ScriptedApi(), Told()

    async def main(settles: bool) -> None:
        agent = ephemeral_agent(api, told)
        async with agent.made():
            (container,) = api.objects[POD_EPHEMERAL_CONTAINERS, "web-1"]["spec"]["ephemeralContainers"]
            assert container["name"] == agent.name
            if settles:
                await agent.settle()

    trio.run(main, True)
    assert told.notes == []
    trio.run(main, False)
    assert "pod web-1 keeps the ephemeral container" in told.notes[0]


def test_a_pod_that_admits_no_ephemeral_agent() -> None:
    message = 'pods "web-1" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'
    api = ScriptedApi(
        refuses={("patch", POD_EPHEMERAL_CONTAINERS): refusal("patch", POD_EPHEMERAL_CONTAINERS, 403, message)}
    )

    async def main() -> None:
        async with ephemeral_agent(api, Told()).made():
            raise AssertionError("not made")

    with pytest.raises(Failure, match="non-default capabilities") as caught:
        trio.run(main)
    assert "--agent-mode job" in str(caught.value.advice)


def test_events_of_the_pod_and_those_of_the_agent() -> None:
    api, told = ScriptedApi(), Told()
    agent = ephemeral_agent(api, told)
    about = {"involvedObject": {"name": "web-1", "fieldPath": f"spec.ephemeralContainers{{{agent.name}}}"}}
    assert agent.concerns(about)
    assert not agent.concerns({"involvedObject": {"name": "web-1", "fieldPath": "spec.containers{app}"}})
    assert job_agent(api, told).concerns({})
