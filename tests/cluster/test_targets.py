"""What a process gets from a target in a cluster: the container's own world, whatever way leads to it."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mirrord_trace import __version__
from mirrord_trace.cli.progress import reporter_for
from mirrord_trace.cluster.resources import JOBS, POD_PORT_FORWARD, PODS
from mirrord_trace.config import AgentConfiguration, ClusterConfiguration
from mirrord_trace.session import Session, open_session
from mirrord_trace.targets import parse_target
from tests.cluster.commands import mirrord_trace
from tests.cluster.running import READY_THEN_WAIT, is_ours, run, wait_until_nothing_is_left
from tests.cluster.standin.kinds import CONFIG_MAPS, SECRETS
from tests.cluster.standin.kubelet.volumes import TOKEN_GENERATION
from tests.cluster.standin.shop import CONFIGURATION, NAMESPACE, NEWER_WEB, OLDER_WEB, PASSWORD, Shop

WORLD = """
import json, os, socket

def ask(host, path):
    with socket.create_connection((host, 8080), 10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\\r\\n\\r\\n".encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return json.loads(answer.partition(b"\\r\\n\\r\\n")[2])

def read(path):
    with open(path) as file:
        return file.read()

print(json.dumps({
    "environment": dict(os.environ),
    "host name": [os.uname().nodename, socket.gethostname()],
    "files": {path: read(path) for path in ("/etc/hosts", "/etc/resolv.conf", "/etc/hostname")},
    "addresses": sorted({entry[4][0] for entry in socket.getaddrinfo("cart", 8080)}),
    "itself": ask("localhost", "/own"),
    "cart": ask("cart", "/other"),
    "by its whole name": ask("cart.shop.svc.cluster.local", "/other"),
}))
"""
"""Tells as JSON what a process sees of where it is."""

STAY_LOCAL = {"PATH", "HOME", "PWD"}
MODES = pytest.mark.parametrize("mode", ["job", "ephemeral"])


def kubeconfig(shop: Shop) -> Path:
    return shop.cluster.kubeconfig_for(namespace=NAMESPACE)


def run_in(shop: Shop, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A run that must go well and leave nothing."""
    done = mirrord_trace(kubeconfig(shop), "run", *arguments)
    assert done.returncode == 0, done.stderr
    assert not [job for job in shop.cluster.list(JOBS) if is_ours(job)]
    return done


@MODES
def test_the_process_sees_what_it_would_see_in_the_container(shop: Shop, mode: str) -> None:
    """The same program is run in the container, and must print the same."""
    seen = json.loads(run_in(shop, "--agent-mode", mode, "-t", "deploy/web", "--", sys.executable, "-c", WORLD).stdout)
    native = shop.run_in(NEWER_WEB, "web", ["/usr/bin/python3.11", "-c", WORLD])
    there = json.loads(native.stdout)
    # This machine's variables that the container has not are there as well.
    variables = {name: seen["environment"].get(name) for name in there["environment"]}
    for environment in (variables, there["environment"]):
        for name in STAY_LOCAL:
            environment.pop(name, None)
    assert variables["GREETING"] == f"web of {NEWER_WEB}"
    assert seen | {"environment": variables} == there
    assert seen["cart"]["caller"] == shop.cluster.get(PODS, NAMESPACE, NEWER_WEB)["status"]["podIP"]  # type: ignore[index]


def test_the_newest_of_several_is_taken_and_that_is_said(shop: Shop) -> None:
    done = run_in(shop, "-t", "deploy/web", "--", "true")
    assert f"pod {NEWER_WEB}, container web, node node-2, the newest of 2 ready pods" in done.stderr


@pytest.mark.parametrize(
    ("target", "container"),
    [
        ("deploy/payments", "payments"),
        ("deploy/payments/container/istio-proxy", "istio-proxy"),
        ("deploy/orders", "orders"),
        ("deploy/orders/container/helper", "helper"),
        (f"pod/{OLDER_WEB}", "web"),
    ],
)
@MODES
def test_the_container(shop: Shop, target: str, container: str, mode: str) -> None:
    done = run_in(shop, "-q", "--agent-mode", mode, "-t", target, "--", "sh", "-c", "echo $SERVICE")
    assert done.stdout == f"{container}\n"


def test_another_namespace(shop: Shop) -> None:
    done = mirrord_trace(
        shop.cluster.kubeconfig, "run", "-q", "-n", NAMESPACE, "-t", "deploy/cart", "--", "uname", "-n"
    )
    assert (done.returncode, done.stdout) == (0, "cart-7b6d-lw8qz\n")


def test_no_target(shop: Shop) -> None:
    """The cluster's names and network, and nobody's variables, with no more rights than anybody has."""
    done = run_in(shop, "-t", "targetless", "--", "sh", "-c", "uname -n; echo ${SERVICE-none}; getent hosts cart")
    name, service, host = done.stdout.splitlines()
    assert name.startswith("mirrord-trace-agent-")
    assert service == "none"
    assert (
        host.split()
        == [shop.pod_of("cart")["status"]["podIP"], "cart.shop.svc.cluster.local", "cart"][: len(host.split())]
    )


def test_no_target_where_security_is_restricted(shop: Shop) -> None:
    shop.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "strict", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "strict"}}
    shop.cluster.apply(account)
    done = run_in(shop, "-q", "-n", "strict", "-t", "targetless", "--", "uname", "-n")
    assert done.stdout.startswith("mirrord-trace-agent-")


