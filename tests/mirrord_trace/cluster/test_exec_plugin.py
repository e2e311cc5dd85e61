import base64
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from mirrord_trace.cluster import exec_plugin
from mirrord_trace.cluster.exec_plugin import PluginCredentials, cluster_information, credentials_in
from mirrord_trace.errors import Failure

V1 = "client.authentication.k8s.io/v1"


def credential(**status: Any) -> str:
    return json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status})


def shell(script: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": V1, "command": "sh", "args": ["-c", script]} | fields


def ask(plugin: dict[str, Any], *, interactive: bool = False, folder: Path = Path("/")) -> PluginCredentials:
    cluster = {"server": "https://api.example"}

    async def main() -> PluginCredentials:
        with trio.fail_after(20):
            return await exec_plugin.run(plugin, cluster, folder=folder, user="dev", interactive=interactive)

    return trio.run(main)


def failing(plugin: dict[str, Any], **more: Any) -> Failure:
    with pytest.raises(Failure) as failure:
        ask(plugin, **more)
    return failure.value


def test_a_token() -> None:
    assert ask(shell(f"echo '{credential(token='t')}'")) == PluginCredentials("t", None, None, None)


def test_a_token_and_a_certificate_that_expire() -> None:
    output = credential(
        token="t", clientCertificateData="c", clientKeyData="k", expirationTimestamp="2026-01-02T03:04:05Z"
    )
    assert ask(shell(f"echo '{output}'")) == PluginCredentials("t", "c", "k", 1767323045.0)


def test_the_plugin_is_told_the_cluster_and_has_its_own_variables() -> None:
    script = r"""printf '{"apiVersion":"%s","kind":"ExecCredential","status":{"token":"%s"}}' \
        client.authentication.k8s.io/v1 "$NAME-$(printf %s "$KUBERNETES_EXEC_INFO" | base64 -w0)" """
    plugin = shell(script, env=[{"name": "NAME", "value": "v"}], provideClusterInfo=True)
    name, _, told = (ask(plugin).token or "").partition("-")
    assert name == "v"
    assert json.loads(base64.b64decode(told)) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {"interactive": False, "cluster": {"server": "https://api.example"}},
    }


def test_a_command_with_a_slash_is_beside_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/plugin").write_text(f"#!/bin/sh\necho '{credential(token='t')}'\n")
    (tmp_path / "bin/plugin").chmod(0o755)
    assert ask({"apiVersion": V1, "command": "./bin/plugin"}, folder=tmp_path).token == "t"


def test_a_plugin_that_is_not_installed() -> None:
    failure = failing({"apiVersion": V1, "command": "no-such-plugin", "installHint": "Get it\n from there."})
    assert failure.message == (
        "cannot run no-such-plugin, the exec plugin of the kubeconfig's user dev: No such file or directory"
    )
    assert failure.advice == "Get it from there."


def test_a_plugin_that_fails() -> None:
    failure = failing(shell("echo your session is over >&2; exit 3"))
    assert failure.message == (
        "the exec plugin of the kubeconfig's user dev gave no credentials: "
        "sh ended with exit code 3:\nyour session is over"
    )
    assert failure.advice == "Log in as it wants (running it at a terminal may help), then try again."


