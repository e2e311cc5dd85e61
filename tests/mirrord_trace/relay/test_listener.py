import socket

import pytest

from mirrord_syscalls.sockaddr import Inet4, Inet6, Unix, to_mapped
from mirrord_trace.relay import listener
from mirrord_trace.relay.listener import listen_for, listen_for_unix
from tests.mirrord_trace.support import PEER, PEER6, name_of, open_descriptors


@pytest.mark.parametrize(
    ("original", "family", "kind"),
    [
        (PEER, socket.AF_INET, Inet4),
        (to_mapped(PEER), socket.AF_INET6, Inet6),
        (PEER6, socket.AF_INET6, Inet6),
    ],
    ids=str,
)
def test_a_socket_of_the_family_can_be_connected(original: Inet4 | Inet6, family: int, kind: type) -> None:
    listening = listen_for(original, family)
    with socket.socket(family, socket.SOCK_STREAM) as client:
        assert isinstance(listening.address, kind)
        client.connect(name_of(listening.address))
        listening.close()


def test_without_ipv6_loopback_a_mapped_address_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "LOOPBACK6", "2001:db8::1")
    listening = listen_for(PEER6, socket.AF_INET6)
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as client:
        client.connect(name_of(listening.address))
    listening.close()


def test_a_silent_listener_hears_nothing_until_it_admits() -> None:
    before = open_descriptors()
    for ending in ("admit", "close"):
        listening = listen_for(PEER, socket.AF_INET)
        listening.silence()
        with socket.socket() as client:
            client.settimeout(0.05)
            with pytest.raises(TimeoutError):
                client.connect(name_of(listening.address))
            client.settimeout(5)
            if ending == "admit":
                listening.admit()
                listening.admit()
            else:
                listening.close()
                listening.close()
            # The next SYN, a second after the first, is answered.
            expected = 0 if ending == "admit" else 111
            client.setblocking(True)
            assert client.connect_ex(name_of(listening.address)) == expected
        listening.close()
    assert open_descriptors() == before


def test_unix_listeners_have_names_of_their_own() -> None:
    first, second = listen_for_unix(), listen_for_unix()
    assert isinstance(first.address, Unix)
    assert first.address != second.address
    for each in (first, second):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name_of(each.address))
        each.close()
