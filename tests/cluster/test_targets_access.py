"""Whole sessions, WebSocket included, with every way to reach an API server and to say who one is."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from mirrord_trace.cluster.resources import JOBS
from tests.cluster.commands import mirrord_trace
from tests.cluster.running import READY_THEN_WAIT, is_ours, run, wait_until_nothing_is_left
from tests.cluster.standin.kubeconfigs import Auth
from tests.cluster.standin.listening import OTHER_NAME
from tests.cluster.standin.shop import NAMESPACE, NEWER_WEB, Shop

USERS: list[Auth] = ["token", "token-file", "certificate", "certificate-data", "exec", "exec-certificate", "oidc"]


def assert_works(shop: Shop, kubeconfig: Path, *arguments: str) -> None:
    done = mirrord_trace(kubeconfig, "run", "-q", *arguments, "-t", "deploy/web", "--", "uname", "-n")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{NEWER_WEB}\n", "")
    assert not [job for job in shop.cluster.list(JOBS) if is_ours(job)]


@pytest.mark.parametrize("auth", USERS)
@pytest.mark.parametrize("delivery", ["notify", "ptrace"])
def test_who_one_is(shop: Shop, auth: Auth, delivery: str) -> None:
    """Exec plugins are children of ours, beside those that are supervised."""
    assert_works(shop, shop.cluster.kubeconfig_for(auth=auth, namespace=NAMESPACE), "--delivery", delivery)


@pytest.mark.parametrize(
    "server",
    [
        {"insecure": True, "certificate": "expired"},
        {"certificate": "other-name", "tls_server_name": OTHER_NAME},
    ],
    ids=["insecure", "tls-server-name"],
)
def test_what_the_kubeconfig_says_of_the_server(shop: Shop, server: dict[str, Any]) -> None:
    assert_works(shop, shop.cluster.kubeconfig_for(namespace=NAMESPACE, **server))


def test_certificates_that_are_accepted_by_a_flag(shop: Shop) -> None:
    kubeconfig = shop.cluster.kubeconfig_for(namespace=NAMESPACE, certificate="expired")
    done = mirrord_trace(kubeconfig, "run", "-t", "deploy/web", "--", "true")
    assert (done.returncode, "has expired" in done.stderr, "--accept-invalid" in done.stderr) == (1, True, True)
    assert_works(shop, kubeconfig, "--accept-invalid-certificates")


@pytest.mark.parametrize("password", [None, "secret"])
def test_through_a_proxy(shop: Shop, password: str | None) -> None:
    url, proxy = shop.cluster.proxy(password)
    assert_works(shop, shop.cluster.kubeconfig_for(namespace=NAMESPACE, proxy_url=url))
    assert len(proxy.targets) > 1, "requests and the WebSocket"


@pytest.mark.parametrize("auth", ["exec", "token-file"])
def test_tokens_that_expire_while_the_command_runs(shop: Shop, auth: Auth) -> None:
    """At the end there is a job to delete, with a token that is fetched anew."""
    user = f"renews-{auth}"
    shop.cluster.rbac.allow(user, "*", "*")
    kubeconfig = shop.cluster.kubeconfig_for(user, auth, namespace=NAMESPACE)
    with run(kubeconfig, "-q", "-t", "deploy/web", "--", *READY_THEN_WAIT) as running:
        running.wait_ready()
        shop.cluster.expire_tokens(user)
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
    assert running.told == ""
    assert not [job for job in shop.cluster.list(JOBS) if is_ours(job)]
    wait_until_nothing_is_left(shop.cluster)
