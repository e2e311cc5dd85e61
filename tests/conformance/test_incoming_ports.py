"""Which ports of the target are whose: what the configuration says of ports, and several sessions on one target."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import getpwuid
from signal import SIGTERM
from typing import Any

import attrs
import pytest

from tests.conformance import build
from tests.conformance.harness import nothing_left
from tests.conformance.http_client import connected, request
from tests.conformance.serving import POD, PROCESS, TARGET, ServingWorld, started
from tests.conformance.stage import PORT, Stage, listening, networks, program
from tests.mirrord_agent.incoming.networks import Network
from tests.waiting import holds_within

OTHER = PORT + 1
OWN_PORT = 7390
"""Of the tool's machine."""


@attrs.frozen
class Actors:
    """A target, a process that steals from it, and the tool's machine."""

    target: Stage
    process: Stage
    here: Network


@contextmanager
def actors(serving: ServingWorld, directory: Path, **incoming: Any) -> Iterator[Actors]:
    """With such a section of the configuration."""
    config = directory / "mirrord.json"
    config.write_text(json.dumps({"feature": {"network": {"incoming": {"mode": "steal", **incoming}}}}))
    descriptor = os.open(f"/proc/{serving.outside.pid}/ns/net", os.O_RDONLY)
    try:
        with (
            networks(serving) as (clients, in_pod),
            nothing_left(),
            started(serving.in_pod(program(TARGET))) as target,
            started(serving.tool(program(PROCESS), "--config-file", str(config))) as process,
        ):
            yield Actors(Stage(target, clients, in_pod), Stage(process, clients, in_pod), Network(descriptor))
    finally:
        os.close(descriptor)


def meets(stage: Stage, port: int, name: str) -> str:
    """A client of the pod's port is accepted by the first socket of whoever has this name; what that sees."""
    with stage.connect(port=port) as client:
        assert stage.do("accept 0 1").startswith("OK from inet 198.18.1.2 ")
        seen = stage.do("name 1")
        stage.greeted(client, name)
    stage.do("close 1")
    return seen


def meets_here(stage: Stage, here: Network, port: int) -> None:
    """A client of the tool's machine is accepted by the process."""
    with here.connect("127.0.0.1", port) as client:
        assert stage.do("accept 0 1").startswith("OK from inet 127.0.0.1 ")
        stage.greeted(client)
    stage.do("close 1")


def test_a_port_of_the_targets_that_has_another_number(serving: ServingWorld, tmp_path: Path) -> None:
    with actors(serving, tmp_path, port_mapping=[[PORT, OTHER]]) as made:
        listening(made.target)
        listening(made.process)
        assert made.process.do("name 0").endswith(f" 0.0.0.0 {PORT}")
        assert meets(made.process, OTHER, PROCESS).endswith(f" {POD} {PORT}")
        assert meets(made.target, PORT, TARGET).endswith(f" {POD} {PORT}")
        meets_here(made.process, made.here, PORT)


def test_a_port_of_this_machine_that_has_another_number(serving: ServingWorld, tmp_path: Path) -> None:
    with actors(serving, tmp_path, listen_ports=[[PORT, OWN_PORT]]) as made:
        listening(made.process)
        assert made.process.do("name 0").endswith(f" 0.0.0.0 {PORT}")
        assert meets(made.process, PORT, PROCESS).endswith(f" {POD} {PORT}")
        meets_here(made.process, made.here, OWN_PORT)
        with pytest.raises(ConnectionRefusedError):
            made.here.connect("127.0.0.1", PORT)


def test_both_at_once(serving: ServingWorld, tmp_path: Path) -> None:
    pairs = {"port_mapping": [[PORT, OTHER]], "listen_ports": [[PORT, OWN_PORT]]}
    with actors(serving, tmp_path, **pairs) as made:
        listening(made.process)
        assert meets(made.process, OTHER, PROCESS).endswith(f" {POD} {PORT}")
        meets_here(made.process, made.here, OWN_PORT)


