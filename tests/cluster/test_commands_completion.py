"""What shells are offered: targets, containers, namespaces and contexts, from the cluster, or nothing and no word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrord_trace.targets.workloads.ownership import MANAGED_BY
from tests.cluster.commands import TIMEOUT_S, apply, apply_shop, mirrord_trace, template
from tests.cluster.standin.cluster import Cluster


@pytest.fixture
def shop(api_server: Cluster) -> Cluster:
    """See `apply_shop`."""
    apply_shop(api_server)
    return api_server


def completed(kubeconfig: Path, *words: str, **environment: str) -> list[str]:
    """What bash is offered for the last word."""
    result = mirrord_trace(
        kubeconfig,
        _MIRRORD_TRACE_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["mirrord-trace", *words]),
        COMP_CWORD=str(len(words)),
        **environment,
    )
    assert result.stderr == ""
    return result.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "-n", "shop", "-t", "deploy/"], ["plain,deploy/broken", "plain,deploy/web"]),
        (["run", "-n", "shop", "-t", "deployment/w"], ["plain,deployment/web"]),
        (["run", "-n", "shop", "-t", "dep"], ["plain,deployment/broken", "plain,deployment/web"]),
        (["run", "-n", "shop", "-t", "d"], ["plain,daemonset/", "plain,demo", "plain,deployment/"]),
        (["run", "-n", "shop", "-t", "tar"], ["plain,targetless"]),
        (
            ["run", "-n", "shop", "-t", "pod/web-2/"],
            ["plain,pod/web-2/container/app", "plain,pod/web-2/container/istio-proxy"],
        ),
        (["run", "-n", "shop", "-t", "svc/web/container/a"], ["plain,svc/web/container/app"]),
        (["verify-access", "-n", "shop", "-t", "sts/"], ["plain,sts/db"]),
        (["run", "-n", "sh"], ["plain,shop"]),
        (["ls", "--context", "st"], ["plain,standin"]),
        (["run", "-t", "nonsense/"], []),
        (["run", "-t", "deploy/x/"], []),
        (["run", "--context", "nowhere", "-t", "pod/"], []),
        (["run", "-f", "/nonexistent.json", "-t", "pod/"], []),
        (["run", "-t", "demo", "--", "./ser"], ["file,./ser"]),
        (["run", "-f", "mirr"], ["file,mirr"]),
    ],
)
def test_completion(shop: Cluster, words: list[str], expected: list[str]) -> None:
    assert completed(shop.kubeconfig, *words) == expected


def test_agents_are_not_offered(shop: Cluster) -> None:
    apply(shop, "batch/v1", "Job", "report", {"template": template("report")})
    apply(shop, "batch/v1", "Job", "agent", {"template": template("report")}, labels=dict(MANAGED_BY))
    assert completed(shop.kubeconfig, "run", "-n", "shop", "-t", "job/") == ["plain,job/report"]


def test_completion_without_rights_is_silent(shop: Cluster) -> None:
    assert completed(shop.kubeconfig_for("nobody"), "run", "-n", "shop", "-t", "deploy/") == []
    assert completed(shop.kubeconfig_for("nobody"), "run", "-n", "s") == []


def test_completion_does_not_wait_for_a_slow_cluster(shop: Cluster) -> None:
    shop.faults.hold()
    assert completed(shop.kubeconfig, "run", "-n", "shop", "-t", "deploy/") == []


def test_completion_without_a_cluster_is_silent(tmp_path: Path) -> None:
    assert completed(tmp_path / "none", "run", "-t", "deploy/", HOME=str(tmp_path)) == []


def test_bash_completes_a_target(shop: Cluster) -> None:
    """With the script that `completion` prints."""
    bin_folder = Path(sys.executable).parent
    script = (
        'eval "$(mirrord-trace completion bash)"\n'
        "COMP_WORDS=(mirrord-trace run -n shop -t deployment/w); COMP_CWORD=5\n"
        "_mirrord_trace_completion mirrord-trace\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    result = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env={**os.environ, "KUBECONFIG": str(shop.kubeconfig), "PATH": f"{bin_folder}:{os.environ['PATH']}"},
    )
    assert (result.stdout, result.stderr) == ("deployment/web\n", "")
