"""What the API server refused, and how to say it to the user.

An `ApiRefusal` is an answer with a status of 400 or more, as the code that asked can act on it. What it means depends
on what was being done; who knows that, turns it into a `Failure` with `failure`. Most refusals have no code of their
own: rights, Pod Security, quotas and webhooks all say "Forbidden". So their sentences are looked at; one that is not
known is passed on as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from mirrord_trace.cluster.resources import Resource
from mirrord_trace.errors import Failure


@attrs.frozen
class Request:
    """What was asked for, in the words of RBAC."""

    verb: str
    """get, list, watch, create, patch or delete."""
    resource: Resource
    namespace: str | None = None
    """None for all namespaces, and for what is in none."""
    name: str = ""

    def __str__(self) -> str:
        """Such as "get pods web-1 in namespace shop"."""
        words = [self.verb, str(self.resource), self.name, f"in namespace {self.namespace}" if self.namespace else ""]
        return " ".join(filter(None, words))


class ApiRefusal(Exception):
    """The API server said no: to which request, and why."""

    def __init__(
        self,
        request: Request,
        status: int,
        reason: str,
        message: str,
        details: Mapping[str, Any] | None = None,
        *,
        repeated: bool = False,
    ) -> None:
        super().__init__(f"cannot {request}: {status} {reason}: {message}")
        self.verb = request.verb
        self.resource = request.resource
        self.namespace = request.namespace
        self.name = request.name
        self.status = status
        """The status of HTTP, 400 or more."""
        self.reason = reason
        """One word of the API's, such as NotFound, AlreadyExists, Forbidden, Invalid; "" where it gave none."""
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        """As in the API's Status object: name, kind, causes, retryAfterSeconds."""
        self.repeated = repeated
        """True: the answer to an earlier attempt was lost, which may have done what was asked."""

    @classmethod
    def from_answer(cls, request: Request, status: int, body: bytes, *, repeated: bool = False) -> ApiRefusal:
        """From an answer whose body is a Status object, or whatever a proxy on the way has to say."""
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or answer.get("kind") != "Status":
            return cls(request, status, "", body.decode(errors="replace").strip()[:500], repeated=repeated)
        reason, message, details = (answer.get(name) for name in ("reason", "message", "details"))
        return cls(request, status, reason or "", message or "", details, repeated=repeated)


def failure(refusal: ApiRefusal, doing: str) -> Failure:
    """What to tell the user of a refusal, where it is an error.

    `doing` is what was to be done, as it goes on from "cannot", such as "create the agent's job".
    """
    for pattern, explain in _SENTENCES:
        if found := pattern.search(refusal.message):
            what, advice = explain(refusal, found)
            break
    else:
        what, advice = _by_status(refusal)
    return Failure(f"cannot {doing}: {what}", advice)


_Explanation = tuple[str, str | None]


