"""A session's redirects: which of the target's ports come to listeners of the agent, until the session ends.

The rules are in a table of nftables, in the network namespace of the thread that opens it; `ruleset` says what they
are. The table must not outlive the agent, however that ends. Where the kernel knows tables that belong to the netlink
socket that made them, it removes the table when it closes the socket. Where it doesn't, a process does that waits for
the agent's end; see `guardian`. One that is killed is replaced. If both are killed at once the table stays, until a
session with the same number replaces it.

While the table is there, and not afterwards, the kernel translates what it redirected: without it, the end of a
connection does not reach the client. The files of a process that is killed are closed from the highest number down (the
work that a task leaves for its end is done in reverse order, task_work_run() since Linux 4.3). So the netlink socket is
closed after the connections if its number is lower than theirs.

Where the kernel has no NAT in tables for both families there is a table for each.
"""

from __future__ import annotations

import enum
import errno
import os
import select
import subprocess
import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import attrs
import trio

from mirrord_agent.incoming import connections, families, guardian, nft, ruleset
from mirrord_agent.incoming.netlink import LACKING, NETLINK_NETFILTER, Netlink, Refused
from mirrord_agent.incoming.nft import Family, Kind, Table
from mirrord_agent.incoming.ruleset import Protocol
from mirrord_agent.wire.frames import AddressFamily

#: How long a guardian may take to be there; one that was stopped (SIGSTOP) would take for ever.
_START_S = 5.0
#: Between two tries to start a guardian.
_RECOVERY_S = 1.0


class Lack(enum.Enum):
    """What a kernel may lack, and there is a way around it."""

    OWNERS = "tables that belong to a socket (Linux 5.12)"
    INET_NAT = "NAT of ports for both families in one table (Linux 5.8)"
    IPV6 = "IPv6"


