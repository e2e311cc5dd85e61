"""The commands that ask the API server something and end: ls, verify-access, clean."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import attrs
import pytest

from mirrord_trace.cluster import rights
from mirrord_trace.cluster.resources import DEPLOYMENTS, JOBS, POD_PORT_FORWARD, PODS, ROLLOUTS, Resource
from mirrord_trace.cluster.rights import Purpose
from mirrord_trace.targets.workloads.ownership import MANAGED_BY, Ownership
from tests.cluster.commands import COMMAND, TIMEOUT_S, apply, apply_pod, apply_shop, mirrord_trace, selecting, template
from tests.cluster.standin.cluster import Cluster


@pytest.fixture
def shop(api_server: Cluster) -> Cluster:
    """See `apply_shop`."""
    apply_shop(api_server)
    return api_server


def grant(cluster: Cluster, *purposes: Purpose, namespace: str = "shop", but: Resource | None = None) -> Path:
    """The kubeconfig of a developer who has the rights for these purposes."""
    for purpose in purposes:
        for right in purpose.rights:
            if right.resource != but:
                cluster.rbac.allow("dev", right.verb, right.resource, namespace)
    return cluster.kubeconfig_for("dev", namespace=namespace)


# ls


def test_ls_prints_plain_columns(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "ls", "-n", "shop")
    assert result.returncode == 0
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["TARGET", "READY", "CONTAINERS", "AGE"]
    assert [row[:3] for row in rows[1:]] == [
        ["deployment/web", "2/2", "app,istio-proxy"],
        ["statefulset/db", "1/1", "app"],
        ["service/web", "2/2", "app,istio-proxy"],
        ["pod/db-0", "1/1", "app"],
        ["pod/web-1", "1/1", "app"],
        ["pod/web-2", "1/1", "app,istio-proxy"],
    ]
    assert re.fullmatch(r"\d+d", rows[1][3])
    assert "\x1b" not in result.stdout
    assert result.stderr == "mirrord-trace: - without a ready pod: deployment/broken, pod/broken-1\n"


def test_ls_prints_targets_for_programs(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "ls", "-n", "shop", "-o", "json")
    assert json.loads(result.stdout) == [
        "deployment/web",
        "statefulset/db",
        "service/web",
        "pod/db-0",
        "pod/web-1",
        "pod/web-2/container/app",
        "pod/web-2/container/istio-proxy",
    ]
    assert (result.returncode, result.stderr) == (0, "")


def test_ls_of_all_namespaces(shop: Cluster) -> None:
    apply_pod(shop, "test-1", "web", namespace="test")
    by_namespace = json.loads(mirrord_trace(shop.kubeconfig, "ls", "-A", "-o", "json").stdout)
    assert set(by_namespace) == {"shop", "test"}
    assert by_namespace["test"] == ["pod/test-1"]
    plain = mirrord_trace(shop.kubeconfig, "ls", "-A").stdout.splitlines()
    assert plain[0].split()[:2] == ["NAMESPACE", "TARGET"]
    assert ["test", "pod/test-1", "1/1"] in [line.split()[:3] for line in plain]


def test_ls_of_the_namespace_in_the_configuration_file(shop: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "mirrord.yaml"
    path.write_text(f"target: {{namespace: shop}}\nkubeconfig: {shop.kubeconfig}\n")
    result = mirrord_trace(tmp_path / "none", "ls", "-o", "json", "-f", path)
    assert "deployment/web" in json.loads(result.stdout)


def test_ls_on_a_terminal_is_a_table(shop: Cluster) -> None:
    controller, terminal = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "ls", "-n", "shop"],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "KUBECONFIG": str(shop.kubeconfig), "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        shown = b""
        try:
            while data := os.read(controller, 65536):
                shown += data
        except OSError:  # the terminal's end (EIO)
            pass
    os.close(controller)
    assert process.returncode == 0
    assert b"deployment/web" in shown
    assert b"\x1b[" in shown


@pytest.mark.parametrize(("redirection", "cause"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")])
@pytest.mark.parametrize("arguments", [["ls"], ["ls", "-o", "json"], ["verify-access"]], ids=" ".join)
def test_output_that_cannot_be_written_is_told(
    shop: Cluster, arguments: list[str], redirection: str, cause: str
) -> None:
    # Without a buffer Python has nothing to try again at the end.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *arguments, "-n", "shop"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        env={**environment, "KUBECONFIG": str(shop.kubeconfig)},
    )
    assert result.returncode == 1
    assert f"cannot write to standard output: {cause}" in result.stderr
    assert "Traceback" not in result.stderr


def test_ls_where_nothing_is(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "ls", "-n", "default")
    assert (result.returncode, result.stdout) == (0, "")
    assert "nothing in namespace default" in result.stderr
    assert json.loads(mirrord_trace(shop.kubeconfig, "ls", "-n", "default", "-o", "json").stdout) == []


def test_ls_tells_which_kinds_may_not_be_listed(shop: Cluster) -> None:
    result = mirrord_trace(grant(shop, rights.LS, but=DEPLOYMENTS), "ls")
    assert result.returncode == 0
    assert "statefulset/db" in result.stdout
    assert "deployment" not in result.stdout
    assert "you may not list them in namespace shop: deployments.apps\n" in result.stderr


@pytest.mark.parametrize("installed", [False, True])
def test_rollouts_are_missed_only_where_there_are_any(shop: Cluster, installed: bool) -> None:
    if installed:
        owner = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "web", "uid": "u", "controller": True}
        apply(shop, "apps/v1", "ReplicaSet", "web-5d", selecting("web"), ownerReferences=[owner])
    result = mirrord_trace(grant(shop, rights.LS, but=ROLLOUTS), "ls", "-o", "json")
    assert result.returncode == 0
    assert ("rollouts.argoproj.io" in result.stderr) is installed


def test_ls_needs_the_pods(shop: Cluster) -> None:
    result = mirrord_trace(grant(shop, rights.LS, but=PODS), "ls")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "cannot list what can be targeted" in result.stderr
    assert "list pods" in result.stderr
    assert "Traceback" not in result.stderr


def test_ls_of_an_unknown_context(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "ls", "--context", "nowhere")
    assert result.returncode == 2
    assert "nowhere" in result.stderr


# verify-access


def table(result: subprocess.CompletedProcess[str]) -> dict[tuple[str, str, str], str]:
    """By verb, resource and namespace, whether it is allowed."""
    rows = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert rows[0] == ["VERB", "RESOURCE", "NAMESPACE", "NEEDED-FOR", "ALLOWED"]
    return {(row[0], row[1], row[2]): row[4] for row in rows[1:]}


def test_all_rights_are_there(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "verify-access", "-n", "shop")
    assert result.returncode == 0
    assert set(table(result).values()) == {"yes"}
    assert "you have what it takes to run the agent as a job" in result.stderr


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [(rights.JOB, []), (rights.EPHEMERAL, ["--agent-mode", "ephemeral"])],
    ids=["job", "ephemeral"],
)
def test_the_chosen_mode_decides(shop: Cluster, mode: Purpose, arguments: list[str]) -> None:
    other = rights.EPHEMERAL if mode is rights.JOB else rights.JOB
    kubeconfig = grant(shop, rights.TARGET, mode)
    result = mirrord_trace(kubeconfig, "verify-access", *arguments)
    assert result.returncode == 0
    answers = table(result)
    assert "no" in answers.values(), "what other purposes need is told as well"
    for right in mode.rights:
        assert answers[right.verb, str(right.resource), "shop"] == "yes"
    wrong = mirrord_trace(kubeconfig, "verify-access", "--agent-mode", "ephemeral" if mode is rights.JOB else "job")
    assert wrong.returncode == 1
    assert f"to {other.doing}" in wrong.stderr
    assert other.role in wrong.stderr


def test_all_pods_are_followed_with_a_right_of_its_own(shop: Cluster) -> None:
    grant(shop, rights.JOB, namespace="agents")
    kubeconfig = grant(shop, rights.TARGET)
    arguments = ("verify-access", "-t", "deploy/web", "-n", "shop", "-a", "agents")
    assert mirrord_trace(kubeconfig, *arguments).returncode == 0
    result = mirrord_trace(kubeconfig, *arguments, "--all-pods")
    assert result.returncode == 1
    assert "follow a workload's pods as they come and go: watch pods in shop\n" in result.stderr
    assert rights.ALL_PODS.role in result.stderr
    grant(shop, rights.ALL_PODS)
    assert mirrord_trace(kubeconfig, *arguments, "--all-pods").returncode == 0


def test_a_missing_right_is_named(shop: Cluster) -> None:
    kubeconfig = grant(shop, rights.TARGET, rights.JOB)
    shop.rbac.deny("dev", "create", POD_PORT_FORWARD, "shop")
    result = mirrord_trace(kubeconfig, "verify-access")
    assert result.returncode == 1
    assert table(result)["create", "pods/portforward", "shop"] == "no"
    assert (
        "you lack a right that it takes to run the agent as a job: create pods/portforward in shop\n" in result.stderr
    )
    assert "agent/rbac.yaml" in result.stderr


def test_rights_are_asked_for_where_the_agent_runs(shop: Cluster) -> None:
    grant(shop, rights.TARGET)
    grant(shop, rights.JOB, namespace="agents")
    kubeconfig = shop.kubeconfig_for("dev")
    assert mirrord_trace(kubeconfig, "verify-access", "-n", "shop", "-a", "agents").returncode == 0
    assert mirrord_trace(kubeconfig, "verify-access", "-n", "shop").returncode == 1


def test_right_to_rollouts_counts_only_for_a_rollout(shop: Cluster) -> None:
    kubeconfig = grant(shop, rights.TARGET, rights.JOB, but=ROLLOUTS)
    assert mirrord_trace(kubeconfig, "verify-access").returncode == 0
    result = mirrord_trace(kubeconfig, "verify-access", "-t", "rollout/web")
    assert result.returncode == 1
    assert "get rollouts.argoproj.io in shop" in result.stderr


def test_a_target_needs_the_rights_of_its_kind_only(shop: Cluster) -> None:
    kubeconfig = grant(shop, attrs.evolve(rights.TARGET, rights=rights.to_find(DEPLOYMENTS)), rights.JOB)
    assert mirrord_trace(kubeconfig, "verify-access", "-t", "deploy/web").returncode == 0
    assert mirrord_trace(kubeconfig, "verify-access", "-t", "service/web").returncode == 1
    assert mirrord_trace(kubeconfig, "verify-access").returncode == 1
    nothing_to_find = grant(shop, rights.JOB)
    assert mirrord_trace(nothing_to_find, "verify-access", "-t", "targetless").returncode == 0


@pytest.mark.parametrize("arguments", [["-t", "deploymnt/web"], ["-t", "targetless", "-e"]])
def test_what_cannot_be_verified(shop: Cluster, arguments: list[str]) -> None:
    result = mirrord_trace(shop.kubeconfig, "verify-access", *arguments)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("target", ["demo", "pid/1"])
def test_a_target_on_this_machine_needs_no_rights(tmp_path: Path, target: str) -> None:
    result = mirrord_trace(tmp_path / "none", "verify-access", "-t", target)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == (
        f"mirrord-trace: - the target {target} is on this machine: a run needs no rights in a cluster\n"
    )


# clean


def apply_agent(cluster: Cluster, name: str, ownership: Ownership | None, namespace: str = "shop") -> None:
    annotations = {} if ownership is None else ownership.annotations()
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(MANAGED_BY), "annotations": annotations},
            "spec": {"template": template("agent")},
        }
    )


def over() -> Ownership:
    """Of a run of ours on this machine that has ended."""
    ours = Ownership.ours()
    return attrs.evolve(ours, start_time=ours.start_time - 1)


def left(cluster: Cluster) -> set[str]:
    return {job["metadata"]["name"] for job in cluster.list(JOBS)}


@pytest.fixture
def agents(shop: Cluster) -> Cluster:
    """Agents' jobs of all kinds of owners, and a job that is none of ours."""
    apply_agent(shop, "over", over())
    apply_agent(shop, "lives", Ownership.ours())
    apply_agent(shop, "theirs", attrs.evolve(over(), owner="eve\x1b[31m@elsewhere"))
    apply_agent(shop, "nobodys", None)
    apply_agent(shop, "elsewhere", over(), namespace="test")
    apply(shop, "batch/v1", "Job", "report", {"template": template("report")})
    return shop


