"""The stand-in's API server: what a cluster's owner does not let in."""

from __future__ import annotations

from typing import Any

import pytest

from mirrord_trace.cluster.resources import JOBS, PODS
from tests.cluster.plain_client import STRATEGIC_MERGE_PATCH, PlainClient
from tests.cluster.standin.admission import Webhook
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.status import Refused
from tests.cluster.standin.store import Object

CAPABILITIES = {"add": ["SYS_PTRACE", "SYS_ADMIN"], "drop": ["ALL"]}
AGENT: Object = {"name": "agent", "image": "agent:1", "securityContext": {"capabilities": CAPABILITIES}}
PLAIN: Object = {"name": "app", "image": "app:1"}
OF_THE_AGENT = (
    'PodSecurity "baseline:latest": non-default capabilities (container "agent" must not include "SYS_ADMIN",'
    ' "SYS_PTRACE" in securityContext.capabilities.add), host namespaces (hostPID=true)'
)
NOT_RESTRICTED = (
    'PodSecurity "restricted:v1.30": allowPrivilegeEscalation != false (container "app" must set'
    ' securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "app" must set'
    ' securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "app" must set'
    ' securityContext.runAsNonRoot=true), seccompProfile (pod or container "app" must set'
    ' securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
)


def shop(cluster: Cluster, **labels: str) -> PlainClient:
    secured = {f"pod-security.kubernetes.io/{name.replace('_', '-')}": level for name, level in labels.items()}
    metadata = {"name": "shop", "labels": secured}
    cluster.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": metadata})
    return PlainClient(cluster.kubeconfig)


def pod(*containers: Object, name: str = "a", **spec: Any) -> Object:
    return {"metadata": {"name": name}, "spec": {"containers": list(containers), **spec}}


def job(template: Object) -> Object:
    spec = {"restartPolicy": "Never", **template["spec"]}
    return {"metadata": {"name": "a"}, "spec": {"template": {"spec": spec}}}


def test_pod_security_refuses_pods_and_warns_of_jobs(api_server: Cluster) -> None:
    client = shop(api_server, enforce="baseline")
    answer = client.create(PODS.path("shop"), pod(AGENT, hostPID=True))
    assert (answer.status, answer.message) == (403, f'pods "a" is forbidden: violates {OF_THE_AGENT}')
    made = client.create(JOBS.path("shop"), job(pod(AGENT, hostPID=True)))
    assert made.status == 201
    assert made.warnings == ['299 - "would violate ' + OF_THE_AGENT.replace('"', r"\"") + '"']
    assert client.create(PODS.path("shop"), pod(PLAIN)).status == 201


def test_the_restricted_level(api_server: Cluster) -> None:
    client = shop(api_server, enforce="restricted", enforce_version="v1.30")
    answer = client.create(PODS.path("shop"), pod(PLAIN))
    assert answer.message == f'pods "a" is forbidden: violates {NOT_RESTRICTED}'
    context = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert client.create(PODS.path("shop"), pod({**PLAIN, "securityContext": context})).status == 201


def test_pod_security_names_all_who_break_a_rule(api_server: Cluster) -> None:
    client = shop(api_server, enforce="baseline", warn_version="v1.30")
    other = {**AGENT, "name": "other", "securityContext": {"privileged": True, "capabilities": {"add": ["NET_ADMIN"]}}}
    told = (
        'non-default capabilities (containers "agent", "other" must not include "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"'
        ' in securityContext.capabilities.add), privileged (container "other" must not set'
        " securityContext.privileged=true)"
    )
    answer = client.create(PODS.path("shop"), pod(AGENT, other))
    assert answer.message == f'pods "a" is forbidden: violates PodSecurity "baseline:latest": {told}'
    made = client.create(JOBS.path("shop"), job(pod(AGENT, other)))
    assert r"would violate PodSecurity \"baseline:v1.30\"" in made.warnings[0]


def test_pod_security_holds_for_ephemeral_containers(api_server: Cluster) -> None:
    client = shop(api_server, enforce="baseline")
    client.create(PODS.path("shop"), pod(PLAIN))
    patch = {"spec": {"ephemeralContainers": [AGENT]}}
    answer = client.patch(f"{PODS.path('shop', 'a')}/ephemeralcontainers", patch, STRATEGIC_MERGE_PATCH)
    assert answer.status == 403
    assert answer.message.startswith('pods "a" is forbidden: violates PodSecurity "baseline:latest": non-default')


