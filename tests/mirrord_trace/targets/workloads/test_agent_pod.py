from __future__ import annotations

import re
from typing import Any

import attrs

from mirrord_trace.config import AgentConfiguration
from mirrord_trace.targets.owner import owner_in_words
from mirrord_trace.targets.workloads import agent_pod
from mirrord_trace.targets.workloads.choice import Candidate

WEB = Candidate("shop", "web-1", "uid-1", "n1", "app", "ab" * 32)
PLAIN = AgentConfiguration()


def made(config: AgentConfiguration = PLAIN, candidate: Candidate | None = WEB) -> dict[str, Any]:
    return agent_pod.job("agent-x", config, candidate, "hash", {"mirrord-trace/owner": "me@here"})


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(job)["containers"]
    assert isinstance(container, dict)
    return container


def test_names_are_ours_and_differ() -> None:
    names = {agent_pod.new_name() for _ in range(100)}
    assert len(names) == 100
    assert all(re.fullmatch(r"mirrord-trace-agent-[a-z0-9]{10}", name) for name in names)


def test_a_job_runs_once_beside_the_target_and_removes_itself() -> None:
    job = made(AgentConfiguration(startup_timeout_s=7.5, ttl_s=1))
    assert job["metadata"]["name"] == "agent-x"
    spec = job["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], spec["activeDeadlineSeconds"]) == (0, 1, 23)
    pod = pod_of(job)
    assert (pod["nodeName"], pod["hostPID"], pod["restartPolicy"]) == ("n1", True, "Never")
    assert "hostNetwork" not in pod
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    assert pod["tolerations"] == [{"operator": "Exists"}]


def test_the_arguments_hold_the_hash_and_no_secret() -> None:
    container = container_of(made(AgentConfiguration(communication_timeout_s=2.5)))
    assert [*container["command"], *container["args"]] == [
        "mirrord-agent",
        *("--container-id", "ab" * 32),
        *("--listen", "127.0.0.1:0"),
        *("--secret-hash", "hash"),
        *("--owner", owner_in_words()),
        *("--communication-timeout", "2.5"),
        *("--first-client-timeout", "30"),
    ]
    impatient = container_of(made(AgentConfiguration(startup_timeout_s=1)))["args"]
    assert impatient[-2:] == ["--first-client-timeout", "6"], "nobody will come after that"


FOR_FILES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SETGID", "SETUID"]


def test_root_with_the_capabilities_it_needs_and_no_more() -> None:
    security = container_of(made())["securityContext"]
    assert "privileged" not in security
    assert security["runAsUser"] == 0
    needed = [*FOR_FILES, "SYS_PTRACE", "SYS_ADMIN", "NET_ADMIN", "NET_RAW"]
    assert security["capabilities"] == {"drop": ["ALL"], "add": needed}


def test_disabled_capabilities() -> None:
    config = AgentConfiguration(disabled_capabilities=frozenset({"NET_ADMIN", "NET_RAW"}))
    added = container_of(made(config))["securityContext"]["capabilities"]["add"]
    assert added == [*FOR_FILES, "SYS_PTRACE", "SYS_ADMIN"]


def test_privileged_when_asked_for() -> None:
    security = container_of(made(AgentConfiguration(privileged=True)))["securityContext"]
    assert security["privileged"] is True
    assert "capabilities" not in security


def test_all_that_can_be_configured() -> None:
    config = AgentConfiguration(
        image="registry.test/agent:1",
        image_pull_policy="Always",
        image_pull_secrets=("one", "two"),
        labels={"team": "a"},
        annotations={"note": "b"},
        tolerations=({"key": "gpu", "operator": "Exists"},),
        node_selector={"zone": "a"},
        resources={"requests": {"cpu": "5m"}},
        service_account="agents",
        priority_class="low",
    )
    job = made(config)
    pod, container = pod_of(job), container_of(job)
    assert (container["image"], container["imagePullPolicy"]) == ("registry.test/agent:1", "Always")
    assert container["resources"] == {"requests": {"cpu": "5m"}}
    assert pod["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("agents", "low")
    assert "nodeSelector" not in pod, "the node is the target's"
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["team"] == "a"
        assert metadata["annotations"]["note"] == "b"


def test_whose_it_is() -> None:
    job = made(AgentConfiguration(labels={"app.kubernetes.io/managed-by": "someone"}))
    assert job["metadata"]["annotations"]["mirrord-trace/owner"] == "me@here"
    for metadata in (job["metadata"], job["spec"]["template"]["metadata"]):
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "mirrord-trace"
        assert metadata["labels"]["app.kubernetes.io/name"] == "mirrord-trace-agent"


def test_meshes_keep_away_unless_they_are_wanted() -> None:
    template = made()["spec"]["template"]["metadata"]
    assert template["labels"]["sidecar.istio.io/inject"] == "false"
    assert template["labels"]["kuma.io/sidecar-injection"] == "disabled"
    assert template["annotations"]["linkerd.io/inject"] == "disabled"
    own = made(AgentConfiguration(labels={"sidecar.istio.io/inject": "true"}))["spec"]["template"]["metadata"]
    assert own["labels"]["sidecar.istio.io/inject"] == "true"
    wanted = made(AgentConfiguration(disable_mesh_sidecar_injection=False))["spec"]["template"]["metadata"]
    assert "sidecar.istio.io/inject" not in wanted["labels"]
    assert wanted["annotations"] == {}


def test_without_a_target_it_has_no_rights_and_goes_where_it_may() -> None:
    job = made(AgentConfiguration(node_selector={"zone": "a"}), None)
    pod, container = pod_of(job), container_of(job)
    assert "nodeName" not in pod
    assert "hostPID" not in pod
    assert pod["nodeSelector"] == {"zone": "a"}
    assert container["args"][0] == "--targetless"
    security = container["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_an_ephemeral_container_is_within_the_target() -> None:
    config = attrs.evolve(PLAIN, mode="ephemeral")
    (container,) = agent_pod.ephemeral_container("agent-x", config, WEB, "hash")["spec"]["ephemeralContainers"]
    assert container["name"] == "agent-x"
    assert container["targetContainerName"] == "app"
    assert container["args"][-2:] == ["--or-pid", "1"]
    assert container["securityContext"]["runAsNonRoot"] is False, "even in a pod that asks for it"
    forbidden = {"ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "resources"}
    assert not forbidden & set(container)


def test_the_deadline_outlasts_the_start_and_can_be_lifted() -> None:
    assert agent_pod.deadline_s(AgentConfiguration(startup_timeout_s=60)) > 60 + agent_pod.ANSWER_TIMEOUT_S
    assert agent_pod.without_deadline() == {"spec": {"activeDeadlineSeconds": None}}
