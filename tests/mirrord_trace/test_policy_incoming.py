"""Which ports the process serves in the target's place."""

import pytest

from mirrord_trace.policy.incoming import Claim, IncomingPolicy, Protocol, Wanted, families, overlap, unspecified_like
from tests.mirrord_trace.support import inet

MIRROR = IncomingPolicy()
STEAL = IncomingPolicy(mode="steal")
CHOSEN = IncomingPolicy(mode="steal", ports=frozenset({80, 8080}))
IGNORING = IncomingPolicy(ignore_ports=frozenset({9090}))
MAPPED = IncomingPolicy(port_mapping={8080: 80}, ports=frozenset({80}))
MAPPED_BY_OWN_NUMBER = IncomingPolicy(port_mapping={8080: 80}, ports=frozenset({8080}))
MAPPED_AWAY = IncomingPolicy(port_mapping={8080: 80}, ignore_ports=frozenset({80}))
FILTERED = IncomingPolicy(mode="steal", http_filter="{}")
FILTERED_SOMEWHERE = IncomingPolicy(mode="steal", http_filter="{}", filter_ports=frozenset({80}))
FILTERED_AND_WHOLE = IncomingPolicy(
    mode="steal", http_filter="{}", filter_ports=frozenset({80}), ports=frozenset({80, 81})
)


@pytest.mark.parametrize(
    ("policy", "protocol", "host", "port", "wanted"),
    [
        (MIRROR, "tcp", "0.0.0.0", 80, Wanted(80, "mirror")),
        (MIRROR, "udp", "0.0.0.0", 53, Wanted(53, "mirror")),
        (MIRROR, "tcp", "::", 80, Wanted(80, "mirror")),
        (MIRROR, "tcp", "198.18.0.10", 80, Wanted(80, "mirror")),
        (MIRROR, "tcp", "127.0.0.1", 80, Wanted(80, "mirror")),
        (MIRROR, "tcp", "0.0.0.0", 0, None),
        (MIRROR, "udp", "224.0.0.251", 5353, None),
        (MIRROR, "udp", "ff02::fb", 5353, None),
        (MIRROR, "udp", "255.255.255.255", 68, None),
        (IncomingPolicy(mode=None), "tcp", "0.0.0.0", 80, None),
        (STEAL, "tcp", "0.0.0.0", 80, Wanted(80, "steal")),
        (CHOSEN, "tcp", "0.0.0.0", 80, Wanted(80, "steal")),
        (CHOSEN, "tcp", "0.0.0.0", 81, None),
        (IGNORING, "tcp", "0.0.0.0", 9090, None),
        (IGNORING, "tcp", "0.0.0.0", 9091, Wanted(9091, "mirror")),
        (IncomingPolicy(ignore_localhost=True), "tcp", "127.0.0.1", 80, None),
        (IncomingPolicy(ignore_localhost=True), "tcp", "::1", 80, None),
        (IncomingPolicy(ignore_localhost=True), "tcp", "::ffff:127.0.0.1", 80, None),
        (IncomingPolicy(ignore_localhost=True), "tcp", "0.0.0.0", 80, Wanted(80, "mirror")),
        (MAPPED, "tcp", "0.0.0.0", 8080, Wanted(80, "mirror")),
        (MAPPED_BY_OWN_NUMBER, "tcp", "0.0.0.0", 8080, Wanted(80, "mirror")),
        (MAPPED_AWAY, "tcp", "0.0.0.0", 8080, None),
        (FILTERED, "tcp", "0.0.0.0", 80, Wanted(80, "steal", "{}")),
        (FILTERED, "udp", "0.0.0.0", 80, None),
        (FILTERED_SOMEWHERE, "tcp", "0.0.0.0", 80, Wanted(80, "steal", "{}")),
        (FILTERED_SOMEWHERE, "tcp", "0.0.0.0", 81, None),
        (FILTERED_AND_WHOLE, "tcp", "0.0.0.0", 80, Wanted(80, "steal", "{}")),
        (FILTERED_AND_WHOLE, "tcp", "0.0.0.0", 81, Wanted(81, "steal")),
        (FILTERED_AND_WHOLE, "udp", "0.0.0.0", 81, Wanted(81, "steal")),
        (FILTERED_AND_WHOLE, "tcp", "0.0.0.0", 82, None),
    ],
)
def test_what_is_wanted(
    policy: IncomingPolicy, protocol: Protocol, host: str, port: int, wanted: Wanted | None
) -> None:
    assert policy.wanted(protocol, inet(host, port)) == wanted


def test_the_port_here_is_the_one_asked_for_unless_another_is_configured() -> None:
    policy = IncomingPolicy(listen_ports={80: 8111})
    assert policy.port_here(80) == 8111
    assert policy.port_here(81) == 81


@pytest.mark.parametrize(
    ("first", "second", "do"),
    [
        ("0.0.0.0", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("::", "::1", True),
        ("::1", "::1", True),
        ("::1", "fd00::1", False),
        ("::", "0.0.0.0", False),
        ("::ffff:0.0.0.0", "127.0.0.1", True),
    ],
)
def test_addresses_that_overlap(first: str, second: str, do: bool) -> None:
    assert overlap(Claim(inet(first, 80)), Claim(inet(second, 80))) is do
    assert not overlap(Claim(inet(first, 80)), Claim(inet(second, 81)))


@pytest.mark.parametrize(
    ("wide", "narrow", "do"),
    [("::", "0.0.0.0", True), ("::", "127.0.0.1", True), ("::1", "127.0.0.1", False), ("::", "::1", True)],
)
def test_a_socket_that_hears_both_families_overlaps_with_either(wide: str, narrow: str, do: bool) -> None:
    claims = Claim(inet(wide, 80), is_dual=True), Claim(inet(narrow, 80))
    assert overlap(*claims) is do
    assert overlap(*reversed(claims)) is do


@pytest.mark.parametrize(
    ("host", "is_dual", "heard"),
    [
        ("0.0.0.0", False, {"inet4"}),
        ("198.18.0.10", False, {"inet4"}),
        ("::", True, {"inet4", "inet6"}),
        ("::", False, {"inet6"}),
        ("fd00::10", True, {"inet6"}),
        ("::1", True, {"inet6"}),
        ("::ffff:0.0.0.0", True, {"inet4"}),
        ("::ffff:198.18.0.10", True, {"inet4"}),
    ],
)
def test_versions_of_ip_that_a_socket_hears(host: str, is_dual: bool, heard: set[str]) -> None:
    assert families(Claim(inet(host, 80), is_dual)) == heard


@pytest.mark.parametrize(
    ("address", "anywhere"),
    [("198.18.0.10", "0.0.0.0"), ("fd00::10", "::"), ("::ffff:198.18.0.10", "::ffff:0.0.0.0")],
)
def test_all_addresses_of_a_machine(address: str, anywhere: str) -> None:
    assert unspecified_like(inet(address, 80)) == inet(anywhere, 80)
