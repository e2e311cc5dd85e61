"""Translations of sessions that were killed are forgotten, and those that somebody needs are not."""

from __future__ import annotations

from mirrord_agent.incoming import conntrack, stale_translations
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER, Netlink
from mirrord_agent.incoming.netlink_messages import DUMP, REQUEST
from tests.mirrord_agent.incoming.networks import POD, Network, Networks
from tests.mirrord_agent.incoming.sessions import PORT, Place, places, port_of, reaches, session, versions


def forget(pod: Network, port: int = PORT) -> int:
    with pod.entered():
        return stale_translations.forget(port)


@versions
@places
def test_those_of_sockets_stay(networks: Networks, version: int, place: Place) -> None:
    pod = networks.pod
    network, host = place(networks, version)
    with session(pod) as redirects:
        with pod.listen(version) as listener:
            redirects.add(PORT, port_of(listener))
            client = network.connect(host, PORT)
            served = reaches(listener, client)
        assert forget(pod) == 0
        served.send(b"still there")
        assert client.recv(16) == b"still there"
        served.close()
        client.close()


@versions
def test_those_of_nobody_go(networks: Networks, version: int) -> None:
    pod, outside = networks.pod, networks.outside
    with pod.listen(version) as listener, session(pod) as redirects:
        redirects.add(PORT, port_of(listener))
        for _ in range(2):
            with outside.connect(POD[version], PORT) as client:
                reaches(listener, client).close()
                assert client.recv(1) == b""
        assert forget(pod, PORT + 1) == 0
        assert forget(pod) == 2
        assert forget(pod) == 0


@versions
def test_the_kernel_lists_those_of_a_port(networks: Networks, version: int) -> None:
    """A node has 100,000 others."""
    pod, outside = networks.pod, networks.outside
    with pod.listen(version) as listener, session(pod) as redirects:
        for port in (PORT, PORT + 1):
            redirects.add(port, port_of(listener))
            with outside.connect(POD[version], port) as client:
                reaches(listener, client).close()
        with pod.entered(), Netlink(NETLINK_NETFILTER) as netlink:
            asked = conntrack.ask_for_those_to(PORT, version)
            told = [conntrack.decode(each) for each in netlink.dump(conntrack.GET, REQUEST | DUMP, asked, "listing")]
    assert [each.original.destination[1] for each in told if each is not None] == [PORT]
