"""That nothing stays in the cluster, however a run ends and at whatever moment; or the user is told what does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from mirrord_trace.cluster.resources import (
    DEPLOYMENTS,
    JOBS,
    POD_EPHEMERAL_CONTAINERS,
    POD_LOGS,
    POD_PORT_FORWARD,
    PODS,
)
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
from tests.cluster.standin.kubelet.images import Image
from tests.cluster.standin.shop import AGENT_ROOT, NAMESPACE, NEWER_WEB, Shop

TARGET = ("-t", "deploy/web", "--")
REQUESTS = {
    "finding the workload": Match(verb="get", resource=DEPLOYMENTS),
    "finding its pods": Match(verb="list", resource=PODS),
    "creating the job": Match(verb="create", resource=JOBS),
    "watching the pod": Match(verb="watch", resource=PODS),
    "following the log": Match(verb="get", resource=POD_LOGS),
    "connecting": Match(verb="get", resource=POD_PORT_FORWARD),
    "lifting the deadline": Match(verb="patch", resource=JOBS),
    "deleting the job": Match(verb="delete", resource=JOBS),
}
"""The requests of a session, in order."""
BEFORE_THE_COMMAND = [name for name in REQUESTS if name != "deleting the job"]


def kubeconfig(shop: Shop) -> Path:
    return shop.cluster.kubeconfig_for(namespace=NAMESPACE)


def short_timeouts(directory: Path) -> str:
    """A configuration by which an agent leaves soon after its client is gone."""
    file = directory / "mirrord.json"
    file.write_text(json.dumps({"agent": {"communication_timeout": 2, "startup_timeout": 1}}))
    return str(file)


def our_jobs(shop: Shop) -> list[str]:
    return [job["metadata"]["name"] for job in shop.cluster.list(JOBS) if is_ours(job)]


@pytest.mark.parametrize(("command", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_the_end_of_the_command(shop: Shop, command: str, code: int) -> None:
    done = mirrord_trace(kubeconfig(shop), "run", *TARGET, "sh", "-c", command)
    assert done.returncode == code
    assert our_jobs(shop) == []
    wait_until_nothing_is_left(shop.cluster)


def test_a_command_that_cannot_be_started(shop: Shop) -> None:
    done = mirrord_trace(kubeconfig(shop), "run", *TARGET, "no-such-command")
    assert done.returncode == 127
    wait_until_nothing_is_left(shop.cluster)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_command_runs(shop: Shop, number: signal.Signals) -> None:
    with run(kubeconfig(shop), *TARGET, *READY_THEN_WAIT) as running:
        running.wait_ready()
        running.signal(number)
        assert running.wait() == 128 + number
        assert our_jobs(shop) == []
    wait_until_nothing_is_left(shop.cluster)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("request_name", BEFORE_THE_COMMAND)
def test_a_signal_during_a_request(fresh_shop: Shop, request_name: str, number: signal.Signals) -> None:
    """The request is carried out after the signal; what it makes must go all the same."""
    hold = fresh_shop.cluster.faults.hold(REQUESTS[request_name], times=1)
    with run(kubeconfig(fresh_shop), *TARGET, *READY_THEN_WAIT) as running:
        assert hold.reached.wait(30)
        running.signal(number)
        if request_name != "creating the job":
            assert running.wait() == 128 + number
        hold.release()
        assert running.wait() == 128 + number
    assert f"ended by {number.name} before the command was started" in running.told
    assert "Traceback" not in running.told
    assert our_jobs(fresh_shop) == []
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_a_signal_during_a_create_that_is_never_answered(fresh_shop: Shop) -> None:
    """A moment later we no longer wait for it; what it makes after all has a deadline of its own."""
    hold = fresh_shop.cluster.faults.hold(REQUESTS["creating the job"], times=1)
    with run(kubeconfig(fresh_shop), "--agent-startup-timeout", "1", *TARGET, *READY_THEN_WAIT) as running:
        assert hold.reached.wait(30)
        running.signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
    assert "may yet be made" in running.told
    hold.release()
    wait_until_nothing_is_left(fresh_shop.cluster, 40)


def test_a_signal_during_a_create_that_is_carried_out_later(fresh_shop: Shop) -> None:
    """As by a slow admission webhook: a removal that found nothing is tried again."""
    hold = fresh_shop.cluster.faults.hold(REQUESTS["creating the job"], times=1)
    with run(kubeconfig(fresh_shop), *TARGET, *READY_THEN_WAIT) as running:
        assert hold.reached.wait(30)
        running.signal(signal.SIGTERM)
        running.wait_told("waiting for the API server to delete")
        hold.release()
        assert running.wait(20) == 128 + signal.SIGTERM
    assert "may yet be made" not in running.told
    assert our_jobs(fresh_shop) == []
    wait_until_nothing_is_left(fresh_shop.cluster)


def test_a_signal_while_the_image_is_pulled(fresh_shop: Shop) -> None:
    slow = Image(AGENT_ROOT, present=False, delivered=in_loop_event(fresh_shop))
    fresh_shop.nodes.registry.images["slow.test/agent:1"] = slow
    with run(kubeconfig(fresh_shop), "-i", "slow.test/agent:1", *TARGET, *READY_THEN_WAIT) as running:
        fresh_shop.cluster.wait_until(lambda store: any(map(is_ours, store.list(PODS))) or None)
        running.signal(signal.SIGINT)
        assert running.wait() == 130
    wait_until_nothing_is_left(fresh_shop.cluster)


def in_loop_event(shop: Shop) -> trio.Event:
    return shop.cluster.in_loop(trio.Event)


def test_kill_9_at_every_request_and_in_between(fresh_shop: Shop, tmp_path: Path) -> None:
    """Nobody is left to remove anything: deadline, timeouts and ttl do it."""
    cluster = fresh_shop.cluster
    with ExitStack() as runs:
        for number, match in enumerate(REQUESTS.values()):
            user = f"killed-{number}"
            cluster.rbac.allow(user, "*", "*")
            hold = cluster.faults.hold(of_user(match, user))
            config = cluster.kubeconfig_for(user, namespace=NAMESPACE)
            arguments = ("-f", short_timeouts(tmp_path), *TARGET, "true")
            running = runs.enter_context(run(config, *arguments))
            assert hold.reached.wait(30), running.told
            running.signal(signal.SIGKILL)
            running.wait()
            hold.release()
        running = runs.enter_context(
            run(kubeconfig(fresh_shop), "-f", short_timeouts(tmp_path), *TARGET, *READY_THEN_WAIT)
        )
        running.wait_ready()
        assert our_jobs(fresh_shop)
        running.signal(signal.SIGKILL)
    wait_until_nothing_is_left(cluster, 60)


def of_user(match: Match, user: str) -> Match:
    return Match(verb=match.verb, resource=match.resource, user=user)


def test_kill_9_at_every_request_of_an_ephemeral_run(fresh_shop: Shop, tmp_path: Path) -> None:
    """The agents that have started leave when nobody comes; their entries in the pod's list stay."""
    cluster = fresh_shop.cluster
    matches = [
        Match(verb="patch", resource=POD_EPHEMERAL_CONTAINERS),
        *(REQUESTS[name] for name in ("watching the pod", "following the log", "connecting")),
    ]
    with ExitStack() as runs:
        for number, match in enumerate(matches):
            user = f"killed-{number}"
            cluster.rbac.allow(user, "*", "*")
            hold = cluster.faults.hold(of_user(match, user))
            config = cluster.kubeconfig_for(user, namespace=NAMESPACE)
            arguments = ("-e", "-f", short_timeouts(tmp_path), "-t", "deploy/cart", "--", "true")
            running = runs.enter_context(run(config, *arguments))
            assert hold.reached.wait(30), running.told
            running.signal(signal.SIGKILL)
            running.wait()
            hold.release()
    cluster.wait_until(lambda store: True if ephemeral_agents_ended(fresh_shop, len(matches)) else None)


