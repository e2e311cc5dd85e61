"""What the stand-in's kubelets make of a pod: its status, images, environment and volumes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import trio

from mirrord_trace.cluster.resources import EVENTS, PODS
from tests.cluster.running_pods import (
    Log,
    container,
    events,
    pod,
    state_of,
    wait_for_event,
    wait_for_pod,
    waits_for,
)
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import CONFIG_MAPS
from tests.cluster.standin.kubelet.images import Image
from tests.cluster.standin.kubelet.volumes import TOKEN_GENERATION
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.pod_facts import is_ready, phase
from tests.cluster.standin.shop import (
    CONFIGURATION,
    NEWER_WEB,
    PASSWORD,
    SHOP_IMAGE,
    Shop,
    agent_root,
)
from tests.cluster.standin.store import Store

# Status.


def test_a_pod_that_runs_says_where_and_as_what(cluster: Cluster) -> None:
    cluster.apply(pod())
    status = wait_for_pod(cluster, is_ready)["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("198.18.1.")
    assert status["podIPs"] == [{"ip": status["podIP"]}]
    assert status["hostIP"] in ("198.18.0.100", "198.18.0.101")
    assert status["qosClass"] == "BestEffort"
    assert {one["type"]: one["status"] for one in status["conditions"]} == dict.fromkeys(
        ("PodScheduled", "Initialized", "ContainersReady", "Ready"), "True"
    )
    (only,) = status["containerStatuses"]
    assert only["ready"]
    assert only["started"]
    assert only["restartCount"] == 0
    assert only["image"] == SHOP_IMAGE
    scheme, _, identity = only["containerID"].partition("://")
    assert scheme == "containerd"
    assert len(identity) == 64
    assert [reason for reason, _ in events(cluster)] == ["Scheduled", "Pulled", "Created", "Started"]


def test_the_container_id_of_the_status_is_in_the_cgroup_of_the_process(cluster: Cluster, nodes: Nodes) -> None:
    cluster.apply(pod(containers=[container("web", resources={"requests": {"cpu": "100m"}})]))
    found = wait_for_pod(cluster, is_ready)
    identity = found["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    pid = cluster.in_loop(partial(nodes.pid, "shop", "web", "web"))
    uid = found["metadata"]["uid"].replace("-", "_")
    expected = (
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{identity}.scope"
    )
    assert Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1].endswith(expected)


def test_readiness_follows_the_probe(cluster: Cluster, nodes: Nodes) -> None:
    program = (
        "import signal, socket\nsignal.pthread_sigmask(signal.SIG_BLOCK, [10])\nprint('ready', flush=True)\n"
        "signal.sigwait([10])\ns = socket.create_server(('', 80))\nwhile True: s.accept()[0].close()"
    )
    probe = {"tcpSocket": {"port": 80}, "periodSeconds": 1}
    cluster.apply(pod(containers=[container("web", program, readinessProbe=probe)]))
    unready = wait_for_pod(cluster, lambda found: "running" in state_of(found))
    conditions = {one["type"]: one for one in unready["status"]["conditions"]}
    assert conditions["Ready"]["reason"] == "ContainersNotReady"
    assert conditions["Ready"]["message"] == "containers with unready status: [web]"
    wait_for_event(cluster, "Unhealthy")
    assert Log.of(cluster, nodes, unready).line() == "ready"
    os.kill(cluster.in_loop(partial(nodes.pid, "shop", "web", "web")), signal.SIGUSR1)
    wait_for_pod(cluster, is_ready)


def test_a_failing_container_is_restarted_and_then_waits(cluster: Cluster) -> None:
    cluster.apply(pod("raise SystemExit(3)"))
    found = wait_for_pod(cluster, waits_for("CrashLoopBackOff"))
    (only,) = found["status"]["containerStatuses"]
    assert only["restartCount"] == 1
    assert only["lastState"]["terminated"]["exitCode"] == 3
    assert only["lastState"]["terminated"]["reason"] == "Error"
    assert found["status"]["phase"] == "Running"
    full_name = f"web_shop({found['metadata']['uid']})"
    assert only["state"]["waiting"]["message"] == f"back-off 10s restarting failed container=web pod={full_name}"


def test_a_pod_ends_as_its_containers_did(cluster: Cluster, nodes: Nodes) -> None:
    for name, program, expected in (("good", "print('done')", "Succeeded"), ("bad", "raise SystemExit(3)", "Failed")):
        cluster.apply(pod(program, name=name, restartPolicy="Never"))
        ended = wait_for_pod(cluster, lambda found: phase(found) in ("Succeeded", "Failed"), name)
        assert phase(ended) == expected
        assert state_of(ended)["terminated"]["exitCode"] == (0 if expected == "Succeeded" else 3)
        written = Log.of(cluster, nodes, ended).rest()
        assert written == ("done\n" if expected == "Succeeded" else "")


def test_a_program_that_is_not_there_is_a_start_error(cluster: Cluster) -> None:
    cluster.apply(pod(containers=[{"name": "web", "image": SHOP_IMAGE, "command": ["nowhere"]}], restartPolicy="Never"))
    ended = wait_for_pod(cluster, lambda found: phase(found) == "Failed")
    details = state_of(ended)["terminated"]
    assert details["reason"] == "StartError"
    assert details["exitCode"] == 128
    assert details["message"].endswith('exec: "nowhere": executable file not found in $PATH')


# Images.


def test_an_image_that_is_not_there_is_tried_again_and_again(cluster: Cluster) -> None:
    cluster.apply(pod(containers=[{"name": "web", "image": "agent:missing"}]))
    found = wait_for_pod(cluster, waits_for("ImagePullBackOff"))
    assert phase(found) == "Pending"
    error = (
        'rpc error: code = NotFound desc = failed to pull and unpack image "docker.io/library/agent:missing": failed '
        'to resolve reference "docker.io/library/agent:missing": docker.io/library/agent:missing: not found'
    )
    told = state_of(found)["waiting"]["message"]
    assert told == f'Back-off pulling image "agent:missing": ErrImagePull: {error}'
    assert ("Failed", f'Failed to pull image "agent:missing": {error}') in events(cluster)


def test_other_reasons_for_having_no_image(cluster: Cluster, nodes: Nodes) -> None:
    nodes.registry.images["private:1"] = Image(agent_root(), present=False, pull_secret="registry")
    for name, image, policy, reason, told in (
        ("name", "Web:1", "IfNotPresent", "InvalidImageName", "invalid reference format"),
        ("never", "agent:missing", "Never", "ErrImageNeverPull", "is not present with pull policy of Never"),
        ("private", "private:1", "IfNotPresent", "ImagePullBackOff", "insufficient_scope: authorization failed"),
        (
            "registry",
            "registry.example/a:1",
            "IfNotPresent",
            "ImagePullBackOff",
            "lookup registry.example: no such host",
        ),
    ):
        cluster.apply(pod(name=name, containers=[{"name": "web", "image": image, "imagePullPolicy": policy}]))
        assert told in state_of(wait_for_pod(cluster, waits_for(reason), name))["waiting"]["message"]


def test_a_private_image_is_there_for_who_names_its_secret(cluster: Cluster, nodes: Nodes) -> None:
    nodes.registry.images["private:1"] = Image(agent_root(), present=False, pull_secret="registry")
    one = container("web", image="private:1")
    cluster.apply(pod(containers=[one], imagePullSecrets=[{"name": "registry"}]))
    wait_for_pod(cluster, is_ready)
    assert ("Pulling", 'Pulling image "private:1"') in events(cluster)


def test_a_slow_image_comes_when_it_is_let_go(cluster: Cluster, nodes: Nodes) -> None:
    delivered = cluster.in_loop(trio.Event)
    nodes.registry.images["slow:1"] = Image(agent_root(), present=False, delivered=delivered)
    cluster.apply(pod(containers=[container("web", image="slow:1")]))
    wait_for_event(cluster, "Pulling")
    assert waits_for("ContainerCreating")(wait_for_pod(cluster, state_of))
    cluster.in_loop(delivered.set)
    wait_for_pod(cluster, is_ready)


# Configuration.


def test_the_environment_is_the_image_s_and_the_pod_s(shop: Shop) -> None:
    pid = shop.pid(NEWER_WEB, "web")
    variables = dict(one.split("=", 1) for one in Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0"))
    assert variables["HOSTNAME"] == variables["POD_NAME"] == NEWER_WEB
    assert variables["COLOUR"] == CONFIGURATION["colour"]
    assert variables["PASSWORD"] == PASSWORD
    assert variables["GREETING"] == f"web of {NEWER_WEB}"
    assert variables["KUBERNETES_SERVICE_PORT"] == "443"


def test_names_files_are_the_kubelet_s(shop: Shop) -> None:
    root = Path(f"/proc/{shop.pid(NEWER_WEB, 'web')}/root")
    assert (root / "etc/hostname").read_text() == f"{NEWER_WEB}\n"
    hosts = (root / "etc/hosts").read_text()
    assert hosts.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n")
    assert hosts.endswith(f"\t{NEWER_WEB}\n")
    assert "search shop.svc.cluster.local svc.cluster.local cluster.local\n" in (root / "etc/resolv.conf").read_text()


def test_what_a_container_needs_may_come_later(cluster: Cluster) -> None:
    source = {"configMapKeyRef": {"name": "colours", "key": "web"}}
    cluster.apply(pod(containers=[container("web", env=[{"name": "COLOUR", "valueFrom": source}])]))
    found = wait_for_pod(cluster, waits_for("CreateContainerConfigError"))
    assert state_of(found)["waiting"]["message"] == 'configmap "colours" not found'
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "colours", "namespace": "shop"}}
    cluster.apply({**made, "data": {"web": "green"}})
    wait_for_pod(cluster, is_ready)


def test_a_volume_may_come_later(cluster: Cluster) -> None:
    mounted = container("web", volumeMounts=[{"name": "colours", "mountPath": "/colours"}])
    cluster.apply(pod(containers=[mounted], volumes=[{"name": "colours", "configMap": {"name": "colours"}}]))
    cluster.wait_until(
        lambda store: True if any(one["reason"] == "FailedMount" for one in store.list(EVENTS)) else None
    )
    assert ("FailedMount", 'MountVolume.SetUp failed for volume "colours" : configmap "colours" not found') in events(
        cluster
    )
    made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "colours", "namespace": "shop"}}
    cluster.apply({**made, "data": {"web": "green"}})
    wait_for_pod(cluster, is_ready)


def test_a_container_that_must_not_be_root_is_not_made_as_root(cluster: Cluster) -> None:
    cluster.apply(pod(containers=[container("web", securityContext={"runAsNonRoot": True})]))
    found = wait_for_pod(cluster, waits_for("CreateContainerConfigError"))
    assert state_of(found)["waiting"]["message"].startswith(
        "container has runAsNonRoot and image will run as root (pod: "
    )


def test_volumes_are_swapped_as_a_whole_when_their_objects_change(fresh_shop: Shop) -> None:
    cluster = fresh_shop.cluster
    root = Path(f"/proc/{fresh_shop.pid(NEWER_WEB, 'web')}/root")
    configuration, account = root / "etc/shop", root / "var/run/secrets/kubernetes.io/serviceaccount"
    assert os.readlink(configuration / "colour") == "..data/colour"
    assert (root / "etc/shop-secret/password").read_text() == PASSWORD
    old_data, old_token = os.readlink(configuration / "..data"), (account / "token").read_text()
    with open(configuration / "colour") as kept:
        cluster.patch(CONFIG_MAPS, "shop", "web", {"data": {"colour": "blue", "shop.ini": None}})
        mark = {"metadata": {"annotations": {TOKEN_GENERATION: "1"}}}
        cluster.patch(PODS, "shop", NEWER_WEB, mark)
        # One more turn of the loop, after the kubelet's.
        cluster.wait_until(lambda _: True if (account / "token").read_text() != old_token else None)
        assert kept.read() == CONFIGURATION["colour"]
    assert os.readlink(configuration / "..data") != old_data
    assert (configuration / "colour").read_text() == "blue"
    assert sorted(one for one in os.listdir(configuration) if not one.startswith("..")) == ["colour"]


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 500 Broken\r\n\r\n", None], ids=str)
def test_a_probe_that_is_answered_badly_fails(cluster: Cluster, answer: bytes | None) -> None:
    # Closing what has not been read resets the connection.
    program = (
        "import socket\ns = socket.create_server(('', 80))\nwhile True:\n    one = s.accept()[0]\n"
        f"    {f'one.recv(1000); one.send({answer!r})' if answer is not None else 'pass'}\n    one.close()"
    )
    probed = container("web", program, readinessProbe={"httpGet": {"port": 80}})
    cluster.apply(pod(containers=[probed]))

    def told(store: Store) -> str | None:
        messages = [one["message"] for one in store.list(EVENTS) if one["reason"] == "Unhealthy"]
        return next((message for message in messages if "refused" not in message), None)

    message = cluster.wait_until(told)
    expected = "HTTP probe failed with statuscode: 500" if answer and b"500" in answer else ": EOF"
    assert message.startswith("Readiness probe failed: ")
    assert message.endswith(expected)
