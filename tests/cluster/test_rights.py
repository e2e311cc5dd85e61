"""Which rights are needed for what: the tables, the roles that grant them, and the API server's answers."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import yaml

from mirrord_trace.cluster import rights
from mirrord_trace.cluster.api import open_api
from mirrord_trace.cluster.resources import (
    DEPLOYMENTS,
    JOBS,
    POD_EPHEMERAL_CONTAINERS,
    POD_LOGS,
    POD_PORT_FORWARD,
    PODS,
    ROLLOUTS,
    Resource,
)
from mirrord_trace.cluster.rights import Place, Question, Right
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.targets.workloads.kinds import KINDS
from tests.cluster.standin.cluster import Cluster

RBAC = Path(__file__).parents[2] / "agent" / "rbac.yaml"


def roles() -> dict[str, set[tuple[str, str, str]]]:
    """Of each role in agent/rbac.yaml: group, resource and verb of what it grants."""
    return {
        role["metadata"]["name"]: {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        for role in yaml.safe_load_all(RBAC.read_text())
        if role is not None
    }


def test_roles_grant_what_is_needed_and_no_more() -> None:
    needed = {
        purpose.role: {
            (right.resource.group, str(right.resource).removesuffix(f".{right.resource.group}"), right.verb)
            for right in purpose.rights
        }
        for purpose in rights.PURPOSES
    }
    assert roles() == needed


def test_binding_that_is_commented_out_is_valid() -> None:
    """Who uncomments it gets what is meant."""
    lines = RBAC.read_text().splitlines()
    binding = "\n".join(line.removeprefix("# ") for line in lines[lines.index("# ---") + 1 :])
    content = yaml.safe_load(binding)
    assert content["kind"] == "RoleBinding"
    assert content["roleRef"]["name"] in roles()


@pytest.mark.parametrize("resource", [kind.resource for kind in KINDS], ids=str)
def test_every_kind_of_target_can_be_found_and_listed(resource: Resource) -> None:
    assert Right("get", resource) in rights.TARGET.rights
    assert Right("list", resource) in rights.LS.rights
    assert set(rights.to_find(resource)) <= set(rights.TARGET.rights)


def test_pods_by_label_are_found_by_a_list() -> None:
    assert rights.to_find(None) == (Right("list", PODS),)


def test_each_question_is_asked_once() -> None:
    asked = rights.questions((rights.TARGET, rights.LS), {Place.TARGET: "shop", Place.AGENT: "agents"})
    assert asked[Question(Right("list", PODS), "shop")] == [rights.TARGET, rights.LS]
    assert asked[Question(Right("get", DEPLOYMENTS), "shop")] == [rights.TARGET]


def test_rights_are_needed_where_things_happen() -> None:
    asked = rights.questions(rights.PURPOSES, {Place.TARGET: "shop", Place.AGENT: "agents"})
    assert Question(Right("create", JOBS), "agents") in asked
    assert Question(Right("create", JOBS), "shop") not in asked
    assert Question(Right("patch", POD_EPHEMERAL_CONTAINERS), "shop") in asked
    assert Question(Right("get", POD_LOGS), "agents") in asked
    assert Question(Right("get", POD_LOGS), "shop") in asked


def test_api_server_answers_each_question(api_server: Cluster) -> None:
    kubeconfig = api_server.kubeconfig_for("dev")
    allowed = [
        Question(Right("create", JOBS), "agents"),
        Question(Right("create", POD_PORT_FORWARD), "agents"),
        Question(Right("get", ROLLOUTS), "shop"),
    ]
    denied = [
        Question(Right("create", JOBS), "shop"),
        Question(Right("get", POD_PORT_FORWARD), "agents"),
        Question(Right("delete", JOBS), "agents"),
    ]
    for question in allowed:
        api_server.rbac.allow("dev", question.right.verb, question.right.resource, question.namespace)

    async def ask() -> dict[Question, bool]:
        async with open_api(ClusterConfiguration(kubeconfig=str(kubeconfig))) as api:
            return await rights.answers(api, [*denied, *allowed])

    assert list(trio.run(ask).items()) == [*((each, False) for each in denied), *((each, True) for each in allowed)]
