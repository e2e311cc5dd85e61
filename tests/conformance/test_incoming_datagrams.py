"""UDP servers: who is seen to send, and whose answers come back, in every way that programs receive and answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conformance.serving import CLIENTS, POD, POD_6, PROCESS, TARGET, ServingWorld, started
from tests.conformance.stage import PORT, Stage, comes_to_the_same, networks, program
from tests.waiting import holds_within


@contextmanager
def client_of(stage: Stage, host: str = POD) -> Iterator[socket.socket]:
    """A socket that is connected to the server."""
    with stage.clients.open_socket(6 if ":" in host else 4, socket.SOCK_DGRAM) as client:
        client.connect((host, PORT))
        yield client


def bound(stage: Stage, host: str, kind: str = "udp") -> None:
    stage.do(f"{kind} 0", f"bind 0 {host} {PORT}", "name 0")


@pytest.mark.parametrize("receive", ["receive", "message", "peek"])
@pytest.mark.parametrize("answer", ["reply", "answer"])
@pytest.mark.parametrize(
    ("kind", "address", "host"),
    [("udp", "0.0.0.0", POD), ("udp", POD, POD), ("udp6", "::", POD), ("udp6", "::", POD_6), ("udp6", POD_6, POD_6)],
)
def test_questions_and_answers(
    serving: ServingWorld, kind: str, address: str, host: str, receive: str, answer: str
) -> None:
    def scenario(stage: Stage) -> None:
        bound(stage, address, kind)
        with client_of(stage, host) as client:
            for text in (b"one", b"", b"x" * 1400):
                client.send(text)
                stage.do(f"{receive} 0")
                if receive == "peek":
                    stage.do("receive 0")
                stage.do(f"{answer} 0 got-{len(text)}")
                assert client.recv(100) == b"got-%d" % len(text)

    comes_to_the_same(serving, scenario)


def test_answers_go_to_whoever_asked(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        bound(stage, "0.0.0.0")
        with client_of(stage) as one, client_of(stage) as other:
            for client, text in ((one, b"one"), (other, b"other"), (one, b"one again")):
                client.send(text)
                assert stage.do("receive 0").endswith(f"{text.decode()} from inet {CLIENTS}")
                stage.do("reply 0 back")
                assert client.recv(100) == b"back"

    comes_to_the_same(serving, scenario)


def test_a_socket_that_is_then_connected(serving: ServingWorld) -> None:
    """To the client, whose port the kernel would choose: a fixed one here."""

    def scenario(stage: Stage) -> None:
        bound(stage, "0.0.0.0")
        with stage.clients.open_socket(4, socket.SOCK_DGRAM) as client:
            client.bind((CLIENTS, 28190))
            client.connect((POD, PORT))
            client.send(b"first")
            stage.do("receive 0", f"connect 0 {CLIENTS} 28190", "peer 0")
            client.send(b"second")
            stage.do("read 0", "say 0 yes")
            assert client.recv(100) == b"yes"

    comes_to_the_same(serving, scenario)


def test_the_largest(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        bound(stage, "0.0.0.0")
        with client_of(stage) as client:
            client.send(b"y" * 65507)
            assert stage.do("receive 0").startswith("65507 bytes yyyy")

    comes_to_the_same(serving, scenario)


def test_nobody_hears_once_it_is_closed(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        bound(stage, "0.0.0.0")
        with client_of(stage) as client:
            client.send(b"one")
            stage.do("receive 0", "close 0")

            def is_refused() -> bool:
                client.settimeout(0.2)
                try:
                    client.send(b"two")
                    client.recv(10)
                except ConnectionRefusedError:
                    return True
                except TimeoutError:
                    return False
                return False

            assert holds_within(3.0, is_refused)

    comes_to_the_same(serving, scenario)


def test_several_programs_in_turn(serving: ServingWorld) -> None:
    def scenario(stage: Stage) -> None:
        bound(stage, "0.0.0.0")
        with client_of(stage) as client:
            stage.do("exec", "name 0")
            client.send(b"to whoever is there")
            stage.do("receive 0", "reply 0 me")
            assert client.recv(10) == b"me"

    comes_to_the_same(serving, scenario)


def test_mirrored_datagrams(serving: ServingWorld) -> None:
    """The target answers; what the process answers is dropped."""
    with networks(serving) as (clients, in_pod), started(serving.in_pod(program(TARGET))) as server:
        target = Stage(server, clients, in_pod)
        bound(target, "0.0.0.0")
        with started(serving.tool(program(PROCESS), "--incoming", "mirror")) as running:
            stage = Stage(running, clients, in_pod)
            bound(stage, "0.0.0.0")
            with client_of(stage) as client:
                for text in ("one", "two", "three"):
                    client.send(text.encode())
                    assert stage.do("receive 0") == f"{len(text)} bytes {text} from inet {CLIENTS}"
                    assert stage.do("reply 0 of-process") == "OK"
                    assert target.do("receive 0") == f"{len(text)} bytes {text} from inet {CLIENTS}"
                    target.do("reply 0 of-target")
                    assert client.recv(100) == b"of-target"


def test_stolen_datagrams_come_to_the_target_again_in_the_end(serving: ServingWorld) -> None:
    with networks(serving) as (clients, in_pod), started(serving.in_pod(program(TARGET))) as server:
        target = Stage(server, clients, in_pod)
        bound(target, "0.0.0.0")
        with client_of(target) as client:
            with started(serving.tool(program(PROCESS), "--steal")) as running:
                stage = Stage(running, clients, in_pod)
                bound(stage, "0.0.0.0")
                client.send(b"stolen")
                assert stage.do("receive 0") == f"6 bytes stolen from inet {CLIENTS}"
            assert holds_within(3.0, lambda: in_pod.ruleset() == "")
            client.send(b"later")
            assert target.do("receive 0") == f"5 bytes later from inet {CLIENTS}"
