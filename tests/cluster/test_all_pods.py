"""`--all-pods`: what comes to any pod of a workload comes to the command, as pods come and go."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirrord_trace.cluster import rights
from mirrord_trace.cluster.resources import JOBS, PODS
from tests.cluster.commands import mirrord_trace
from tests.cluster.running import (
    READY_THEN_WAIT,
    Run,
    is_ours,
    processes_of_jobs,
    run,
    wait_until_nothing_is_left,
)
from tests.cluster.standin.faults import Match
from tests.cluster.standin.pod_facts import is_ready
from tests.cluster.standin.shop import NAMESPACE, NEWER_WEB, OLDER_WEB, PORT, Shop
from tests.cluster.standin.store import Object, Store
from tests.waiting import holds_within

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
    connection.sendall(f"GET /asked HTTP/1.1\\r\\nHost: web\\r\\n{sys.argv[3]}\\r\\n".encode())
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


def kubeconfig(shop: Shop, user: str = "admin") -> Path:
    return shop.cluster.kubeconfig_for(user, namespace=NAMESPACE)


def address(shop: Shop, pod: str) -> str:
    found = shop.cluster.get(PODS, NAMESPACE, pod)
    assert found is not None
    return str(found["status"]["podIP"])


def ask(shop: Shop, pod: str, headers: str = "") -> str:
    """What answers at a pod's port."""
    done = shop.run_in(CLIENT, "cart", ["/usr/bin/python3.11", "-c", ASK, address(shop, pod), str(PORT), headers])
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().strip()


def is_the_commands(shop: Shop, pod: str, headers: str = "") -> bool:
    """Whether the command answers there, and shows what it is to show."""
    expected = f"the command, for {address(shop, CLIENT)} at {address(shop, pod)}, as {NEWER_WEB}"
    answer = ask(shop, pod, headers)
    assert answer == expected or json.loads(answer)["pod"] == pod
    return answer == expected


@contextmanager
def serving(shop: Shop, *options: str, program: str = SERVER, user: str = "admin") -> Iterator[Run]:
    """The command, which is ready. It ends in good order, so that its ports are free for the next one."""
    command = ("sh", "-c", 'exec "$@" $POD_NAME', "sh", sys.executable, "-c", program)
    with run(kubeconfig(shop, user), "-t", "deploy/web", "--all-pods", *options, "--", *command) as running:
        running.wait_ready()
        yield running
        running.signal(signal.SIGTERM)
        running.wait()


def our(store: Store) -> list[Object]:
    return [job for job in store.list(JOBS) if is_ours(job)]


def our_jobs(shop: Shop) -> list[Object]:
    return shop.cluster.in_loop(lambda: our(shop.cluster.store))


def requests(shop: Shop, verb: str) -> int:
    """How many jobs were to be made or deleted."""
    return sum(one.verb == verb and one.resource == JOBS for one in shop.cluster.requests)


def agent_of(shop: Shop, pod: str) -> int:
    """The first process of the agent's job beside a pod."""
    found = shop.cluster.get(PODS, NAMESPACE, pod)
    assert found is not None
    identity = container_id(found).encode()
    return next(pid for pid in processes_of_jobs(shop.cluster) if identity in Path(f"/proc/{pid}/cmdline").read_bytes())


def agents(shop: Shop) -> set[str]:
    """The pods beside which there are agents' jobs."""
    served = {job["spec"]["template"]["spec"]["containers"][0]["args"][1] for job in our_jobs(shop)}
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


def wait_until_not_ready(shop: Shop, name: str) -> None:
    def unready(store: Store) -> bool | None:
        found = store.find(PODS, NAMESPACE, name)
        return True if found is not None and not is_ready(found) else None

    shop.cluster.wait_until(unready, 40)


@DELIVERIES
def test_connections_to_any_pod_are_stolen(shop: Shop, delivery: str) -> None:
    with serving(shop, "--steal", "--delivery", delivery) as running:
        assert "2 of 2 pods are served" in running.told
        assert "as well" not in running.told
        assert running.told.count(f"port {PORT} is stolen without a filter: the readiness probe of container web") == 1
        assert agents(shop) == {NEWER_WEB, OLDER_WEB}
        assert is_the_commands(shop, NEWER_WEB)
        assert is_the_commands(shop, OLDER_WEB)
        running.signal(signal.SIGTERM)
        assert running.wait() == 128 + signal.SIGTERM
        assert not our_jobs(shop)
    assert not is_the_commands(shop, OLDER_WEB)
    wait_until_nothing_is_left(shop.cluster)


