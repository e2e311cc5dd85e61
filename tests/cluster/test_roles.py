"""The roles of agent/rbac.yaml, held by people who do what they are for, in a cluster that runs."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirrord_trace.cluster import rights
from mirrord_trace.cluster.resources import JOBS, PODS
from mirrord_trace.cluster.rights import Purpose
from mirrord_trace.targets.workloads.ownership import MANAGED_BY
from tests.cluster.commands import COMMAND, mirrord_trace
from tests.cluster.standin import shop as shops
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.store import Store

RBAC = Path(__file__).parents[2] / "agent" / "rbac.yaml"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("shop")
    nodes = Nodes(directory / "nodes", shops.registry())
    with Cluster(directory / "cluster", nodes) as cluster:
        shops.open_up(cluster, nodes)
        yield cluster


def bound(cluster: Cluster, user: str, *purposes: Purpose, namespace: str = shops.NAMESPACE) -> Path:
    """The kubeconfig of a user who has the roles for these purposes."""
    cluster.rbac.load(RBAC, user, namespace, [purpose.role for purpose in purposes])
    return cluster.kubeconfig_for(user, namespace=shops.NAMESPACE)


def refused(cluster: Cluster, user: str) -> list[str]:
    return [f"{one.verb} {one.resource}" for one in cluster.requests if one.user == user and one.status == 403]


TARGETS = {
    "deployment/web": shops.NEWER_WEB,
    "pod/db-0": "db-0",
    "statefulset/db": "db-0",
    "daemonset/logger": "logger-",
    "job/import": "import-",
    "cronjob/report": "report-29000000-",
    "rollout/checkout": "checkout-84c9-p5d2x",
    "service/web": shops.NEWER_WEB,
    "label/app=cart": "cart-7b6d-lw8qz",
    "targetless": "mirrord-trace-agent-",
}


@pytest.mark.parametrize("target", TARGETS)
def test_roles_for_a_job_are_enough(cluster: Cluster, target: str) -> None:
    kubeconfig = bound(cluster, "jobs", rights.TARGET, rights.JOB)
    result = mirrord_trace(kubeconfig, "run", "-q", "-t", target, "--", "uname", "-n")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(TARGETS[target])
    assert refused(cluster, "jobs") == []
    names = {job["metadata"]["name"] for job in cluster.list(JOBS)}
    assert not {name for name in names if name.startswith("mirrord-trace-agent")}


def test_roles_for_an_ephemeral_container_are_enough(cluster: Cluster) -> None:
    kubeconfig = bound(cluster, "ephemeral", rights.TARGET, rights.EPHEMERAL)
    result = mirrord_trace(kubeconfig, "run", "-q", "-e", "-t", "deployment/cart", "--", "uname", "-n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "cart-7b6d-lw8qz\n", "")
    assert refused(cluster, "ephemeral") == []


def test_role_for_a_job_in_a_namespace_of_its_own(cluster: Cluster) -> None:
    cluster.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "agents"}}
    )
    bound(cluster, "apart", rights.JOB, namespace="agents")
    kubeconfig = bound(cluster, "apart", rights.TARGET)
    result = mirrord_trace(kubeconfig, "run", "-q", "-a", "agents", "-t", "deployment/cart", "--", "uname", "-n")
    assert (result.returncode, result.stdout, result.stderr) == (0, "cart-7b6d-lw8qz\n", "")
    assert refused(cluster, "apart") == []


def test_what_ls_lists_are_the_targets_that_work(cluster: Cluster) -> None:
    result = mirrord_trace(bound(cluster, "lister", rights.LS), "ls", "-o", "json")
    assert result.returncode == 0
    assert refused(cluster, "lister") == []
    listed = json.loads(result.stdout)
    assert {target for target in TARGETS if "=" not in target and "/" in target} <= set(listed)
    assert "pod/orders-66b8-n4rts/container/orders" in listed
    assert not [target for target in listed if "broken" in target or "mirrord" in target]


def test_clean_removes_what_a_killed_run_has_left(cluster: Cluster) -> None:
    kubeconfig = bound(cluster, "killed", rights.TARGET, rights.JOB, rights.CLEAN)
    with subprocess.Popen(
        [*COMMAND, "run", "-q", "-t", "deployment/cart", "--", "sh", "-c", "echo runs; exec sleep 1000"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"runs\n"
        living = mirrord_trace(kubeconfig, "clean")
        assert (living.returncode, living.stdout.count("kept: it runs on this machine")) == (0, 1)
        run.kill()
        run.wait()
        result = mirrord_trace(kubeconfig, "clean")
    assert result.returncode == 0
    assert result.stdout.count("removed") == 1
    assert refused(cluster, "killed") == []
    is_agent = MANAGED_BY.items()
    assert not [job for job in cluster.list(JOBS) if is_agent <= job["metadata"].get("labels", {}).items()]

    def gone(store: Store) -> bool | None:
        pods = [pod for pod in store.list(PODS, None) if is_agent <= pod["metadata"].get("labels", {}).items()]
        return None if pods else True

    assert cluster.wait_until(gone)
