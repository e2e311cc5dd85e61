"""The stand-in's API server is itself tested, by the official client."""

from __future__ import annotations

from typing import Any

from kubernetes import client, config

from mirrord_trace.cluster.resources import PODS
from tests.cluster.standin.cluster import Cluster


def test_the_official_client_gets_lists_and_creates(api_server: Cluster) -> None:
    api_server.apply(
        {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }
    )
    configuration = client.Configuration()
    config.load_kube_config(str(api_server.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    core: Any = client.CoreV1Api(client.ApiClient(configuration))
    body: Any = {"metadata": {"name": "b"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert core.create_namespaced_pod("shop", body).metadata.uid
    assert core.read_namespaced_pod("b", "shop").metadata.name == "b"
    assert [pod.metadata.name for pod in core.list_namespaced_pod("shop").items] == ["a", "b"]
    assert api_server.get(PODS, "shop", "b") is not None
