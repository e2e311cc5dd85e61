"""The stand-in's API server: the three kinds of patches, and what may be patched."""

from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.cluster.resources import DEPLOYMENTS, JOBS, PODS, ROLLOUTS
from tests.cluster.plain_client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, PlainClient
from tests.cluster.plain_objects import JOB, POD, changed
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.store import Object


@pytest.fixture
def client(api_server: Cluster) -> PlainClient:
    api_server.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
    return PlainClient(api_server.kubeconfig)


def test_a_merge_patch_changes_a_job_but_not_its_template(client: PlainClient) -> None:
    before = client.create(JOBS.path("shop"), JOB).json
    path = JOBS.path("shop", "a")
    after = client.patch(path, {"spec": {"activeDeadlineSeconds": None}, "metadata": {"annotations": {"a": "b"}}}).json
    assert "activeDeadlineSeconds" not in after["spec"]
    assert after["metadata"]["annotations"] == {"a": "b"}
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    refused = client.patch(path, {"spec": {"template": {"spec": {"hostPID": True}}}})
    assert refused.message == 'Job.batch "a" is invalid: spec.template: Invalid value: {…}: field is immutable'
    stale = client.patch(path, {"metadata": {"resourceVersion": before["metadata"]["resourceVersion"]}})
    assert (stale.status, stale.json["reason"]) == (409, "Conflict")
    assert stale.message == (
        'Operation cannot be fulfilled on jobs.batch "a": the object has been modified; please apply your changes to'
        " the latest version and try again"
    )


def test_patches_that_are_none(client: PlainClient) -> None:
    client.create(PODS.path("shop"), POD)
    path = PODS.path("shop", "a")
    assert client.patch(path, b"{").status == 400
    unknown = client.patch(path, {"spec": {"nodename": "x"}})
    assert unknown.status == 422
    assert 'strict decoding error: unknown field "spec.nodename"' in unknown.message
    answer = client.patch(path, {}, "application/json")
    assert (answer.status, answer.json["reason"]) == (415, "UnsupportedMediaType")
    fixed = client.patch(path, {"spec": {"hostPID": True}})
    assert fixed.status == 422
    assert fixed.message.startswith('Pod "a" is invalid: spec: Forbidden: pod updates may not change fields other than')
    assert client.patch(PODS.path("shop", "b"), {}).message == 'pods "b" not found'


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"name": "b"}, "the name of the object (b) does not match the name on the URL (a)"),
        ({"name": None}, "the name of the object (a based on URL) was undeterminable: name must be provided"),
        (
            {"namespace": "other"},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
    ],
)
def test_a_patch_makes_no_other_object(client: PlainClient, metadata: Object, message: str) -> None:
    client.create(PODS.path("shop"), POD)
    answer = client.patch(PODS.path("shop", "a"), {"metadata": metadata})
    assert (answer.status, answer.json["reason"], answer.message) == (400, "BadRequest", message)


def test_a_patch_that_is_refused_is_shown(client: PlainClient) -> None:
    client.create(PODS.path("shop"), POD)
    patch = {"spec": {"nothing": [1, "b"], "hostPID": True}}
    answer = client.patch(PODS.path("shop", "a"), patch, STRATEGIC_MERGE_PATCH)
    made = '"map[spec:map[hostPID:true nothing:[1 b]]]"'
    assert (
        answer.message
        == f' "" is invalid: patch: Invalid value: {made}: strict decoding error: unknown field "spec.nothing"'
    )
    answer = client.patch(PODS.path("shop", "a"), patch)
    assert 'patch: Invalid value: "{\\"kind\\":\\"Pod\\",' in answer.message


def test_json_patches(client: PlainClient) -> None:
    client.create(PODS.path("shop"), POD)
    path = PODS.path("shop", "a")
    operations = [
        {"op": "test", "path": "/spec/containers/0/name", "value": "app"},
        {"op": "replace", "path": "/spec/containers/0/image", "value": "app:2"},
        {"op": "add", "path": "/metadata/labels", "value": {"a~b": "1"}},
        {"op": "move", "from": "/metadata/labels/a~0b", "path": "/metadata/labels/c"},
    ]
    answer = client.patch(path, operations, JSON_PATCH)
    assert answer.json["spec"]["containers"][0]["image"] == "app:2"
    assert answer.json["metadata"]["labels"] == {"c": "1"}
    refused = client.patch(path, [{"op": "remove", "path": "/spec/nothing"}], JSON_PATCH)
    assert (refused.status, refused.json["details"]) == (422, {})
    assert refused.message == "the server rejected our request due to an error in our request"


def ephemeral(name: str = "debug", **parts: Any) -> Object:
    return {"spec": {"ephemeralContainers": [{"name": name, "image": "agent:1", "targetContainerName": "app"} | parts]}}


