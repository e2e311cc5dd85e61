"""An HTTP proxy that tunnels by CONNECT (RFC 9110, section 9.3.6), as `proxy-url` in a kubeconfig names one."""

from __future__ import annotations

import base64

import attrs
import h11
import trio

_PIECE = 64 << 10


@attrs.define
class ConnectProxy:
    """A proxy; it keeps what was asked of it."""

    password: str | None = None
    """If set, clients must name themselves "developer" with it (RFC 7617)."""
    targets: list[str] = attrs.field(factory=list)
    """Where tunnels were made to: "host:port"."""

    async def serve(self, client: trio.SocketStream) -> None:
        """Serves one client: a tunnel, or a refusal."""
        async with client:
            try:
                await self._serve(client)
            except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
                pass

    async def _serve(self, client: trio.SocketStream) -> None:
        machine = h11.Connection(h11.SERVER)
        while (event := machine.next_event()) is h11.NEED_DATA:
            machine.receive_data(bytes(await client.receive_some(_PIECE)))
        if not isinstance(event, h11.Request):
            return
        status = self._judge(event)
        if status != 200:
            headers = [(b"proxy-authenticate", b'Basic realm="proxy"'), (b"content-length", b"0")]
            await client.send_all(machine.send(h11.Response(status_code=status, headers=headers)) or b"")
            return
        target = event.target.decode()
        self.targets.append(target)
        host, _, port = target.rpartition(":")
        async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as server:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pump, client, server)
                nursery.start_soon(_pump, server, client)

    def _judge(self, request: h11.Request) -> int:
        if request.method != b"CONNECT":
            return 405
        if self.password is not None:
            wanted = base64.b64encode(f"developer:{self.password}".encode())
            if dict(request.headers).get(b"proxy-authorization") != b"Basic " + wanted:
                return 407
        return 200


async def _pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    try:
        while piece := await source.receive_some(_PIECE):
            await sink.send_all(piece)
        await sink.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        await sink.aclose()
        await source.aclose()
