"""What Kubernetes asks a pod by HTTP and gRPC, of which it restarts containers and stops sending to them.

Who steals the port of such a probe without a filter has the command answer it, which may know nothing of it. A probe by
TCP is content with whoever accepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mirrord_trace.targets.workloads.kinds import Object

_KINDS: Final = ("startup", "liveness", "readiness")


def warnings_of_probes(pod: Object) -> dict[int, str]:
    """By port, what is told to who steals it, as the rest of a sentence."""
    asked: dict[int, dict[str, list[str]]] = {}
    spec = pod["spec"]
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        for kind in _KINDS:
            port = _port(container.get(f"{kind}Probe") or {}, container)
            if port is not None:
                asked.setdefault(port, {}).setdefault(container["name"], []).append(kind)
    return {port: _in_words(by_container) for port, by_container in asked.items()}


def _port(probe: Object, container: Object) -> int | None:
    """To which one of the pod's a probe goes."""
    http, grpc = probe.get("httpGet"), probe.get("grpc")
    if http is not None and not http.get("host"):
        return _number(http.get("port"), container)
    return None if grpc is None else _number(grpc.get("port"), container)


def _number(port: object, container: Object) -> int | None:
    """Of a port that may be named, as the container names its ports."""
    named = {one.get("name"): one.get("containerPort") for one in container.get("ports") or ()}
    found = named.get(port) if isinstance(port, str) else port
    return found if isinstance(found, int) else None


def _in_words(by_container: Mapping[str, list[str]]) -> str:
    probes = " and ".join(
        f"the {' and '.join(kinds)} {'probes' if len(kinds) > 1 else 'probe'} of container {name}"
        for name, kinds in by_container.items()
    )
    return (
        f"{probes} come to it, too. Unless the command answers as the target does, Kubernetes restarts the container, "
        "or takes the pod for unready. An HTTP filter leaves them to the target"
    )
