"""Where the API server is and how to prove who we are, from the kubeconfig or from the pod that we run in.

The official client makes sense of the configuration: tokens and their files, user and password, OIDC with its refresh,
Google's, a pod's service account. What it leaves to be desired is done around it:
- Exec plugins are run by `exec_plugin`; the client is given what they said, as if it stood in the kubeconfig.
- Certificates and keys that stand in the kubeconfig go to it in memory files, since it would write them to /tmp, where
  a kill -9 would leave them.
- What comes of it is made use of in `access`.

Credentials are loaded anew when the server refuses them (401), and before use when they are known to have expired.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import trio

from mirrord_trace.cluster import exec_plugin, kubeconfig
from mirrord_trace.cluster.access import Access, access_by
from mirrord_trace.cluster.exec_plugin import PluginCredentials
from mirrord_trace.cluster.kubeconfig import Context, of_no_use
from mirrord_trace.config import ClusterConfiguration
from mirrord_trace.errors import Failure, UsageFailure

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MARGIN_S = 10.0
"""Credentials that end within this are not used any more."""
_AUTH_PROVIDERS = ("gcp", "oidc")
"""What the official client knows of these (they gave way to exec plugins)."""


class Credentials:
    """The access to one cluster, and how to get it anew."""

    def __init__(self, context: Context | None, configuration: ClusterConfiguration) -> None:
        self._context = context
        self._configuration = configuration
        self._lock = trio.Lock()
        self._access: Access | None = None
        self.interactive = True
        """Whether an exec plugin may ask at the terminal."""

    @property
    def context(self) -> str | None:
        """The context of the kubeconfig; None in a pod."""
        return None if self._context is None else self._context.name

    @property
    def namespace(self) -> str:
        """The one to work in where none is asked for."""
        if self._configuration.namespace:
            return self._configuration.namespace
        if self._context is not None:
            return self._context.namespace or "default"
        with contextlib.suppress(OSError):
            return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
        return "default"

    async def access(self, refused: Access | None = None) -> Access:
        """How to reach the server now.

        Loads credentials when there are none, when they have expired, or when `refused` are still the current ones.
        Raises `Failure` when there are none to be had.
        """
        async with self._lock:
            current = self._access
            expired = current is not None and current.expires is not None and time.time() > current.expires - _MARGIN_S
            if current is None or current is refused or expired:
                if refused is not None:
                    await trio.to_thread.run_sync(self._read_again, abandon_on_cancel=True)
                plugin = await self._ask_plugin()
                self._access = await trio.to_thread.run_sync(self._load, plugin, abandon_on_cancel=True)
                if current is not None:
                    current.pools.clear()
            assert self._access is not None
            return self._access

    def close(self) -> None:
        """Close the connections that nobody uses."""
        if self._access is not None:
            self._access.pools.clear()

    def _read_again(self) -> None:
        """Take up what has become of the kubeconfig, if it is still of use."""
        if self._context is not None:
            with contextlib.suppress(Failure):
                asked = self._configuration
                self._context = kubeconfig.find(asked.kubeconfig, self._context.name, os.environ) or self._context

    async def _ask_plugin(self) -> PluginCredentials | None:
        context = self._context
        if context is None or not context.user.get("exec") or context.user.get("token"):
            return None
        return await exec_plugin.run(
            context.user["exec"],
            context.cluster,
            folder=context.file.parent,
            user=context.user_name,
            interactive=self.interactive,
        )

    def _load(self, plugin: PluginCredentials | None) -> Access:
        settings, pod_loader, kubeconfig_loader = _client_parts()
        context = self._context
        with contextlib.ExitStack() as files:
            try:
                if context is None:
                    loader = pod_loader(str(SERVICE_ACCOUNT / "token"), str(SERVICE_ACCOUNT / "ca.crt"))
                else:
                    document = files.enter_context(_document(context, plugin))
                    loader = kubeconfig_loader(document, active_context=context.name, config_persister=context.save)
                loader.load_and_set(settings)
            except Failure:
                raise
            except Exception as error:
                # The client checks little: a wrong field may end in any error of the language.
                raise of_no_use(context, error) from error
            if self._configuration.accept_invalid_certificates:
                settings.verify_ssl = False
            return access_by(settings, context, None if plugin is None else plugin.expires)


def find_credentials(configuration: ClusterConfiguration, environment: Mapping[str, str] = os.environ) -> Credentials:
    """The credentials that the configuration means; nothing is asked or proven yet.

    Raises `Failure` when there is no kubeconfig and we are in no pod, and for a kubeconfig that is of no use.
    """
    context = kubeconfig.find(configuration.kubeconfig, configuration.context, environment)
    if context is not None:
        provider = context.user.get("auth-provider")
        if provider and provider.get("name") not in _AUTH_PROVIDERS:
            raise Failure(
                f"the kubeconfig's user {context.user_name} uses the auth-provider {provider.get('name')}, "
                "which kubectl gave up as well",
                "Have the kubeconfig written anew by your provider's tool; it will use an exec plugin.",
            )
        return Credentials(context, configuration)
    if not (environment.get("KUBERNETES_SERVICE_HOST") and (SERVICE_ACCOUNT / "token").exists()):
        looked = ", ".join(str(path) for path in kubeconfig.usual_files(environment)) or "nor a home to look in"
        raise Failure(
            f"no cluster is configured: there is no kubeconfig ({looked}), and this is not a pod",
            "Name a kubeconfig with --kubeconfig or $KUBECONFIG.",
        )
    if configuration.context:
        raise UsageFailure(f"there is no context {configuration.context!r}: without a kubeconfig there are none")
    return Credentials(None, configuration)


def _client_parts() -> tuple[Any, Any, Any]:
    """Of the official client: an empty Configuration, and what fills it. Loading it takes 0.15 s; it has no types."""
    from kubernetes.client import Configuration
    from kubernetes.config.incluster_config import InClusterConfigLoader
    from kubernetes.config.kube_config import KubeConfigLoader

    return Configuration(), InClusterConfigLoader, KubeConfigLoader


@contextlib.contextmanager
def _document(context: Context, plugin: PluginCredentials | None) -> Iterator[dict[str, Any]]:
    """A kubeconfig with this context only, for the official client. Valid within the block."""
    with contextlib.ExitStack() as files:

        def in_memory(contents: bytes) -> str:
            descriptor = os.memfd_create("kubeconfig", os.MFD_CLOEXEC)
            files.callback(os.close, descriptor)
            with open(descriptor, "wb", closefd=False) as file:
                file.write(contents)
            return f"/proc/self/fd/{descriptor}"

        def without_data(section: Mapping[str, Any], kind: str, owner: str) -> dict[str, Any]:
            names = {field: in_memory(contents) for field, contents in kubeconfig.decoded(section, kind, owner)}
            return {
                field: value for field, value in section.items() if field.removesuffix("-data") not in names
            } | names

        user = without_data(context.user, "user", f"the user {context.user_name}")
        if plugin is not None:
            del user["exec"]
            if plugin.token:
                user["token"] = plugin.token
            if plugin.certificate and plugin.key:
                user["client-certificate"] = in_memory(plugin.certificate.encode())
                user["client-key"] = in_memory(plugin.key.encode())
        yield {
            "current-context": context.name,
            "contexts": [{"name": context.name, "context": {"cluster": "cluster", "user": "user"}}],
            "clusters": [{"name": "cluster", "cluster": without_data(context.cluster, "cluster", "the cluster")}],
            "users": [{"name": "user", "user": user}],
        }
