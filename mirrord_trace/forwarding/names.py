"""Names resolved as the target resolves them: its /etc/hosts, then the name servers of its /etc/resolv.conf.

Both files are read for each lookup, because a container's may change. Queries leave from the target's network. What
resolv.conf(5) says of `search`, `ndots`, `timeout` and `attempts` is done; sorting of addresses (RFC 6724) is not:
IPv4 comes first, which a target without IPv4 refuses at once.
"""

from __future__ import annotations

import errno
from ipaddress import ip_address
from typing import Final

import attrs
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import trio

from mirrord_agent.wire.frames import AddressFamily, InetEndpoint
from mirrord_trace.session import Session, SessionLost

_PORT: Final = 53
_SERVERS_AT_MOST: Final = 3  # resolv.conf(5), MAXNS
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)
_LOOPBACK: Final = ("127.0.0.1", "::1")
"""What `localhost` is where no file says it (RFC 6761 section 6.3)."""


class NoAddress(Exception):
    """A name has no address, or none that could be found out; the text says why."""


@attrs.frozen
class ResolverConfiguration:
    """What an /etc/resolv.conf says."""

    servers: tuple[str, ...] = _LOOPBACK[:1]
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 5.0
    attempts: int = 2

    @classmethod
    def parse(cls, text: str) -> ResolverConfiguration:
        """Reads a resolv.conf(5). What cannot be understood is passed over, as the C library does."""
        servers: list[str] = []
        search: tuple[str, ...] = ()
        options: dict[str, int] = {}
        for line in text.splitlines():
            match line.split():
                case ["nameserver", server, *_] if _is_address(server) and len(servers) < _SERVERS_AT_MOST:
                    servers.append(server)
                case ["search", *domains]:
                    search = tuple(domains)
                case ["domain", domain, *_]:
                    search = (domain,)
                case ["options", *given]:
                    options.update(_numbers(given))
        return cls(
            servers=tuple(servers) or _LOOPBACK[:1],
            search=search,
            ndots=min(options.get("ndots", 1), 15),
            timeout_s=min(max(options.get("timeout", 5), 1), 30),
            attempts=min(max(options.get("attempts", 2), 1), 5),
        )

    def candidates(self, name: str) -> list[dns.name.Name]:
        """The absolute names that a name may stand for, in the order in which they are asked for.

        Raises NoAddress for what is no name.
        """
        try:
            relative = dns.name.from_text(name, None)
            if relative.is_absolute():
                return [relative]
            searched = [relative.concatenate(dns.name.from_text(domain)) for domain in self.search]
            absolute = relative.concatenate(dns.name.root)
        except (dns.exception.DNSException, UnicodeError) as error:
            raise NoAddress(f"{name!r} is no name: {error}") from error
        return [absolute, *searched] if len(relative) - 1 >= self.ndots else [*searched, absolute]


def addresses_in_hosts(text: str, name: str) -> list[str]:
    """The addresses that a hosts(5) has for a name."""
    wanted = name.rstrip(".").lower()
    found = []
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if _is_address(address) and wanted in map(str.lower, names):
            found.append(address)
    return found


def _numbers(options: list[str]) -> dict[str, int]:
    pairs = (option.partition(":") for option in options)
    return {name: int(value) for name, _, value in pairs if value.isascii() and value.isdecimal() and len(value) < 6}


def _is_address(text: str) -> bool:
    try:
        return "%" not in text and bool(ip_address(text))
    except ValueError:
        return False


