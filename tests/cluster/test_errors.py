"""What a run says when the cluster does not go along, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirrord_trace.cluster.resources import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    POD_EPHEMERAL_CONTAINERS,
    POD_LOGS,
    POD_PORT_FORWARD,
    PODS,
    Resource,
)
from tests.cluster.commands import mirrord_trace
from tests.cluster.running import is_ours, run, wait_until_nothing_is_left
from tests.cluster.standin.admission import Webhook
from tests.cluster.standin.faults import Match
from tests.cluster.standin.kinds import NODES
from tests.cluster.standin.kubelet.images import Image
from tests.cluster.standin.shop import AGENT_ROOT, MACHINE_IMAGE, NAMESPACE, NEWER_WEB, Shop
from tests.cluster.standin.workloads import metadata

ROLES = Path(__file__).parents[2] / "agent" / "rbac.yaml"
SOON = ("--agent-startup-timeout", "2")


def fail(shop: Shop, *arguments: str, user: str = "admin", command: str = "true", code: int = 1) -> str:
    """What a run that cannot go well says; nothing of an agent may stay, and no process may be started."""
    kubeconfig = shop.cluster.kubeconfig_for(user, namespace=NAMESPACE)
    done = mirrord_trace(kubeconfig, "run", *arguments, "--", "sh", "-c", f"echo started; {command}")
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert "Traceback" not in done.stderr
    wait_until_nothing_is_left(shop.cluster)
    return done.stderr


def assert_told(told: str, *parts: str) -> None:
    missing = [part for part in parts if part not in told]
    assert not missing, told


# The target


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        ("deploy/wbe", ["there is no deployment/wbe in namespace shop", "Is it deployment/web?", "mirrord-trace ls"]),
        ("pod/gone", ["there is no pod/gone in namespace shop"]),
        ("cronjob/never", ["there is no cronjob/never"]),
        (
            "deploy/broken",
            [
                "deployment/broken in namespace shop has no ready pod",
                "broken-6c4d-xvb7n: Running, not Ready (ContainersNotReady: containers with unready status: [broken])",
                "container broken is not ready",
            ],
        ),
        ("label/app=nobody", ["label/app=nobody in namespace shop has no pods"]),
    ],
)
def test_a_target_that_is_not_there_or_not_ready(shop: Shop, target: str, parts: list[str]) -> None:
    assert_told(fail(shop, "-t", target), *parts)


def test_a_container_that_is_not_there_is_a_mistake(shop: Shop) -> None:
    told = fail(shop, "-t", "deploy/payments/container/app", code=2)
    assert_told(told, "has no container 'app'", "It has istio-proxy, payments.")


def test_a_service_that_leads_elsewhere(fresh_shop: Shop) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata("Service", "elsewhere", NAMESPACE)}
    fresh_shop.cluster.apply({**service, "spec": {"type": "ExternalName", "externalName": "db.example"}})
    assert_told(fail(fresh_shop, "-t", "svc/elsewhere"), "service/elsewhere in namespace shop has no selector")


def test_rollouts_where_they_are_not_installed(api_server: Any) -> None:
    done = mirrord_trace(api_server.kubeconfig, "run", "-t", "rollout/web", "--", "true")
    assert done.returncode == 1
    assert_told(done.stderr, "Argo Rollouts is not installed")


def test_scaled_to_nothing(fresh_shop: Shop) -> None:
    cluster = fresh_shop.cluster
    cluster.patch(DEPLOYMENTS, NAMESPACE, "cart", {"spec": {"replicas": 0}})
    cluster.delete(PODS, NAMESPACE, "cart-7b6d-lw8qz")
    assert_told(fail(fresh_shop, "-t", "deploy/cart"), "has no pods", "It is scaled to 0.")


# Rights


@pytest.mark.parametrize(
    ("verb", "resource", "mode"),
    [
        ("get", DEPLOYMENTS, "job"),
        ("list", PODS, "job"),
        ("create", JOBS, "job"),
        ("watch", PODS, "job"),
        ("get", POD_LOGS, "job"),
        ("get", POD_PORT_FORWARD, "job"),
        ("patch", POD_EPHEMERAL_CONTAINERS, "ephemeral"),
        ("watch", PODS, "ephemeral"),
    ],
)
def test_a_right_that_is_missing(shop: Shop, verb: str, resource: Resource, mode: str) -> None:
    user = f"without-{verb}-{resource}-{mode}".replace("/", "-")
    shop.cluster.rbac.load(ROLES, user, NAMESPACE)
    shop.cluster.rbac.deny(user, verb, resource)
    told = fail(shop, "--agent-mode", mode, "-t", "deploy/web", user=user)
    where = f"the user {user} has no right to {verb} {resource} in the namespace {NAMESPACE}"
    assert_told(told, where, "verify-access", "agent/rbac.yaml", "kubectl auth can-i")


def test_the_second_right_to_a_port_forward_is_missing(shop: Shop) -> None:
    user = "without-create-port-forward"
    shop.cluster.rbac.load(ROLES, user, NAMESPACE)
    shop.cluster.rbac.deny(user, "create", POD_PORT_FORWARD)
    told = fail(shop, "-t", "deploy/web", user=user)
    assert_told(told, "a right to get pods/portforward in the namespace shop, but none to create it", "rbac.yaml")


def test_the_right_to_lift_the_deadline_is_missing(shop: Shop) -> None:
    """Later the deadline would end the session in its middle. Nothing was started by then, however long it takes."""
    user = "without-patch"
    shop.cluster.rbac.load(ROLES, user, NAMESPACE)
    shop.cluster.rbac.deny(user, "patch", JOBS)
    shop.cluster.faults.delay(1, Match(verb="patch", resource=JOBS, user=user), times=1)
    told = fail(shop, "-t", "deploy/web", user=user, command="sleep 1000")
    assert_told(told, "cannot lift the deadline", "no right to patch jobs.batch")


def test_events_are_not_needed(shop: Shop) -> None:
    user = "without-events"
    shop.cluster.rbac.load(ROLES, user, NAMESPACE)
    shop.cluster.rbac.deny(user, "list", EVENTS)
    told = fail(shop, "-i", "no.example/agent:1", "-t", "deploy/web", user=user)
    assert_told(told, "the image no.example/agent:1 cannot be pulled")


# The image


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("registry.shop.test/nothing:1", ["ErrImagePull", "registry.shop.test/nothing:1: not found"]),
        ("registry.invalid/agent:1", ["ErrImagePull", "no such host"]),
        ("Agent:1", ["InvalidImageName", "couldn't parse image name"]),
    ],
)
@pytest.mark.parametrize("mode", ["job", "ephemeral"])
def test_an_image_that_cannot_be_pulled(shop: Shop, image: str, parts: list[str], mode: str) -> None:
    told = fail(shop, "--agent-mode", mode, "-i", image, "-t", "deploy/cart")
    assert_told(told, f"the image {image} cannot be pulled", *parts, "agent/Dockerfile", "-i/--agent-image")
    assert ("keeps the ephemeral container" in told) == (mode == "ephemeral")


def test_a_private_image_without_and_with_its_secret(fresh_shop: Shop, tmp_path: Path) -> None:
    agent = fresh_shop.nodes.registry
    agent.images["private.test/agent:1"] = Image(
        AGENT_ROOT, environment={"PATH": "/usr/bin"}, present=False, pull_secret="registry"
    )
    told = fail(fresh_shop, "-i", "private.test/agent:1", "-t", "deploy/cart")
    assert_told(told, "pull access denied", "agent.image_pull_secrets")
    file = tmp_path / "mirrord.yaml"
    file.write_text("agent: {image: 'private.test/agent:1', image_pull_secrets: [{name: registry}]}\n")
    kubeconfig = fresh_shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    done = mirrord_trace(kubeconfig, "run", "-q", "-f", file, "-t", "deploy/cart", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")


def test_an_image_that_must_not_be_pulled(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text("agent: {image: 'registry.shop.test/nothing:1', image_pull_policy: Never}\n")
    assert_told(fail(shop, "-f", str(file), "-t", "deploy/cart"), "ErrImageNeverPull")


def test_a_slow_pull_is_waited_for_and_told(fresh_shop: Shop) -> None:
    delivered = in_loop_event(fresh_shop)
    slow = Image(AGENT_ROOT, environment={"PATH": "/usr/bin"}, present=False, delivered=delivered)
    fresh_shop.nodes.registry.images["slow.test/agent:1"] = slow
    events = fresh_shop.cluster.faults.hold(Match(verb="list", resource=EVENTS), times=1)
    kubeconfig = fresh_shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    with run(kubeconfig, "-i", "slow.test/agent:1", "-t", "deploy/cart", "--", "true") as running:
        assert events.reached.wait(30)
        events.release()
        fresh_shop.cluster.in_loop(delivered.set)
        assert running.wait() == 0
    assert_told(running.told, "for node node-1 to pull slow.test/agent:1")
    wait_until_nothing_is_left(fresh_shop.cluster)


def in_loop_event(shop: Shop) -> Any:
    import trio

    return shop.cluster.in_loop(trio.Event)


def test_an_image_of_something_else(shop: Shop) -> None:
    told = fail(shop, "-i", MACHINE_IMAGE, "-t", "deploy/cart")
    assert_told(
        told, "the agent's container cannot be started", "mirrord-agent", f"Is {MACHINE_IMAGE} an agent's image?"
    )


# What takes an agent's place in its image: a script.

SAYS_AND_ENDS = "#!/usr/bin/python3.11\nprint('first'); print('I cannot go on'); raise SystemExit(3)\n"
SAYS_NOTHING = "#!/usr/bin/python3.11\nimport signal\nprint('hello', flush=True)\nsignal.pause()\n"
NEVER_ANSWERS = """#!/usr/bin/python3.11
import signal, socket
listener = socket.create_server(("127.0.0.1", 0))
print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
signal.pause()
"""
LISTENS_NOT = "#!/usr/bin/python3.11\nimport signal\nprint('listening on 127.0.0.1:9', flush=True)\nsignal.pause()\n"
SPEAKS_OTHERWISE = """#!/usr/bin/python3.11
import socket
listener = socket.create_server(("127.0.0.1", 0))
print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
connection, _ = listener.accept()
connection.recv(10)
connection.sendall(b"220 smtp.example ESMTP\\r\\n" * 9)
connection.recv(100000)
"""


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        (SAYS_AND_ENDS, ["the agent ended as it started: exit code 3", "Its last words:", "I cannot go on"]),
        (
            SAYS_NOTHING,
            [
                "the agent has not started within 2 s",
                "has not said that it listens",
                "hello",
                "--agent-startup-timeout",
            ],
        ),
        (NEVER_ANSWERS, ["can be connected to, but has not answered within 10 s"]),
        (LISTENS_NOT, ["the agent for deployment/cart", "is gone", "the connection broke", "port 9"]),
        (SPEAKS_OTHERWISE, ["what answered is not an agent"]),
    ],
    ids=["ends", "silent", "no answer", "does not listen", "not an agent"],
)
def test_an_agent_that_does_not_work(fresh_shop: Shop, script: str, parts: list[str]) -> None:
    add_image(fresh_shop, script)
    assert_told(fail(fresh_shop, "-i", "bad.test/agent:1", *SOON, "-t", "deploy/cart"), *parts)


@pytest.mark.parametrize(
    ("script", "part"),
    [(SAYS_AND_ENDS, "the agent ended as it started: exit code 3"), (SAYS_NOTHING, "has not said that it listens")],
    ids=["ends", "silent"],
)
def test_an_ephemeral_agent_that_does_not_work(fresh_shop: Shop, script: str, part: str) -> None:
    add_image(fresh_shop, script)
    told = fail(fresh_shop, "-e", "-i", "bad.test/agent:1", *SOON, "-t", "deploy/cart")
    assert_told(told, part, "keeps the ephemeral container")


def add_image(shop: Shop, script: str) -> None:
    image = Image(AGENT_ROOT, files={"/bad/mirrord-agent": script.encode()}, environment={"PATH": "/bad"})
    shop.nodes.registry.images["bad.test/agent:1"] = image


# What the cluster's owner does not let in


def test_pod_security(fresh_shop: Shop) -> None:
    label = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    from tests.cluster.standin.kinds import NAMESPACES

    fresh_shop.cluster.patch(NAMESPACES, None, NAMESPACE, label)
    told = fail(fresh_shop, "-v", "-t", "deploy/cart")
    assert_told(
        told,
        "the API server warns",
        "cannot make the agent's pod: Pod Security (baseline:latest) of the namespace shop forbids it",
        "hostPID=true",
        "pod-security.kubernetes.io/enforce=privileged",
        "--agent-namespace",
    )
    told = fail(fresh_shop, "-e", "-t", "deploy/cart")
    assert_told(told, "cannot add an ephemeral container to pod cart-7b6d-lw8qz", "Pod Security", "--agent-mode job")


def test_a_quota(fresh_shop: Shop) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": NAMESPACE}}
    fresh_shop.cluster.apply({**quota, "spec": {"hard": {"pods": "1"}}})
    told = fail(fresh_shop, "-t", "deploy/cart")
    assert_told(
        told,
        "cannot make the agent's pod: a quota of the namespace shop",
        "exceeded quota: few",
        "kubectl describe quota",
    )


@pytest.mark.parametrize(("resource", "doing"), [(JOBS, "create the agent's job"), (PODS, "make the agent's pod")])
def test_a_webhook(fresh_shop: Shop, resource: Resource, doing: str) -> None:
    fresh_shop.cluster.add_webhook(Webhook("policy.example.com", resource, "hostPID is not for you"))
    told = fail(fresh_shop, "-t", "deploy/cart")
    assert_told(told, f"cannot {doing}: the cluster's admission webhook policy.example.com refuses it: hostPID is not")


def test_a_webhook_that_cannot_be_asked(fresh_shop: Shop) -> None:
    webhook = Webhook("policy.example.com", JOBS, "connect: connection refused", reachable=False)
    fresh_shop.cluster.add_webhook(webhook)
    told = fail(fresh_shop, "-t", "deploy/cart")
    assert_told(told, "admission webhook policy.example.com fails", "ask who runs it")


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("service_account: nobody", "there is no service account nobody in the namespace shop"),
        ("priority_class: urgent", "there is no priority class urgent"),
    ],
)
def test_what_the_configuration_names_is_not_there(shop: Shop, tmp_path: Path, field: str, part: str) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text(f"agent: {{{field}}}\n")
    assert_told(fail(shop, "-f", str(file), "-t", "deploy/cart"), part)


def test_a_namespace_that_is_not_there(shop: Shop) -> None:
    assert_told(
        fail(shop, "-a", "nowhere", "-t", "deploy/cart"), "create the agent's job", "there is no namespace nowhere"
    )
    assert_told(fail(shop, "-n", "nowhere", "-t", "deploy/cart"), "there is no deployment/cart in namespace nowhere")


def test_what_the_configuration_says_is_not_what_kubernetes_knows(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text("agent: {labels: {'not a label': x}}\n")
    assert_told(
        fail(shop, "-f", str(file), "-t", "deploy/cart"), "cannot create the agent's job", "labels", "not a label"
    )


def test_disabled_capabilities(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text("agent: {disabled_capabilities: [SYS_ADMIN]}\n")
    told = fail(shop, "-f", str(file), "-t", "deploy/cart")
    assert_told(told, "the agent cannot serve deployment/cart", "CAP_SYS_ADMIN", "agent.disabled_capabilities denies")


# Nodes


def test_no_node_will_do(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.yaml"
    file.write_text("agent: {node_selector: {zone: moon}}\n")
    told = fail(shop, "-f", str(file), *SOON, "-t", "targetless")
    assert_told(told, "has not started within 2 s: it waits for a node (Unschedulable", "FailedScheduling", "0/2 nodes")


def test_a_node_that_is_full(fresh_shop: Shop) -> None:
    full = {"status": {"allocatable": {"pods": "1"}}}
    fresh_shop.cluster.patch(NODES, None, "node-2", full)
    told = fail(fresh_shop, "-t", f"pod/{NEWER_WEB}")
    assert_told(told, "node node-2 does not run the agent's pod: OutOfpods", "--agent-mode ephemeral")


def test_a_node_that_is_lost_meanwhile(fresh_shop: Shop) -> None:
    """After the pod was chosen and before the agent is made."""
    cluster, nodes = fresh_shop.cluster, fresh_shop.nodes

    def lose() -> None:
        gone = cluster.in_loop(lambda: nodes._kubelets["node-2"].surroundings.runtime.gone)
        cluster.in_loop(lambda: nodes.lose("node-2"))
        while not cluster.in_loop(gone.is_set):
            pass  # it takes no more pods from then on

    told = fail_meanwhile(fresh_shop, lose)
    assert_told(
        told,
        "has not started within 2 s",
        "Node node-2 has taken no notice of the pod: it may be down, or gone.",
        f"The target's pod {NEWER_WEB}: Running, not Ready",
    )
    # Pods of a node that is lost stay, being deleted, until somebody says that it is gone for good.
    cluster.in_loop(lambda: nodes.remove("node-2"))
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_a_node_that_is_taken_away_meanwhile(fresh_shop: Shop) -> None:
    cluster, nodes = fresh_shop.cluster, fresh_shop.nodes
    told = fail_meanwhile(fresh_shop, lambda: cluster.in_loop(lambda: nodes.remove("node-2")))
    assert_told(told, "mirrord-trace: x ", "deleted")
    wait_until_nothing_is_left(fresh_shop.cluster)


def fail_meanwhile(shop: Shop, happens: Callable[[], None]) -> str:
    """What a run says that fails because of what happens between choosing the newer pod of web and making the agent."""
    hold = shop.cluster.faults.hold(Match(verb="create", resource=JOBS), times=1)
    kubeconfig = shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    with run(kubeconfig, *SOON, "-t", "deploy/web", "--", "true") as running:
        assert hold.reached.wait(30)
        happens()
        hold.release()
        assert running.wait() == 1
    return running.told


def test_a_target_that_starts_anew_meanwhile(fresh_shop: Shop) -> None:
    """The container's id is of the container that was."""
    hold = fresh_shop.cluster.faults.hold(Match(verb="create", resource=JOBS), times=1)
    kubeconfig = fresh_shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    with run(kubeconfig, "-t", "pod/db-0", "--", "true") as running:
        assert hold.reached.wait(30)
        fresh_shop.cluster.delete(PODS, NAMESPACE, "db-0")
        hold.release()
        assert running.wait() == 1
    assert_told(running.told, "the agent cannot serve pod/db-0", "has no process here", "Try again")
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_the_agents_pod_is_deleted_as_it_starts(fresh_shop: Shop) -> None:
    slow = Image(AGENT_ROOT, present=False, delivered=in_loop_event(fresh_shop))
    fresh_shop.nodes.registry.images["slow.test/agent:1"] = slow
    events = fresh_shop.cluster.faults.hold(Match(verb="list", resource=EVENTS), times=1)
    kubeconfig = fresh_shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    with run(kubeconfig, "-i", "slow.test/agent:1", "-t", "deploy/cart", "--", "true") as running:
        assert events.reached.wait(30)  # its pod is watched by then
        (name,) = (pod["metadata"]["name"] for pod in fresh_shop.cluster.list(PODS) if is_ours(pod))
        fresh_shop.cluster.delete(PODS, NAMESPACE, name)
        events.release()
        assert running.wait() == 1
    assert_told(running.told, f"pod {name} was deleted while the agent started")
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_no_cluster_at_all(tmp_path: Path) -> None:
    done = mirrord_trace(tmp_path / "none", "run", "-t", "deploy/web", "--", "true")
    assert done.returncode == 1
    assert_told(done.stderr, str(tmp_path / "none"))
    assert "Traceback" not in done.stderr


def test_a_server_that_is_not_there(fresh_shop: Shop) -> None:
    """Without a target the first request is that for the job: no word of a job that was never asked for."""
    kubeconfig = fresh_shop.cluster.kubeconfig_for(namespace=NAMESPACE)
    fresh_shop.cluster.go_away()
    done = mirrord_trace(kubeconfig, "run", "-t", "targetless", "--", "true")
    assert done.returncode == 1
    assert_told(done.stderr, "cannot reach the API server", "connection refused")
    assert "could not be deleted" not in done.stderr
