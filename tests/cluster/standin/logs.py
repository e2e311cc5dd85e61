"""What containers have written, as `pods/log` serves it: the API server asks the pod's kubelet."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from .http import Request, Response
from .interfaces import Kubelet
from .status import Refused, bad_request
from .store import Object

_PLAIN = [("content-type", "text/plain")]
_SERVED = {"container", "follow", "tailLines", "limitBytes", "pretty", "stream"}
_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def pod_log(kubelet: Kubelet, pod: Object, request: Request) -> Response:
    """The answer to a request for a container's log. Raises Refused."""
    if unknown := sorted(set(request.query) - _SERVED):
        raise Refused(501, "NotImplemented", f"the stand-in does not serve logs with {', '.join(unknown)}")
    name = _container(pod, request.parameter("container"))
    if not pod["spec"].get("nodeName"):
        return Response(200, _PLAIN)
    _check_started(pod, name)
    return Response(200, _PLAIN, _pieces(kubelet, pod, name, request))


def _container(pod: Object, asked: str) -> str:
    groups = ("initContainers", "containers", "ephemeralContainers")
    names = [container["name"] for group in groups for container in pod["spec"].get(group, [])]
    pod_name = pod["metadata"]["name"]
    if asked:
        if asked not in names:
            raise bad_request(f"container {asked} is not valid for pod {pod_name}")
        return asked
    if len(pod["spec"]["containers"]) > 1:
        choice = f"[{' '.join(names)}]"
        raise bad_request(f"a container name must be specified for pod {pod_name}, choose one of: {choice}")
    only: str = pod["spec"]["containers"][0]["name"]
    return only


def _check_started(pod: Object, name: str) -> None:
    """A container that never ran has no log, and the kubelet says why (validateContainerLogStatus)."""
    groups = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    statuses = [status for group in groups for status in pod.get("status", {}).get(group, [])]
    status = next((one for one in statuses if one["name"] == name), None)
    pod_name = pod["metadata"]["name"]
    if status is None:
        raise bad_request(f'container "{name}" in pod "{pod_name}" is not available')
    waiting = status.get("state", {}).get("waiting")
    if waiting is not None and "terminated" not in status.get("lastState", {}):
        reason = waiting.get("reason", "")
        told = _WAITING.get(reason, reason)
        raise bad_request(f'container "{name}" in pod "{pod_name}" is waiting to start: {told}')


async def _pieces(kubelet: Kubelet, pod: Object, name: str, request: Request) -> AsyncGenerator[bytes, None]:
    skipped = await _before_tail(kubelet, pod, name, int(request.parameter("tailLines") or -1))
    left = int(request.parameter("limitBytes") or -1)
    async with aclosing(_as_generator(kubelet, pod, name, follow=request.flag("follow"))) as pieces:
        async for piece in pieces:
            shown = piece[skipped:]
            skipped -= min(skipped, len(piece))
            shown = shown[:left] if left >= 0 else shown
            if shown:
                yield shown
            left -= len(shown) if left >= 0 else 0
            if left == 0:
                return


async def _before_tail(kubelet: Kubelet, pod: Object, name: str, lines: int) -> int:
    """How many bytes come before the last lines; -1 stands for all lines."""
    if lines < 0:
        return 0
    async with aclosing(_as_generator(kubelet, pod, name, follow=False)) as pieces:
        whole = b"".join([piece async for piece in pieces])
    parts = whole.splitlines(keepends=True)
    return len(b"".join(parts[: max(len(parts) - lines, 0)]))


async def _as_generator(kubelet: Kubelet, pod: Object, name: str, *, follow: bool) -> AsyncGenerator[bytes, None]:
    """A kubelet's log, closed in time where it is a generator."""
    pieces = kubelet.log(pod, name, follow=follow)
    try:
        async for piece in pieces:
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()
