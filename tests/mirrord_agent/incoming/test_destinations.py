"""Where connections were going that are redirected, and that others were going nowhere else."""

from __future__ import annotations

import pytest

from mirrord_agent import addresses
from mirrord_agent.incoming.destinations import original_destination
from mirrord_agent.incoming.redirects import Redirects
from mirrord_agent.wire.frames import InetEndpoint
from tests.mirrord_agent.incoming.networks import LOOPBACK, POD, Networks

PORT = 8080


@pytest.mark.parametrize("dual", [False, True], ids=["own family", "dual stack"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["outside", "pod", "loopback"])
def test_of_redirected_connections(networks: Networks, version: int, where: str, dual: bool) -> None:
    host = (LOOPBACK if where == "loopback" else POD)[version]
    client_network = networks.outside if where == "outside" else networks.pod
    with networks.pod.entered():
        redirects = Redirects.open(1)
    with redirects, networks.pod.listen(6 if dual else version, dual=dual) as listener:
        redirects.add(PORT, listener.getsockname()[1])
        with client_network.connect(host, PORT) as client, listener.accept()[0] as accepted:
            assert original_destination(accepted) == InetEndpoint(host, PORT)
            peer, own = accepted.getpeername(), client.getsockname()
            assert (peer[0].removeprefix("::ffff:"), peer[1]) == own[:2]


@pytest.mark.parametrize("dual", [False, True], ids=["own family", "dual stack"])
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("tracked", [False, True], ids=["untracked", "tracked"])
def test_of_others(networks: Networks, version: int, dual: bool, tracked: bool) -> None:
    with networks.pod.listen(6 if dual else version, dual=dual) as listener:
        port = listener.getsockname()[1]
        if not tracked:
            with networks.outside.connect(POD[version], port), listener.accept()[0] as accepted:
                assert original_destination(accepted) is None
            return
        with networks.pod.entered():
            redirects = Redirects.open(1)
        with redirects:
            redirects.add(PORT, port)
            for client_network in (networks.outside, networks.pod):
                with client_network.connect(POD[version], port), listener.accept()[0] as accepted:
                    assert original_destination(accepted) is None


def test_of_link_local_addresses(networks: Networks) -> None:
    """They come with the interface, without which nobody could connect there."""
    host, _ = networks.pod.link_local(), networks.outside.link_local()
    with networks.pod.entered():
        redirects = Redirects.open(1)
    with redirects, networks.pod.listen(6) as listener, networks.pod.listen(6, PORT) as target:
        redirects.add(PORT, listener.getsockname()[1])
        for client_network in (networks.outside, networks.pod):
            with client_network.connect(host, PORT), listener.accept()[0] as accepted:
                original = original_destination(accepted)
                assert original == InetEndpoint(host.removesuffix("%eth0"), PORT, accepted.getsockname()[3])
                assert original.scope_id
                with networks.pod.open_socket(6, mark=redirects.mark) as onwards:
                    onwards.connect(addresses.to_sockaddr(original))
                    target.accept()[0].close()
