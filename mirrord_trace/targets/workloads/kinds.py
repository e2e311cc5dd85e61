"""The kinds of workloads, by the names that kubectl knows them by, and the way from a workload to its pods.

A workload's pods are those that its label selector matches in its namespace, as for `kubectl exec deploy/web`
(SelectorsForObject in kubectl's polymorphichelpers). Two kinds need a step more: a cron job has jobs, which have pods,
and a rollout may leave pods and selector to a deployment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from mirrord_trace.cluster import resources
from mirrord_trace.cluster.resources import Resource

Object = Mapping[str, Any]
"""An object of the API, as JSON."""


@attrs.frozen
class Kind:
    """A kind of workload."""

    name: str
    """As we write it, such as "deployment"; a target's name begins with it."""
    resource: Resource
    short_names: tuple[str, ...] = ()
    """The API's own."""

    @property
    def spellings(self) -> tuple[str, ...]:
        """All that is understood, in the order of preference. The last are what `kubectl get -o name` prints."""
        plain = (self.name, *self.short_names, self.resource.plural)
        group = self.resource.group
        return (*plain, f"{self.name}.{group}", f"{self.resource.plural}.{group}") if group else plain


POD: Final = Kind("pod", resources.PODS, ("po",))
DEPLOYMENT: Final = Kind("deployment", resources.DEPLOYMENTS, ("deploy",))
STATEFUL_SET: Final = Kind("statefulset", resources.STATEFUL_SETS, ("sts",))
DAEMON_SET: Final = Kind("daemonset", resources.DAEMON_SETS, ("ds",))
REPLICA_SET: Final = Kind("replicaset", resources.REPLICA_SETS, ("rs",))
JOB: Final = Kind("job", resources.JOBS)
CRON_JOB: Final = Kind("cronjob", resources.CRON_JOBS, ("cj",))
ROLLOUT: Final = Kind("rollout", resources.ROLLOUTS, ("ro",))
SERVICE: Final = Kind("service", resources.SERVICES, ("svc",))

KINDS: Final = (POD, DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET, JOB, CRON_JOB, ROLLOUT, SERVICE)
_BY_SPELLING: Final = {spelling: kind for kind in KINDS for spelling in kind.spellings}


def kind_of(text: str) -> Kind | None:
    """The kind that is written like this, in whatever case: "deploy", "Deployment", "deployments.apps"."""
    return _BY_SPELLING.get(text.lower())


def spellings() -> tuple[str, ...]:
    """How kinds may be written."""
    return tuple(_BY_SPELLING)


def selector_of(kind: Kind, workload: Object) -> str:
    """The label selector of a workload's pods, as a list request takes it; "" when it has none.

    An empty selector counts as none: for a service it means that, and the API allows it for no other kind.
    """
    selector = workload.get("spec", {}).get("selector") or {}
    if kind is SERVICE:
        return ",".join(f"{key}={value}" for key, value in selector.items())
    return label_selector(selector)


def label_selector(selector: Object) -> str:
    """A LabelSelector object as text (labels.Selector.String in apimachinery)."""
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    parts += [_requirement(expression) for expression in selector.get("matchExpressions") or ()]
    return ",".join(parts)


def _requirement(expression: Object) -> str:
    key, operator = expression["key"], expression["operator"]
    values = ",".join(expression.get("values") or ())
    match operator:
        case "Exists":
            return f"{key}"
        case "DoesNotExist":
            return f"!{key}"
        case _:  # In, NotIn; the API knows no others
            return f"{key} {operator.lower()} ({values})"


def workload_of_rollout(rollout: Object) -> tuple[Kind, str] | None:
    """The workload that a rollout refers to in place of a selector of its own; None when we cannot follow it."""
    reference = rollout.get("spec", {}).get("workloadRef") or {}
    kind = kind_of(reference.get("kind", ""))
    if kind not in (DEPLOYMENT, REPLICA_SET, STATEFUL_SET) or not reference.get("name"):
        return None
    return kind, reference["name"]


def selector_of_jobs(cron_job: Object, jobs: Sequence[Object]) -> str:
    """The selector of the pods of a cron job's jobs; "" when it has no jobs.

    `job-name` is the label that every version of the job controller sets on pods.
    """
    uid = cron_job["metadata"]["uid"]
    names = sorted(job["metadata"]["name"] for job in jobs if _is_owned_by(job, uid))
    return f"job-name in ({','.join(names)})" if names else ""


def _is_owned_by(thing: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in thing["metadata"].get("ownerReferences") or ())
