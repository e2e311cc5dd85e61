"""The API server's sentences, as Kubernetes 1.36 writes them, and what the user is told."""

from typing import Any

import pytest

from mirrord_trace.cluster.refusals import ApiRefusal, Request, failure
from mirrord_trace.cluster.resources import JOBS, POD_PORT_FORWARD, PODS, ROLLOUTS

RIGHTS = "mirrord-trace verify-access tells which rights are missing, and agent/rbac.yaml grants them."


def refused(
    status: int, reason: str, message: str, *, request: Request | None = None, details: Any = None
) -> tuple[str, str | None]:
    refusal = ApiRefusal(request or Request("create", JOBS, "shop", ""), status, reason, message, details)
    told = failure(refusal, "create the agent's job")
    prefix = "cannot create the agent's job: "
    assert told.message.startswith(prefix)
    return told.message.removeprefix(prefix), told.advice


@pytest.mark.parametrize(
    ("message", "what", "check"),
    [
        (
            'jobs.batch is forbidden: User "dev" cannot create resource "jobs" in API group "batch" in the namespace '
            '"shop"',
            "the user dev has no right to create jobs.batch in the namespace shop",
            "create jobs.batch -n shop",
        ),
        (
            'pods "web" is forbidden: User "system:serviceaccount:ci:run" cannot create resource "pods/portforward" in '
            'API group "" in the namespace "shop"',
            "the user system:serviceaccount:ci:run has no right to create pods/portforward in the namespace shop",
            "create pods --subresource=portforward -n shop",
        ),
        (
            'pods is forbidden: User "dev" cannot list resource "pods" in API group "" at the cluster scope',
            "the user dev has no right to list pods in the cluster as a whole",
            "list pods",
        ),
        (
            'users "jane" is forbidden: User "dev" cannot impersonate resource "users" in API group "" at the cluster '
            "scope",
            "the user dev has no right to impersonate users in the cluster as a whole",
            "impersonate users",
        ),
        (
            'pods is forbidden: User "dev" cannot list resource "pods" in API group "" in the namespace "shop": RBAC: '
            'role.rbac.authorization.k8s.io "x" not found',
            "the user dev has no right to list pods in the namespace shop",
            "list pods -n shop",
        ),
    ],
)
def test_a_right_that_is_missing(message: str, what: str, check: str) -> None:
    assert refused(403, "Forbidden", message) == (what, f"{RIGHTS} To check this one: kubectl auth can-i {check}")


