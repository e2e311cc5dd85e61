"""Pods of the stand-in with several containers, their places, their network and their ends."""

from __future__ import annotations

import errno
from concurrent.futures import Future
from functools import partial

import trio

from mirrord_trace.cluster.resources import PODS
from tests.cluster.running_pods import (
    PYTHON,
    WAIT,
    Log,
    container,
    events,
    hold_process,
    pod,
    state_of,
    wait_for_end,
    wait_for_pod,
    wait_until_gone,
)
from tests.cluster.standin.cluster import Cluster
from tests.cluster.standin.kinds import NODES
from tests.cluster.standin.node import Nodes
from tests.cluster.standin.pod_facts import is_ready, phase
from tests.cluster.standin.shop import (
    AGENT_IMAGE,
    NEWER_WEB,
    OLDER_WEB,
    PORT,
    Shop,
)

# Several containers.


def test_init_containers_come_first_one_after_the_other(cluster: Cluster, nodes: Nodes) -> None:
    volume = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    note = "print({0}, file=open('/shared/notes', 'a'))"
    cluster.apply(
        pod(
            containers=[container("web", "print(open('/shared/notes').read())", **volume)],
            initContainers=[container("one", note.format(1), **volume), container("two", note.format(2), **volume)],
            volumes=[{"name": "shared", "emptyDir": {}}],
            restartPolicy="Never",
        )
    )
    ended = wait_for_pod(cluster, lambda found: phase(found) == "Succeeded")
    assert Log.of(cluster, nodes, ended).rest() == "1\n2\n\n"


def test_a_failing_init_container_keeps_the_others_away(cluster: Cluster) -> None:
    cluster.apply(pod(initContainers=[container("one", "raise SystemExit(2)")], restartPolicy="Never"))
    ended = wait_for_pod(cluster, lambda found: phase(found) == "Failed")
    assert state_of(ended)["waiting"]["reason"] == "PodInitializing"


def test_an_ephemeral_container_joins_the_processes_of_its_target(fresh_shop: Shop, nodes: Nodes) -> None:
    cluster = fresh_shop.cluster
    look = (
        "import os, socket; print(open('/proc/1/environ').read().count('POD_NAME'), os.getpid() > 1); "
        f"print(socket.create_connection(('127.0.0.1', {PORT})).getpeername()[1])"
    )
    added = {**container("look", look), "targetContainerName": "web"}
    cluster.patch(PODS, "shop", NEWER_WEB, {"spec": {"ephemeralContainers": [added]}})
    ended = wait_for_pod(cluster, lambda found: "terminated" in state_of(found, "look"), NEWER_WEB)
    assert state_of(ended, "look")["terminated"]["exitCode"] == 0
    assert Log.of(cluster, nodes, ended, "look").rest() == f"1 True\n{PORT}\n"
    assert is_ready(ended)


def test_containers_may_share_their_processes(cluster: Cluster, nodes: Nodes) -> None:
    look = "import os; print(os.getpid() > 1, open('/proc/1/comm').read())"
    cluster.apply(pod(look, shareProcessNamespace=True, restartPolicy="Never"))
    ended = wait_for_pod(cluster, lambda found: phase(found) == "Succeeded")
    assert Log.of(cluster, nodes, ended).rest() == "True pause\n\n"


# The end.


