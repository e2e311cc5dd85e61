"""Which rights in a cluster are needed for what, and which of them somebody has.

The tables here are the only place that knows: `agent/rbac.yaml` grants them, one role for each purpose (a test compares
the two), and `mirrord-trace verify-access` asks the API server for them. Rights are held in a namespace: finding the
target needs them in the target's, a job in the agent's.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from typing import Final

import attrs
import trio

from mirrord_trace.cluster.api import ApiRefusal, ApiServer
from mirrord_trace.cluster.resources import (
    CRON_JOBS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    POD_EPHEMERAL_CONTAINERS,
    POD_LOGS,
    POD_PORT_FORWARD,
    PODS,
    REPLICA_SETS,
    ROLLOUTS,
    SERVICES,
    STATEFUL_SETS,
    Resource,
)

_REVIEWS: Final = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews")
_AT_ONCE: Final = 8
"""How many reviews are under way at a time: the API server gives one user only so many seats."""


class Place(enum.Enum):
    """In which namespace rights are needed."""

    TARGET = "the target's"
    AGENT = "the agent's"


@attrs.frozen
class Right:
    """The right to do something with objects of a kind, as RBAC has it."""

    verb: str
    resource: Resource


def _rights(granted: Mapping[Resource, str]) -> tuple[Right, ...]:
    return tuple(Right(verb, resource) for resource, verbs in granted.items() for verb in verbs.split())


@attrs.frozen
class Purpose:
    """Something that one may want to do, and the rights that it takes."""

    role: str
    """The name of the role in agent/rbac.yaml that grants them."""
    name: str
    """In a word."""
    doing: str
    """In more words, as it goes on from "to"."""
    place: Place
    rights: tuple[Right, ...]


TARGET: Final = Purpose(
    "mirrord-trace-target",
    "target",
    "find the target",
    Place.TARGET,
    _rights(
        {
            PODS: "get list",
            DEPLOYMENTS: "get",
            STATEFUL_SETS: "get",
            DAEMON_SETS: "get",
            REPLICA_SETS: "get",
            JOBS: "get list",
            CRON_JOBS: "get",
            SERVICES: "get",
            ROLLOUTS: "get",
        }
    ),
)
"""A cron job's pods are found by way of its jobs, hence their `list`."""

# A WebSocket begins with a GET, hence `get`; from Kubernetes 1.35 on `create` is asked for as well (the feature gate
# AuthorizePodWebsocketUpgradeCreatePermission).
_CONNECTION: Final = {POD_LOGS: "get", POD_PORT_FORWARD: "get create", EVENTS: "list"}
JOB: Final = Purpose(
    "mirrord-trace-job",
    "job",
    "run the agent as a job",
    Place.AGENT,
    _rights({JOBS: "create get patch delete", PODS: "get list watch", **_CONNECTION}),
)
EPHEMERAL: Final = Purpose(
    "mirrord-trace-ephemeral",
    "ephemeral",
    "run the agent as an ephemeral container",
    Place.TARGET,
    _rights({PODS: "get list watch", POD_EPHEMERAL_CONTAINERS: "patch", **_CONNECTION}),
)
ALL_PODS: Final = Purpose(
    "mirrord-trace-all-pods",
    "all-pods",
    "follow a workload's pods as they come and go",
    Place.TARGET,
    _rights({PODS: "get list watch"}),
)
"""For `--all-pods`, besides the rights for the target and the agents."""
LS: Final = Purpose(
    "mirrord-trace-ls",
    "ls",
    "list targets",
    Place.TARGET,
    _rights(
        dict.fromkeys(
            (
                PODS,
                DEPLOYMENTS,
                STATEFUL_SETS,
                DAEMON_SETS,
                REPLICA_SETS,
                JOBS,
                CRON_JOBS,
                SERVICES,
                ROLLOUTS,
            ),
            "list",
        )
    ),
)
CLEAN: Final = Purpose("mirrord-trace-clean", "clean", "clean up", Place.AGENT, _rights({JOBS: "list delete"}))

PURPOSES: Final = (TARGET, JOB, EPHEMERAL, ALL_PODS, LS, CLEAN)

_FINDING: Final = {
    PODS: _rights({PODS: "get"}),
    CRON_JOBS: _rights({CRON_JOBS: "get", JOBS: "list", PODS: "list"}),
    # A rollout may refer to another workload, whose pods they are.
    ROLLOUTS: _rights({ROLLOUTS: "get", DEPLOYMENTS: "get", REPLICA_SETS: "get", STATEFUL_SETS: "get", PODS: "list"}),
}


def to_find(kind: Resource | None) -> tuple[Right, ...]:
    """What it takes to find the pods of one kind of workload; None for pods by their labels."""
    if kind is None:
        return _rights({PODS: "list"})
    return _FINDING.get(kind) or _rights({kind: "get", PODS: "list"})


@attrs.frozen
class Question:
    """Whether one has a right in a namespace."""

    right: Right
    namespace: str

    def __str__(self) -> str:
        return f"{self.right.verb} {self.right.resource} in {self.namespace}"


def questions(purposes: Iterable[Purpose], namespaces: Mapping[Place, str]) -> dict[Question, list[Purpose]]:
    """What has to be asked for these purposes, each question once, and what for."""
    asked: dict[Question, list[Purpose]] = {}
    for purpose in purposes:
        for right in purpose.rights:
            asked.setdefault(Question(right, namespaces[purpose.place]), []).append(purpose)
    return asked


async def answers(api: ApiServer, asked: Collection[Question]) -> dict[Question, bool]:
    """What the API server says to each of the questions, in their order. Raises ApiRefusal."""
    answered: dict[Question, bool | ApiRefusal] = {}
    seats = trio.CapacityLimiter(_AT_ONCE)

    async def ask(question: Question) -> None:
        async with seats:
            try:
                answered[question] = await _may(api, question)
            except ApiRefusal as refusal:
                answered[question] = refusal

    async with trio.open_nursery() as nursery:
        for question in asked:
            nursery.start_soon(ask, question)
    result = {}
    for question in asked:
        answer = answered[question]
        if isinstance(answer, ApiRefusal):
            raise answer
        result[question] = answer
    return result


async def _may(api: ApiServer, question: Question) -> bool:
    resource = question.right.resource
    attributes = {
        "verb": question.right.verb,
        "group": resource.group,
        "resource": resource.plural,
        "subresource": resource.subresource,
        "namespace": question.namespace,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
    }
    answer, _warnings = await api.create(_REVIEWS, None, review)
    return bool(answer["status"]["allowed"])
