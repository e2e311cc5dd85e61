"""A netlink socket: requests go out, and the kernel's answers are there when the call that sent them returns.

A socket belongs to the network namespace in which it was made. What the kernel refuses is an OSError that says which
step it was, why, and what to do about it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from mirrord_agent.capabilities import Capability, why_denied
from mirrord_agent.incoming import nft
from mirrord_agent.incoming.netlink_messages import (
    DONE,
    ERROR,
    Acknowledgement,
    Message,
    decode_acknowledgement,
    decode_messages,
    encode_message,
)

NETLINK_SOCK_DIAG: Final = 4
NETLINK_NETFILTER: Final = 12
#: Those that the socket module has no names for: linux/netlink.h.
_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 10, 11

_OPTIONS: Final = {
    NETLINK_SOCK_DIAG: ("CONFIG_INET_DIAG", "CONFIG_INET_TCP_DIAG"),
    NETLINK_NETFILTER: ("CONFIG_NETFILTER_NETLINK", "CONFIG_NF_TABLES"),
}
"""What a kernel must be configured with for a protocol."""
#: What a kernel says that lacks something.
LACKING: Final = frozenset(
    {errno.ENOENT, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT, errno.EINVAL}
)
_MOST_BYTES: Final = 1 << 16
"""Of a datagram of the kernel's (NLMSG_GOODSIZE is 8 KiB)."""


class Refused(OSError):
    """The kernel did not do it. `request` is the one of a batch that it would not do, if it was a single one."""

    def __init__(self, number: int, words: str, request: nft.Request | None = None) -> None:
        super().__init__(number, words)
        self.request = request


class Netlink:
    """A netlink socket of this network namespace; a context manager."""

    def __init__(self, protocol: int, descriptor: int | None = None) -> None:
        """Opens one, in the place of a `descriptor` if there is one. Raises OSError."""
        self._options = _OPTIONS[protocol]
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        except OSError as error:
            raise _refused(error.errno or errno.EIO, "opening a netlink socket", self._options) from error
        try:
            for option in (_NETLINK_CAP_ACK, _NETLINK_EXT_ACK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.bind((0, 0))
            if descriptor is not None:
                os.dup2(self._socket.fileno(), descriptor, inheritable=False)
                self._socket.close()
                self._socket = socket.socket(fileno=descriptor)
        except BaseException:
            self._socket.close()
            raise

    def carry_out(self, batch: Sequence[nft.Request]) -> None:
        """Has nftables do all of it. Raises Refused, and then none of it is done."""
        begin = self._sequence + 1
        self._sequence = begin + len(batch) + 1
        self._send(nft.encode_batch(batch, begin), "asking nftables")
        answers = [decode_acknowledgement(message) for message in self._answers()]
        for answer in answers:
            if answer.errno:
                index = answer.sequence - begin - 1
                raise self._refused_in_batch(answer, batch[index] if 0 <= index < len(batch) else None)
        if len(answers) != len(batch):
            raise Refused(errno.EIO, f"asking nftables: {len(answers)} of {len(batch)} requests were answered")

    def _refused_in_batch(self, answer: Acknowledgement, request: nft.Request | None) -> Refused:
        if request is None:
            return _refused(answer.errno, "asking nftables", self._options, answer.words)
        return _refused(answer.errno, request.words, request.options, answer.words, request)

    def dump(self, kind: int, flags: int, body: bytes, words: str) -> list[Message]:
        """What the kernel lists when asked. Raises Refused."""
        self._sequence += 1
        self._send(encode_message(Message(kind, flags, self._sequence, body)), words)
        listed: list[Message] = []
        while True:
            for message in decode_messages(self._socket.recv(_MOST_BYTES)):
                if message.kind in (ERROR, DONE):
                    self._check(message, words, self._options)
                    return listed
                listed.append(message)

    def command(self, kind: int, flags: int, body: bytes, words: str, options: tuple[str, ...]) -> None:
        """Has the kernel do one thing, which takes these options of it. Raises Refused."""
        self._sequence += 1
        self._send(encode_message(Message(kind, flags, self._sequence, body)), words)
        for message in list(self._answers()):
            self._check(message, words, options)

    def _check(self, message: Message, words: str, options: tuple[str, ...]) -> None:
        answer = decode_acknowledgement(message)
        if answer.errno:
            raise _refused(answer.errno, words, options, answer.words)

    def _send(self, raw: bytes, words: str) -> None:
        try:
            self._socket.send(raw)
        except OSError as error:
            raise _refused(error.errno or errno.EIO, words, self._options) from error

    def _answers(self) -> Iterator[Message]:
        """All that has come."""
        while True:
            try:
                raw = self._socket.recv(_MOST_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            yield from decode_messages(raw)

    def close(self) -> None:
        """Closes the socket; what it owns goes with it."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refused(
    number: int, words: str, options: tuple[str, ...], said: str = "", request: nft.Request | None = None
) -> Refused:
    reason = os.strerror(number) + (f" ({said})" if said else "")
    return Refused(number, f"{words}: {reason}{_advice(number, options, request)}", request)


def _advice(number: int, options: tuple[str, ...], request: nft.Request | None) -> str:
    if number in (errno.EPERM, errno.EACCES):
        if request is not None and request.kind is nft.Kind.NEW_TABLE:
            # Without the capability the whole batch is refused, and not a request.
            return "; another agent that runs has this table"
        return "; " + why_denied(
            Capability.NET_ADMIN, otherwise="in the user namespace that owns the target's network namespace"
        )
    if number in LACKING and options:
        return (
            f"; that takes a kernel with {' and '.join(options)}, and the node's ({os.uname().release}) seems to be "
            "without, or may not load the module"
        )
    if number == errno.ENOENT:
        return "; somebody has removed the table: end the session and start another"
    return ""