def test_kill_9_of_an_ephemeral_run_ends_the_agent(shop: Shop) -> None:
    with run(kubeconfig(shop), "-e", "-t", "deploy/cart", "--", *READY_THEN_WAIT) as running:
        running.wait_ready()
        running.signal(signal.SIGKILL)
    shop.cluster.wait_until(lambda store: True if ephemeral_agents_ended(shop) else None)


def test_an_ephemeral_agent_leaves_with_its_session(shop: Shop) -> None:
    done = mirrord_trace(kubeconfig(shop), "run", "-q", "-e", "-t", "deploy/cart", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    shop.cluster.wait_until(lambda store: True if ephemeral_agents_ended(shop) else None)


def ephemeral_agents_ended(shop: Shop, count: int = 1) -> bool:
    """Whether all have ended, and they are so many at least. To be asked in the stand-in's loop."""
    pod = shop.cluster.store.get(PODS, NAMESPACE, "cart-7b6d-lw8qz")
    statuses = pod["status"].get("ephemeralContainerStatuses", [])
    return len(statuses) >= count and all("terminated" in one["state"] for one in statuses)


def test_a_delete_that_is_refused(shop: Shop) -> None:
    user = "may-not-delete"
    shop.cluster.rbac.allow(user, "*", "*")
    shop.cluster.rbac.deny(user, "delete", JOBS)
    config = shop.cluster.kubeconfig_for(user, namespace=NAMESPACE)
    done = mirrord_trace(config, "run", "-q", *TARGET, "true")
    assert done.returncode == 0
    for part in (
        "the agent's job mirrord-trace-agent-",
        f"the user {user} has no right to delete jobs.batch in the namespace {NAMESPACE}",
        "It goes by itself",
        "mirrord-trace clean -n shop",
    ):
        assert part in done.stderr
    wait_until_nothing_is_left(shop.cluster)


def test_a_delete_whose_connection_is_dropped_is_sent_again(shop: Shop) -> None:
    shop.cluster.faults.drop(REQUESTS["deleting the job"])
    done = mirrord_trace(kubeconfig(shop), "run", "-q", *TARGET, "true")
    assert (done.returncode, done.stderr) == (0, "")
    wait_until_nothing_is_left(shop.cluster)


@pytest.mark.parametrize("handled", [False, True])
def test_a_create_whose_connection_is_dropped_makes_one_job(shop: Shop, handled: bool) -> None:
    shop.cluster.faults.drop(REQUESTS["creating the job"], handled=handled)
    with run(kubeconfig(shop), *TARGET, *READY_THEN_WAIT) as running:
        running.wait_ready()
        assert len(our_jobs(shop)) == 1
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
    wait_until_nothing_is_left(shop.cluster)


def test_an_api_server_that_goes_away(fresh_shop: Shop) -> None:
    """The command goes on without its target; at its end the user is told what may have stayed."""
    with run(
        kubeconfig(fresh_shop), *TARGET, "sh", "-c", "trap 'exit 5' TERM; echo ready; sleep 1000 & wait"
    ) as running:
        running.wait_ready()
        fresh_shop.cluster.go_away()
        running.wait_told("the agent is gone")
        running.signal(signal.SIGTERM)
        assert running.wait() in (5, 143)
    told = running.told
    for part in ("could not be deleted", "It goes by itself", "mirrord-trace clean -n shop"):
        assert part in told, told
    assert "Traceback" not in told
    fresh_shop.cluster.come_back()
    wait_until_nothing_is_left(fresh_shop.cluster)


# What ends in the middle of a session


@contextmanager
def session(shop: Shop, directory: Path, *arguments: str) -> Iterator[tuple[Run, Path]]:
    """A run whose command ends with 3 when something is written to the FIFO; must leave nothing, and no traceback."""
    fifo = directory / "fifo"
    os.mkfifo(fifo)
    command = f"echo ready; read line < {fifo}; exit 3"
    with run(kubeconfig(shop), *(arguments or ("-t", "deploy/web")), "--", "sh", "-c", command) as running:
        running.wait_ready()
        yield running, fifo
        fifo.write_text("go on\n")
        assert running.wait() == 3, "the command goes on"
    assert "Traceback" not in running.told
    wait_until_nothing_is_left(shop.cluster)


def agent_pod(shop: Shop) -> str:
    (name,) = (pod["metadata"]["name"] for pod in shop.cluster.list(PODS) if is_ours(pod))
    return str(name)


def test_the_agent_is_killed(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        (agent,) = processes_of_jobs(fresh_shop.cluster)
        os.kill(agent, signal.SIGKILL)
        running.wait_told("the agent is gone")


def test_the_agents_pod_is_deleted(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        fresh_shop.cluster.delete(PODS, NAMESPACE, agent_pod(fresh_shop))
        running.wait_told("the agent is gone")
        running.wait_told("its pod is gone")


def test_the_job_is_cleaned_away_by_somebody(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        done = mirrord_trace(kubeconfig(fresh_shop), "clean", "--all")
        assert "removed" in done.stdout
        running.wait_told("the agent is gone")


def test_the_targets_pod_is_deleted(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        fresh_shop.cluster.delete(PODS, NAMESPACE, NEWER_WEB)
        running.wait_told("the agent is gone")


def test_the_targets_pod_is_deleted_with_the_agent_in_it(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path, "-e", "-t", "deploy/web") as (running, _):
        fresh_shop.cluster.delete(PODS, NAMESPACE, NEWER_WEB)
        running.wait_told("the agent is gone")
        running.wait_told("its pod is gone")


def test_the_client_falls_silent(fresh_shop: Shop, tmp_path: Path) -> None:
    """Stopped, it says nothing and its connections stay: what the cluster sees of a network that is lost."""
    with session(fresh_shop, tmp_path, "-f", short_timeouts(tmp_path), "-t", "deploy/web") as (running, _):
        running.signal(signal.SIGSTOP)
        wait_until_nothing_is_left(fresh_shop.cluster)
        running.signal(signal.SIGCONT)
        running.wait_told("nothing was heard from the client")


def test_the_connection_is_cut(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        assert fresh_shop.cluster.faults.cut(REQUESTS["connecting"]) == 1
        running.wait_told("the agent is gone")
        running.wait_told("the connection broke")


def test_the_log_is_cut_and_nobody_minds(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        assert fresh_shop.cluster.faults.cut(REQUESTS["following the log"]) == 1
    assert "the agent is gone" not in running.told


def test_the_node_is_lost(fresh_shop: Shop, tmp_path: Path) -> None:
    with session(fresh_shop, tmp_path) as (running, _):
        fresh_shop.cluster.in_loop(lambda: fresh_shop.nodes.lose("node-2"))
        running.wait_told("the agent is gone")
        fresh_shop.cluster.in_loop(lambda: fresh_shop.nodes.remove("node-2"))
