"""What the user is told when the API server cannot be spoken to. The errors are real ones where they can be had."""

import datetime
import errno
import os
import socket
import ssl
import threading
from http.client import IncompleteRead
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
import urllib3

from mirrord_trace.cluster import exchange, unreachable
from mirrord_trace.cluster.api import open_api
from mirrord_trace.cluster.resources import PODS
from mirrord_trace.config import ClusterConfiguration
from tests.mirrord_trace.cluster.servers import PATIENCE_S, Handler, Proxy, Server, closed_port

SERVER = "https://api.example:6443"
REACHABLE = "Is the cluster running, and can {host}, the server that the kubeconfig names, be reached from here (VPN)?"


def reply(handler: Handler) -> None:
    handler.reply(200, {"kind": "Pod"})


def failing(configuration: ClusterConfiguration) -> unreachable.Unreachable:
    async def main() -> None:
        with trio.fail_after(PATIENCE_S):
            async with open_api(configuration) as api:
                await api.get(PODS, "shop", "web")

    with pytest.raises(unreachable.Unreachable) as failure:
        trio.run(main)
    return failure.value


def test_nothing_listens(tmp_path: Path) -> None:
    with Server(tmp_path, reply) as server, closed_port() as port:
        failure = failing(server.configuration(cluster={"server": f"https://127.0.0.1:{port}"}))
        assert failure.message == f"cannot reach the API server https://127.0.0.1:{port}: connection refused"
        assert failure.advice == REACHABLE.format(host="127.0.0.1")


def test_an_authority_that_is_not_trusted(tmp_path: Path) -> None:
    with Server(tmp_path, reply) as server:
        (tmp_path / "other.crt").write_bytes(trustme.CA().cert_pem.bytes())
        failure = failing(server.configuration(cluster={"certificate-authority": "other.crt"}))
        assert failure.message == (
            f"the certificate of the API server {server.url} is signed by an authority that is not trusted"
        )
        assert failure.advice is not None
        assert "--accept-invalid-certificates" in failure.advice


def test_a_certificate_for_another_name_or_address(tmp_path: Path) -> None:
    with Server(tmp_path, reply, names=("api.example",)) as server:
        failure = failing(server.configuration())
        assert failure.message == f"the certificate of the API server {server.url} is for another address"
        failure = failing(server.configuration(cluster={"server": f"https://localhost:{server.port}"}))
        assert failure.message.endswith(" is for another name")
        assert failure.advice is not None
        assert "tls-server-name" in failure.advice


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    authority = trustme.CA()
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = authority.issue_cert("127.0.0.1", not_before=past, not_after=past + datetime.timedelta(days=1))
    with Server(tmp_path, reply, certificate=certificate) as server:
        server.authority = authority
        failure = failing(server.configuration())
        assert failure.message == f"the certificate of the API server {server.url} has expired"


def test_a_server_without_tls(tmp_path: Path) -> None:
    with Server(tmp_path, reply, tls=False) as server:
        url = server.url.replace("http", "https")
        failure = failing(server.configuration(cluster={"server": url}))
        assert failure.message.startswith(f"cannot reach the API server {url}: TLS failed: ")
        assert failure.advice == "The server seems to speak plain HTTP: check the cluster's server in the kubeconfig."


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "_ANSWER_S", 0.2)
    over = threading.Event()

    def wait(_handler: Handler) -> None:
        over.wait(PATIENCE_S)

    with Server(tmp_path, wait) as server:
        assert failing(server.configuration()).message == (
            f"cannot reach the API server {server.url}: it does not answer in time"
        )
        assert len(server.seen) == 1
        over.set()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.usefixtures("direct")
def test_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    with Server(tmp_path, reply) as server, closed_port() as port:
        failure = failing(server.configuration(cluster={"proxy-url": f"http://user:secret@127.0.0.1:{port}"}))
        assert failure.message == (
            f"cannot reach the API server {server.url} through the proxy http://127.0.0.1:{port}: connection refused"
        )
        assert failure.advice == "Check the proxy: proxy-url in the kubeconfig, or $HTTPS_PROXY and $NO_PROXY."