def test_a_deleted_pod_has_time_to_end(cluster: Cluster, nodes: Nodes) -> None:
    program = (
        "import os, signal; signal.signal(15, lambda *_: (os.write(1, b'bye\\n'), os._exit(0))); "
        "print('ready', flush=True); signal.pause()"
    )
    cluster.apply(pod(program))
    log = Log.of(cluster, nodes, wait_for_pod(cluster, is_ready))
    assert log.line() == "ready"
    process = hold_process(cluster, nodes)
    mark = {"deletionTimestamp": "2030-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    cluster.patch(PODS, "shop", "web", {"metadata": mark})
    assert log.rest() == "bye\n"
    wait_for_end(process)
    wait_until_gone(cluster)
    assert ("Killing", "Stopping container web") in events(cluster)


def test_a_pod_that_does_not_listen_is_killed(cluster: Cluster, nodes: Nodes) -> None:
    # Process 1 ignores SIGTERM unless it asks for it.
    cluster.apply(pod(WAIT))
    wait_for_pod(cluster, is_ready)
    process = hold_process(cluster, nodes)
    mark = {"deletionTimestamp": "2030-01-01T00:00:00Z", "deletionGracePeriodSeconds": 0.1}
    cluster.patch(PODS, "shop", "web", {"metadata": mark})
    wait_until_gone(cluster)
    wait_for_end(process)


def test_a_pod_that_is_gone_from_the_api_ends_at_once(cluster: Cluster, nodes: Nodes) -> None:
    cluster.apply(pod(WAIT))
    wait_for_pod(cluster, is_ready)
    process = hold_process(cluster, nodes)
    cluster.delete(PODS, "shop", "web")
    wait_for_end(process)


# Where it runs.


def test_a_pod_that_fits_nowhere_waits_and_says_why(cluster: Cluster) -> None:
    cluster.apply(pod(nodeSelector={"disk": "ssd"}))
    found = wait_for_pod(cluster, lambda found: found["status"].get("conditions"))
    (condition,) = found["status"]["conditions"]
    assert condition["type"] == "PodScheduled"
    assert condition["reason"] == "Unschedulable"
    assert condition["message"] == (
        "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
        "preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )
    assert events(cluster)[0] == ("FailedScheduling", condition["message"])
    cluster.patch(NODES, None, "node-2", {"metadata": {"labels": {"disk": "ssd"}}})
    assert wait_for_pod(cluster, is_ready)["spec"]["nodeName"] == "node-2"


def test_a_bound_pod_that_does_not_fit_is_rejected_by_its_node(cluster: Cluster) -> None:
    much = container("web", resources={"requests": {"cpu": "64"}})
    cluster.apply(pod(containers=[much], nodeName="node-1"))
    found = wait_for_pod(cluster, lambda found: phase(found) == "Failed")
    assert found["status"]["reason"] == "OutOfcpu"
    told = "Pod was rejected: Node didn't have enough resource: cpu, requested: 64000, used: 0, capacity: 4000"
    assert found["status"]["message"] == told


def test_a_lost_node_takes_its_processes_with_it_and_answers_nothing(fresh_shop: Shop, nodes: Nodes) -> None:
    cluster = fresh_shop.cluster
    lost = hold_process(cluster, nodes, NEWER_WEB)
    cluster.in_loop(partial(nodes.lose, "node-2"))
    wait_for_end(lost)
    gone = wait_for_pod(cluster, lambda found: not is_ready(found), NEWER_WEB)
    assert phase(gone) == "Running"
    cluster.in_loop(partial(nodes.evict, "node-2"))
    leaving = wait_for_pod(cluster, lambda found: "deletionTimestamp" in found["metadata"], NEWER_WEB)
    cluster.in_loop(partial(nodes.remove, "node-2"))
    wait_until_gone(cluster, NEWER_WEB)
    assert leaving["spec"]["nodeName"] == "node-2"
    assert is_ready(wait_for_pod(cluster, bool, OLDER_WEB))


# Its network.


def test_services_have_names_and_their_pods_addresses(shop: Shop) -> None:
    lookup = f"import socket; print(socket.getaddrinfo('cart', {PORT}, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])"
    result = shop.run_in(NEWER_WEB, "web", [*PYTHON, lookup])
    assert result.stderr == b""
    assert result.stdout.decode().strip() == shop.pod_of("cart")["status"]["podIP"]


def test_a_port_is_dialled_on_the_pods_loopback(shop: Shop) -> None:
    found = wait_for_pod(shop.cluster, bool, NEWER_WEB)
    outcome: Future[tuple[bytes, int | None]] = Future()

    async def dial() -> None:
        async with await shop.nodes.dial(found, PORT) as stream:
            await stream.send_all(b"GET /x HTTP/1.1\r\n\r\n")
            answer = b"".join([piece async for piece in stream])
        try:
            await shop.nodes.dial(found, 1)
        except OSError as error:
            outcome.set_result((answer, error.errno))

    shop.cluster.in_loop(lambda: trio.lowlevel.spawn_system_task(dial))
    answer, refused = outcome.result(20)
    assert b'"caller": "127.0.0.1"' in answer
    assert refused == errno.ECONNREFUSED


def test_the_agent_s_image_is_there(cluster: Cluster, nodes: Nodes) -> None:
    cluster.apply(pod(containers=[{"name": "web", "image": AGENT_IMAGE, "args": ["--help"]}], restartPolicy="Never"))
    ended = wait_for_pod(cluster, lambda found: phase(found) == "Succeeded")
    assert "--container-id" in Log.of(cluster, nodes, ended).rest()