def test_processes_that_are_shared_in_the_pod(shop: Shop) -> None:
    """Process 1 is then nobody's: containers are told apart by their cgroups."""
    container = {"image": "registry.shop.test/service:1", "env": [{"name": "WHO", "value": "first"}], "args": ["8080"]}
    other = container | {"env": [{"name": "WHO", "value": "second"}], "args": ["8081"]}
    shop.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "shared", "namespace": NAMESPACE, "labels": {"app": "shared"}},
            "spec": {
                "shareProcessNamespace": True,
                "containers": [{"name": "first", **container}, {"name": "second", **other}],
            },
        }
    )
    shop.cluster.wait_until(
        lambda store: (
            True if (store.find(PODS, NAMESPACE, "shared") or {}).get("status", {}).get("phase") == "Running" else None
        )
    )
    for mode in ("job", "ephemeral"):
        for name in ("first", "second"):
            arguments = ("-q", "--agent-mode", mode, "-t", f"pod/shared/container/{name}")
            assert run_in(shop, *arguments, "--", "sh", "-c", "echo $WHO").stdout == f"{name}\n"


@asynccontextmanager
async def begin_session(shop: Shop, target: str, mode: str = "job") -> AsyncIterator[Session]:
    cluster = ClusterConfiguration(kubeconfig=str(kubeconfig(shop)))
    parsed = parse_target(target, cluster=cluster, agent=AgentConfiguration(mode=mode))  # type: ignore[arg-type]
    reporter = reporter_for(io.TextIOWrapper(io.BytesIO(), "utf-8"))
    async with parsed.open(reporter) as link, open_session(link.stream, link.secret) as session:
        link.answered.set()
        yield session


