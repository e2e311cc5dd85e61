"""Which of a pod's ports are asked by Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.targets.workloads.probes import warnings_of_probes

PORTS = [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}]


def container(name: str = "app", **probes: Any) -> dict[str, Any]:
    return {"name": name, "ports": PORTS, **probes}


def warnings(*containers: dict[str, Any], staying: tuple[dict[str, Any], ...] = ()) -> dict[int, str]:
    found = warnings_of_probes({"spec": {"containers": list(containers), "initContainers": list(staying)}})
    return {port: words.partition(" come to it")[0] for port, words in found.items()}


@pytest.mark.parametrize(
    ("probe", "port"),
    [
        ({"httpGet": {"port": 80, "path": "/healthz"}, "periodSeconds": 5}, 80),
        ({"httpGet": {"port": "web"}}, 8080),
        ({"httpGet": {"port": "unheard-of"}}, None),
        ({"httpGet": {"port": 80, "host": "198.18.0.1"}}, None),
        ({"httpGet": {}}, None),
        ({"grpc": {"port": 9090, "service": "health"}}, 9090),
        ({"tcpSocket": {"port": 80}}, None),
        ({"exec": {"command": ["true"]}}, None),
        ({}, None),
        (None, None),
    ],
)
@pytest.mark.parametrize("kind", ["startup", "liveness", "readiness"])
def test_what_a_probe_asks(kind: str, probe: Any, port: int | None) -> None:
    expected = {} if port is None else {port: f"the {kind} probe of container app"}
    assert warnings(container(**{f"{kind}Probe": probe})) == expected


def test_several_at_one_port() -> None:
    probe, other = {"httpGet": {"port": 80}}, {"grpc": {"port": 81}}
    app = container(readinessProbe=probe, livenessProbe=probe, startupProbe=other)
    assert warnings(app, container("beside", readinessProbe=probe)) == {
        80: "the liveness and readiness probes of container app and the readiness probe of container beside",
        81: "the startup probe of container app",
    }


def test_init_containers_that_stay() -> None:
    mesh = container("mesh", readinessProbe={"httpGet": {"port": 15021}})
    assert warnings(container(), staying=(mesh,)) == {15021: "the readiness probe of container mesh"}
