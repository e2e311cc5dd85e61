"""HTTP servers as people have them, and clients as people have them: what both say is what they say in the pod."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable

import pytest

from tests.conformance import build
from tests.conformance.harness import nothing_left
from tests.conformance.serving import FAR, POD, POD_6, PROCESS, TARGET, Case, ServingWorld, needed, started

PORT = 7330
ENDS = signal.SIGTERM
HTTP_1 = ("get", "head", "post", "large", "expect", "close", "http1.0", "parallel")
HTTP_2 = ("http2", "large2", "parallel2")
Command = Callable[[str], list[str]]


def go(host: str) -> list[str]:
    address = f"[{host}]" if ":" in host else host
    return [str(build.go_program("serve_http", stripped=True)), "{name}", f"{address}:{PORT}"]


def node(host: str) -> list[str]:
    return [*build.node_program("serve_http"), "{name}", host, str(PORT)]


def python(host: str) -> list[str]:
    return [*build.python_program("serve_http"), "{name}", host, str(PORT)]


def nginx(host: str, *options: str) -> list[str]:
    needed("nginx")
    address = f"[{host}]" if ":" in host else host
    return [*build.shell_program("serve_nginx"), "{name}", f"{address}:{PORT}", *options]


def nginx_in_group(host: str) -> list[str]:
    return nginx(host, "reuseport")


def asked(server: Command, bound: str, host: str, *ways: str) -> Case:
    needed("curl")
    client = (*build.shell_program("serve_curl"), host, str(PORT), *ways)
    return Case(tuple(server(bound)), client, FAR, ENDS)


EACH = [
    pytest.param(go, (*HTTP_1, "chunked", *HTTP_2), id="go"),
    pytest.param(node, (*HTTP_1, "chunked"), id="node"),
    pytest.param(python, HTTP_1, id="python"),
    pytest.param(nginx, (*HTTP_1, "chunked"), id="nginx"),
    pytest.param(nginx_in_group, HTTP_1, id="nginx-reuseport"),
]
MODES = pytest.mark.parametrize("mode", ["steals", "mirrors"])


@MODES
@pytest.mark.parametrize(("server", "ways"), EACH)
@pytest.mark.parametrize(("bound", "host"), [("0.0.0.0", POD), ("::", POD_6)], ids=["IPv4", "IPv6"])
def test_curl(serving: ServingWorld, mode: str, server: Command, ways: tuple[str, ...], bound: str, host: str) -> None:
    if mode == "mirrors":
        ways = tuple(way for way in ways if way != "large2")  # see the next
    getattr(serving, mode)(asked(server, bound, host, *ways))


def test_long_bodies_of_http2_are_mirrored_by_those_who_know_it(serving: ServingWorld) -> None:
    """The client sends as fast as the target lets it; a copy byte by byte may be too fast for the process's windows."""
    serving.mirrors(asked(go, "0.0.0.0", POD, *HTTP_2), "--header-filter", ".")


@MODES
def test_web_sockets(serving: ServingWorld, mode: str) -> None:
    server = (*build.python_program("serve_websocket"), "{name}", "0.0.0.0", str(PORT))
    client = (*build.python_program("serve_websocket"), "ask", POD, str(PORT))
    _, told = getattr(serving, mode)(Case(server, client, FAR, ENDS))
    assert "pong: True" in told


@pytest.mark.parametrize("server", [go, node, python, nginx])
def test_wrk(serving: ServingWorld, server: Command) -> None:
    """Nothing fails, and all comes from the process."""
    command = [needed("wrk"), "-t1", "-c20", "-d1s", "--timeout", "10s", f"http://{POD}:{PORT}/quiet"]
    with (
        nothing_left(),
        started(serving.in_pod(named(server("0.0.0.0"), TARGET))),
        started(serving.tool(named(server("0.0.0.0"), PROCESS), "--steal")) as process,
    ):
        told = serving.client(command)
        assert int(re.findall(r"(\d+) requests in", told)[0]) > 0
        assert "Socket errors" not in told
        assert "Non-2xx" not in told
        assert process.ended(ENDS).exit_status == 0


@pytest.mark.parametrize("options", [("-m1",), ("-m32",), ("--h1",)], ids=str)
def test_h2load(serving: ServingWorld, options: tuple[str, ...]) -> None:
    command = [needed("h2load"), "-n2000", "-c10", *options, f"http://{POD}:{PORT}/quiet"]
    with (
        nothing_left(),
        started(serving.in_pod(named(go("0.0.0.0"), TARGET))),
        started(serving.tool(named(go("0.0.0.0"), PROCESS), "--steal")) as process,
    ):
        told = serving.client(command)
        assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in told
        assert process.ended(ENDS).exit_status == 0


def test_a_mirrored_target_serves_wrk(serving: ServingWorld) -> None:
    """And so does the process, who gets copies of whatever it can take."""
    command = [needed("wrk"), "-t1", "-c20", "-d1s", "--timeout", "10s", f"http://{POD}:{PORT}/quiet"]
    with (
        nothing_left(),
        started(serving.in_pod(named(go("0.0.0.0"), TARGET))) as target,
        started(serving.tool(named(go("0.0.0.0"), PROCESS), "--incoming", "mirror")) as process,
    ):
        told = serving.client(command)
        assert "Socket errors" not in told
        assert "Non-2xx" not in told
        assert process.ended(ENDS).exit_status == 0
        assert target.ended(ENDS).exit_status == 0


def named(command: list[str], name: str) -> list[str]:
    return [part.replace("{name}", name) for part in command]
