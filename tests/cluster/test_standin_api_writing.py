"""The stand-in's API server: create, patch and delete, and what it refuses, in the real server's words."""

from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.cluster.resources import JOBS, PODS, SERVICES
from tests.cluster.plain_client import PlainClient
from tests.cluster.plain_objects import JOB, POD, changed
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import NAMESPACES

LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    " an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
NAME = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.fixture
def client(api_server: Cluster) -> PlainClient:
    api_server.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
    return PlainClient(api_server.kubeconfig)


def test_what_a_pod_leaves_open_is_filled_in(client: PlainClient) -> None:
    body = changed(
        POD,
        spec__containers__0__readinessProbe={"httpGet": {"port": 80}, "periodSeconds": 1},
        spec__containers__0__env=[{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        spec__volumes=[{"name": "a", "configMap": {"name": "a"}}, {"name": "b"}],
    )
    spec = client.create(PODS.path("shop"), body).json["spec"]
    assert spec["containers"][0]["readinessProbe"] == {
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 1,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert spec["containers"][0]["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert spec["volumes"] == [
        {"name": "a", "configMap": {"name": "a", "defaultMode": 0o644}},
        {"name": "b", "emptyDir": {}},
    ]


def test_a_job_gets_its_selector_labels_and_defaults(client: PlainClient) -> None:
    job = client.create(JOBS.path("shop"), JOB).json
    uid = job["metadata"]["uid"]
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert job["spec"]["template"]["metadata"]["labels"] == {
        "controller-uid": uid,
        "job-name": "a",
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": "a",
    }
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["suspend"]) == (1, 1, False)
    assert job["status"] == {}


def test_names_are_generated_and_kept_apart(client: PlainClient) -> None:
    body = changed(POD, metadata={"generateName": "agent-"})
    first, second = (client.create(PODS.path("shop"), body).json["metadata"]["name"] for _ in range(2))
    assert first != second
    assert len(first) == len("agent-") + 5
    client.create(PODS.path("shop"), POD)
    again = client.create(PODS.path("shop"), POD)
    assert (again.status, again.json["reason"]) == (409, "AlreadyExists")
    assert again.message == 'pods "a" already exists'
    assert again.json["details"] == {"name": "a", "kind": "pods"}


def test_what_is_null_is_absent_and_quantities_may_be_numbers(client: PlainClient) -> None:
    body = changed(POD, spec__nodeSelector=None, spec__containers__0__resources={"limits": {"cpu": 1}})
    answer = client.create(PODS.path("shop"), body)
    assert answer.status == 201, answer.body
    assert "nodeSelector" not in answer.json["spec"]
    assert answer.json["spec"]["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert answer.json["status"]["qosClass"] == "Burstable"


def test_a_dry_run_leaves_nothing(api_server: Cluster, client: PlainClient) -> None:
    assert client.create(PODS.path("shop"), POD, dryRun="All").status == 201
    assert api_server.get(PODS, "shop", "a") is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spec__nodename": "x"}, 'strict decoding error: unknown field "spec.nodename"'),
        ({"spec__node_name": "x"}, 'strict decoding error: unknown field "spec.node_name"'),
        (
            {"spec__containers__0__volumeMount": [], "foo": 1},
            'strict decoding error: unknown field "spec.containers[0].volumeMount", unknown field "foo"',
        ),
        (
            {"spec__containers__0__image": 5},
            "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string",
        ),
        (
            {"metadata__labels": {"a": 5}},
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            {"spec__hostPID": "yes"},
            "json: cannot unmarshal string into Go struct field PodSpec.spec.hostPID of type bool",
        ),
        (
            {"spec__priority": 1 << 31},
            "json: cannot unmarshal number 2147483648 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            {"spec__activeDeadlineSeconds": 1 << 63},
            "json: cannot unmarshal number 9223372036854775808 into Go struct field PodSpec.spec.activeDeadlineSeconds "
            "of type int64",
        ),
        (
            {"spec__containers__0__resources": {"limits": {"cpu": "one"}}},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_what_cannot_be_decoded(client: PlainClient, changes: dict[str, Any], told: str) -> None:
    answer = client.create(PODS.path("shop"), changed(POD, **changes))
    assert (answer.status, answer.json["reason"]) == (400, "BadRequest")
    assert answer.message == f'Pod in version "v1" cannot be handled as a Pod: {told}'


def test_unknown_fields_are_only_warned_of_if_asked(client: PlainClient) -> None:
    answer = client.create(PODS.path("shop"), changed(POD, spec__nodename="x"), fieldValidation="Warn")
    assert answer.status == 201
    assert answer.warnings == [r'299 - "unknown field \"spec.nodename\""']


POD_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"metadata__name": "A"}, f'metadata.name: Invalid value: "A": {SUBDOMAIN}'),
    ({"metadata__name": None}, "metadata.name: Required value: name or generateName is required"),
    ({"metadata__labels": {"a": "b c"}}, f'metadata.labels: Invalid value: "b c": {VALUE}'),
    (
        {"metadata__labels": {"a": "x" * 64}},
        f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes',
    ),
    ({"spec__containers": []}, "spec.containers: Required value"),
    ({"spec__containers__0__name": "App"}, f'spec.containers[0].name: Invalid value: "App": {LABEL}'),
    ({"spec__containers__0__name": None}, "spec.containers[0].name: Required value"),
    ({"spec__containers__0__image": ""}, "spec.containers[0].image: Required value"),
    (
        {"spec__containers": [{"name": "app", "image": "app:1"}] * 2},
        'spec.containers[1].name: Duplicate value: "app"',
    ),
    (
        {"spec__containers__0__imagePullPolicy": "Sometimes"},
        'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": supported values: "Always",'
        ' "IfNotPresent", "Never"',
    ),
    (
        {"spec__containers__0__volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        'spec.containers[0].volumeMounts[0].name: Not found: "data"',
    ),
    (
        {"spec__containers__0__resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}},
        'spec.containers[0].resources.requests: Invalid value: "1500m": must be less than or equal to cpu limit of 1',
    ),
    (
        {"spec__containers__0__ports": [{"containerPort": 70000}]},
        "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
    ),
    (
        {"spec__tolerations": [{"operator": "Exist"}]},
        '[spec.tolerations[0].operator: Invalid value: "Exist": operator must be Exists when `key` is empty, which'
        ' means "match all values and all keys", spec.tolerations[0].operator: Unsupported value: "Exist":'
        ' supported values: "Equal", "Exists"]',
    ),
    (
        {"spec__hostPID": True, "spec__shareProcessNamespace": True},
        "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
    ),
    (
        {"spec__ephemeralContainers": [{"name": "e", "image": "i"}]},
        "spec.ephemeralContainers: Forbidden: cannot be set on create",
    ),
    (
        {"spec__restartPolicy": "No"},
        'spec.restartPolicy: Unsupported value: "No": supported values: "Always", "Never", "OnFailure"',
    ),
]


@pytest.mark.parametrize(("changes", "told"), POD_ERRORS, ids=[told[:40] for _, told in POD_ERRORS])
def test_pods_that_are_invalid(client: PlainClient, changes: dict[str, Any], told: str) -> None:
    body = changed(POD, **changes)
    answer = client.create(PODS.path("shop"), body)
    assert (answer.status, answer.json["reason"]) == (422, "Invalid")
    assert answer.message == f'Pod "{body["metadata"]["name"] or ""}" is invalid: {told}'
    cause = answer.json["details"]["causes"][0]
    assert set(cause) == {"reason", "message", "field"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"spec__template__spec__restartPolicy": None},
            'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"',
        ),
        (
            {"spec__ttlSecondsAfterFinished": -1},
            "spec.ttlSecondsAfterFinished: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"spec__template__metadata": {"annotations": {"a b": "c"}}},
            f'spec.template.annotations: Invalid value: "a b": {NAME}',
        ),
        (
            {"spec__selector": {"matchLabels": {"a": "b"}}},
            "spec.selector: Invalid value: {…}: `selector` not auto-generated",
        ),
    ],
)
def test_jobs_that_are_invalid(client: PlainClient, changes: dict[str, Any], told: str) -> None:
    answer = client.create(JOBS.path("shop"), changed(JOB, **changes))
    assert (answer.status, answer.message) == (422, f'Job.batch "a" is invalid: {told}')
    assert answer.json["details"]["kind"] == "Job"