def test_a_plugin_that_is_killed() -> None:
    assert failing(shell("kill -9 $$")).message.endswith(" ended with signal 9")


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        ({"apiVersion": V1}, "the exec plugin of the kubeconfig's user dev has no command"),
        (
            shell("", env=[{"name": "A"}]),
            "the exec plugin of the kubeconfig's user dev is not described as it should be: 'value'",
        ),
        (
            shell("", env=["A=B"]),
            "the exec plugin of the kubeconfig's user dev is not described as it should be: string indices must be "
            "integers, not 'str'",
        ),
        (
            shell("\0"),
            "the exec plugin of the kubeconfig's user dev is not described as it should be: embedded null byte",
        ),
        (
            {"apiVersion": "client.authentication.k8s.io/v1alpha1", "command": "sh"},
            "the exec plugin of the kubeconfig's user dev speaks 'client.authentication.k8s.io/v1alpha1'",
        ),
        (
            shell("", interactiveMode="Sometimes"),
            "the exec plugin of the kubeconfig's user dev has an unknown interactiveMode 'Sometimes'",
        ),
        (
            shell("", interactiveMode="Always"),
            "the exec plugin of the kubeconfig's user dev wants to ask at a terminal, and there is none for it",
        ),
        (shell("true"), "the exec plugin of the kubeconfig's user dev gave no credentials: sh wrote nothing"),
    ],
)
def test_a_plugin_that_cannot_be_used(plugin: dict[str, Any], message: str) -> None:
    assert failing(plugin).message == message


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ("", "nothing"),
        ("token", "something that is not JSON"),
        ("[]", "something that is not an ExecCredential"),
        ('{"kind": "Status"}', "something that is not an ExecCredential"),
        (credential().replace("/v1", "/v1beta1"), f"an ExecCredential of {V1}beta1 where {V1} was asked for"),
        (credential(), "an ExecCredential with neither a token nor a client certificate"),
        (credential(token=""), "an ExecCredential with neither a token nor a client certificate"),
        (credential(clientCertificateData="c"), "a client certificate without its key"),
        (credential(clientKeyData="k"), "a key without its certificate"),
        (credential(token="t", expirationTimestamp="soon"), "an expirationTimestamp that is no time: 'soon'"),
    ],
)
def test_outputs_that_hold_no_credentials(output: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        credentials_in(output.encode(), V1)
    assert str(error.value) == problem


def test_what_a_plugin_is_told_of_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("PEM")
    cluster = {
        "server": "https://api.example",
        "certificate-authority": str(tmp_path / "ca.crt"),
        "proxy-url": "http://proxy.example",
        "insecure-skip-tls-verify": False,
        "extensions": [
            {"name": "other", "extension": 1},
            {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}},
        ],
    }
    assert cluster_information(cluster) == {
        "server": "https://api.example",
        "certificate-authority-data": base64.b64encode(b"PEM").decode(),
        "proxy-url": "http://proxy.example",
        "config": {"audience": "a"},
    }


@contextlib.contextmanager
def terminal_as_standard_input(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A pseudo-terminal's other end, while our standard input, also as a descriptor, is the terminal."""
    ours, theirs = pty.openpty()
    kept = os.dup(0)
    try:
        os.dup2(theirs, 0)
        with open(0, closefd=False) as standard_input:
            monkeypatch.setattr(sys, "stdin", standard_input)
            yield ours
    finally:
        os.dup2(kept, 0)
        for descriptor in (ours, theirs, kept):
            os.close(descriptor)


@pytest.mark.parametrize("mode", ["Always", "IfAvailable", None])
def test_a_plugin_may_ask_at_the_terminal(monkeypatch: pytest.MonkeyPatch, mode: str | None) -> None:
    script = f"read answer; echo '{credential(token='ANSWER')}' | sed s/ANSWER/$answer/"
    with terminal_as_standard_input(monkeypatch) as terminal:
        os.write(terminal, b"yes\n")
        assert ask(shell(script, interactiveMode=mode), interactive=True).token == "yes"


@pytest.mark.parametrize(("mode", "interactive"), [("Never", True), ("IfAvailable", False), (None, False)])
def test_otherwise_there_is_nothing_to_read(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, interactive: bool
) -> None:
    with terminal_as_standard_input(monkeypatch) as terminal:
        os.write(terminal, b"no\n")
        script = f"read answer && exit 1; echo '{credential(token='t')}'"
        assert ask(shell(script, interactiveMode=mode), interactive=interactive).token == "t"


def test_what_an_asking_plugin_says_goes_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with terminal_as_standard_input(monkeypatch):
        failure = failing(shell("echo password: >&2; exit 1"), interactive=True)
    assert failure.message.endswith(" ended with exit code 1")
    assert failure.advice == "What it says may be above. Log in as it wants, then try again."
    assert capfd.readouterr().err == "password:\n"


def test_blocked_signals_are_not_handed_on() -> None:
    """Ctrl-C must end a plugin, while the supervisor takes signals from a descriptor."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        assert failing(shell("kill -INT $$; exit 0")).message.endswith(" ended with signal 2")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_a_cancelled_plugin_is_gone(tmp_path: Path, trap: str) -> None:
    os.mkfifo(tmp_path / "started")
    plugin = shell(f"{trap} echo $$ > {tmp_path}/started; while :; do sleep 0.05; done")
    pids: list[int] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await exec_plugin.run(plugin, {}, folder=tmp_path, user="dev", interactive=False)

            nursery.start_soon(run)
            pids.append(int(await trio.Path(tmp_path / "started").read_text()))
            nursery.cancel_scope.cancel()

    trio.run(main)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