def test_ephemeral_containers_are_added_and_then_stand(api_server: Cluster, client: PlainClient) -> None:
    client.create(PODS.path("shop"), POD)
    path = f"{PODS.path('shop', 'a')}/ephemeralcontainers"

    def patch(body: object, content_type: str = STRATEGIC_MERGE_PATCH) -> Any:
        return client.patch(path, body, content_type)

    added = patch(ephemeral())
    assert added.status == 200, added.body
    assert added.json["spec"]["ephemeralContainers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert len(patch(ephemeral("second")).json["spec"]["ephemeralContainers"]) == 2
    told = 'Pod "a" is invalid: spec.ephemeralContainers: Forbidden: existing ephemeral containers "debug" may not be'
    assert patch(ephemeral(image="agent:2")).message == f"{told} changed\nimage"
    assert f"{told} removed\n" in patch(ephemeral("third"), MERGE_PATCH).message.replace("[", "")
    others = {"metadata": {"labels": {"a": "b"}}, "spec": {"hostPID": True}}
    untouched = patch(others).json
    assert "labels" not in untouched["metadata"]
    assert "hostPID" not in untouched["spec"]
    assert client.patch(PODS.path("shop", "a"), ephemeral("fourth"), STRATEGIC_MERGE_PATCH).status == 422


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"targetContainerName": "db"}, 'spec.ephemeralContainers[0].targetContainerName: Not found: "db"'),
        ({"name": "app"}, 'spec.ephemeralContainers[0].name: Duplicate value: "app"'),
        (
            {"ports": [{"containerPort": 80}]},
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ),
        (
            {"resources": {"limits": {"cpu": "1"}}},
            "spec.ephemeralContainers[0].resources: Forbidden: cannot be set for an Ephemeral Container",
        ),
        ({"image": ""}, "spec.ephemeralContainers[0].image: Required value"),
    ],
)
def test_ephemeral_containers_that_are_invalid(client: PlainClient, parts: Object, told: str) -> None:
    client.create(PODS.path("shop"), POD)
    path = f"{PODS.path('shop', 'a')}/ephemeralcontainers"
    answer = client.patch(path, ephemeral(**parts), STRATEGIC_MERGE_PATCH)
    assert (answer.status, answer.message) == (422, f'Pod "a" is invalid: {told}')


def test_strategic_merge_patches_merge_lists_by_key(client: PlainClient) -> None:
    body = changed(POD, spec__containers__0__env=[{"name": "A", "value": "1"}])
    client.create(PODS.path("shop"), body)
    patch = {"spec": {"containers": [{"name": "app", "image": "app:2"}], "tolerations": [{"operator": "Exists"}]}}
    told = client.patch(PODS.path("shop", "a"), patch, STRATEGIC_MERGE_PATCH).message
    assert "existing toleration" in told
    del patch["spec"]["tolerations"]
    container = client.patch(PODS.path("shop", "a"), patch, STRATEGIC_MERGE_PATCH).json["spec"]["containers"][0]
    assert (container["image"], container["env"]) == ("app:2", [{"name": "A", "value": "1"}])
    replaced = {"spec": {"containers": [{"image": "x"}]}}
    assert client.patch(PODS.path("shop", "a"), replaced, STRATEGIC_MERGE_PATCH).status == 500


def test_strategic_merge_patches_as_kubectl_makes_them(client: PlainClient) -> None:
    containers = [{"name": name, "image": "app:1", "ports": [{"containerPort": 80}]} for name in ("a", "b", "c")]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers, "hostname": "web"}}
    metadata = {"name": "web", "finalizers": ["example.com/a", "example.com/b"]}
    spec = {"selector": {"matchLabels": {"app": "web"}}, "template": template}
    client.create(DEPLOYMENTS.path("shop"), {"metadata": metadata, "spec": spec})
    changed_container = {
        "name": "c",
        "$setElementOrder/ports": [{"containerPort": 81}, {"containerPort": 80}],
        "ports": [{"containerPort": 81}],
    }
    patch = {
        "metadata": {"$deleteFromPrimitiveList/finalizers": ["example.com/a"]},
        "spec": {
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "template": {
                "spec": {
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                    "containers": [changed_container],
                    "hostname": None,
                }
            },
        },
    }
    after = client.patch(DEPLOYMENTS.path("shop", "web"), patch, STRATEGIC_MERGE_PATCH).json
    assert after["metadata"]["finalizers"] == ["example.com/b"]
    assert after["spec"]["strategy"] == {"type": "Recreate"}
    pod = after["spec"]["template"]["spec"]
    assert "hostname" not in pod
    assert [container["name"] for container in pod["containers"]] == ["c", "b", "a"]
    assert [port["containerPort"] for port in pod["containers"][0]["ports"]] == [81, 80]
    unknown = client.patch(DEPLOYMENTS.path("shop", "web"), {"spec": {"$nothing": 1}}, STRATEGIC_MERGE_PATCH)
    assert unknown.status == 501


def test_custom_resources_have_no_strategic_merge(api_server: Cluster, client: PlainClient) -> None:
    api_server.apply({"kind": "Rollout", "apiVersion": "argoproj.io/v1alpha1", "metadata": {"name": "a"}, "spec": {}})
    path = ROLLOUTS.path("default", "a")
    assert client.patch(path, {}, STRATEGIC_MERGE_PATCH).status == 415
    assert client.patch(path, {"spec": {"replicas": 2}}).json["spec"] == {"replicas": 2}