@attrs.define(eq=False)
class TargetNames:
    """Names as a session's target resolves them."""

    session: Session

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host, which may be one itself: at least one, IPv4 first.

        Raises NoAddress, SessionLost.
        """
        if _is_address(host):
            return [host]
        texts = {b"/etc/hosts": "", b"/etc/resolv.conf": ""}
        async with trio.open_nursery() as nursery:
            for path in texts:
                nursery.start_soon(self._read, path, texts)
        if self.session.lost.is_set():
            raise SessionLost(self.session.loss_reason or "the agent is gone")
        found = addresses_in_hosts(texts[b"/etc/hosts"], host)
        if not found and host.rstrip(".").lower() == "localhost":
            found = list(_LOOPBACK)
        if not found:
            found = await self._ask(host, ResolverConfiguration.parse(texts[b"/etc/resolv.conf"]))
        return sorted(found, key=lambda address: ":" in address)

    async def _read(self, path: bytes, texts: dict[bytes, str]) -> None:
        try:
            texts[path] = (await self.session.read_file(path)).data.decode(errors="replace")
        except OSError:
            pass  # as the C library: it is as if it were empty; a lost session is looked for by the caller

    async def _ask(self, host: str, configuration: ResolverConfiguration) -> list[str]:
        trouble: str | None = None
        for name in configuration.candidates(host):
            found: list[str] = []
            troubles: list[str] = []
            async with trio.open_nursery() as nursery:
                for kind in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    nursery.start_soon(self._ask_all, configuration, name, kind, found, troubles)
            if self.session.lost.is_set():
                raise SessionLost(self.session.loss_reason or "the agent is gone")
            if found:
                return found
            trouble = troubles[0] if troubles else trouble
        raise NoAddress(trouble or "the target knows no such name")

    async def _ask_all(
        self,
        configuration: ResolverConfiguration,
        name: dns.name.Name,
        kind: dns.rdatatype.RdataType,
        found: list[str],
        troubles: list[str],
    ) -> None:
        """Asks the name servers in turn until one answers."""
        trouble = ""
        for _ in range(configuration.attempts):
            for server in configuration.servers:
                with trio.move_on_after(configuration.timeout_s) as limit:
                    try:
                        response = await self._ask_one(server, dns.message.make_query(name, kind))
                    except (OSError, dns.exception.DNSException) as error:
                        trouble = f"name server {server}: {getattr(error, 'strerror', None) or error}"
                        continue
                    code = response.rcode()
                    if code in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                        found += _addresses(response)
                        return
                    trouble = f"name server {server}: {dns.rcode.to_text(code)}"
                if limit.cancelled_caught:
                    trouble = f"name server {server} does not answer"
        troubles.append(trouble)

    async def _ask_one(self, server: str, query: dns.message.Message) -> dns.message.Message:
        response = await self._ask_by_datagram(server, query)
        if response.flags & dns.flags.TC:
            response = await self._ask_by_stream(server, query)
        return response

    async def _ask_by_datagram(self, server: str, query: dns.message.Message) -> dns.message.Message:
        family: AddressFamily = "inet6" if ":" in server else "inet4"
        flow = await self.session.open_datagrams(family, InetEndpoint(server, _PORT))
        try:
            flow.send(query.to_wire())
            while True:
                data, _ = await flow.receive()
                response = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
                if query.is_response(response):
                    return response
        finally:
            flow.close()

    async def _ask_by_stream(self, server: str, query: dns.message.Message) -> dns.message.Message:
        stream = await self.session.connect(InetEndpoint(server, _PORT))
        try:
            wire = query.to_wire()
            await stream.send(len(wire).to_bytes(2, "big") + wire)  # RFC 1035 section 4.2.2
            received = b""
            while len(received) < 2 or len(received) < 2 + int.from_bytes(received[:2], "big"):
                data = await stream.receive()
                if not data:
                    raise ConnectionResetError(errno.ECONNRESET, "the answer ends early")
                received += data
            return dns.message.from_wire(received[2 : 2 + int.from_bytes(received[:2], "big")])
        finally:
            stream.reset()


def _addresses(response: dns.message.Message) -> list[str]:
    """The addresses at the end of an answer's chain of aliases."""
    if not isinstance(response, dns.message.QueryMessage):
        return []
    try:
        answer = response.resolve_chaining().answer
    except dns.exception.DNSException:
        return []
    return [record.address for record in answer or ()]
