"""Translations that nobody needs any more: connection tracking keeps them for minutes when a session was killed.

A client that comes again from the same port is translated as before, to a listener that is not there, as soon as
anybody translates in the target's network namespace. So they are forgotten: those of a port that lead to another one,
at which nobody listens for a session, and which no socket uses.
"""

from __future__ import annotations

import errno
from typing import Final

from mirrord_agent.incoming import connections, conntrack, registry
from mirrord_agent.incoming.conntrack import Tracked
from mirrord_agent.incoming.local_addresses import LocalAddresses
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER, Netlink, Refused
from mirrord_agent.incoming.netlink_messages import ACKNOWLEDGE, DUMP, REQUEST

_OPTIONS: Final = ("CONFIG_NF_CT_NETLINK",)


def forget(port: int) -> int:
    """Forgets those of a TCP port of this network namespace; how many. Raises OSError."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        led = _led_elsewhere(netlink, port)
        if not led:
            return 0
        # In this order: what begins from now on is none of them.
        served = connections.served()
        listening = {claim.listener_port for claim in registry.claims()}
        addresses = LocalAddresses()
        try:
            stale = [
                each
                for each in led
                if each.reply.source[1] not in listening
                and (each.reply.source, each.reply.destination) not in served
                and each.reply.source[0].packed in addresses
            ]
        finally:
            addresses.close()
        return sum(_forget(netlink, each) for each in stale)


def _led_elsewhere(netlink: Netlink, port: int) -> list[Tracked]:
    """Connections to this port that reach another one of the same address."""
    words = "listing the connections that are tracked in the target's network namespace"
    found = []
    for version in (4, 6):
        asked = conntrack.ask_for_those_to(port, version)
        for message in netlink.dump(conntrack.GET, REQUEST | DUMP, asked, words):
            if conntrack.may_be_of(message, port):
                tracked = conntrack.decode(message)
                if tracked is not None and _is_led_elsewhere(tracked, port):
                    found.append(tracked)
    return found


def _is_led_elsewhere(tracked: Tracked, port: int) -> bool:
    (asked, asked_port), (reached, reached_port) = tracked.original.destination, tracked.reply.source
    return asked_port == port and asked == reached and reached_port != port


def _forget(netlink: Netlink, tracked: Tracked) -> bool:
    """Whether it was still there."""
    host, port = tracked.original.source
    words = f"having connection tracking forget the connection of {host}, port {port}"
    try:
        netlink.command(conntrack.DELETE, REQUEST | ACKNOWLEDGE, tracked.forgetting, words, _OPTIONS)
    except Refused as error:
        if error.errno != errno.ENOENT:
            raise
        return False
    return True
