from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.errors import Failure
from mirrord_trace.targets.workloads.starting import Ended, Running, Waiting, end_of, port_in, state_of, timed_out
from tests.mirrord_trace.targets.workloads.objects import container_status, event, pod

IMAGE = "registry.test/agent:1"


def agent(state: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    """An agent's pod that is not ready; without a state its node has not said anything about the container."""
    statuses = () if state is None else (container_status("agent", state, ready=False),)
    settled: dict[str, Any] = {"phase": "Pending", "ready": False} | rest
    return pod("agent-x-1", containers=("agent",), statuses=statuses, **settled)


def waits(reason: str, message: str = "") -> dict[str, Any]:
    return agent({"waiting": {"reason": reason, "message": message}})


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("listening on 127.0.0.1:43210", 43210),
        ("listening on 127.0.0.1:43210\n", 43210),
        ("mirrord-agent: listening on 127.0.0.1:1", None),
        ("listening on 0.0.0.0:80", None),
        ("listening on 127.0.0.1:123456", None),
        ("", None),
    ],
)
def test_the_port(line: str, port: int | None) -> None:
    assert port_in(line) == port


UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}


@pytest.mark.parametrize(
    ("of", "events", "reason"),
    [
        (None, [], "for its pod to be made"),
        (None, [event("SuccessfulCreate", "Created pod: x")], "for its pod to be made"),
        (
            None,
            [
                event(
                    "FailedCreate", 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'
                )
            ],
            "for its pod to be made",
        ),
        (agent(node=None), [], "for a node"),
        (agent(node=None, conditions=(UNSCHEDULABLE,)), [], "for a node (Unschedulable: 0/3 nodes)"),
        (agent(), [], "for node n1 to make the container"),
        (waits("ContainerCreating"), [], "for node n1 to make the container"),
        (waits("ContainerCreating"), [event("Pulling", "…")], f"for node n1 to pull {IMAGE}"),
        (
            waits("PodInitializing"),
            [event("Pulled", "…", at=2), event("Pulling", "…", at=1)],
            "for node n1 to start the container",
        ),
        (
            waits("ContainerCreating"),
            [event("FailedCreatePodSandBox", "no network", kind="Warning")],
            "for node n1 (FailedCreatePodSandBox: no network)",
        ),
    ],
)
def test_what_it_waits_for(of: dict[str, Any] | None, events: list[dict[str, Any]], reason: str) -> None:
    assert state_of(of, "agent", IMAGE, events) == Waiting(reason)


def test_it_runs() -> None:
    assert state_of(agent({"running": {}}, phase="Running"), "agent", IMAGE) == Running()


def test_an_ephemeral_container_among_others() -> None:
    target = pod(
        ephemeralContainerStatuses=[container_status("old", {"terminated": {"exitCode": 1}}), container_status("new")]
    )
    assert state_of(target, "new", IMAGE) == Running()
    assert state_of(target, "none", IMAGE) == Waiting("for node n1 to make the container")


@pytest.mark.parametrize(
    ("terminated", "how"),
    [
        ({"exitCode": 1, "reason": "Error"}, "exit code 1"),
        ({"exitCode": 0, "reason": "Completed"}, "exit code 0"),
        ({"exitCode": 137, "reason": "OOMKilled"}, "exit code 137, OOMKilled"),
        ({"exitCode": 0, "signal": 9}, "signal 9"),
    ],
)
def test_it_has_ended(terminated: dict[str, Any], how: str) -> None:
    assert state_of(agent({"terminated": terminated}, phase="Failed"), "agent", IMAGE) == Ended(how)