@pytest.mark.parametrize(
    ("status", "reason", "message", "what", "advice"),
    [
        (
            403,
            "Forbidden",
            'pods is forbidden: User "system:anonymous" cannot list resource "pods" in API group "" in the namespace '
            '"shop"',
            "the user system:anonymous has no right to list pods in the namespace shop",
            "The server does not know who we are",
        ),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true), '
            'non-default capabilities (container "agent" must not include "SYS_ADMIN" in '
            "securityContext.capabilities.add)",
            "Pod Security (baseline:latest) of the namespace shop forbids it: host namespaces (hostPID=true), "
            'non-default capabilities (container "agent" must not include "SYS_ADMIN" in '
            "securityContext.capabilities.add)",
            "pod-security.kubernetes.io/enforce=privileged",
        ),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: exceeded quota: few, requested: pods=1, used: pods=4, limited: pods=4',
            "a quota of the namespace shop does not allow it: exceeded quota: few, requested: pods=1, used: pods=4, "
            "limited: pods=4",
            "kubectl describe quota",
        ),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: failed quota: few: must specify limits.cpu for: agent',
            "a quota of the namespace shop does not allow it: failed quota: few: must specify limits.cpu for: agent",
            "agent.resources",
        ),
        (
            400,
            "",
            'admission webhook "policy.example" denied the request: images must come from our registry',
            "the cluster's admission webhook policy.example refuses it: images must come from our registry",
            "Ask who runs the cluster",
        ),
        (
            400,
            "",
            'admission webhook "policy.example" denied the request without explanation',
            "the cluster's admission webhook policy.example refuses it: it gives no reason",
            "Ask who runs the cluster",
        ),
        (
            422,
            "Invalid",
            "jobs.batch \"agent\" is forbidden: ValidatingAdmissionPolicy 'no-root' with binding 'all' denied request: "
            "no root here",
            "the cluster's admission policy no-root refuses it: no root here",
            "Ask who runs the cluster",
        ),
        (
            500,
            "InternalError",
            'Internal error occurred: failed calling webhook "policy.example": failed to call webhook: Post '
            '"https://policy.kube-system.svc:443/": dial tcp 198.18.0.9:443: connect: connection refused',
            "the cluster's admission webhook policy.example fails: failed to call webhook: Post "
            '"https://policy.kube-system.svc:443/": dial tcp 198.18.0.9:443: connect: connection refused',
            "a fault of the cluster",
        ),
        (
            403,
            "Forbidden",
            'jobs.batch "agent" is forbidden: unable to create new content in namespace shop because it is being '
            "terminated",
            "the namespace shop is being deleted",
            None,
        ),
        (404, "NotFound", 'namespaces "shp" not found', "there is no namespace shp", "kubectl get namespaces"),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: error looking up service account shop/runner: serviceaccount "runner" not '
            "found",
            "there is no service account runner in the namespace shop",
            "agent.service_account",
        ),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: no PriorityClass with name urgent was found',
            "there is no priority class urgent",
            "agent.priority_class",
        ),
        (
            403,
            "Forbidden",
            'pods "agent" is forbidden: maximum cpu usage per Container is 500m, but limit is 1',
            'pods "agent" is forbidden: maximum cpu usage per Container is 500m, but limit is 1',
            RIGHTS,
        ),
        (
            401,
            "Unauthorized",
            "Unauthorized",
            "the API server does not accept our credentials (401)",
            "Log in to the cluster again",
        ),
        (404, "NotFound", 'jobs.batch "agent" not found', 'jobs.batch "agent" not found in the namespace shop', None),
        (
            409,
            "Conflict",
            "the object has been modified",
            "it has been changed at the same time: the object has been modified",
            "Try again.",
        ),
        (409, "AlreadyExists", 'jobs.batch "agent" already exists', 'jobs.batch "agent" already exists', None),
        (429, "TooManyRequests", "busy", "the API server has too much to do: busy", "Try again later."),
        (500, "InternalError", "oops", "the API server has a problem (500): oops", "/readyz"),
        (503, "", "", "the API server has a problem (503): it answered with status 503", "/readyz"),
        (400, "BadRequest", "strict decoding error", "strict decoding error", None),
        (418, "", "", "it answered with status 418", None),
    ],
)
def test_sentences(status: int, reason: str, message: str, what: str, advice: str | None) -> None:
    told, advised = refused(status, reason, message)
    assert told == what
    if advice is None:
        assert advised is None
    else:
        assert advised is not None
        assert advice in advised


@pytest.mark.parametrize(
    ("reason", "message"),
    [("NotFound", "the server could not find the requested resource"), ("", "404 page not found")],
)
def test_what_is_not_installed(reason: str, message: str) -> None:
    told, advice = refused(404, reason, message, request=Request("get", ROLLOUTS, "shop", "web"))
    assert told == "the cluster has no rollouts.argoproj.io"
    assert advice == "What they belong to is not installed, or of another version."


def test_what_is_invalid_by_its_fields() -> None:
    causes = [
        {
            "reason": "FieldValueRequired",
            "message": "Required value",
            "field": "spec.template.spec.containers[0].image",
        },
        {"reason": "FieldValueInvalid", "message": "Invalid value: -1", "field": "spec.ttlSecondsAfterFinished"},
    ]
    told, _ = refused(422, "Invalid", 'Job.batch "agent" is invalid: […]', details={"causes": causes})
    assert told == (
        "the API server finds it invalid: spec.template.spec.containers[0].image: Required value; "
        "spec.ttlSecondsAfterFinished: Invalid value: -1"
    )
    assert refused(422, "Invalid", 'Job.batch "agent" is invalid')[0] == 'Job.batch "agent" is invalid'


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request("get", PODS, "shop", "web"), "get pods web in namespace shop"),
        (Request("list", ROLLOUTS), "list rollouts.argoproj.io"),
        (Request("create", POD_PORT_FORWARD, "shop", "web"), "create pods/portforward web in namespace shop"),
    ],
)
def test_requests_in_words(request_: Request, words: str) -> None:
    assert str(request_) == words


def test_an_answer_with_a_status() -> None:
    body = b'{"kind":"Status","status":"Failure","message":"m","reason":"NotFound","details":{"name":"x"},"code":404}'
    refusal = ApiRefusal.from_answer(Request("get", PODS, "shop", "x"), 404, body)
    assert (refusal.status, refusal.reason, refusal.message, refusal.details) == (404, "NotFound", "m", {"name": "x"})
    assert (refusal.verb, refusal.resource, refusal.namespace, refusal.name) == ("get", PODS, "shop", "x")


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>\xff", b'{"kind": "Pod"}'])
def test_an_answer_of_something_else(body: bytes) -> None:
    refusal = ApiRefusal.from_answer(Request("get", PODS), 502, body)
    assert (refusal.reason, refusal.message) == ("", body.decode(errors="replace"))
