from __future__ import annotations

import subprocess
import sys

import pytest

from mirrord_trace.config import AgentConfiguration, ClusterConfiguration
from mirrord_trace.errors import UsageFailure
from mirrord_trace.targets import parse_target
from mirrord_trace.targets.demo import DemoTarget
from mirrord_trace.targets.pid import ProcessTarget
from mirrord_trace.targets.workloads import kinds
from mirrord_trace.targets.workloads.path import WorkloadPath
from mirrord_trace.targets.workloads.target import WorkloadTarget

CLUSTER = ClusterConfiguration(namespace="shop")
AGENT = AgentConfiguration(image="registry.test/agent:1")
EPHEMERAL = AgentConfiguration(mode="ephemeral")


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("demo", DemoTarget()),
        ("pid/1", ProcessTarget(1)),
        ("pid/4711", ProcessTarget(4711)),
        ("deploy/web", WorkloadTarget(WorkloadPath(kinds.DEPLOYMENT, "web"), CLUSTER, AGENT)),
        ("pod/demo/container/app", WorkloadTarget(WorkloadPath(kinds.POD, "demo", "app"), CLUSTER, AGENT)),
        ("label/app=web", WorkloadTarget(WorkloadPath(None, "app=web"), CLUSTER, AGENT)),
        ("targetless", WorkloadTarget(None, CLUSTER, AGENT)),
    ],
)
def test_accepted(text: str, target: object) -> None:
    assert parse_target(text, cluster=CLUSTER, agent=AGENT) == target


def test_all_pods_are_a_workloads() -> None:
    for text in ("deploy/web/container/app", "cronjob/nightly", "service/web", "label/app=web"):
        target = parse_target(text, all_pods=True)
        assert isinstance(target, WorkloadTarget)
        assert target.all_pods


@pytest.mark.parametrize("text", ["demo", "pid/1", "targetless", "pod/web-0", "po/web-0/container/app"])
def test_all_pods_are_refused_where_there_are_not_several(text: str) -> None:
    with pytest.raises(UsageFailure) as caught:
        parse_target(text, all_pods=True)
    assert f"all pods of the target {text!r} cannot be served" in caught.value.message
    assert caught.value.advice is not None
    assert "deploy/web" in caught.value.advice


def test_sudo_is_for_processes() -> None:
    assert parse_target("pid/7", sudo=True) == ProcessTarget(7, sudo=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pid",
        "pid/",
        "pid/0",
        "pid/-1",
        "pid/1/2",
        "pid/x",
        "pid/٤",
        "demo/x",
        "Demo",
        "targetless/x",
        "node/n1",
        "web",
    ],
)
def test_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageFailure) as caught:
        parse_target(text)
    assert text in caught.value.message
    assert caught.value.advice is not None
    for form in ("demo", "pid/PID", "deploy/web", "label/KEY=VALUE", "targetless"):
        assert form in caught.value.advice


def test_the_nearest_kind_is_named() -> None:
    with pytest.raises(UsageFailure) as caught:
        parse_target("deplyo/web")
    assert str(caught.value.advice).startswith("Is 'deploy' meant? ")


def test_a_known_kind_that_is_not_whole() -> None:
    with pytest.raises(UsageFailure, match="lacks a name"):
        parse_target("deploy/")


def test_an_ephemeral_container_needs_a_pod() -> None:
    with pytest.raises(UsageFailure, match="no pod to which"):
        parse_target("targetless", agent=EPHEMERAL)
    parse_target("pod/web-0", agent=EPHEMERAL)


def test_targets_on_this_machine_load_nothing_of_clusters() -> None:
    """The official client takes 0.2 s."""
    program = "import sys; from mirrord_trace.targets import parse_target; parse_target('demo'); parse_target('pid/1')"
    loaded = f"{program}; print('kubernetes' in sys.modules, 'mirrord_trace.cluster.api' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.split() == ["False", "False"]
