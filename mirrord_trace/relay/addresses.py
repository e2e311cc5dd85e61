"""The three ways to write an address: as the kernel's structure, as the wire's endpoint, as Python's tuple."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from mirrord_agent.wire.frames import Endpoint, InetEndpoint, UnixEndpoint
from mirrord_syscalls.sockaddr import Inet4, Inet6, SocketAddress, Unix, mapped_ipv4, to_mapped


def address_of_name(name: object) -> Inet4 | Inet6:
    """What getsockname() of a Python socket gives. Raises TypeError for other families than the internet's."""
    match name:
        case (str(host), int(port), int(flow_info), int(scope_id)):
            return Inet6(IPv6Address(host.partition("%")[0]), port, flow_info, scope_id)
        case (str(host), int(port)):
            return Inet4(IPv4Address(host), port)
    raise TypeError(f"{name!r} is no internet address")


def endpoint_of(address: Inet4 | Inet6 | Unix) -> Endpoint:
    """An address as the wire names it; an IPv4-mapped one as the IPv4 address that it is."""
    match address:
        case Unix(path):
            return UnixEndpoint(path)
        case Inet4() | Inet6():
            return inet_endpoint_of(address)


def inet_endpoint_of(address: Inet4 | Inet6) -> InetEndpoint:
    """As `endpoint_of`, for addresses that have a port."""
    plain = mapped_ipv4(address) or address
    scope_id = plain.scope_id if isinstance(plain, Inet6) else 0
    return InetEndpoint(str(plain.host), plain.port, scope_id)


def wished_source(process_socket: socket.socket, destination: Inet4 | Inet6) -> InetEndpoint | None:
    """Where the process has bound its socket, as a wish for the agent's; None when it has not.

    A dual-stack socket that sends to an IPv4 address does so from an IPv4 one. Loopback, where a socket may be because
    a relay is there, is a wish only of who talks to loopback.
    """
    bound = address_of_name(process_socket.getsockname())
    if not bound.port:
        return None
    source, target = mapped_ipv4(bound) or bound, mapped_ipv4(destination) or destination
    if type(source) is type(target) and (target.host.is_loopback or not source.host.is_loopback):
        return inet_endpoint_of(source)
    return InetEndpoint("0.0.0.0" if isinstance(target, Inet4) else "::", source.port)


def address_of_endpoint(endpoint: Endpoint, family: int) -> SocketAddress:
    """An endpoint as a socket of `family` shows it: IPv4 addresses are mapped for an AF_INET6 socket (ipv6(7))."""
    if isinstance(endpoint, UnixEndpoint):
        return Unix(endpoint.path)
    host = ip_address(endpoint.host)
    if isinstance(host, IPv6Address):
        return Inet6(host, endpoint.port, 0, endpoint.scope_id)
    plain = Inet4(host, endpoint.port)
    return to_mapped(plain) if family == socket.AF_INET6 else plain
