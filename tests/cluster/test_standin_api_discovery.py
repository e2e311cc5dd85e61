"""The stand-in's API server: what it says that it serves."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client as official
from kubernetes import dynamic

from mirrord_trace.cluster.resources import CRON_JOBS, DEPLOYMENTS, JOBS, PODS, ROLLOUTS
from tests.cluster.plain_client import PlainClient
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import KINDS
from tests.cluster.standin.reviews import REVIEWS


@pytest.fixture
def client(api_server: Cluster) -> PlainClient:
    return PlainClient(api_server.kubeconfig)


def names(answer: Any) -> list[str]:
    return [resource["name"] for resource in answer.json["resources"]]


def entry(answer: Any, name: str) -> Any:
    return next(resource for resource in answer.json["resources"] if resource["name"] == name)


def test_the_core_is_found_under_api(api_server: Cluster, client: PlainClient) -> None:
    assert client.get("/api").json == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": f"127.0.0.1:{api_server.port}"}],
    }
    core = client.get("/api/v1")
    assert {key: part for key, part in core.json.items() if key != "resources"} == {
        "kind": "APIResourceList",
        "groupVersion": "v1",
    }
    assert names(core) == sorted(names(core))
    assert entry(core, "pods") == {
        "name": "pods",
        "singularName": "pod",
        "namespaced": True,
        "kind": "Pod",
        "verbs": ["create", "delete", "get", "list", "patch", "watch"],
        "shortNames": ["po"],
        "categories": ["all"],
    }
    assert entry(core, "pods/portforward") == {
        "name": "pods/portforward",
        "singularName": "",
        "namespaced": True,
        "kind": "PodPortForwardOptions",
        "verbs": ["create", "get"],
    }
    assert entry(core, "nodes")["namespaced"] is False


def test_groups_are_found_under_apis(client: PlainClient) -> None:
    listed = client.get("/apis").json
    assert (listed["kind"], listed["apiVersion"]) == ("APIGroupList", "v1")
    version = {"groupVersion": "batch/v1", "version": "v1"}
    batch = {"name": "batch", "versions": [version], "preferredVersion": version}
    assert batch in listed["groups"]
    assert client.get("/apis/batch").json == {"kind": "APIGroup", "apiVersion": "v1", **batch}
    resources = client.get("/apis/batch/v1/")
    assert (resources.json["apiVersion"], resources.json["groupVersion"]) == ("v1", "batch/v1")
    assert names(resources) == ["cronjobs", "jobs"]
    reviews = client.get("/apis/authorization.k8s.io/v1")
    assert entry(reviews, "selfsubjectaccessreviews")["verbs"] == ["create"]


@pytest.mark.parametrize("path", ["/apis/nothing", "/apis/nothing/v1", "/apis/batch/v1beta1", "/api/v2", "/nothing"])
def test_what_is_not_there(client: PlainClient, path: str) -> None:
    answer = client.get(path)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")


def test_custom_resources_are_found_where_they_are_installed(api_server: Cluster, client: PlainClient) -> None:
    assert client.get("/apis/argoproj.io").status == 404
    assert client.get("/apis/argoproj.io/v1alpha1").status == 404
    api_server.install(ROLLOUTS)
    assert entry(client.get("/apis/argoproj.io/v1alpha1"), "rollouts")["shortNames"] == ["ro"]


def test_the_official_client_finds_each_kind(api_server: Cluster, client: PlainClient) -> None:
    api_server.install(ROLLOUTS)
    api: Any = dynamic.DynamicClient(official.ApiClient(client.configuration))  # type: ignore[no-untyped-call]
    for kind in (*KINDS.values(), *REVIEWS.values()):
        found = api.resources.get(api_version=kind.api_version, kind=kind.name)
        assert (found.name, found.namespaced) == (kind.resource.plural, kind.namespaced)
    for name, resource in (("po", PODS), ("deploy", DEPLOYMENTS), ("cj", CRON_JOBS)):
        assert api.resources.get(short_names=[name]).name == resource.plural
    assert api.resources.get(singular_name="job").name == JOBS.plural
    assert set(api.resources.get(api_version="v1", kind="Pod").subresources) == {
        "ephemeralcontainers",
        "log",
        "portforward",
    }


def test_whoever_is_known_may_look(api_server: Cluster) -> None:
    assert PlainClient(api_server.kubeconfig_for("dev")).get("/apis").json["kind"] == "APIGroupList"
    nobody = PlainClient(api_server.kubeconfig_for("dev", "anonymous")).get("/apis")
    assert nobody.message == 'forbidden: User "system:anonymous" cannot get path "/apis"'