@pytest.mark.usefixtures("direct")
def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    with Server(tmp_path, reply) as server, Proxy(refuse=True) as proxy:
        failure = failing(server.configuration(cluster={"proxy-url": f"http://127.0.0.1:{proxy.port}"}))
        assert failure.message == (
            f"cannot reach the API server {server.url} through the proxy http://127.0.0.1:{proxy.port}: "
            "tunnel connection failed: 407 Proxy Authentication Required"
        )
        assert not failure.sent


def wrapped(*errors: BaseException) -> BaseException:
    """The first, caused by the second, and so on."""
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def oserror(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def no_name(number: int) -> BaseException:
    pool: Any = None
    inner = socket.gaierror(number, "…")
    return wrapped(urllib3.exceptions.NameResolutionError("api.example", pool, inner), inner)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (no_name(socket.EAI_NONAME), "its name cannot be resolved"),
        (no_name(socket.EAI_AGAIN), "no name server answers"),
        (oserror(errno.EHOSTUNREACH), "no route to host"),
        (oserror(errno.ENETUNREACH), "network is unreachable"),
        (oserror(errno.ETIMEDOUT), "it does not answer in time"),
        (TimeoutError(), "it does not answer in time"),
        (
            urllib3.exceptions.ProtocolError("Connection aborted.", oserror(errno.ECONNRESET)),
            "connection reset by peer",
        ),
        (urllib3.exceptions.ProtocolError("Connection broken: x"), "connection broken: x"),
        (
            wrapped(urllib3.exceptions.ProtocolError("x"), IncompleteRead(b"")),
            "the connection broke off in the middle of an answer",
        ),
        (wrapped(ExceptionGroup("g", [oserror(errno.ECONNREFUSED)])), "connection refused"),
    ],
)
def test_words(error: BaseException, words: str) -> None:
    failure = unreachable.failure(error, SERVER)
    assert failure.message == f"cannot reach the API server {SERVER}: {words}"
    assert failure.advice == REACHABLE.format(host="api.example")


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (9, "is not valid yet"),
        (10, "has expired"),
        (18, "is signed by itself only, and not trusted"),
        (20, "is signed by an authority that is not trusted"),
        (26, "is not accepted: unsuitable certificate purpose"),
    ],
)
def test_certificates(code: int, problem: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "unsuitable certificate purpose"
    failure = unreachable.failure(urllib3.exceptions.SSLError(error), SERVER)
    assert failure.message == f"the certificate of the API server {SERVER} {problem}"


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


POOL: Any = None


@pytest.mark.parametrize(
    ("error", "arrived"),
    [
        (urllib3.exceptions.NewConnectionError(POOL, "refused"), False),
        (urllib3.exceptions.ConnectTimeoutError(POOL, "timed out"), False),
        (no_name(socket.EAI_NONAME), False),
        (urllib3.exceptions.ProxyError("x", oserror(errno.ECONNRESET)), False),
        (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError()), False),
        (urllib3.exceptions.SSLError(tls_error("WRONG_VERSION_NUMBER")), False),
        (urllib3.exceptions.SSLError(tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC")), True),
        (urllib3.exceptions.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")), True),
        (urllib3.exceptions.ProtocolError("x", oserror(errno.ECONNRESET)), True),
        (urllib3.exceptions.ReadTimeoutError(POOL, "/", "x"), True),
        (oserror(errno.ECONNREFUSED), False),
        (oserror(errno.ECONNRESET), True),
    ],
)
def test_which_requests_may_have_arrived(error: BaseException, arrived: bool) -> None:
    assert unreachable.may_have_arrived(error) is arrived


def test_an_earlier_attempt_may_have_arrived() -> None:
    refused = oserror(errno.ECONNREFUSED)
    assert not unreachable.failure(refused, SERVER).sent
    assert unreachable.failure(refused, SERVER, sent=True).sent


def test_which_errors_may_pass() -> None:
    pool: Any = None
    refused = urllib3.exceptions.NewConnectionError(pool, "refused")
    assert unreachable.may_pass(refused, reached=True)
    assert not unreachable.may_pass(refused, reached=False)
    assert unreachable.may_pass(urllib3.exceptions.ProtocolError("x", oserror(errno.ECONNRESET)), reached=False)
    assert not unreachable.may_pass(urllib3.exceptions.ReadTimeoutError(pool, "/", "x"), reached=True)
    untrusted = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError())
    assert not unreachable.may_pass(untrusted, reached=True)
