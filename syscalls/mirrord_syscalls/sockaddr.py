"""Socket addresses: what connect(2) and its relatives read and write, as typed values.

The rules for lengths are the kernel's own for an address it is given: move_addr_to_kernel (net/socket.c), the minima
of tcp_v4_connect and tcp_v6_connect (net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c), and unix_validate_addr
(net/unix/af_unix.c). Manual pages: ip(7), ipv6(7), unix(7). The family and the scope id are in the machine's byte
order, which is little-endian on every architecture we have a table for; ports, addresses and the flow information are
in network order.
"""

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import attrs

SOCKADDR_IN_BYTES = 16
SOCKADDR_IN6_BYTES = 28
SOCKADDR_IN6_MINIMUM_BYTES = 24
"""The kernel accepts an IPv6 address without its scope id (SIN6_LEN_RFC2133)."""
SOCKADDR_UN_BYTES = 110
UNIX_PATH_MAXIMUM_BYTES = 108
SOCKADDR_STORAGE_BYTES = 128
"""The longest address the kernel reads or writes; a longer one fails with EINVAL."""

_AF_UNSPEC = int(socket.AF_UNSPEC)
_AF_UNIX = int(socket.AF_UNIX)
_AF_INET = int(socket.AF_INET)
_AF_INET6 = int(socket.AF_INET6)

_FAMILY_BYTES = 2
_family = struct.Struct("<H")
_inet4 = struct.Struct(">HI")
_inet6 = struct.Struct(">HI16s")
_scope_id = struct.Struct("<I")

_MAPPED_PREFIX = 0xFFFF << 32


@attrs.frozen
class Inet4:
    """An AF_INET address and port."""

    host: IPv4Address
    port: int


@attrs.frozen
class Inet6:
    """An AF_INET6 address and port. `host` carries no scope of its own; `scope_id` is the interface's index or 0."""

    host: IPv6Address
    port: int
    flow_info: int = 0
    scope_id: int = 0


@attrs.frozen
class Unix:
    """An AF_UNIX address.

    A pathname is without the NUL that ends it, an abstract name begins with NUL, and an unnamed socket has none (b"").
    """

    path: bytes

    @property
    def is_abstract(self) -> bool:
        """Whether the name lives in the network namespace and not in the file system."""
        return self.path.startswith(b"\0")


@attrs.frozen
class Unspecified:
    """AF_UNSPEC: given to connect(2) it dissolves the association."""


@attrs.frozen
class OtherFamily:
    """An address of a family we do not take apart. `raw` is the whole address, its family included."""

    family: int
    raw: bytes


SocketAddress = Inet4 | Inet6 | Unix | Unspecified | OtherFamily


def decode_sockaddr(raw: bytes | bytearray | memoryview) -> SocketAddress:
    """Return the address that `raw` (as many bytes as the caller's length says) holds.

    Raises ValueError, with the reason, where the kernel would answer EINVAL: too short for its family, or too long.
    """
    length = len(raw)
    if not _FAMILY_BYTES <= length <= SOCKADDR_STORAGE_BYTES:
        raise ValueError(f"a socket address takes 2 to {SOCKADDR_STORAGE_BYTES} bytes, not {length}")
    family: int = raw[0] | raw[1] << 8
    if family == _AF_INET:
        if length < SOCKADDR_IN_BYTES:
            raise ValueError(f"an AF_INET address takes {SOCKADDR_IN_BYTES} bytes, not {length}")
        port, host = _inet4.unpack_from(raw, 2)
        return Inet4(IPv4Address(host), port)
    if family == _AF_INET6:
        if length < SOCKADDR_IN6_MINIMUM_BYTES:
            raise ValueError(f"an AF_INET6 address takes at least {SOCKADDR_IN6_MINIMUM_BYTES} bytes, not {length}")
        port, flow_info, host = _inet6.unpack_from(raw, 2)
        scope_id = _scope_id.unpack_from(raw, 24)[0] if length >= SOCKADDR_IN6_BYTES else 0
        return Inet6(IPv6Address(host), port, flow_info, scope_id)
    if family == _AF_UNIX:
        if length > SOCKADDR_UN_BYTES:
            raise ValueError(f"an AF_UNIX address takes at most {SOCKADDR_UN_BYTES} bytes, not {length}")
        name = bytes(raw[2:])
        return Unix(name if name.startswith(b"\0") else name.partition(b"\0")[0])
    if family == _AF_UNSPEC:
        return Unspecified()
    return OtherFamily(family, bytes(raw))


def encode_sockaddr(address: SocketAddress) -> bytes:
    """Return the bytes of `address`, of the length the kernel itself would give it.

    Raises ValueError for a Unix name that is too long and for a pathname that contains NUL.
    """
    match address:
        case Inet4(host, port):
            return _family.pack(_AF_INET) + _inet4.pack(port, int(host)) + bytes(8)
        case Inet6(host, port, flow_info, scope_id):
            fields = _inet6.pack(port, flow_info, host.packed)
            return _family.pack(_AF_INET6) + fields + _scope_id.pack(scope_id)
        case Unix(path):
            return _family.pack(_AF_UNIX) + _unix_name(path)
        case Unspecified():
            return _family.pack(_AF_UNSPEC) + bytes(SOCKADDR_IN_BYTES - _FAMILY_BYTES)
        case OtherFamily(_, raw):
            return raw


def _unix_name(path: bytes) -> bytes:
    if len(path) > UNIX_PATH_MAXIMUM_BYTES:
        raise ValueError(f"a Unix socket's name takes at most {UNIX_PATH_MAXIMUM_BYTES} bytes: {path!r}")
    if not path or path.startswith(b"\0"):
        return path
    if b"\0" in path:
        raise ValueError(f"a Unix socket's pathname cannot contain NUL: {path!r}")
    # The NUL is left out only where there is no room for it; the kernel adds it there (unix(7), BUGS).
    return path + b"\0" if len(path) < UNIX_PATH_MAXIMUM_BYTES else path


def mapped_ipv4(address: SocketAddress) -> Inet4 | None:
    """Return the IPv4 address that an IPv4-mapped IPv6 address (::ffff:a.b.c.d, RFC 4291) stands for, else None."""
    if not isinstance(address, Inet6):
        return None
    number = int(address.host)
    if number >> 32 != 0xFFFF:
        return None
    return Inet4(IPv4Address(number & 0xFFFF_FFFF), address.port)


def to_mapped(address: Inet4) -> Inet6:
    """Return the IPv4-mapped IPv6 address (::ffff:a.b.c.d) by which an AF_INET6 socket knows an IPv4 one."""
    return Inet6(IPv6Address(_MAPPED_PREFIX | int(address.host)), address.port)
