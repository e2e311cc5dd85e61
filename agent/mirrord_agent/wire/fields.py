"""How single values travel in a frame's header, and how a frame is laid out.

Values are packed as msgpack has them. What is unpacked has been checked: `unpack` raises ValueError with a reason for
what it does not accept.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, get_args

import attrs

from mirrord_agent.wire import frames
from mirrord_agent.wire.frames import Endpoint, Frame, InetEndpoint, UnixEndpoint

#: Longest text field, in characters.
MAX_TEXT = 4096
#: Longest bytes field in a header.
MAX_BLOB = 4096

#: Longest filter of HTTP requests, in bytes of UTF-8.
MAX_FILTER = 12288

INT64_MIN = -1 << 63
INT64_MAX = (1 << 63) - 1


def told_time(time_ns: int) -> int:
    """A time that the wire can tell, from the year 1677 to 2262: some filesystems know times long before and after."""
    return max(INT64_MIN, min(time_ns, INT64_MAX))


@attrs.frozen
class Field:
    """How one field travels. `unpack` raises ValueError with a reason for what it does not accept."""

    pack: Callable[[Any], object]
    unpack: Callable[[Any], object]


def _same(value: Any) -> object:
    return value


def integer(low: int, high: int) -> Field:
    """An integer from `low` to `high`."""

    def unpack(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected an integer from {low} to {high}, got {value!r:.40}")
        return value

    return Field(_same, unpack)


def _unpack_text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise ValueError(f"expected a text of at most {MAX_TEXT} characters, got {value!r:.40}")
    return value


def _unpack_filter(value: Any) -> str:
    if type(value) is not str or len(value.encode()) > MAX_FILTER:
        raise ValueError(f"expected a filter of at most {MAX_FILTER} bytes, got {value!r:.40}")
    return value


def _unpack_blob(value: Any) -> bytes:
    if type(value) is not bytes or len(value) > MAX_BLOB:
        raise ValueError(f"expected at most {MAX_BLOB} bytes, got {value!r:.40}")
    return value


def _unpack_seconds(value: Any) -> float:
    if type(value) is not float or not 0 <= value < 1e9:
        raise ValueError(f"expected seconds, got {value!r:.40}")
    return value


def _unpack_texts(value: Any) -> tuple[str, ...]:
    if type(value) is not list or len(value) > 64:
        raise ValueError(f"expected a list of at most 64 texts, got {value!r:.40}")
    return tuple(_unpack_text(item) for item in value)


def choice(*choices: str) -> Field:
    """One of a few texts."""

    def unpack(value: Any) -> object:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, got {value!r:.40}")
        return value

    return Field(_same, unpack)


def _unpack_flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError(f"expected true or false, got {value!r:.40}")
    return value


def _unpack_kind(value: Any) -> frames.GoodbyeKind:
    if type(value) is not str:
        raise ValueError(f"expected a kind of goodbye, got {value!r:.40}")
    return frames.GoodbyeKind(value)


PORT = integer(0, 65535)
UINT32 = integer(0, (1 << 32) - 1)


def _pack_inet(endpoint: InetEndpoint) -> object:
    return [endpoint.host, endpoint.port, endpoint.scope_id]


def _unpack_inet(value: Any) -> InetEndpoint:
    if type(value) is not list or len(value) != 3:
        raise ValueError(f"expected an address, got {value!r:.40}")
    host, port, scope_id = value
    if type(host) is not str or "%" in host:
        raise ValueError(f"expected a numeric address, got {host!r:.40}")
    ipaddress.ip_address(host)
    PORT.unpack(port)
    UINT32.unpack(scope_id)
    return InetEndpoint(host, port, scope_id)


def _pack_endpoint(endpoint: Endpoint) -> object:
    return endpoint.path if isinstance(endpoint, UnixEndpoint) else _pack_inet(endpoint)


def _unpack_endpoint(value: Any) -> Endpoint:
    return UnixEndpoint(_unpack_blob(value)) if type(value) is bytes else _unpack_inet(value)


def optional(field: Field) -> Field:
    """The same, or None."""
    return Field(
        pack=lambda value: None if value is None else field.pack(value),
        unpack=lambda value: None if value is None else field.unpack(value),
    )


def _pack_facts(facts: frames.Facts) -> object:
    return [facts.hostname, facts.domain_name, facts.pid, float(facts.communication_timeout_s)]


def _unpack_facts(value: Any) -> frames.Facts:
    if type(value) is not list or len(value) != 4:
        raise ValueError(f"expected facts, got {value!r:.40}")
    pid = value[2]
    if type(pid) is not int or pid < 0:
        raise ValueError(f"expected a process id, got {pid!r:.40}")
    return frames.Facts(_unpack_text(value[0]), _unpack_text(value[1]), pid, _unpack_seconds(value[3]))


TEXT = Field(_same, _unpack_text)
TEXTS = Field(list, _unpack_texts)
FILTER = Field(_same, _unpack_filter)
BLOB = Field(_same, _unpack_blob)
FLAG = Field(_same, _unpack_flag)
KIND = Field(lambda kind: kind.value, _unpack_kind)
FACTS = Field(_pack_facts, _unpack_facts)
STREAM = integer(1, INT64_MAX)
ERRNO = integer(1, 4095)  # MAX_ERRNO of the kernel
INET = Field(_pack_inet, _unpack_inet)
ENDPOINT = Field(_pack_endpoint, _unpack_endpoint)
FAMILY = choice(*get_args(frames.AddressFamily))
TRANSPORT = choice(*get_args(frames.Transport))
INCOMING_MODE = choice(*get_args(frames.IncomingMode))


@attrs.frozen
class Layout:
    """How a frame travels: its number, its header fields in the order of the class, and whether a payload follows.

    The payload is always the class's last attribute.
    """

    number: int
    frame: type[Frame]
    fields: tuple[tuple[str, Field], ...] = ()
    payload: bool = False