def quota(cluster: Cluster, **hard: str) -> None:
    named = {name.replace("_", "."): amount for name, amount in hard.items()}
    spec = {"kind": "ResourceQuota", "apiVersion": "v1", "spec": {"hard": named}}
    cluster.apply({**spec, "metadata": {"name": "compute", "namespace": "shop"}})


def test_quotas_count_pods_that_are_not_over(api_server: Cluster) -> None:
    client = shop(api_server)
    quota(api_server, pods="1")
    assert client.create(PODS.path("shop"), pod(PLAIN)).status == 201
    answer = client.create(PODS.path("shop"), pod(PLAIN, name="b"))
    told = "exceeded quota: compute, requested: pods=1, used: pods=1, limited: pods=1"
    assert (answer.status, answer.message) == (403, f'pods "b" is forbidden: {told}')
    api_server.patch(PODS, "shop", "a", {"status": {"phase": "Succeeded"}})
    assert client.create(PODS.path("shop"), pod(PLAIN, name="b")).status == 201


def test_quotas_of_resources_must_be_answered(api_server: Cluster) -> None:
    client = shop(api_server)
    quota(api_server, limits_cpu="1", requests_memory="1Gi")
    answer = client.create(PODS.path("shop"), pod(PLAIN))
    told = "failed quota: compute: must specify limits.cpu for: app; requests.memory for: app"
    assert answer.message == f'pods "a" is forbidden: {told}'
    large = {**PLAIN, "resources": {"limits": {"cpu": "1500m", "memory": "1Mi"}}}
    answer = client.create(PODS.path("shop"), pod(large))
    told = "exceeded quota: compute, requested: limits.cpu=1500m, used: limits.cpu=0, limited: limits.cpu=1"
    assert answer.message == f'pods "a" is forbidden: {told}'


@pytest.mark.parametrize(
    ("webhook", "status", "told"),
    [
        (
            Webhook("policy.example.com", JOBS, "images must be signed"),
            403,
            'admission webhook "policy.example.com" denied the request: images must be signed',
        ),
        (
            Webhook("policy.example.com", JOBS, "dial tcp 10.0.0.1:443: connect: connection refused", reachable=False),
            500,
            'Internal error occurred: failed calling webhook "policy.example.com": failed to call webhook: dial tcp'
            " 10.0.0.1:443: connect: connection refused",
        ),
    ],
)
def test_webhooks_refuse(api_server: Cluster, webhook: Webhook, status: int, told: str) -> None:
    client = shop(api_server)
    api_server.add_webhook(webhook)
    answer = client.create(JOBS.path("shop"), job(pod(PLAIN)))
    assert (answer.status, answer.message) == (status, told)
    assert client.create(PODS.path("shop"), pod(PLAIN)).status == 201


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            {"serviceAccountName": "ghost"},
            'error looking up service account shop/ghost: serviceaccount "ghost" not found',
        ),
        ({"priorityClassName": "urgent"}, "no PriorityClass with name urgent was found"),
    ],
)
def test_pods_that_name_what_is_not_there(api_server: Cluster, spec: Object, told: str) -> None:
    client = shop(api_server)
    answer = client.create(PODS.path("shop"), pod(PLAIN, **spec))
    assert (answer.status, answer.message) == (403, f'pods "a" is forbidden: {told}')


def test_what_is_named_and_there_is_filled_in(api_server: Cluster) -> None:
    client = shop(api_server)
    account = {"name": "agent", "namespace": "shop"}
    api_server.apply({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": account})
    priority = {"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": "low"}, "value": -5}
    api_server.apply(priority)
    spec: Object = {"serviceAccountName": "agent", "priorityClassName": "low", "tolerations": [{"operator": "Exists"}]}
    made = client.create(PODS.path("shop"), pod(PLAIN, **spec)).json["spec"]
    assert (made["serviceAccount"], made["priority"], made["tolerations"]) == ("agent", -5, [{"operator": "Exists"}])


def test_controllers_are_refused_alike(api_server: Cluster) -> None:
    shop(api_server, enforce="baseline")
    with pytest.raises(Refused, match=r'pods "a" is forbidden: violates PodSecurity "baseline:latest"'):
        api_server.create_as_component(PODS, "shop", pod(AGENT))
