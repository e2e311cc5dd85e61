"""Listeners of a process: whom they hear and for how long, however they are bound, handed on and closed.

A scenario is played in the pod and then outside, both times with nobody else on the port, and comes to the same.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conformance.serving import POD, POD_6, PROCESS, TARGET, ServingWorld, started
from tests.conformance.stage import PORT, Stage, comes_to_the_same, listening, networks, play, program
from tests.mirrord_agent.incoming.networks import Network
from tests.waiting import holds_within

MODES = ("steal", "mirror")


def test_forms_of_accept(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        listening(stage)
        for command in ("accept 0 1", "accept4 0 1", "plain 0 1"):
            stage.meets(command)

    comes_to_the_same(serving, scenario)


def test_nobody_is_heard_before_listen_and_after_close(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        stage.do("tcp 0", "set 0 reuseaddr 1", f"bind 0 0.0.0.0 {PORT}")
        stage.refused()
        stage.do("listen 0 16")
        stage.meets()
        stage.do("close 0")
        assert stage_refuses(stage)

    comes_to_the_same(serving, scenario)


def stage_refuses(stage: Stage) -> bool:
    """Soon: nobody tells the tool that a listener is gone. Until it knows, clients are reset."""

    def is_refused() -> bool:
        try:
            stage.connect().close()
        except ConnectionError:
            return True
        return False

    return holds_within(2.0, is_refused)


def test_listening_again(serving: ServingWorld) -> None:
    """On a new socket; then on the same, after shutdown; then more than once."""

    def scenario(stage: Stage) -> None:
        listening(stage)
        stage.meets()
        stage.do("close 0")
        assert stage_refuses(stage)
        listening(stage)
        stage.meets()
        stage.do("shutdown 0")
        assert stage_refuses(stage)
        stage.do("listen 0 5", "name 0")
        stage.meets()
        stage.do("listen 0 50")
        stage.meets()

    comes_to_the_same(serving, scenario)


def test_a_connection_outlives_its_listener(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        listening(stage)
        with stage.connect() as client:
            stage.do("accept 0 1", "close 0")
            stage.greeted(client)
            assert stage_refuses(stage)
            client.sendall(b"still there?\n")
            assert stage.do("hear 1") == "still there?"
            stage.do("say 1 yes", "name 1", "close 1")
            assert client.recv(10) == b"yes"
            assert client.recv(10) == b""

    comes_to_the_same(serving, scenario)


@pytest.mark.parametrize("command", ["fork 0", "pass 0"])
def test_a_listener_that_others_accept_on(serving: ServingWorld, command: str) -> None:
    def scenario(stage: Stage) -> None:
        listening(stage)
        stage.meets(command)

    comes_to_the_same(serving, scenario)


def test_a_listener_that_a_program_inherits(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        listening(stage)
        stage.do("exec", "name 0")
        stage.meets()
        stage.do("dup 0 5", "close 0")
        stage.meets("accept 5 1")
        stage.do("close 5")
        assert stage_refuses(stage)

    comes_to_the_same(serving, scenario)


def test_connections_that_wait_are_accepted_by_whoever_comes(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        listening(stage)
        clients = [stage.connect() for _ in range(3)]
        stage.do("exec")
        stage.do(*(f"accept 0 {number}" for number in range(1, 4)))
        for client in clients:
            stage.greeted(client)
            client.close()

    comes_to_the_same(serving, scenario)


@pytest.mark.parametrize(
    ("kind", "bound", "heard", "unheard"),
    [
        ("tcp", "0.0.0.0", [POD], [POD_6]),
        ("tcp", POD, [POD], [POD_6]),
        ("tcp6", "::", [POD, POD_6], []),
        ("tcp6", POD_6, [POD_6], [POD]),
        ("tcp6", f"::ffff:{POD}", [POD], [POD_6]),
        ("tcp6", "::ffff:0.0.0.0", [POD], [POD_6]),
        ("tcp", "127.0.0.1", [], [POD, POD_6]),
        ("tcp6", "::1", [], [POD, POD_6]),
    ],
)
def test_addresses(serving: ServingWorld, kind: str, bound: str, heard: list[str], unheard: list[str]) -> None:
    """A loopback address hears the pod's own only, in the pod. Outside it is what people bind to who serve locally."""

    def scenario(stage: Stage) -> None:
        listening(stage, bound, kind=kind)
        for host in heard:
            stage.meets(host=host)
        for host in unheard:
            if heard:
                stage.refused(host)

    comes_to_the_same(serving, scenario)