@attrs.define(eq=False)
class Redirects:
    """The table of a session; a context manager."""

    order: int
    """The session's number among those on this target."""
    _netlink: Netlink
    _tables: Collection[Table]
    _guardian: subprocess.Popen[bytes] | None
    _ports: dict[tuple[Protocol, int, AddressFamily], int] = attrs.field(init=False, factory=dict)

    @classmethod
    def open(cls, order: int, *, descriptor: int | None = None, lacking: Collection[Lack] = ()) -> Self:
        """Makes the table of session `order` (1 to 65535), in which there is no port yet.

        No session that lives may have the same number; what is sent to a port reaches the one with the highest first.
        The netlink socket takes the place of `descriptor`, if there is one, which should be lower than those that
        connections will have. What the kernel lacks is found out; `lacking` is not even tried. To be called in the main
        thread, because the guardian takes that thread's end for the agent's. Raises OSError, with words for the user.
        """
        ruleset.mark_of(order)
        netlink = Netlink(NETLINK_NETFILTER, descriptor)
        try:
            tables, process = _make_tables(netlink, order, lacking)
        except BaseException:
            netlink.close()
            raise
        return cls(order, netlink, tables, process)

    @property
    def mark(self) -> int:
        """SO_MARK of what the session itself sends to the target: that is not redirected to it again."""
        return ruleset.mark_of(self.order)

    def add(
        self, port: int, listener_port: int, protocol: Protocol = "tcp", family: AddressFamily | None = None
    ) -> None:
        """From now on new connections to the port, or datagrams, come to a listener's. Raises OSError.

        With a family, those by this version of IP; what comes by the other one stays where it is.
        The listener must have the addresses of the target's, or the unspecified one. UDP ports have one each.
        Connections that are there already stay where they are: see `flush`. Raises ValueError for a port that is
        redirected already, or such a listener.
        """
        keys = [(protocol, port, version) for version in families.each(family)]
        if any(key in self._ports for key in keys):
            raise ValueError(f"{protocol} port {port} is redirected already")
        if protocol == "udp" and listener_port in self._listener_ports("udp"):
            raise ValueError(f"another UDP port than {port} has listener port {listener_port}")
        self._carry_out(ruleset.add, protocol, port, listener_port, family)
        self._ports.update(dict.fromkeys(keys, listener_port))

    def _listener_ports(self, protocol: Protocol) -> set[int]:
        return {listener_port for (of, *_), listener_port in self._ports.items() if of == protocol}

    def remove(self, port: int, protocol: Protocol = "tcp", family: AddressFamily | None = None) -> None:
        """Undoes `add`. Connections that came here stay. Raises OSError; the port may be added again even so."""
        keys = [(protocol, port, version) for version in families.each(family)]
        listener_port = self._ports[keys[0]]
        for key in keys:
            del self._ports[key]
        self._carry_out(ruleset.remove, protocol, port, listener_port, family)

    def _carry_out(
        self,
        make: ruleset.Change,
        protocol: Protocol,
        port: int,
        listener_port: int,
        family: AddressFamily | None,
    ) -> None:
        self._netlink.carry_out(
            [each for table in self._tables for each in make(table, protocol, port, listener_port, family)]
        )

    def flush(self, port: int, family: AddressFamily | None = None) -> int:
        """Resets connections to a TCP port that are the target's, so that clients connect anew; how many.

        To be called after `add`, in the same network namespace as `open`. What sessions pass on is left alone. Raises
        OSError.
        """
        return connections.reset(port, family)

    async def keep_guarded(self) -> None:
        """Replaces a guardian that was killed, until it is cancelled. Returns where the kernel sees to the table."""
        while self._guardian is not None:
            assert self._guardian.stdout is not None
            await trio.lowlevel.wait_readable(self._guardian.stdout)  # it says nothing more, and so it has ended
            try:
                former, self._guardian = self._guardian, _start_guardian(self._tables)
            except OSError:
                await trio.sleep(_RECOVERY_S)
            else:
                _dismiss(former)

    def close(self) -> None:
        """Removes the table. Connections that came through it are to be closed before."""
        if self._guardian is not None:
            with suppress(Refused):  # somebody may have removed it
                self._netlink.carry_out([nft.delete_table(table) for table in self._tables])
            _dismiss(self._guardian)
            self._guardian = None
        self._netlink.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _make_tables(
    netlink: Netlink, order: int, lacking: Collection[Lack]
) -> tuple[list[Table], subprocess.Popen[bytes] | None]:
    """Makes the session's tables in the best way that there is, and their guardian where they need one."""
    refusal: Refused | None = None
    for seen in _families(lacking):
        tables = [ruleset.table_of(order, family) for family in seen]
        for make in (_make_owned, _make_guarded):
            if make is _make_owned and Lack.OWNERS in lacking:
                continue
            try:
                return tables, make(netlink, order, tables)
            except Refused as error:
                if error.errno not in LACKING or error.request is None:
                    raise
                refusal = error
                if error.request.kind is not Kind.NEW_TABLE:
                    break
    assert refusal is not None, "no way was tried"
    raise refusal


def _families(lacking: Collection[Lack]) -> Iterator[tuple[Family, ...]]:
    if Lack.INET_NAT not in lacking:
        yield (Family.INET,)
    has_ipv6 = Lack.IPV6 not in lacking and Path("/proc/thread-self/net/if_inet6").exists()
    yield (Family.IP, Family.IP6) if has_ipv6 else (Family.IP,)


def _make_owned(netlink: Netlink, order: int, tables: Iterable[Table]) -> None:
    netlink.carry_out([request for table in tables for request in ruleset.make(table, order, is_owned=True)])


def _make_guarded(netlink: Netlink, order: int, tables: Iterable[Table]) -> subprocess.Popen[bytes]:
    """The guardian is there before the tables are."""
    process = _start_guardian(tables)
    try:
        netlink.carry_out([request for table in tables for request in ruleset.make(table, order, is_owned=False)])
    except BaseException:
        _dismiss(process)
        raise
    return process


def _start_guardian(tables: Iterable[Table]) -> subprocess.Popen[bytes]:
    """Raises OSError."""
    assert threading.current_thread() is threading.main_thread(), "another thread may end before the agent does"
    batches = [nft.encode_batch([nft.delete_table(table)], 1).hex() for table in tables]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guardian.__file__, str(os.getpid()), *batches],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    has_spoken, _, _ = select.select([process.stdout], [], [], _START_S)
    if not has_spoken or process.stdout.readline() != b"ready\n":
        _dismiss(process)
        raise OSError(errno.ECHILD, "the guardian of the redirects did not start: was it killed or stopped? try again")
    return process


def _dismiss(process: subprocess.Popen[bytes]) -> None:
    """Ends a guardian that has nothing to guard."""
    process.kill()
    process.communicate()
