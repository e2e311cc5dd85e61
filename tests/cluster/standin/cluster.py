"""A cluster for tests: an API server over TLS on 127.0.0.1, in a thread of the test's process with a loop of its own.

    with Cluster(tmp_path) as cluster:
        cluster.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "shop"}})
        run_something_with(cluster.kubeconfig)

The methods here are for the test's thread, also while a Trio loop runs in it: each hands its work to the stand-in's
loop and waits. What the work raises, they raise.
"""

from __future__ import annotations

import secrets
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import trio
import trustme
import yaml

from mirrord_trace.cluster.resources import Resource

from .api import Api, Identity
from .http import serve_connection
from .interfaces import Machinery
from .kinds import kind_of
from .store import Object, Store

T = TypeVar("T")

STARTING_S = 20.0
"""How long the machinery may take to start."""


class Cluster:
    """A cluster, from `with` to the end of the block. Files (kubeconfigs, certificates) go into the directory.

    Without machinery it is an API server and nothing else: pods are what `apply` makes them.
    """

    def __init__(self, directory: Path, machinery: Machinery | None = None) -> None:
        self.directory = directory
        self.machinery = machinery
        self._api = Api()
        self._authority = trustme.CA()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="cluster stand-in")

    @property
    def store(self) -> Store:
        """What the cluster holds; to be touched in the stand-in's loop only."""
        return self._api.store

    def __enter__(self) -> Cluster:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self.port = self._started.result(STARTING_S)
        for name in ("default", "kube-system"):
            self.apply({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})
        self.kubeconfig = self.kubeconfig_for()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.in_loop(self._scope.cancel)
        self._thread.join()

    def in_loop(self, work: Callable[[], T]) -> T:
        """Runs a function in the stand-in's loop and returns its result."""
        outcome: Future[T] = Future()

        def run() -> None:
            try:
                outcome.set_result(work())
            except BaseException as error:
                outcome.set_exception(error)

        assert self._token is not None, "the cluster runs only within its block"
        self._token.run_sync_soon(run)
        return outcome.result(STARTING_S)

    def apply(self, value: Object) -> Object:
        """Creates or replaces an object, past all rules, as a controller or an administrator would."""
        kind = kind_of(value["apiVersion"], value["kind"])
        assert kind is not None, f"no such kind: {value['apiVersion']} {value['kind']}"
        if kind.namespaced:
            value = value | {"metadata": {"namespace": "default"} | value["metadata"]}
        return self.in_loop(partial(self.store.put, kind.resource, value))

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object | None:
        """The object, or None."""
        return self.in_loop(partial(self.store.find, resource, namespace, name))

    def list(self, resource: Resource, namespace: str | None = None) -> list[Object]:
        """All objects of a namespace, or of all."""
        return self.in_loop(partial(self.store.list, resource, namespace))

    def patch(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object:
        """Changes an object by a JSON merge patch, past all rules."""
        return self.in_loop(partial(self.store.patch, resource, namespace, name, patch))

    def delete(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """Removes an object at once, past all rules."""
        return self.in_loop(partial(self.store.delete, resource, namespace, name))

    def kubeconfig_for(self, user: str = "admin", *, namespace: str | None = None) -> Path:
        """Writes a kubeconfig file for a user, and returns its path."""
        token = secrets.token_hex(16)
        self.in_loop(partial(self._api.tokens.__setitem__, token, Identity(user)))
        authority = self.directory / "ca.crt"
        self._authority.cert_pem.write_to_path(str(authority))
        context = {"cluster": "standin", "user": user} | ({"namespace": namespace} if namespace else {})
        path = self.directory / f"{user}-{secrets.token_hex(3)}.kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "standin",
                    "contexts": [{"name": "standin", "context": context}],
                    "clusters": [
                        {
                            "name": "standin",
                            "cluster": {
                                "server": f"https://127.0.0.1:{self.port}",
                                "certificate-authority": str(authority),
                            },
                        }
                    ],
                    "users": [{"name": user, "user": {"token": token}}],
                }
            )
        )
        return path

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:
            if self._started.done():
                raise
            self._started.set_exception(error)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
        self._authority.configure_trust(context)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            wrapped = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
            await serve_connection(wrapped, self._api.handle)

        with self._scope:
            async with trio.open_nursery() as nursery:
                if self.machinery is not None:
                    await nursery.start(self.machinery.run, self._api)
                nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
                self._started.set_result(listener.socket.getsockname()[1])
