"""A cluster for tests: an API server over TLS on 127.0.0.1, in a thread of the test's process with a loop of its own.

    with Cluster(tmp_path) as cluster:
        cluster.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
        run_something_with(cluster.kubeconfig)

The methods here are for the test's thread, also while a Trio loop runs in it: each hands its work to the stand-in's
loop and waits. What the work raises, they raise. Where the stand-in itself fails, the block ends with its traceback.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import trio
import trustme

from mirrord_trace.cluster.resources import Resource

from .admission import Webhook
from .api import Api, Recorded
from .connect_proxy import ConnectProxy
from .faults import Faults
from .http import Connection
from .identities import ADMIN
from .interfaces import Machinery
from .kinds import NAMESPACES, kind_of
from .kubeconfigs import Auth, Kubeconfigs, Server
from .listening import Certificate, Listening
from .objects.defaults import fill_in, first_status
from .objects.schema import examine, normalized
from .port_forward import port_forward
from .store import Object, Objects, Store

T = TypeVar("T")

ANSWER_S = 20.0
"""How long the loop may take for anything; also the machinery for its start."""


class Cluster:
    """A cluster, from `with` to the end of the block. Files (kubeconfigs, certificates) go into the directory.

    Without machinery it is an API server and nothing else: pods are what `apply` makes them.
    """

    def __init__(self, directory: Path, machinery: Machinery | None = None) -> None:
        self.directory = directory
        self.machinery = machinery
        self.store = Store()
        """What the cluster holds; to be touched in the stand-in's loop only."""
        connections: set[Connection] = set()
        self.faults = Faults(self.in_loop, self.store, connections)
        self._api = Api(self.store, self.faults, port_forward, machinery)
        self.rbac = self._api.authorizer
        """Who may do what. "admin" may do everything, others what they are given."""
        self._authority = trustme.CA()
        self._connections = connections
        self._kubeconfigs = Kubeconfigs(directory, self._authority, self._api.identities)
        self._loop: trio.lowlevel.TrioToken | None = None
        self._started: Future[None] = Future()
        self._crash: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="cluster stand-in")

    def __enter__(self) -> Cluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._authority.cert_pem.write_to_path(str(self.directory / "ca.crt"))
        self._thread.start()
        try:
            self._started.result(ANSWER_S)
        except BaseException:
            self._stop()
            raise
        for name in ("default", "kube-system"):
            self._ensure_namespace(name)
        self.port = self.in_loop(partial(self._listening.port, "valid"))
        self.kubeconfig = self.kubeconfig_for()
        """A kubeconfig for "admin", who may do everything."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if error is None and self._crash is not None:
            raise self._crash
        if error is None and self._api.failures:
            raise AssertionError("the stand-in failed:\n" + "\n".join(self._api.failures))

    def in_loop(self, work: Callable[[], T]) -> T:
        """Runs a function in the stand-in's loop and returns its result."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)

        assert self._loop is not None, "the cluster runs only within its block"
        self._loop.run_sync_soon(run)
        return outcome.result(ANSWER_S)

    def wait_until(self, check: Callable[[Store], T | None], timeout_s: float = ANSWER_S) -> T:
        """Waits until a look at the store finds what it looks for, and returns that. Raises TimeoutError."""
        outcome: Future[T] = Future()
        scope = trio.CancelScope()

        async def look() -> None:
            try:
                with scope:
                    while (found := check(self.store)) is None:
                        await self.store.news.wait()
                    outcome.set_result(found)
            except Exception as error:
                outcome.set_exception(error)

        self.in_loop(partial(self._nursery.start_soon, look))
        try:
            return outcome.result(timeout_s)
        finally:
            self.in_loop(scope.cancel)

    def apply(self, value: Object) -> Object:
        """Creates or replaces an object, past rights and admission, as the cluster's own parts would.

        Its schema is checked, defaults are filled in, and its namespace is made if there is none. A status that isn't
        given stays as it is.
        """
        kind = kind_of(value["apiVersion"], value["kind"])
        assert kind is not None, f"no such kind: {value['apiVersion']} {value['kind']}"
        value = normalized(value)
        if kind.model is not None:
            found = examine(kind.model, value)
            wrong = [*(f"unknown field {path}" for path in found.unknown), *found.undecodable]
            assert not wrong, f"{kind.name} {value['metadata'].get('name')}: {wrong}"
        namespace = value["metadata"].setdefault("namespace", "default") if kind.namespaced else None
        if namespace is not None:
            self._ensure_namespace(namespace)

        def put() -> Object:
            self._api.absent.discard(kind.resource)
            before = self.store.find(kind.resource, namespace, value["metadata"]["name"])
            value["metadata"].setdefault("uid", before["metadata"]["uid"] if before else str(uuid.uuid4()))
            fill_in(kind, value)
            status = before.get("status") if before else first_status(kind, value)
            if status is not None:
                value.setdefault("status", status)
            if kind.model is not None:
                missing = [str(error) for error in examine(kind.model, value).missing]
                assert not missing, f"{kind.name} {value['metadata']['name']}: {missing}"
            return self.store.put(kind.resource, value)

        return self.in_loop(put)

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None."""
        return self.in_loop(partial(self.store.find, resource, namespace, name))

    def list(self, resource: Resource, namespace: str | None = None) -> Objects:
        """All objects of a namespace, or of all."""
        return self.in_loop(partial(self.store.list, resource, namespace))

    def patch(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object:
        """Changes an object by a JSON merge patch, past all rules."""
        return self.in_loop(partial(self.store.patch, resource, namespace, name, patch))

    def delete(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Removes an object at once, past all rules."""
        return self.in_loop(partial(self.store.delete, resource, namespace, name))

    def create_as_component(self, resource: Resource, namespace: str | None, value: Object) -> Object:
        """Creates an object as a controller does: by all rules but rights. Raises Refused."""
        return self.in_loop(partial(self._api.create, resource, namespace, value, user="system:kube-controller"))

    def install(self, resource: Resource) -> None:
        """Serves a custom resource from now on, as if its definition had been created."""
        self.in_loop(partial(self._api.absent.discard, resource))

    @property
    def requests(self) -> Sequence[Recorded]:
        """All requests that were made until now, in order."""
        return self.in_loop(self._api.requests.copy)

    def add_webhook(self, webhook: Webhook) -> None:
        """Has a webhook refuse new objects from now on."""
        self.in_loop(partial(self._api.admission.webhooks.append, webhook))

    def kubeconfig_for(
        self,
        user: str = ADMIN,
        auth: Auth = "token",
        *,
        namespace: str | None = None,
        certificate: Certificate = "valid",
        trusted: bool = True,
        insecure: bool = False,
        tls_server_name: str | None = None,
        proxy_url: str | None = None,
    ) -> Path:
        """Writes a kubeconfig for a user, with one context, and returns its path.

        `certificate` is the one that the server shows there, `trusted` whether the kubeconfig names its authority. The
        rest is what the kubeconfig says of the server.
        """
        port = self.in_loop(partial(self._listening.port, certificate))
        authority = self.directory / "ca.crt" if trusted and not insecure else None
        server = Server(f"https://127.0.0.1:{port}", authority, insecure, tls_server_name, proxy_url)
        return self._kubeconfigs.write(user, auth, server, namespace)

    def service_account(self, user: str, namespace: str) -> tuple[Path, dict[str, str]]:
        """What a pod of that account finds: the directory with token, ca.crt and namespace, and its environment."""
        place = self._kubeconfigs.write_service_account(user, namespace)
        return place, {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}

    def proxy(self, password: str | None = None) -> tuple[str, ConnectProxy]:
        """Starts an HTTP proxy; returns its URL, with the password that it asks for, and the proxy."""
        proxy = ConnectProxy(password)
        port = self.in_loop(partial(self._listening.serve_plainly, proxy.serve))
        credentials = f"developer:{password}@" if password is not None else ""
        return f"http://{credentials}127.0.0.1:{port}", proxy

    def expire_tokens(self, user: str = ADMIN) -> None:
        """A user's tokens expire; exec plugins and token files have new ones."""
        self.in_loop(partial(self._kubeconfigs.expire, user))

    def expire_certificates(self, user: str = ADMIN) -> None:
        """A user's client certificates are no longer accepted."""
        self.in_loop(partial(self._api.identities.revoke_certificates, user))

    def plugin_runs(self, kubeconfig: Path) -> int:
        """How often the exec plugin of a kubeconfig has run."""
        return self._kubeconfigs.plugin_runs(kubeconfig)

    def forget_pages(self) -> None:
        """Whoever is in the middle of a list in pages gets 410 for the next page."""
        self.in_loop(self._api.lister.forget)

    def go_away(self) -> None:
        """The API server is gone: connections end, new ones are refused."""
        self.in_loop(self._listening.go_away)

    def come_back(self) -> None:
        """It is there again, at the same address."""
        self.in_loop(self._listening.come_back)

    def _ensure_namespace(self, name: str) -> None:
        if self.get(NAMESPACES, None, name) is None:
            labels = {"kubernetes.io/metadata.name": name}
            namespace = {"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name, "labels": labels}}
            status = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
            self.in_loop(partial(self.store.put, NAMESPACES, namespace | status))

    def _stop(self) -> None:
        try:
            self.in_loop(self._scope.cancel)
        except trio.RunFinishedError:
            pass
        self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            self._crash = error
            if not self._started.done():
                self._started.set_exception(error)

    async def _main(self) -> None:
        self._loop = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._nursery, self._scope = nursery, nursery.cancel_scope
            self._listening = Listening(self._authority, self._api.handle, nursery, self._connections)
            if self.machinery is not None:
                await nursery.start(self.machinery.run, self._api)
            nursery.start_soon(trio.sleep_forever)
            self._started.set_result(None)