def test_a_filter_holds_at_any_pod(shop: Shop) -> None:
    with serving(shop, "--steal", "--header-filter", "^x-me: yes") as running:
        assert "probe" not in running.told
        for pod in (OLDER_WEB, NEWER_WEB):
            assert is_the_commands(shop, pod, "X-Me: yes\r\nConnection: close\r\n")
            assert not is_the_commands(shop, pod)


def test_connections_to_any_pod_are_mirrored(shop: Shop) -> None:
    with serving(shop) as running:
        for pod in (OLDER_WEB, NEWER_WEB):
            assert not is_the_commands(shop, pod)
            assert running.process.stdout is not None
            assert running.process.stdout.readline() == f"{address(shop, pod)}\n"


@DELIVERIES
def test_datagrams_to_any_pod_are_answered_from_there(shop: Shop, delivery: str) -> None:
    addresses = [address(shop, pod) for pod in (OLDER_WEB, NEWER_WEB, OLDER_WEB)]
    with serving(shop, "--steal", "--delivery", delivery, program=DATAGRAM_SERVER) as running:
        done = shop.run_in(CLIENT, "cart", ["/usr/bin/python3.11", "-c", SEND, str(PORT), *addresses])
    client = address(shop, CLIENT)
    answers = [(f"the command heard {one} of {client}".encode(), (one, PORT)) for one in addresses]
    assert done.stdout.decode().splitlines() == [repr(answer) for answer in answers], (done.stderr, running.told)


def test_as_ephemeral_containers(fresh_shop: Shop) -> None:
    with serving(fresh_shop, "--steal", "--agent-mode", "ephemeral"):
        assert is_the_commands(fresh_shop, OLDER_WEB)
        assert is_the_commands(fresh_shop, NEWER_WEB)


def test_pods_that_come_and_go(fresh_shop: Shop) -> None:
    with serving(fresh_shop, "--steal") as running:
        add_pod(fresh_shop, "web-later")
        running.wait_told("pod web-later is served as well: 3 pods are served now")
        assert is_the_commands(fresh_shop, "web-later")
        fresh_shop.cluster.delete(PODS, NAMESPACE, OLDER_WEB)
        running.wait_told(f"pod {OLDER_WEB} is gone: 2 pods are served now")
        fresh_shop.cluster.wait_until(lambda store: True if len(our(store)) == 2 else None)
        assert is_the_commands(fresh_shop, "web-later")
        assert is_the_commands(fresh_shop, NEWER_WEB)
    wait_until_nothing_is_left(fresh_shop.cluster, 40)


def test_the_others_are_served_on_when_the_first_is_gone(fresh_shop: Shop) -> None:
    with serving(fresh_shop, "--steal") as running:
        fresh_shop.cluster.delete(PODS, NAMESPACE, NEWER_WEB)
        running.wait_told("the agent is gone")
        add_pod(fresh_shop, "web-later")
        running.wait_told("pod web-later is served as well: 2 pods are served now")
        assert is_the_commands(fresh_shop, "web-later")
        assert is_the_commands(fresh_shop, OLDER_WEB)


@pytest.mark.parametrize("pod", [OLDER_WEB, NEWER_WEB], ids=["another", "the first"])
def test_an_agent_that_is_killed_is_replaced(fresh_shop: Shop, pod: str) -> None:
    """In place of the first there is one for incoming traffic only."""
    with serving(fresh_shop, "--steal") as running:
        os.kill(agent_of(fresh_shop, pod), signal.SIGKILL)
        running.wait_told("the agent is gone")
        running.wait_told(f"pod {pod} is served as well: 2 pods are served now")
        assert is_the_commands(fresh_shop, OLDER_WEB)
        assert is_the_commands(fresh_shop, NEWER_WEB)


def test_a_container_that_is_started_anew_is_taken_up_again(fresh_shop: Shop) -> None:
    with serving(fresh_shop, "--steal") as running:
        os.kill(fresh_shop.pid(OLDER_WEB, "web"), signal.SIGKILL)
        running.wait_told(f"pod {OLDER_WEB} is gone: 1 pod is served now")
        running.wait_told(f"pod {OLDER_WEB} is served as well: 2 pods are served now")
        assert is_the_commands(fresh_shop, OLDER_WEB)