def test_requests_that_do_not_fit_their_path(client: PlainClient) -> None:
    def refused(body: object, path: str = PODS.path("shop")) -> tuple[int, str]:
        answer = client.create(path, body)
        return answer.status, answer.message

    elsewhere = changed(POD, metadata__namespace="default")
    told = "the namespace of the provided object does not match the namespace sent on the request"
    assert refused(elsewhere) == (400, told)
    assert refused(JOB) == (
        400,
        "the API version in the data (batch/v1) does not match the expected API version (v1)",
    )
    assert refused(POD, PODS.path("nowhere")) == (404, 'namespaces "nowhere" not found')
    assert client.create(PODS.path(None), POD).status == 405
    assert client.request("POST", PODS.path("shop"), b"{", "application/json").status == 400
    assert client.request("POST", PODS.path("shop"), b"{}", "text/plain").status == 415


def test_nothing_new_begins_in_a_namespace_that_ends(api_server: Cluster, client: PlainClient) -> None:
    api_server.patch(NAMESPACES, None, "shop", {"status": {"phase": "Terminating"}})
    answer = client.create(PODS.path("shop"), POD)
    why = "unable to create new content in namespace shop because it is being terminated"
    assert (answer.status, answer.message) == (403, f'pods "a" is forbidden: {why}')
    assert answer.json["details"]["causes"][0]["reason"] == "NamespaceTerminating"


