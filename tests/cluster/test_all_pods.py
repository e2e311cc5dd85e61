"""`--all-pods`: what comes to any pod of a workload comes to the command, as pods come and go."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrord_trace.cluster.resources import JOBS, POD_EPHEMERAL_CONTAINERS, PODS
from tests.cluster.commands import mirrord_trace
from tests.cluster.running import Run, is_ours, run, wait_until_nothing_is_left
from tests.cluster.standin.faults import Match
from tests.cluster.standin.pod_facts import is_ready
from tests.cluster.standin.shop import NAMESPACE, NEWER_WEB, OLDER_WEB, PORT, Shop
from tests.cluster.standin.store import Object, Store

SERVER = f"""
import socket, sys
listener = socket.create_server(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    connection, client = listener.accept()
    with connection:
        request = connection.recv(4096)
        here = connection.getsockname()[0]
        body = f"the command, for {{client[0]}} at {{here}}, as {{sys.argv[1]}}"
        connection.sendall(f"HTTP/1.1 200 OK\\r\\nContent-Length: {{len(body)}}\\r\\n\\r\\n{{body}}".encode())
    print(here, flush=True)
"""
"""Answers with who asked, at which address; and prints the address."""
DATAGRAM_SERVER = f"""
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", {PORT}))
print("ready", flush=True)
while True:
    data, client = server.recvfrom(4096)
    server.sendto(b"the command heard " + data + b" of " + client[0].encode(), client)
"""
ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as connection:
    connection.sendall(b"GET /asked HTTP/1.1\\r\\n\\r\\n")
    answer = b""
    while piece := connection.recv(4096):
        answer += piece
print(answer.partition(b"\\r\\n\\r\\n")[2].decode())
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(20)
    for address in sys.argv[2:]:
        client.sendto(address.encode(), (address, int(sys.argv[1])))
        print(client.recvfrom(4096))
"""
CLIENT = "cart-7b6d-lw8qz"
DELIVERIES = pytest.mark.parametrize("delivery", ["notify", "ptrace"])


def kubeconfig(shop: Shop) -> Path:
    return shop.cluster.kubeconfig_for(namespace=NAMESPACE)


def address(shop: Shop, pod: str) -> str:
    found = shop.cluster.get(PODS, NAMESPACE, pod)
    assert found is not None
    return str(found["status"]["podIP"])


def ask(shop: Shop, pod: str) -> str:
    """What answers at a pod's port."""
    done = shop.run_in(CLIENT, "cart", ["/usr/bin/python3.11", "-c", ASK, address(shop, pod), str(PORT)])
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def is_the_commands(shop: Shop, pod: str) -> bool:
    """Whether the command answers there, and shows what it is to show."""
    expected = f"the command, for {address(shop, CLIENT)} at {address(shop, pod)}, as {NEWER_WEB}"
    answer = ask(shop, pod)
    assert answer == expected or json.loads(answer)["pod"] == pod
    return answer == expected


@contextmanager
def serving(shop: Shop, *options: str, program: str = SERVER) -> Iterator[Run]:
    """The command, and that it is ready."""
    command = ("sh", "-c", 'exec "$@" $POD_NAME', "sh", sys.executable, "-c", program)
    with run(kubeconfig(shop), "-t", "deploy/web", "--all-pods", *options, "--", *command) as running:
        running.wait_ready()
        yield running


def agents(shop: Shop) -> set[str]:
    """The nodes' pods beside which there are agents' jobs, by the containers that they serve."""
    jobs = [job for job in shop.cluster.list(JOBS) if is_ours(job)]
    served = {job["spec"]["template"]["spec"]["containers"][0]["args"][1] for job in jobs}
    return {one["metadata"]["name"] for one in shop.cluster.list(PODS, NAMESPACE) if container_id(one) in served}


def container_id(pod: Object) -> str:
    statuses = pod["status"].get("containerStatuses") or [{}]
    return str(statuses[0].get("containerID", "")).partition("://")[2]


def add_pod(shop: Shop, name: str) -> None:
    """One more pod of the deployment web, made as the other ones."""
    like = shop.cluster.get(PODS, NAMESPACE, OLDER_WEB)
    assert like is not None
    metadata = {key: like["metadata"][key] for key in ("labels", "ownerReferences")}
    spec = json.loads(json.dumps(like["spec"]))
    shop.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": NAMESPACE, **metadata},
            "spec": spec,
        }
    )

    def ready(store: Store) -> bool | None:
        found = store.find(PODS, NAMESPACE, name)
        return True if found is not None and is_ready(found) else None

    shop.cluster.wait_until(ready)


def wait_for_agents(shop: Shop, *pods: str) -> None:
    shop.cluster.wait_until(lambda _: True if len([job for job in shop.cluster.list(JOBS) if is_ours(job)]) else None)


@DELIVERIES
def test_connections_to_any_pod_are_stolen(shop: Shop, delivery: str) -> None:
    with serving(shop, "--steal", "--delivery", delivery) as running:
        assert "2 of 2 pods are served" in running.told
        assert agents(shop) == {NEWER_WEB, OLDER_WEB}
        assert is_the_commands(shop, NEWER_WEB)
        assert is_the_commands(shop, OLDER_WEB)
        running.signal(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM
        assert not [job for job in shop.cluster.list(JOBS) if is_ours(job)]
    assert not is_the_commands(shop, OLDER_WEB)
    wait_until_nothing_is_left(shop.cluster)
