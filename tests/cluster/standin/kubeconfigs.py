"""Kubeconfig files: each way in which a user can prove who it is, and each way to the server.

Tokens that expire are renewed where something can renew them: an exec plugin prints a new one when it runs again, a
token file is written anew. A token that stands in a kubeconfig stays what it is.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Literal

import attrs
import trustme
import yaml

from .identities import Identities

Auth = Literal[
    "token", "token-file", "certificate", "certificate-data", "exec", "exec-certificate", "oidc", "anonymous"
]
_EXEC_VERSION = "client.authentication.k8s.io/v1"


@attrs.frozen
class Server:
    """How a kubeconfig names the server."""

    url: str
    authority: Path | None
    """None: nothing is said, so that the system's authorities count."""
    insecure: bool = False
    tls_server_name: str | None = None
    proxy_url: str | None = None

    def section(self) -> dict[str, Any]:
        """The cluster's part of a kubeconfig."""
        named = {
            "server": self.url,
            "certificate-authority": str(self.authority) if self.authority else None,
            "insecure-skip-tls-verify": self.insecure or None,
            "tls-server-name": self.tls_server_name,
            "proxy-url": self.proxy_url,
        }
        return {name: value for name, value in named.items() if value is not None}


@attrs.define
class Kubeconfigs:
    """Writes kubeconfigs and what they refer to into a directory."""

    directory: Path
    authority: trustme.CA
    identities: Identities
    _renewals: dict[str, list[Callable[[], None]]] = attrs.field(factory=dict)
    _numbers: count[int] = attrs.field(factory=count)

    def write(self, user: str, auth: Auth, server: Server, namespace: str | None) -> Path:
        """Writes a kubeconfig with one context, "standin", and returns its path."""
        number = next(self._numbers)
        place = self.directory / f"{user}-{number}"
        place.mkdir()
        context = {"cluster": "standin", "user": user} | ({"namespace": namespace} if namespace else {})
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "standin",
            "contexts": [{"name": "standin", "context": context}],
            "clusters": [{"name": "standin", "cluster": server.section()}],
            "users": [{"name": user, "user": self._user(user, auth, place)}],
        }
        path = place / "kubeconfig"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def expire(self, user: str) -> None:
        """A user's tokens expire. Plugins and token files have new ones from now on."""
        self.identities.expire(user)
        for renew in self._renewals.get(user, []):
            renew()

    def plugin_runs(self, kubeconfig: Path) -> int:
        """How often the exec plugin of a kubeconfig has run."""
        runs = kubeconfig.with_name("runs")
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def write_service_account(self, user: str, namespace: str) -> Path:
        """Writes what a pod has in /var/run/secrets/kubernetes.io/serviceaccount; returns the directory."""
        place = self.directory / f"service-account-{next(self._numbers)}"
        place.mkdir()
        (place / "namespace").write_text(namespace)
        self.authority.cert_pem.write_to_path(str(place / "ca.crt"))
        self._renewed(user, lambda: (place / "token").write_text(self.identities.issue(user)))
        return place

    def _user(self, user: str, auth: Auth, place: Path) -> dict[str, Any]:
        match auth:
            case "token":
                return {"token": self.identities.issue(user)}
            case "token-file":
                self._renewed(user, lambda: (place / "token").write_text(self.identities.issue(user)))
                return {"tokenFile": str(place / "token")}
            case "certificate":
                certificate, key = self._certificate(user)
                (place / "client.crt").write_bytes(certificate)
                (place / "client.key").write_bytes(key)
                return {"client-certificate": str(place / "client.crt"), "client-key": str(place / "client.key")}
            case "certificate-data":
                encoded = [base64.b64encode(part).decode() for part in self._certificate(user)]
                return {"client-certificate-data": encoded[0], "client-key-data": encoded[1]}
            case "exec":
                self._renewed(user, lambda: _write_credential(place, {"token": self.identities.issue(user)}))
                return {"exec": _plugin(place)}
            case "exec-certificate":
                plain = [part.decode() for part in self._certificate(user)]
                _write_credential(place, {"clientCertificateData": plain[0], "clientKeyData": plain[1]})
                return {"exec": _plugin(place)}
            case "oidc":
                token = _id_token(user)
                self.identities.accept(token, user)
                provider = {"client-id": "standin", "id-token": token, "idp-issuer-url": "https://issuer.cluster.test"}
                return {"auth-provider": {"name": "oidc", "config": provider}}
            case "anonymous":
                return {}

    def _renewed(self, user: str, renew: Callable[[], object]) -> None:
        renew()
        self._renewals.setdefault(user, []).append(lambda: (renew(), None)[1])

    def _certificate(self, user: str) -> tuple[bytes, bytes]:
        issued = self.authority.issue_cert(common_name=user)
        return issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()


def _plugin(place: Path) -> dict[str, Any]:
    script = place / "plugin"
    script.write_text(f"#!/bin/sh\necho run >> '{place}/runs'\nexec cat '{place}/credential.json'\n")
    script.chmod(0o755)
    return {"apiVersion": _EXEC_VERSION, "command": str(script), "interactiveMode": "Never"}


def _write_credential(place: Path, status: dict[str, str]) -> None:
    credential = {"apiVersion": _EXEC_VERSION, "kind": "ExecCredential", "status": status}
    (place / "credential.json").write_text(json.dumps(credential))


def _id_token(user: str) -> str:
    """A token in the form of a JWT that is valid for an hour. Nobody checks its signature here."""
    parts = ({"alg": "none"}, {"sub": user, "exp": int(time.time()) + 3600}, {"signature": "none"})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
