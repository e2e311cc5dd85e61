"""`mirrord-trace port-forward` with targets in the stand-in, where real agents answer."""

from __future__ import annotations

import json
import signal
import socket

import pytest

from mirrord_trace.cluster.resources import PODS
from tests.cluster.running import wait_until_nothing_is_left
from tests.cluster.standin.shop import NAMESPACE, NEWER_WEB, Shop
from tests.mirrord_trace.forwarding.running import TIMEOUT_S, command


def ask(port: int) -> dict[str, str]:
    answer = b""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(b"GET /other HTTP/1.1\r\n\r\n")
        while chunk := connection.recv(4096):
            answer += chunk
    found: dict[str, str] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_services_are_reached_from_the_pod_and_nothing_is_left(shop: Shop, ending: signal.Signals) -> None:
    arguments = ["--kubeconfig", str(shop.cluster.kubeconfig), "-n", NAMESPACE, "-t", "deploy/web"]
    forwards = ["-L", "0:cart:8080", "-L", "0:cart.shop.svc.cluster.local:8080"]
    with command("port-forward", *arguments, *forwards) as running:
        ports = [running.port_of("cart:8080"), running.port_of("cart.shop.svc.cluster.local:8080")]
        running.tells("ready")
        pod = shop.cluster.get(PODS, NAMESPACE, NEWER_WEB)
        assert pod is not None
        assert [ask(port)["caller"] for port in ports] == [pod["status"]["podIP"]] * 2
        assert running.ends(ending) == 128 + ending
    wait_until_nothing_is_left(shop.cluster)
