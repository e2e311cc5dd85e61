"""How much is copied of the packets that pass."""

from __future__ import annotations

import socket

import pytest

from mirrord_agent.incoming import families
from mirrord_agent.incoming.capture import BEGINNING_BYTES, Capture
from tests.mirrord_agent.incoming.networks import OUTSIDE, POD, pod_and_outside
from tests.mirrord_agent.incoming.sessions import PORT
from tests.mirrord_agent.support import in_trio


@pytest.mark.parametrize("whole", [True, False])
@in_trio
async def test_packets_that_need_not_be_whole(whole: bool) -> None:
    sent = bytes(range(256)) * 64  # one packet on loopback
    with pod_and_outside((4,)) as networks:
        with networks.pod.entered():
            capture = Capture()
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        capture.watch((), families.ports(PORT, family="inet4"))
        with client:
            client.sendto(sent, (POD[4], PORT))
            await capture.wait()
            (packet,) = map(bytes, capture.packets(lambda: whole))
        capture.close()
    assert packet.endswith(sent) if whole else len(packet) == BEGINNING_BYTES


@pytest.mark.parametrize("wanted", [True, False])
@in_trio
async def test_what_the_target_sends_is_captured_if_it_is_wanted(wanted: bool) -> None:
    with pod_and_outside((4,)) as networks, networks.pod.listen(4, PORT) as target:
        with networks.pod.entered():
            capture = Capture()
        capture.watch(families.ports(PORT, family="inet4"), ())
        capture.hear_target(wanted)
        with networks.outside.connect(POD[4], PORT) as client, target.accept()[0] as accepted:
            accepted.close()
            assert client.recv(1) == b""
        sources = {bytes(packet)[12:16] for packet in capture.packets(lambda: True)}
        capture.close()
    assert sources == {socket.inet_aton(OUTSIDE[4])} | ({socket.inet_aton(POD[4])} if wanted else set())


@in_trio
async def test_where_packets_come_nobody_waits_for_each() -> None:
    with pod_and_outside((4,)) as networks, networks.pod.listen(4, PORT):
        with networks.pod.entered():
            capture = Capture()
        capture.watch(families.ports(PORT, family="inet4"), ())
        with networks.outside.connect(POD[4], PORT):
            await capture.wait()
            assert list(capture.packets(lambda: True))
            await capture.wait()  # returns although nothing more comes, or the test does not end
            while list(capture.packets(lambda: True)):
                await capture.wait()
        capture.close()
