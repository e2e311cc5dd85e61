"""Which connections are forwarded, as a user writes it. Pure."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final

import attrs

_PART: Final = re.compile(r"\[([^\[\]]*)\]|([^:\[\]]*)")
_LOOPBACK: Final = ("127.0.0.1", "::1")
_EVERYWHERE: Final = ("0.0.0.0", "::")


@attrs.frozen
class Forward:
    """From this machine into the target's network."""

    bind: tuple[str, ...]
    """Addresses of this machine on which is listened, all on the same port."""
    local_port: int
    """0: any that is free."""
    host: str
    """A name or an address, as the target knows it."""
    port: int

    @classmethod
    def parse(cls, text: str) -> Forward:
        """Reads [[BIND_ADDRESS:]LOCAL_PORT:]HOST:PORT, where IPv6 addresses are in brackets. Raises ValueError."""
        parts = _parts(text)
        if parts is None or not 2 <= len(parts) <= 4:
            raise ValueError(f"{text!r} is not [[BIND_ADDRESS:]LOCAL_PORT:]HOST:PORT; IPv6 addresses go in brackets")
        *before, host, port_text = parts
        if not host:
            raise ValueError(f"{text!r} names no host; localhost is the target itself")
        if "%" in host or not host.isprintable() or " " in host:
            raise ValueError(f"{host!r} in {text!r} is neither a name nor an address that can be forwarded to")
        port = _port(port_text, text)
        local_port = _port(before.pop(), text, least=0) if before else port
        return cls(_bind_addresses(before[0], text) if before else _LOOPBACK, local_port, host, port)

    @property
    def far(self) -> str:
        """Where to, in words."""
        return host_and_port(self.host, self.port)


def host_and_port(host: str, port: int) -> str:
    """As people write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _parts(text: str) -> list[str] | None:
    parts, position = [], 0
    while True:
        match = _PART.match(text, position)
        assert match is not None, "it matches nothing, too"
        parts.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        if position == len(text):
            return parts
        if text[position] != ":":
            return None
        position += 1


def _port(text: str, whole: str, least: int = 1) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and least <= int(text) < 65536):
        raise ValueError(f"{text!r} in {whole!r} is no port from {least} to 65535")
    return int(text)


def _bind_addresses(text: str, whole: str) -> tuple[str, ...]:
    if text in ("", "*"):
        return _EVERYWHERE
    if text == "localhost":
        return _LOOPBACK
    try:
        return (str(ip_address(text)),)
    except ValueError:
        raise ValueError(f"{text!r} in {whole!r} is no address of this machine, nor localhost, nor *") from None
