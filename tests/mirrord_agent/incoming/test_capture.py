"""How much is copied of the packets that pass."""

from __future__ import annotations

import pytest

from mirrord_agent.incoming import families
from mirrord_agent.incoming.capture import BEGINNING_BYTES, Capture
from mirrord_agent.incoming.packets import TcpSegment, decode
from tests.mirrord_agent.incoming.networks import POD, pod_and_outside
from tests.mirrord_agent.incoming.sessions import PORT
from tests.mirrord_agent.support import in_trio


@pytest.mark.parametrize("whole", [True, False])
@in_trio
async def test_packets_that_need_not_be_whole(whole: bool) -> None:
    sent = bytes(range(256)) * 64
    with pod_and_outside((4,)) as networks, networks.pod.listen(4, PORT):
        with networks.pod.entered():
            capture = Capture()
        capture.watch(families.ports(PORT, family="inet4"), ())
        with networks.outside.connect(POD[4], PORT) as client:
            client.sendall(sent)
        heard = length = longest = 0
        while length < len(sent):
            await capture.wait()
            for packet in capture.packets(lambda: whole):
                longest = max(longest, len(packet))
                segment = decode(packet)
                assert isinstance(segment, TcpSegment)
                heard += len(segment.payload)
                length += segment.length
        capture.close()
    assert (heard == len(sent)) == whole
    assert (longest <= BEGINNING_BYTES) == (not whole)