@pytest.mark.parametrize(
    ("of", "events", "parts"),
    [
        (
            waits("ErrImagePull", "not found"),
            [],
            ["cannot be pulled: ErrImagePull: not found", IMAGE, "Dockerfile", "-i/"],
        ),
        (waits("InvalidImageName", "bad reference"), [], ["InvalidImageName: bad reference"]),
        (waits("ErrImageNeverPull", "not present"), [], ["ErrImageNeverPull"]),
        (
            waits("ImagePullBackOff", "Back-off pulling image"),
            [event("Failed", "Failed to pull image: 401 Unauthorized"), event("Failed", "Error: ErrImagePull", at=1)],
            ["ImagePullBackOff", "401 Unauthorized"],
        ),
        (waits("CreateContainerConfigError", "no secret x"), [], ["CreateContainerConfigError: no secret x"]),
        (waits("RunContainerError", "runc: no"), [], ["RunContainerError: runc: no"]),
        (
            agent({"terminated": {"exitCode": 128, "reason": "StartError", "message": "mirrord-agent: not found"}}),
            [],
            ["StartError: mirrord-agent: not found", f"Is {IMAGE} an agent's image?"],
        ),
        (
            agent(phase="Failed", reason="OutOfpods", message="Node didn't have enough resource: pods"),
            [],
            ["node n1 does not run", "OutOfpods: Node didn't", "ephemeral"],
        ),
        (agent(phase="Failed", reason="Evicted", message="low on memory"), [], ["Evicted: low on memory"]),
        (
            agent(
                metadata={"deletionTimestamp": "2030-01-01T00:00:01Z"},
                conditions=(
                    {
                        "type": "DisruptionTarget",
                        "status": "True",
                        "reason": "DeletionByPodGC",
                        "message": "PodGC: node no longer exists",
                    },
                ),
            ),
            [],
            ["was deleted", "DeletionByPodGC", "node no longer exists"],
        ),
    ],
)
def test_why_it_will_not_start(of: dict[str, Any], events: list[dict[str, Any]], parts: list[str]) -> None:
    assert_failure(state_of(of, "agent", IMAGE, events), parts)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            'pods "x-" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)',
            ["baseline:latest", "hostPID=true", "enforce=privileged"],
        ),
        ('pods "x-" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1', ["exceeded quota: q"]),
        ('pods "x-" is forbidden: failed quota: q: must specify limits.cpu', ["must specify limits.cpu"]),
        ('admission webhook "no.example" denied the request: not here', ["no.example", "not here"]),
        (
            'pods "x-" is forbidden: error looking up service account shop/a: serviceaccount "a" not found',
            ["service account a", "agent.service_account"],
        ),
        ("pods is forbidden: unable to validate against any security context constraint: …", ["`privileged`"]),
        ("something else", ["something else"]),
    ],
)
def test_a_pod_that_may_not_be_made(message: str, parts: list[str]) -> None:
    events = [event("FailedCreate", f"Error creating: {message}", kind="Warning")]
    failure = assert_failure(state_of(None, "agent", IMAGE, events), ["cannot make the agent's pod", *parts])
    assert "Error creating" not in failure.message


def assert_failure(state: object, parts: list[str]) -> Failure:
    assert isinstance(state, Failure), state
    told = f"{state.message}\n{state.advice}"
    assert [part for part in parts if part not in told] == [], told
    return state


def test_too_late_with_the_pods_events() -> None:
    failure = timed_out(
        60,
        Waiting("for a node"),
        agent(node=None),
        [event("FailedScheduling", "0/3 nodes", at=2), event("A", "b", at=1)],
    )
    assert failure.message == "the agent has not started within 60 s: it waits for a node"
    assert failure.advice is not None
    assert failure.advice.splitlines() == [
        "Events of the agent's pod:",
        "  A: b",
        "  FailedScheduling: 0/3 nodes",
        "More time is given by --agent-startup-timeout.",
    ]


def test_too_late_on_a_node_that_is_gone() -> None:
    failure = timed_out(60, Waiting("for node n1"), agent(), [])
    assert "Node n1 has taken no notice of the pod" in str(failure.advice)
    noticed = timed_out(60, Waiting("for node n1"), agent(startTime="2030-01-01T00:00:00Z"), [])
    assert "notice" not in str(noticed.advice)


def test_too_late_in_silence() -> None:
    failure = timed_out(60, Running(), agent({"running": {}}), [], ["some other program"])
    assert "has not said that it listens" in str(failure.advice)
    assert "some other program" in str(failure.advice)


@pytest.mark.parametrize(
    ("of", "end"),
    [
        (None, "its pod is gone"),
        (agent({"running": {}}, phase="Running"), ""),
        (agent({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}), "it ended: exit code 137, OOMKilled"),
        (agent(phase="Failed", reason="Evicted", message="low on memory"), "its pod failed: Evicted: low on memory"),
        (agent({"running": {}}, metadata={"deletionTimestamp": "2030"}), "its pod is being deleted"),
    ],
)
def test_how_it_came_to_its_end(of: dict[str, Any] | None, end: str) -> None:
    assert end_of(of, "agent") == end


def test_events_of_one_second_are_in_the_order_of_their_names() -> None:
    events = [event("Pulled", "…", name="p.2"), event("Pulling", "…", name="p.1")]
    assert state_of(agent(), "agent", IMAGE, events) == Waiting("for node n1 to start the container")
