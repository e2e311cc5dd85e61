"""Probes: does a container answer? They come from the node, as the kubelet's do."""

from __future__ import annotations

import os

import h11
import trio

from ..containers.network import within
from ..store import Object


async def probe(network: int, address: str, container: Object, asked: Object) -> str | None:
    """Why a probe failed, in the kubelet's words; None where it did not.

    `network` is a descriptor of the nodes' namespace, `address` the pod's.
    """
    kind = "httpGet" if "httpGet" in asked else "tcpSocket"
    assert kind in asked, f"the stand-in probes by httpGet and tcpSocket only: {asked}"
    port = _number(container, asked[kind]["port"])
    with within(network):
        socket = trio.socket.socket()
    with socket:
        try:
            with trio.fail_after(asked.get("timeoutSeconds", 1)):
                await socket.connect((address, port))
                if kind == "httpGet":
                    return await _get(trio.SocketStream(socket), asked["httpGet"].get("path", "/"), address)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            return f"dial tcp {address}:{port}: connect: {reason}"
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return f'Get "http://{address}:{port}": EOF'
        except trio.TooSlowError:
            return f"dial tcp {address}:{port}: i/o timeout"
    return None


def _number(container: Object, port: int | str) -> int:
    if isinstance(port, int):
        return port
    return next(int(known["containerPort"]) for known in container["ports"] if known.get("name") == port)


async def _get(stream: trio.SocketStream, path: str, host: str) -> str | None:
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=path, headers=[("Host", host), ("User-Agent", "kube-probe/1.36")])
    await stream.send_all(connection.send(request))
    await stream.send_all(connection.send(h11.EndOfMessage()))
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await stream.receive_some())
    if not isinstance(event, h11.Response):
        raise h11.RemoteProtocolError("the answer is none")
    return None if 200 <= event.status_code < 400 else f"HTTP probe failed with statuscode: {event.status_code}"