def _right(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    user, verb, plural, group, namespace = found.group("user", "verb", "resource", "group", "namespace")
    resource = f"{plural}.{group}" if group else plural
    where = f"in the namespace {namespace}" if namespace else "in the cluster as a whole"
    what = f"the user {user} has no right to {verb} {resource} {where}"
    if user == "system:anonymous":
        return (
            what,
            "The server does not know who we are: the kubeconfig's user has no credentials, or of a wrong kind.",
        )
    kind, _, subresource = plural.partition("/")
    question = f"{verb} {kind}.{group}" if group else f"{verb} {kind}"
    question += f" --subresource={subresource}" if subresource else ""
    question += f" -n {namespace}" if namespace else ""
    return what, (
        "mirrord-trace verify-access tells which rights are missing, and agent/rbac.yaml grants them. "
        f"To check this one: kubectl auth can-i {question}"
    )


def _pod_security(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"Pod Security ({found['level']}) of the namespace {refusal.namespace} forbids it: {found['why']}",
        "The agent needs a namespace with the label pod-security.kubernetes.io/enforce=privileged: name one with "
        "--agent-namespace.",
    )


def _quota(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"a quota of the namespace {refusal.namespace} does not allow it: {found['why']}",
        "See kubectl describe quota. Another namespace can be named with --agent-namespace, and what the agent asks "
        "for with agent.resources in the configuration file.",
    )


def _webhook(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    why = found["why"].strip() or "it gives no reason"
    return (
        f"the cluster's admission webhook {found['name']} refuses it: {why}",
        "Ask who runs the cluster for an exception; agent.labels and agent.annotations in the configuration file may "
        "help to make one.",
    )


def _policy(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"the cluster's admission policy {found['name']} refuses it: {found['why']}",
        "Ask who runs the cluster for an exception.",
    )


def _broken_webhook(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"the cluster's admission webhook {found['name']} fails: {found['why']}",
        "That is a fault of the cluster: ask who runs it.",
    )


def _terminating(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return f"the namespace {found['name']} is being deleted", None


def _no_namespace(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return f"there is no namespace {found['name']}", "kubectl get namespaces lists those that there are."


def _no_service_account(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"there is no service account {found['name']} in the namespace {refusal.namespace}",
        "Create it, or name another as agent.service_account in the configuration file.",
    )


def _no_priority_class(refusal: ApiRefusal, found: re.Match[str]) -> _Explanation:
    return (
        f"there is no priority class {found['name']}",
        "Name another as agent.priority_class in the configuration file.",
    )


_SENTENCES: tuple[tuple[re.Pattern[str], Callable[[ApiRefusal, re.Match[str]], _Explanation]], ...] = tuple(
    (re.compile(pattern, re.DOTALL), explain)
    for pattern, explain in (
        (
            r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" '
            r'in API group "(?P<group>[^"]*)" (?:in the namespace "(?P<namespace>[^"]+)"|at the cluster scope)',
            _right,
        ),
        (r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.+)', _pod_security),
        (r"is forbidden: (?P<why>(?:exceeded|failed) quota: .+)", _quota),
        (r'admission webhook "(?P<name>[^"]+)" denied the request(?:: | without explanation)(?P<why>.*)', _webhook),
        (r"ValidatingAdmissionPolicy '(?P<name>[^']+)'.* denied request: (?P<why>.+)", _policy),
        (r'failed calling webhook "(?P<name>[^"]+)": (?P<why>.+)', _broken_webhook),
        (r"unable to create new content in namespace (?P<name>\S+) because it is being terminated", _terminating),
        (r'^namespaces "(?P<name>[^"]+)" not found', _no_namespace),
        (r'serviceaccount "(?P<name>[^"]+)" not found', _no_service_account),
        (r"no PriorityClass with name (?P<name>\S+) was found", _no_priority_class),
    )
)


def _by_status(refusal: ApiRefusal) -> _Explanation:
    said = refusal.message or refusal.reason or f"it answered with status {refusal.status}"
    match refusal.status:
        case 401:
            return (
                "the API server does not accept our credentials (401)",
                "Log in to the cluster again; kubectl auth whoami shows who the kubeconfig says that we are.",
            )
        case 403:
            return said, "mirrord-trace verify-access tells which rights are missing, and agent/rbac.yaml grants them."
        case 404 if not refusal.reason or "could not find the requested resource" in refusal.message:
            return (
                f"the cluster has no {refusal.resource}",
                "What they belong to is not installed, or of another version.",
            )
        case 404:
            place = f" in the namespace {refusal.namespace}" if refusal.namespace else ""
            return f"{said}{place}", None
        case 409 if refusal.reason == "Conflict":
            return f"it has been changed at the same time: {said}", "Try again."
        case 422:
            return _invalid(refusal, said), None
        case 429:
            return f"the API server has too much to do: {said}", "Try again later."
        case status if status >= 500:
            return (
                f"the API server has a problem ({status}): {said}",
                "kubectl get --raw /readyz tells more.",
            )
    return said, None


def _invalid(refusal: ApiRefusal, said: str) -> str:
    causes = refusal.details.get("causes") or []
    faults = [f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes]
    return "the API server finds it invalid: " + "; ".join(faults) if faults else said