def outcomes(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    rows = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert rows[0] == ["NAMESPACE", "JOB", "OWNER", "AGE", "OUTCOME"]
    return {row[1]: row[4].partition(":")[0] for row in rows[1:]}


def test_clean_removes_what_disturbs_nobody(agents: Cluster) -> None:
    result = mirrord_trace(agents.kubeconfig, "clean", "-n", "shop")
    assert result.returncode == 0
    assert outcomes(result) == {"over": "removed", "lives": "kept", "theirs": "kept", "nobodys": "kept"}
    assert left(agents) == {"lives", "theirs", "nobodys", "elsewhere", "report"}
    assert "\x1b" not in result.stdout


def test_clean_everything_removes_agents_only(agents: Cluster) -> None:
    result = mirrord_trace(agents.kubeconfig, "clean", "-n", "shop", "--all")
    assert set(outcomes(result).values()) == {"removed"}
    assert left(agents) == {"elsewhere", "report"}


def test_clean_of_all_namespaces(agents: Cluster) -> None:
    result = mirrord_trace(agents.kubeconfig, "clean", "-A")
    assert {name for name, what in outcomes(result).items() if what == "removed"} == {"over", "elsewhere"}


@pytest.mark.parametrize("arguments", [[], ["--all"]])
def test_dry_run_removes_nothing(agents: Cluster, arguments: list[str]) -> None:
    before = left(agents)
    result = mirrord_trace(agents.kubeconfig, "clean", "-n", "shop", "--dry-run", *arguments)
    assert outcomes(result)["over"] == "would be removed"
    assert left(agents) == before


def test_clean_where_nothing_is_left(shop: Cluster) -> None:
    result = mirrord_trace(shop.kubeconfig, "clean", "-n", "shop")
    assert (result.returncode, result.stdout) == (0, "")
    assert "no agents are left" in result.stderr


def test_clean_looks_where_the_configuration_file_puts_agents(agents: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "mirrord.json"
    path.write_text('{"target": {"namespace": "shop"}, "agent": {"namespace": "test"}}')
    result = mirrord_trace(agents.kubeconfig, "clean", "-f", path)
    assert outcomes(result) == {"elsewhere": "removed"}


def test_job_that_may_not_be_deleted_is_told(agents: Cluster) -> None:
    kubeconfig = grant(agents, rights.CLEAN)
    agents.rbac.deny("dev", "delete", JOBS, "shop")
    result = mirrord_trace(kubeconfig, "clean")
    assert result.returncode == 1
    assert outcomes(result)["over"] == "not removed"
    assert "cannot delete the job over in namespace shop" in result.stderr
    assert "over" in left(agents)


def test_rights_of_the_role_are_enough_to_clean(agents: Cluster) -> None:
    assert mirrord_trace(grant(agents, rights.CLEAN), "clean").returncode == 0
    assert "over" not in left(agents)


def test_clean_of_one_namespace_and_all(shop: Cluster) -> None:
    assert mirrord_trace(shop.kubeconfig, "clean", "-A", "-n", "shop").returncode == 2