def test_ipv6_only(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        stage.do("tcp6 0", "set 0 v6only 1", "set 0 reuseaddr 1", f"bind 0 :: {PORT}", "listen 0 5")
        stage.refused(POD)
        stage.meets(host=POD_6)
        stage.do("tcp 2", "set 2 reuseaddr 1", f"bind 2 0.0.0.0 {PORT}", "listen 2 5", "name 2")
        stage.meets("accept 2 1", host=POD)
        stage.meets(host=POD_6)

    comes_to_the_same(serving, scenario)


@pytest.mark.parametrize("is_ipv6_first", [False, True])
def test_what_comes_by_the_other_version_of_ip_is_the_targets(serving: ServingWorld, is_ipv6_first: bool) -> None:
    """Until another socket hears that, and when that has gone."""
    kinds = [(0, "tcp", "0.0.0.0", POD), (3, "tcp6", "::", POD_6)]
    (first, *one), (second, *other) = kinds[::-1] if is_ipv6_first else kinds
    with networks(serving) as (clients, in_pod), started(serving.in_pod(program(TARGET))) as server:
        target = Stage(server, clients, in_pod)
        listening(target, "::", kind="tcp6")
        with started(serving.tool(program(PROCESS), "--steal")) as running:
            stage = Stage(running, clients, in_pod)
            listens(stage, first, *one)
            stage.meets(f"accept {first} 1", one[-1])
            target.meets(host=other[-1], name=TARGET)
            listens(stage, second, *other)
            stage.meets(f"accept {second} 1", other[-1])
            stage.meets(f"accept {first} 1", one[-1])
            stage.do(f"close {second}")
            assert holds_within(2.0, lambda: in_pod.ruleset().count(f"{PORT} :") == 1)
            target.meets(host=other[-1], name=TARGET)
            stage.meets(f"accept {first} 1", one[-1])
        assert holds_within(2.0, lambda: in_pod.ruleset() == "")


def listens(stage: Stage, number: int, kind: str, bound: str, _: str) -> None:
    only = [f"set {number} v6only 1"] if kind == "tcp6" else []
    stage.do(f"{kind} {number}", *only, f"set {number} reuseaddr 1", f"bind {number} {bound} {PORT}")
    assert stage.do(f"listen {number} 16") == "OK"


def test_addresses_that_cannot_be_had(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        assert stage.do("tcp 0", f"bind 0 198.18.77.1 {PORT}") == "EADDRNOTAVAIL"
        assert stage.do("tcp6 1", f"bind 1 fd00:198:18:77::1 {PORT}") == "EADDRNOTAVAIL"
        stage.do("set 0 reuseaddr 1", f"bind 0 {POD} {PORT}", "name 0", "listen 0 4")
        assert stage.do("tcp 2", f"bind 2 0.0.0.0 {PORT}") == "EADDRINUSE"
        assert stage.do("tcp 3", f"bind 3 {POD} {PORT}") == "EADDRINUSE"
        assert stage.do(f"bind 0 {POD} {PORT}") == "EINVAL"

    comes_to_the_same(serving, scenario)


def test_a_group_that_shares_a_port(serving: ServingWorld) -> None:
    """Who of SO_REUSEPORT's group gets a connection is the kernel's affair; as long as one is left, that does."""

    def scenario(stage: Stage) -> None:
        for number in (0, 1):
            stage.do(f"tcp {number}", f"set {number} reuseport 1", f"set {number} reuseaddr 1")
            stage.do(f"bind {number} 0.0.0.0 {PORT}", f"listen {number} 9")
        stage.do("tcp 4", f"bind 4 0.0.0.0 {PORT}")
        stage.do("close 1")
        for _ in range(3):
            stage.meets("accept 0 2")
            stage.do("close 2")
        stage.do("close 0")
        assert stage_refuses(stage)

    comes_to_the_same(serving, scenario)


def test_a_port_of_the_kernels_choice_is_of_this_machine(serving: ServingWorld) -> None:
    with networks(serving) as (clients, _), started(serving.tool(program(PROCESS), "--steal")) as server:
        stage = Stage(server, clients, clients)
        stage.do("tcp 0", "bind 0 0.0.0.0 0", "listen 0 5")
        port = int(stage.do("name 0").split()[-1])
        assert port > 0
        stage.refused(port=port)
        reach_here(serving, stage, port)


def reach_here(serving: ServingWorld, stage: Stage, port: int) -> None:
    """A client on the tool's machine."""
    descriptor = os.open(f"/proc/{serving.outside.pid}/ns/net", os.O_RDONLY)
    try:
        with Network(descriptor).connect("127.0.0.1", port) as client:
            assert stage.do("accept 0 1").startswith("OK from inet 127.0.0.1 to inet 127.0.0.1")
            stage.greeted(client)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("mode", MODES)
def test_clients_on_this_machine_are_served_too(serving: ServingWorld, mode: str) -> None:
    with (
        networks(serving) as (clients, in_pod),
        in_pod.listen(4, PORT),
        started(serving.tool(program(PROCESS), "--incoming", mode)) as server,
    ):
        stage = Stage(server, clients, in_pod)
        listening(stage)
        reach_here(serving, stage, PORT)
        with stage.connect():
            assert stage.do("accept 0 1").startswith("OK from inet 198.18.1.2 to")
        reach_here(serving, stage, PORT)


def test_a_port_that_is_taken_here(serving: ServingWorld) -> None:
    """The process doesn't see that another is used; the user is told."""

    def scenario(stage: Stage) -> None:
        listening(stage)
        stage.meets()
        stage.do("tcp 3", f"bind 3 0.0.0.0 {PORT}")

    native, _ = play(serving, scenario, serving.in_pod(program(PROCESS)))
    descriptor = os.open(f"/proc/{serving.outside.pid}/ns/net", os.O_RDONLY)
    try:
        with Network(descriptor).listen(4, PORT):
            heard, errors = play(serving, scenario, serving.tool(program(PROCESS), "--steal"))
    finally:
        os.close(descriptor)
    assert heard == native
    assert f"port {PORT} of this machine" in errors


def test_a_privileged_port(serving: ServingWorld) -> None:
    """A program without capabilities."""

    def scenario(stage: Stage) -> None:
        listening(stage, port=80)
        with stage.connect(port=80) as client:
            stage.do("accept 0 1", "name 1")
            stage.greeted(client)

    native, _ = play(serving, scenario, serving.in_pod(program(PROCESS)))
    plain = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *program(PROCESS)]
    heard, _ = play(serving, scenario, serving.tool(plain, "--steal"))
    assert heard == native


@pytest.mark.parametrize("flush", [False, True])
def test_the_target_serves_before_and_after(serving: ServingWorld, tmp_path: Path, flush: bool) -> None:
    """A subscription begins with listen and ends with the listener; who was connected is reset if that is wished."""
    config = tmp_path / "mirrord.json"
    config.write_text(json.dumps({"agent": {"flush_connections": flush}}))
    with networks(serving) as (clients, in_pod), started(serving.in_pod(program(TARGET))) as server:
        target = Stage(server, clients, in_pod)
        listening(target)
        with started(serving.tool(program(PROCESS), "--steal", "--config-file", str(config))) as running:
            stage = Stage(running, clients, in_pod)
            with stage.connect() as before:
                target.do("accept 0 1")
                target.greeted(before, TARGET)
                listening(stage)
                stage.meets()
                if flush:
                    with pytest.raises(ConnectionResetError):
                        before.recv(100)
                else:
                    target.do("say 1 undisturbed")
                    assert before.recv(100) == b"undisturbed"
                target.do("close 1")
            assert f"{PORT} :" in in_pod.ruleset()
            stage.do("close 0")
            assert holds_within(2.0, lambda: f"{PORT} :" not in in_pod.ruleset())
            target.meets(name=TARGET)
        assert holds_within(2.0, lambda: in_pod.ruleset() == "")