def test_a_deleted_job_is_gone_and_a_deleted_pod_is_shown(api_server: Cluster, client: PlainClient) -> None:
    job = client.create(JOBS.path("shop"), JOB).json
    answer = client.delete(JOBS.path("shop", "a"), {"propagationPolicy": "Background"})
    assert answer.json == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "group": "batch", "kind": "jobs", "uid": job["metadata"]["uid"]},
    }
    assert not answer.warnings
    assert client.delete(JOBS.path("shop", "a")).status == 404
    client.create(PODS.path("shop"), POD)
    assert client.delete(PODS.path("shop", "a")).json["kind"] == "Pod"
    assert api_server.get(PODS, "shop", "a") is None


def test_a_job_that_is_deleted_without_a_policy_leaves_its_pods(api_server: Cluster, client: PlainClient) -> None:
    job = client.create(JOBS.path("shop"), JOB).json["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "a", "uid": job["uid"]}
    api_server.apply(changed(POD, metadata={"name": "a", "namespace": "shop", "ownerReferences": [owner]}))
    answer = client.delete(JOBS.path("shop", "a"))
    assert "child pods are preserved by default when jobs are deleted" in answer.warnings[0]
    left = api_server.get(PODS, "shop", "a")
    assert left is not None
    assert left["metadata"]["ownerReferences"] == []


def test_options_of_a_delete(api_server: Cluster, client: PlainClient) -> None:
    client.create(SERVICES.path("shop"), {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    path = SERVICES.path("shop", "web")
    other = client.delete(path, {"preconditions": {"uid": "other"}})
    assert (other.status, other.json["reason"]) == (409, "Conflict")
    assert client.delete(path, {"grace": 1}).status == 400
    api_server.patch(SERVICES, "shop", "web", {"metadata": {"finalizers": ["example.com/wait"]}})
    assert "deletionTimestamp" in client.delete(path).json["metadata"]
    assert api_server.get(SERVICES, "shop", "web") is not None
    client.patch(path, {"metadata": {"finalizers": None}})
    assert api_server.get(SERVICES, "shop", "web") is None


def test_a_namespace_takes_all_that_is_in_it_along(api_server: Cluster, client: PlainClient) -> None:
    client.create(PODS.path("shop"), POD)
    api_server.apply(changed(POD, metadata={"name": "a", "namespace": "other"}))
    assert client.delete(NAMESPACES.path(None, "shop")).json["status"] == "Success"
    assert [pod["metadata"]["namespace"] for pod in api_server.list(PODS)] == ["other"]