def test_a_pod_that_is_served_need_not_be_ready(fresh_shop: Shop) -> None:
    """The command answers its probes, and may be held by a debugger."""
    with serving(fresh_shop, "--steal", program=SERVER.replace("200 OK", "500 No")):
        for pod in (OLDER_WEB, NEWER_WEB):
            wait_until_not_ready(fresh_shop, pod)
        assert is_the_commands(fresh_shop, OLDER_WEB)
        assert agents(fresh_shop) == {OLDER_WEB, NEWER_WEB}


def test_what_fails_is_told_and_tried_again(fresh_shop: Shop) -> None:
    with serving(fresh_shop, "--steal") as running:
        fresh_shop.cluster.faults.answer(500, Match(verb="create", resource=JOBS), retry_after_s=None)
        add_pod(fresh_shop, "web-later")
        running.wait_told("pod web-later is not served for the time being: cannot create the agent's job")
        running.wait_told("pod web-later is served as well: 3 pods are served now")
        assert is_the_commands(fresh_shop, "web-later")


def test_who_may_not_watch_serves_what_is_there(fresh_shop: Shop) -> None:
    fresh_shop.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "agents"}})
    rbac = fresh_shop.cluster.rbac
    for purpose, namespace in ((rights.TARGET, NAMESPACE), (rights.JOB, "agents")):
        for right in purpose.rights:
            rbac.allow("dev", right.verb, right.resource, namespace)
    with serving(fresh_shop, "--steal", "-a", "agents", user="dev") as running:
        assert "2 of 2 pods are served" in running.told
        running.wait_told(
            "pods that come from now on may not be served: cannot watch the pods of deployment/web: the user dev"
        )
        assert is_the_commands(fresh_shop, OLDER_WEB)
        rbac.allow("dev", "watch", PODS, NAMESPACE)
        add_pod(fresh_shop, "web-later")
        running.wait_told("pod web-later is served as well")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_agents_start(fresh_shop: Shop, number: signal.Signals) -> None:
    hold = fresh_shop.cluster.faults.hold(Match(verb="create", resource=JOBS))
    with run(kubeconfig(fresh_shop), "-t", "deploy/web", "--all-pods", "--", "true") as running:
        assert holds_within(20, lambda: requests(fresh_shop, "create") == 2)
        running.signal(number)
        hold.release()
        assert running.wait() == 128 + number
    assert "Traceback" not in running.told
    assert not our_jobs(fresh_shop)
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_all_agents_are_removed_at_the_same_time(fresh_shop: Shop) -> None:
    hold = fresh_shop.cluster.faults.hold(Match(verb="delete", resource=JOBS))
    with run(kubeconfig(fresh_shop), "-t", "deploy/web", "--all-pods", "--", "true") as running:
        assert holds_within(20, lambda: requests(fresh_shop, "delete") == 2)
        hold.release()
        assert running.wait() == 0
    assert "could not be deleted" not in running.told
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_nothing_is_left_when_we_are_killed(fresh_shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "mirrord.json"
    file.write_text(json.dumps({"agent": {"communication_timeout": 2}}))
    with serving(fresh_shop, "--steal", "-f", str(file)) as running:
        running.signal(signal.SIGKILL)
        running.wait()
    wait_until_nothing_is_left(fresh_shop.cluster, 40)
    assert not is_the_commands(fresh_shop, OLDER_WEB)
    assert not is_the_commands(fresh_shop, NEWER_WEB)


def test_so_many_agents_start_at_once_and_no_more(fresh_shop: Shop) -> None:
    names = [f"web-{number}" for number in range(6)]
    for name in names:
        add_pod(fresh_shop, name)
    hold = fresh_shop.cluster.faults.hold(Match(verb="create", resource=JOBS))
    with run(kubeconfig(fresh_shop), "-t", "deploy/web", "--all-pods", "--", *READY_THEN_WAIT) as running:
        # The first's, and four of the seven others.
        assert holds_within(20, lambda: requests(fresh_shop, "create") == 5)
        hold.release()
        running.wait_ready()
        assert "8 of 8 pods are served" in running.told
        assert agents(fresh_shop) == {*names, OLDER_WEB, NEWER_WEB}


@pytest.mark.parametrize("target", [f"pod/{OLDER_WEB}", "demo", "pid/1", "targetless"])
def test_what_has_not_several_pods(shop: Shop, target: str) -> None:
    done = mirrord_trace(kubeconfig(shop), "run", "-t", target, "--all-pods", "--", "true")
    assert done.returncode == 2
    assert "all pods" in done.stderr