@MODES
def test_what_rotates_is_seen_fresh(fresh_shop: Shop, mode: str) -> None:
    """ConfigMaps and Secrets that are mounted are exchanged while the session goes on; so are tokens."""
    cluster = fresh_shop.cluster

    async def main() -> None:
        async with begin_session(fresh_shop, "deploy/web", mode) as session:

            async def read(path: bytes) -> bytes:
                return (await session.read_file(path)).data

            assert await read(b"/etc/shop/colour") == CONFIGURATION["colour"].encode()
            assert await read(b"/etc/shop-secret/password") == PASSWORD.encode()
            token = await read(b"/var/run/secrets/kubernetes.io/serviceaccount/token")
            cluster.patch(CONFIG_MAPS, NAMESPACE, "web", {"data": {"colour": "blue"}})
            cluster.patch(SECRETS, NAMESPACE, "web", {"data": {"password": base64.b64encode(b"new").decode()}})
            with trio.fail_after(20):
                while await read(b"/etc/shop/colour") != b"blue" or await read(b"/etc/shop-secret/password") != b"new":
                    pass  # the kubelet exchanges them when it likes, and tells nobody
            cluster.patch(PODS, NAMESPACE, NEWER_WEB, {"metadata": {"annotations": {TOKEN_GENERATION: "1"}}})
            with trio.fail_after(20):
                while await read(b"/var/run/secrets/kubernetes.io/serviceaccount/token") == token:
                    pass

    trio.run(main)


@MODES
def test_a_session_costs_few_requests_and_one_web_socket(shop: Shop, mode: str) -> None:
    before = len(shop.cluster.requests)
    run_in(shop, "-q", "--agent-mode", mode, "-t", "deploy/web", "--", "true")
    asked = shop.cluster.requests[before:]
    sockets = [one for one in asked if one.resource == POD_PORT_FORWARD]
    assert len(sockets) == 1
    assert len(asked) - len(sockets) <= 8
    assert {one.headers["user-agent"] for one in asked} == {f"mirrord-trace/{__version__}"}


def test_the_agents_pod_is_as_it_was_asked_for(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.json"
    file.write_text(
        json.dumps(
            {
                "target": {"path": f"pod/{OLDER_WEB}", "namespace": NAMESPACE},
                "agent": {
                    "labels": {"team": "a"},
                    "annotations": {"note": "b"},
                    "communication_timeout": 7,
                    "ttl": 5,
                    "resources": {"limits": {"memory": "99Mi"}},
                    "disabled_capabilities": ["NET_ADMIN", "NET_RAW"],
                },
            }
        )
    )
    with run(kubeconfig(shop), "-f", file, "--", *READY_THEN_WAIT) as running:
        running.wait_ready()
        (job,) = (one for one in shop.cluster.list(JOBS, NAMESPACE) if is_ours(one))
        (pod,) = (one for one in shop.cluster.list(PODS, NAMESPACE) if is_ours(one))
        assert "activeDeadlineSeconds" not in job["spec"], "the agent has answered"
        assert job["spec"]["ttlSecondsAfterFinished"] == 5
        for metadata in (job["metadata"], pod["metadata"]):
            assert metadata["labels"]["team"] == "a"
            assert metadata["annotations"]["note"] == "b"
        assert pod["spec"]["nodeName"] == "node-1"
        (container,) = pod["spec"]["containers"]
        assert container["resources"]["limits"] == {"memory": "99Mi"}
        capabilities = Path(f"/proc/{shop.pid(pod['metadata']['name'], 'agent')}/status").read_text()
        held = int(capabilities.partition("CapBnd:\t")[2].split()[0], 16)
        for_files = (0, 1, 3, 4, 6, 7, 27, 31)  # linux/capability.h: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID,
        sys_ptrace, sys_admin = 19, 21  # SETUID, MKNOD, SETFCAP
        assert held == sum(1 << bit for bit in (*for_files, sys_ptrace, sys_admin))
    wait_until_nothing_is_left(shop.cluster)


def test_two_sessions_at_one_pod(shop: Shop) -> None:
    arguments = ("-t", "deploy/web", "--", *READY_THEN_WAIT)
    with run(kubeconfig(shop), *arguments) as one, run(kubeconfig(shop), *arguments) as other:
        one.wait_ready()
        other.wait_ready()
        assert len([job for job in shop.cluster.list(JOBS) if is_ours(job)]) == 2
    wait_until_nothing_is_left(shop.cluster)
