"""Who may do what: RBAC's rules, in memory.

Members of `system:masters` may do everything. Others may do what a rule of theirs allows and no denial takes away (RBAC
knows no denials; they save a test from listing all the rest).
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
import yaml

from mirrord_trace.cluster.resources import Resource

from .requests import Attributes
from .status import Refused, forbidden

MASTERS = "system:masters"
_ANYBODY_MAY_READ = ("/version", "/healthz", "/livez", "/readyz")
_USERS_MAY_READ = ("/api", "/apis", "/openapi")
"""And all below them (ClusterRole system:discovery)."""
_THEIR_OWN = {"selfsubjectaccessreviews", "selfsubjectreviews"}
"""What every authenticated user may create (ClusterRole system:basic-user)."""


@attrs.frozen
class Rule:
    """A rule of a role that is bound to a user; "*" stands for all."""

    user: str
    verbs: Collection[str]
    resources: Collection[str]
    """As RBAC names them: "jobs.batch", "pods/log"."""
    namespace: str
    names: Collection[str] = ()
    """Only these objects; none: all."""
    role: str = "granted"

    def covers(self, asked: Attributes) -> bool:
        """Whether it is about this request."""
        return (
            self.user == asked.user
            and asked.resource is not None
            and _in(asked.verb, self.verbs)
            and _in(str(asked.resource), self.resources)
            and self.namespace in ("*", asked.namespace)
            and (not self.names or asked.name in self.names)
        )


@attrs.define
class Authorizer:
    """The rules of the cluster."""

    allowed: list[Rule] = attrs.field(factory=list)
    denied: list[Rule] = attrs.field(factory=list)

    def allow(
        self, user: str, verbs: str | Collection[str], resource: Resource | str, namespace: str = "*", name: str = ""
    ) -> None:
        """Gives a right; "*" stands for all verbs, all resources, all namespaces. Without a name, to all objects."""
        self.allowed.append(_rule(user, verbs, resource, namespace, name))

    def deny(
        self, user: str, verbs: str | Collection[str], resource: Resource | str, namespace: str = "*", name: str = ""
    ) -> None:
        """Takes a right away, also from an administrator."""
        self.denied.append(_rule(user, verbs, resource, namespace, name))

    def load(self, path: Path, user: str, namespace: str, roles: Collection[str] = ()) -> None:
        """Gives a user the rights of a file's Roles and ClusterRoles: of all, or of those that are named.

        A Role holds in its own namespace, or in the given one; a ClusterRole is bound in the given one, "*" for all.
        """
        for document in filter(None, yaml.safe_load_all(path.read_text())):
            name = document["metadata"]["name"]
            if document["kind"] not in ("Role", "ClusterRole") or (roles and name not in roles):
                continue
            where = document["metadata"].get("namespace", namespace)
            for rule in document["rules"]:
                names = rule.get("resourceNames", ())
                self.allowed.append(Rule(user, rule["verbs"], _resources(rule), where, names, name))

    def reason(self, asked: Attributes) -> str | None:
        """Why a request is allowed, in RBAC's words, which may be none; None if it isn't."""
        if MASTERS in asked.groups:
            return None if any(rule.covers(asked) for rule in self.denied) else ""
        known = "system:authenticated" in asked.groups
        if asked.resource is None:
            discovery = known and "/".join(asked.path.split("/")[:2]) in _USERS_MAY_READ
            return "" if asked.verb == "get" and (discovery or asked.path in _ANYBODY_MAY_READ) else None
        if asked.verb == "create" and asked.resource.plural in _THEIR_OWN and known:
            return (
                'RBAC: allowed by ClusterRoleBinding "system:basic-user" of ClusterRole "system:basic-user"'
                ' to Group "system:authenticated"'
            )
        if any(rule.covers(asked) for rule in self.denied):
            return None
        for rule in self.allowed:
            if rule.covers(asked):
                bound = f"{rule.role}/{rule.namespace}" if rule.namespace != "*" else rule.role
                kind = "Cluster" if rule.namespace == "*" else ""
                return (
                    f'RBAC: allowed by {kind}RoleBinding "{bound}" of {kind}Role "{rule.role}" to User "{asked.user}"'
                )
        return None

    def check(self, asked: Attributes) -> None:
        """Raises Refused if a request isn't allowed."""
        if self.reason(asked) is None:
            raise refusal(asked)


def _rule(user: str, verbs: str | Collection[str], resource: Resource | str, namespace: str, name: str) -> Rule:
    verbs = [verbs] if isinstance(verbs, str) else verbs
    return Rule(user, verbs, [str(resource)], namespace, [name] if name else ())


def refusal(asked: Attributes) -> Refused:
    """That somebody may not do something (forbiddenMessage in k8s.io/apiserver's responsewriters)."""
    who = f'User "{asked.user}" cannot {asked.verb}'
    if asked.resource is None:
        return Refused(403, "Forbidden", f'forbidden: {who} path "{asked.path}"')
    parts = [asked.resource.plural, asked.resource.subresource]
    told = f'{who} resource "{"/".join(filter(None, parts))}" in API group "{asked.resource.group}"'
    where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
    return forbidden(asked.resource, asked.name, f"{told} {where}")


def _resources(rule: dict[str, Any]) -> list[str]:
    if "*" in rule["resources"]:
        return ["*"]
    return [
        f"{resource}.{group}" if group else resource for group in rule["apiGroups"] for resource in rule["resources"]
    ]


def _in(value: str, known: Collection[str]) -> bool:
    return "*" in known or value in known
