"""Copies of the packets that go in and out of the target's network namespace (packet(7)).

Nothing is in the packets' way: each is copied when it passes, as long as the socket's buffer has room, and otherwise
not. An agent that is slow, stopped or killed loses copies and holds up nothing.

What goes out is copied only while that is asked for: Linux copies an outgoing packet before it asks a filter (measured
with small requests: 4 % of the target's throughput, where what comes in costs 1 %).

Packets are taken as they are handed to or by a device: up to 64 KiB where segmentation is left to one, or more (BIG
TCP). So the buffer has to be large, or a few of them fill it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Final

import trio

from mirrord_agent.capabilities import Capability, why_denied
from mirrord_agent.incoming.capture_filter import INSTRUCTION, compile_filter
from mirrord_agent.incoming.families import Port

_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
#: linux/if_packet.h; since Linux 4.20.
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
#: Copies that may wait, as the kernel counts them: at 200 MB/s what comes within a quarter of a second and more.
_BUFFER_BYTES: Final = 64 << 20
#: Longer than any packet: GSO_MAX_SIZE of Linux is 8 times 65535.
_LONGEST: Final = 1 << 20
#: How much of a packet is enough where only beginnings of connections matter: all of most SYNs, data included.
BEGINNING_BYTES: Final = 2048
#: Packets, and bytes, after which others get their turn.
_BATCH: Final = 64
_BATCH_BYTES: Final = 2 << 20
#: Between two looks while packets come. To be woken by each would cost the target, which does the waking, and keep the
#: processors from it (measured with small requests on two of them: a third of its throughput).
_PAUSE_S: Final = 0.001


class Capture:
    """A socket that captures packets with certain ports, none at first."""

    def __init__(self) -> None:
        """Raises OSError, with words for the user."""
        try:
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL)
            )
        except PermissionError as error:
            advice = why_denied(Capability.NET_RAW, otherwise="to see packets of the target's")
            raise OSError(errno.EPERM, f"capturing packets is not permitted: {advice}") from error
        except OSError as error:
            number = errno.EOPNOTSUPP if error.errno == errno.EAFNOSUPPORT else error.errno or errno.EIO
            advice = "that takes a kernel with CONFIG_PACKET, and the node's seems to be without"
            raise OSError(number, f"capturing packets: {os.strerror(number)}; {advice}") from error
        self._ports: tuple[frozenset[Port], frozenset[Port]] = frozenset(), frozenset()
        self._buffer = memoryview(bytearray(_LONGEST))
        self._hears_target = True
        self.taken = 0
        """How many packets the last batch had."""
        self._is_drained = True
        """Whether it took all that was there."""
        try:
            self._enlarge_buffer()
            self._attach(compile_filter((), ()))
            self.hear_target(False)
            self._drop_all()
        except BaseException:
            self._socket.close()
            raise

    def _enlarge_buffer(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        except PermissionError:  # without CAP_NET_ADMIN the system's maximum holds
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)

    def _drop_all(self) -> None:
        """What came before there was a filter."""
        with suppress(BlockingIOError):
            while True:
                self._socket.recv_into(self._buffer)

    def watch(self, tcp_ports: Collection[Port], udp_ports: Collection[Port]) -> None:
        """From now on captures TCP packets from and to these ports, and UDP packets to these. Raises OSError."""
        ports = frozenset(tcp_ports), frozenset(udp_ports)
        if ports != self._ports:
            self._attach(compile_filter(*ports))
            self._ports = ports

    def hear_target(self, wanted: bool) -> None:
        """Whether from now on what goes out by a device is captured too; where Linux knows no other way, it always is.

        On loopback all comes in as well, and is captured in any case.
        """
        if wanted != self._hears_target:
            with suppress(OSError):
                self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, not wanted)
            self._hears_target = wanted

    def _attach(self, program: bytes) -> None:
        instructions = ctypes.create_string_buffer(program, len(program))
        length = len(program) // INSTRUCTION.size
        described = struct.pack("@HP", length, ctypes.addressof(instructions))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)

    def packets(self, are_whole: Callable[[], bool]) -> Iterator[memoryview]:
        """A batch of those that are there; each is valid until the next one.

        Before each one is taken it is asked whether it has to be whole: to copy it costs most of what a packet costs.
        """
        taken = self.taken = 0
        self._is_drained = False
        beginning = self._buffer[:BEGINNING_BYTES]
        for _ in range(_BATCH):
            if taken >= _BATCH_BYTES:
                return
            try:
                size = self._socket.recv_into(self._buffer if are_whole() else beginning)
            except BlockingIOError:
                self._is_drained = True
                return
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # said once for each device that goes down
                    raise
                continue
            taken += size
            self.taken += 1
            yield self._buffer[:size]

    async def wait(self) -> None:
        """Waits until there are packets, or for a moment if some have just come: then there may be none."""
        if not self._is_drained:
            await trio.lowlevel.checkpoint()
        elif self.taken:
            await trio.sleep(_PAUSE_S)
        else:
            await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        """Captures nothing any more."""
        self._socket.close()
