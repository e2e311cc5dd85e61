"""The kinds of objects that we speak of, by their names in the API, and the paths under which it has them."""

from __future__ import annotations

from urllib.parse import quote

import attrs


@attrs.frozen
class Resource:
    """A kind of namespaced object, or a subresource of one, as RBAC and the API's paths name it."""

    group: str
    """ "" for the core group."""
    version: str
    plural: str
    subresource: str = ""

    def path(self, namespace: str | None, name: str = "") -> str:
        """The path of one object, or without a name of all those in a namespace; None for all namespaces."""
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        if namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
            if self.subresource:
                parts.append(self.subresource)
        return "/".join(parts)

    def __str__(self) -> str:
        """As RBAC rules and refusals name it, such as "deployments.apps" or "pods/log"."""
        name = f"{self.plural}/{self.subresource}" if self.subresource else self.plural
        return f"{name}.{self.group}" if self.group else name


PODS = Resource("", "v1", "pods")
POD_LOGS = Resource("", "v1", "pods", "log")
POD_PORT_FORWARD = Resource("", "v1", "pods", "portforward")
POD_EPHEMERAL_CONTAINERS = Resource("", "v1", "pods", "ephemeralcontainers")
SERVICES = Resource("", "v1", "services")
EVENTS = Resource("", "v1", "events")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets")
DAEMON_SETS = Resource("apps", "v1", "daemonsets")
REPLICA_SETS = Resource("apps", "v1", "replicasets")
JOBS = Resource("batch", "v1", "jobs")
CRON_JOBS = Resource("batch", "v1", "cronjobs")
ROLLOUTS = Resource("argoproj.io", "v1alpha1", "rollouts")
"""Argo Rollouts' kind, where it is installed."""
