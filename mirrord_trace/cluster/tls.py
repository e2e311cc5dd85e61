"""TLS on a byte stream, many records at a time.

Trio's own hands out one record, 16 KiB at most, for each call, through two locks and several turns of the scheduler.
Here a read empties what has come. The bytes of a port-forward then cost little more than half of the processor's time
(docs/benchmarks.md).
"""

from __future__ import annotations

import ssl

import trio

#: Bytes asked for by one read of the transport. For more, the C library maps fresh memory each time (mallopt(3),
#: M_MMAP_THRESHOLD), which costs more than it saves.
_READ_BYTES = 128 << 10
#: Plaintext of one record at most (RFC 8446, 5.1); OpenSSL never returns more for one read.
_RECORD_BYTES = 16 << 10


class TlsStream:
    """The client's end of TLS on `transport`, after `handshake`. One task may receive while another sends."""

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, server_hostname: str) -> None:
        self._transport = transport
        self._received = ssl.MemoryBIO()
        self._to_send = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_hostname=server_hostname)

    async def handshake(self) -> None:
        """Raises ssl.SSLError (SSLCertVerificationError, SSLEOFError, …), BrokenResourceError."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._send_records()
                await self._read_transport()
            except ssl.SSLCertVerificationError:
                await self._send_records()  # the server learns why
                raise
            else:
                await self._send_records()
                return

    async def receive(self) -> list[bytes]:
        """What has come, in pieces; [] at the end. Raises ssl.SSLError, BrokenResourceError.

        An end of the transport is the end, also without TLS's own: whoever needs to tell has a protocol that can.
        """
        pieces: list[bytes] = []
        while True:
            try:
                while piece := self._tls.read(_RECORD_BYTES):
                    pieces.append(piece)
                return pieces
            except ssl.SSLWantReadError:
                if pieces:
                    return pieces
                await self._read_transport()
            except ssl.SSLEOFError:
                return pieces

    async def send(self, data: bytes) -> None:
        """Sends all. Raises ssl.SSLError, BrokenResourceError."""
        self._tls.write(data)
        await self._send_records()

    async def _send_records(self) -> None:
        if self._to_send.pending:
            await self._transport.send_all(self._to_send.read())

    async def _read_transport(self) -> None:
        data = await self._transport.receive_some(_READ_BYTES)
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()
