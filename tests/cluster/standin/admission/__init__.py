"""Admission: what a cluster's owner lets in, beyond what is right in form.

In the real server's order: the namespace must live, webhooks that change and fill in what pods lack, webhooks that
refuse, Pod Security, and quotas last. Webhooks here only refuse; they are the configuration of the test.
"""

from __future__ import annotations

import attrs

from mirrord_trace.cluster.resources import PODS, Resource

from ..kinds import NAMESPACES, PRIORITY_CLASSES, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, Kind
from ..status import Refused, forbidden, not_found
from ..store import Object, Store
from . import pod_security, quotas

_TEMPLATED = ("deployments", "statefulsets", "daemonsets", "replicasets", "jobs")
_BUILT_IN_PRIORITIES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


@attrs.frozen
class Webhook:
    """A validating webhook that refuses new objects of a resource, or is not there to ask."""

    name: str
    """As its configuration has it, such as "policy.example.com"."""
    resource: Resource
    message: str
    """What it says."""
    code: int = 403
    reason: str = "Forbidden"
    reachable: bool = True
    """If not, the message is the error of the call, such as "connect: connection refused"."""


@attrs.define
class Admission:
    """What decides about new objects and new ephemeral containers."""

    store: Store
    webhooks: list[Webhook] = attrs.field(factory=list)

    def mutate(self, kind: Kind, namespace: str | None, value: Object) -> None:
        """Fills in what the cluster adds to a new object; it is validated afterwards. Raises Refused."""
        if namespace is not None:
            self._check_namespace(kind, namespace, value["metadata"].get("name", ""))
        if kind.resource == PODS:
            self._complete_pod(namespace, value)

    def validate(self, kind: Kind, namespace: str | None, value: Object) -> list[str]:
        """Lets a valid new object in or raises Refused; returns warnings."""
        for webhook in self.webhooks:
            if webhook.resource == kind.resource:
                raise _refusal(webhook)
        warnings = self.check_security(kind, namespace, value)
        if kind.resource == PODS:
            present, pods = self.store.list(RESOURCE_QUOTAS, namespace), self.store.list(PODS, namespace)
            why = quotas.refusal(present, pods, value)
            if why is not None:
                raise forbidden(PODS, value["metadata"]["name"], why)
        return warnings

    def check_security(self, kind: Kind, namespace: str | None, value: Object) -> list[str]:
        """Lets in what the namespace's level allows or raises Refused; returns warnings."""
        found = self.store.find(NAMESPACES, None, namespace) if namespace else None
        labels: dict[str, str] = (found or {"metadata": {}})["metadata"].get("labels", {})
        if kind.resource == PODS:
            why = pod_security.violation(labels, value["spec"], enforce=True)
            if why is not None:
                raise forbidden(PODS, value["metadata"]["name"], f"violates {why}")
            spec = value["spec"]
        elif kind.resource.plural in _TEMPLATED:
            spec = value.get("spec", {}).get("template", {}).get("spec", {})
        else:
            return []
        why = pod_security.violation(labels, spec, enforce=False)
        return [f"would violate {why}"] if why else []

    def _check_namespace(self, kind: Kind, namespace: str, name: str) -> None:
        found = self.store.find(NAMESPACES, None, namespace)
        if found is None:
            raise not_found(NAMESPACES, namespace)
        if found["metadata"].get("deletionTimestamp") or found.get("status", {}).get("phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            refusal = forbidden(kind.resource, name, why)
            told = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": told, "field": "metadata.namespace"}
            refusal.body["details"]["causes"] = [cause]
            raise refusal

    def _complete_pod(self, namespace: str | None, pod: Object) -> None:
        """What plugins add to each pod: a service account, a priority, tolerations of nodes that just went away."""
        spec, name = pod["spec"], pod["metadata"].get("name", "")
        account = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = account
        if account != "default" and self.store.find(SERVICE_ACCOUNTS, namespace, account) is None:
            told = f'error looking up service account {namespace}/{account}: serviceaccount "{account}" not found'
            raise forbidden(PODS, name, told)
        priority = spec.get("priorityClassName")
        found = self.store.find(PRIORITY_CLASSES, None, priority) if priority else None
        if priority and found is None and priority not in _BUILT_IN_PRIORITIES:
            raise forbidden(PODS, name, f"no PriorityClass with name {priority} was found")
        spec["priority"] = found["value"] if found else _BUILT_IN_PRIORITIES.get(priority or "", 0)
        spec.setdefault("preemptionPolicy", (found or {}).get("preemptionPolicy", "PreemptLowerPriority"))
        tolerations = spec.setdefault("tolerations", [])
        for key in _TAINTS:
            if not any(_tolerates(one, key) for one in tolerations):
                added = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                tolerations.append(added)


def _tolerates(toleration: Object, key: str) -> bool:
    return bool(toleration.get("key", key) == key and toleration.get("effect", "NoExecute") == "NoExecute")


def _refusal(webhook: Webhook) -> Refused:
    if not webhook.reachable:
        called = f'failed calling webhook "{webhook.name}": failed to call webhook: {webhook.message}'
        return Refused(500, "InternalError", f"Internal error occurred: {called}", {"causes": [{"message": called}]})
    told = f'admission webhook "{webhook.name}" denied the request: {webhook.message}'
    return Refused(webhook.code, webhook.reason, told)
