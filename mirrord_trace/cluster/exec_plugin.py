"""Credentials from a program that the kubeconfig names, such as `aws eks get-token` or `gke-gcloud-auth-plugin`.

The protocol is client-go's (https://kubernetes.io/docs/reference/access-authn-authz/authentication/, "client-go
credential plugins"). The official client's own part for it is not used: it logs what goes wrong and goes on without
credentials, waits in a way that cannot be cancelled, and takes no certificate where there is a token as well.

A program that asks something gets Ctrl-C, as `mirrord_trace.child_process` sees to.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import trio

from mirrord_trace.child_process import ChildProcess
from mirrord_trace.errors import Failure

_GRACE_S = 0.5
"""How long a plugin that is no longer wanted may take to end by itself."""
_MOST_SAID = 2000
_LOG_IN = "Log in as it wants (running it at a terminal may help), then try again."
_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")


@attrs.frozen
class PluginCredentials:
    """What a plugin gave: a token, a client certificate with its key, or both."""

    token: str | None
    certificate: str | None
    """In PEM."""
    key: str | None
    expires: float | None
    """Seconds since 1970; None: only when the server refuses them."""


async def run(
    plugin: Mapping[str, Any], cluster: Mapping[str, Any], *, folder: Path, user: str, interactive: bool
) -> PluginCredentials:
    """Ask a plugin for credentials.

    `plugin` and `cluster` are the kubeconfig's sections, `folder` is where the kubeconfig is, `user` is the name that
    it has there. `interactive` says whether the terminal is ours to lend. Raises `Failure` when it gives none.
    """
    subject = f"the exec plugin of the kubeconfig's user {user}"
    version = plugin.get("apiVersion")
    if version not in _VERSIONS:
        raise Failure(f"{subject} speaks {version!r}", f"Known are {' and '.join(_VERSIONS)}.")
    command = plugin.get("command")
    if not isinstance(command, str) or not command:
        raise Failure(f"{subject} has no command")
    try:
        lent = _lends_terminal(plugin.get("interactiveMode", "IfAvailable"), interactive, subject)
        arguments = [str(folder / command) if "/" in command else command, *map(str, plugin.get("args") or [])]
        information: dict[str, Any] = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": lent}}
        if plugin.get("provideClusterInfo"):
            information["spec"]["cluster"] = cluster_information(cluster)
        variables = {str(variable["name"]): str(variable["value"]) for variable in plugin.get("env") or []}
        environment = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": json.dumps(information)}
        status, output, said = await _output_of(arguments, environment, lend_terminal=lent)
    except OSError as error:
        hint = " ".join(str(plugin.get("installHint") or "Install it, or correct the kubeconfig.").split())
        raise Failure(f"cannot run {command}, {subject}: {error.strerror}", hint) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Failure(f"{subject} is not described as it should be: {error}") from error
    # Its arguments stay untold: there may be secrets among them.
    if status != 0:
        ending = f"exit code {status}" if status >= 0 else f"signal {-status}"
        words = f":\n{said}" if said else ""
        raise Failure(
            f"{subject} gave no credentials: {command} ended with {ending}{words}",
            "What it says may be above. Log in as it wants, then try again." if lent else _LOG_IN,
        )
    try:
        return credentials_in(output, version)
    except ValueError as error:
        raise Failure(f"{subject} gave no credentials: {command} wrote {error}") from error


def cluster_information(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """A cluster of the kubeconfig as `ExecCredential.spec.cluster`: with its authority's certificate in it."""
    names = ("server", "tls-server-name", "insecure-skip-tls-verify", "certificate-authority-data", "proxy-url")
    information = {name: cluster[name] for name in names if cluster.get(name)}
    file = cluster.get("certificate-authority")
    if file and "certificate-authority-data" not in information:
        import base64

        with contextlib.suppress(OSError):
            information["certificate-authority-data"] = base64.b64encode(Path(file).read_bytes()).decode()
    for extension in cluster.get("extensions") or []:
        if extension.get("name") == "client.authentication.k8s.io/exec":
            information["config"] = extension.get("extension")
    return information


def credentials_in(output: bytes, version: str) -> PluginCredentials:
    """What a plugin's output says. Raises ValueError, whose text says what it is instead."""
    try:
        answer = json.loads(output)
    except ValueError:
        raise ValueError("nothing" if not output.strip() else "something that is not JSON") from None
    if not isinstance(answer, dict) or answer.get("kind") != "ExecCredential":
        raise ValueError("something that is not an ExecCredential")
    if answer.get("apiVersion") != version:
        raise ValueError(f"an ExecCredential of {answer.get('apiVersion')} where {version} was asked for")
    status = answer.get("status")
    status = status if isinstance(status, dict) else {}
    token, certificate, key = (status.get(name) for name in ("token", "clientCertificateData", "clientKeyData"))
    if bool(certificate) != bool(key):
        raise ValueError("a client certificate without its key" if certificate else "a key without its certificate")
    if not token and not certificate:
        raise ValueError("an ExecCredential with neither a token nor a client certificate")
    expires = status.get("expirationTimestamp")
    return PluginCredentials(token or None, certificate or None, key or None, _seconds(expires) if expires else None)


def _seconds(timestamp: object) -> float:
    try:
        return datetime.datetime.fromisoformat(str(timestamp)).timestamp()
    except ValueError:
        raise ValueError(f"an expirationTimestamp that is no time: {timestamp!r}") from None


def _lends_terminal(mode: object, interactive: bool, subject: str) -> bool:
    available = interactive and sys.stdin is not None and sys.stdin.isatty()
    match mode:
        case "Never":
            return False
        case "IfAvailable" | None:
            return available
        case "Always" if available:
            return True
        case "Always":
            raise Failure(
                f"{subject} wants to ask at a terminal, and there is none for it",
                "Run kubectl get pods once at a terminal, if the plugin remembers what it is told.",
            )
    raise Failure(f"{subject} has an unknown interactiveMode {mode!r}")


async def _output_of(
    command: list[str], environment: Mapping[str, str], *, lend_terminal: bool
) -> tuple[int, bytes, str]:
    """A program's exit status (negative: the signal), its standard output, and its standard error's end.

    Standard error is the terminal's, where that is lent. Raises OSError when the program cannot be executed.
    """
    with contextlib.ExitStack() as resources:

        def owned(descriptor: int) -> int:
            resources.callback(os.close, descriptor)
            return descriptor

        output, said = (owned(os.memfd_create(name, os.MFD_CLOEXEC)) for name in ("plugin output", "plugin errors"))
        files = (0, output) if lend_terminal else (owned(os.open(os.devnull, os.O_RDONLY)), output, said)
        child = ChildProcess.spawn(command, standard_files=files, environment=environment)
        owned(child.pidfd)
        try:
            status = await child.wait()
        except BaseException:
            await _see_off(child)
            raise
        size = os.fstat(said).st_size
        words = os.pread(said, _MOST_SAID, max(0, size - _MOST_SAID)).decode(errors="replace").strip()
        return status or 0, os.pread(output, os.fstat(output).st_size, 0), words


async def _see_off(child: ChildProcess) -> None:
    with trio.CancelScope(shield=True):
        child.end()
        if not await child.ends_within(_GRACE_S):
            child.kill()
            await child.ends_within(_GRACE_S)
