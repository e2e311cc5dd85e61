"""`mirrord-trace doctor` with a cluster: whether the API server answers, and what one may do there."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mirrord_trace.cluster import rights
from mirrord_trace.cluster.resources import ROLLOUTS
from mirrord_trace.cluster.rights import Purpose
from tests.cluster.commands import mirrord_trace
from tests.cluster.standin.cluster import Cluster


def developer(cluster: Cluster, *purposes: Purpose) -> Path:
    """The kubeconfig of one who has the rights for these purposes in the namespace shop."""
    for purpose in purposes:
        for right in purpose.rights:
            if right.resource != ROLLOUTS:
                cluster.rbac.allow("dev", right.verb, right.resource, "shop")
    return cluster.kubeconfig_for("dev", namespace="shop")


def check(result: subprocess.CompletedProcess[str], name: str) -> dict[str, Any]:
    [found] = [each for each in json.loads(result.stdout)["checks"] if each["name"] == name]
    return dict(found)


@pytest.mark.parametrize(
    ("purposes", "arguments", "verdict"),
    [
        ((rights.TARGET, rights.JOB), (), "works"),
        ((rights.TARGET, rights.EPHEMERAL), (), "limited"),
        ((rights.JOB,), (), "limited"),
        ((rights.TARGET,), (), "fails"),
        ((), (), "fails"),
    ],
    ids=["all", "ephemeral only", "no finding", "no agent", "none"],
)
def test_rights(api_server: Cluster, purposes: tuple[Purpose, ...], arguments: tuple[str, ...], verdict: str) -> None:
    kubeconfig = developer(api_server, *purposes)
    result = mirrord_trace(kubeconfig, "doctor", "-o", "json", *arguments)
    assert check(result, "API server")["verdict"] == "works"
    assert check(result, "rights")["verdict"] == verdict
    allowed = mirrord_trace(kubeconfig, "verify-access").returncode == 0
    assert allowed is (verdict == "works")


def test_server_that_refuses_connections_is_told_as_a_run_tells_it(api_server: Cluster) -> None:
    kubeconfig = api_server.kubeconfig_for("dev", namespace="shop")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    text = kubeconfig.read_text()
    server = json.loads(text)["clusters"][0]["cluster"]["server"] if text.startswith("{") else None
    server = server or next(line.split("server:")[1].strip() for line in text.splitlines() if "server:" in line)
    broken = kubeconfig.with_name("broken")
    broken.write_text(text.replace(server, f"https://127.0.0.1:{port}"))
    result = mirrord_trace(broken, "doctor", "-o", "json")
    assert check(result, "API server")["verdict"] == "fails"
    tried = mirrord_trace(broken, "run", "-t", "pod/web", "--", "true")
    assert tried.returncode == 1
    assert check(result, "API server")["what"].splitlines()[0] in tried.stderr


def test_unknown_context_is_a_mistake(api_server: Cluster) -> None:
    result = mirrord_trace(api_server.kubeconfig, "doctor", "--context", "nowhere")
    assert result.returncode == 2
    assert "nowhere" in result.stderr


def test_cluster_is_only_asked(api_server: Cluster) -> None:
    kubeconfig = developer(api_server, rights.TARGET, rights.JOB)
    assert mirrord_trace(kubeconfig, "doctor").returncode == 0
    made = {request.path for request in api_server.requests if request.method != "GET"}
    assert made == {"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"}