@pytest.mark.parametrize("section", [{"ignore_ports": [PORT]}, {"ports": [OTHER]}])
def test_ports_that_stay_the_targets(serving: ServingWorld, tmp_path: Path, section: dict[str, Any]) -> None:
    with actors(serving, tmp_path, **section) as made:
        listening(made.target)
        listening(made.process)
        meets(made.target, PORT, TARGET)
        meets_here(made.process, made.here, PORT)
        made.process.do("close 0")
        listening(made.process, port=OTHER)
        meets(made.process, OTHER, PROCESS)


def test_what_is_bound_to_loopback_may_stay_this_machines(serving: ServingWorld, tmp_path: Path) -> None:
    with actors(serving, tmp_path, ignore_localhost=True) as made:
        listening(made.target)
        listening(made.process, "127.0.0.1")
        meets(made.target, PORT, TARGET)
        meets_here(made.process, made.here, PORT)
        made.process.do("close 0")
        listening(made.process)
        meets(made.process, PORT, PROCESS)


def test_sessions_with_different_ports(serving: ServingWorld) -> None:
    command = serving.tool(program(PROCESS), "--steal")
    with networks(serving) as (clients, in_pod), nothing_left():
        with started(command) as one, started(command) as another:
            first, second = Stage(one, clients, in_pod), Stage(another, clients, in_pod)
            listening(first)
            listening(second, port=OTHER)
            for _ in range(2):
                meets(first, PORT, PROCESS)
                meets(second, OTHER, PROCESS)
            assert f"{PORT} :" in in_pod.ruleset()
            first.do("close 0")
            assert holds_within(2.0, lambda: f"{PORT} :" not in in_pod.ruleset())
            meets(second, OTHER, PROCESS)
        assert holds_within(2.0, lambda: in_pod.ruleset() == "")


def test_sessions_with_filters_on_one_port(serving: ServingWorld) -> None:
    def serve(name: str) -> list[str]:
        return [str(build.go_program("serve_http")), name, f":{PORT}"]

    def ask(user: str) -> str:
        with connected(clients, POD, PORT) as client:
            answered: str = client.ask(request("/", f"X-User: {user}")).server
            return answered

    users = ("Ann", "Bob", "Eve", "Bob", "Ann")
    with (
        networks(serving) as (clients, _),
        nothing_left(),
        started(serving.in_pod(serve(TARGET))),
        started(serving.tool(serve("of Ann"), "--steal", "--header-filter", "^x-user: ann$")),
    ):
        with started(serving.tool(serve("of Bob"), "--steal", "--header-filter", "^x-user: bob$")) as second:
            assert [ask(user) for user in users] == ["of Ann", "of Bob", TARGET, "of Bob", "of Ann"]
            with connected(clients, POD, PORT) as client:
                answers = [client.ask(request("/", f"X-User: {user}")).server for user in users]
            assert answers == ["of Ann", "of Bob", TARGET, "of Bob", "of Ann"]
            second.ended(SIGTERM)
        assert [ask(user) for user in users] == ["of Ann", TARGET, TARGET, TARGET, "of Ann"]


def test_who_comes_second_to_a_port_is_told_who_has_it(serving: ServingWorld) -> None:
    command = serving.tool(program(PROCESS), "--steal")
    with networks(serving) as (clients, in_pod), nothing_left(), started(command) as one, started(command) as another:
        first, second = Stage(one, clients, in_pod), Stage(another, clients, in_pod)
        listening(first)
        listening(second)
        meets(first, PORT, PROCESS)
        second.do("close 0")
        assert another.process.stdin is not None
        another.process.stdin.close()
        another.process.stdin = None
        said = another.ended().stderr
        assert f"port {PORT} is not stolen from the target" in said
        assert f": {getpwuid(os.getuid()).pw_name}@" in said
        assert f"steals tcp port {PORT} without a filter" in said
        meets(first, PORT, PROCESS)
