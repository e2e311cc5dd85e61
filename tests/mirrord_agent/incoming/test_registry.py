"""What sessions on one target know of each other."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.registry import Claim, Membership, parse_claim
from mirrord_agent.incoming.ruleset import LAST_ORDER, Protocol
from mirrord_agent.wire.frames import AddressFamily
from tests.mirrord_agent.incoming.networks import Network, network
from tests.mirrord_agent.support import in_trio

OWNERS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
CLAIMS = st.builds(
    Claim,
    st.integers(1, LAST_ORDER),
    st.sampled_from(["tcp", "udp"]),
    st.integers(1, 65535),
    st.booleans(),
    st.integers(1, 65535),
    OWNERS,
    st.sampled_from([None, "inet4", "inet6"]),
)

HOLDER = """
import sys, trio
from mirrord_agent.incoming.registry import Membership
async def main():
    membership = await Membership.join()
    claim = await membership.claim("tcp", 80, 4000, sys.argv[1], filtered=False)
    print(membership.order, flush=True)
    sys.stdin.read()
trio.run(main)
"""


@pytest.fixture
def pod() -> Iterator[Network]:
    with network() as made, made.entered():
        yield made


@given(CLAIMS)
def test_a_claim_is_read_off_its_name(claim: Claim) -> None:
    assert parse_claim(claim.name) == claim


@pytest.mark.parametrize(
    "name",
    [
        "",
        "1",
        "choosing",
        "1/tcp/80/all/4000",
        "0/tcp/80/all/4000/x",
        "x/tcp/80/all/4000/x",
        "1/sctp/80/all/4000/x",
        "1/tcp/x/all/4000/x",
        "1/tcp/80/any/4000/x",
        "1/tcp5/80/all/4000/x",
        "1/tcp/80/all/70000/x",
    ],
)
def test_other_names_claim_nothing(name: str) -> None:
    assert parse_claim(name) is None


def claim(
    order: int, *, filtered: bool, protocol: Protocol = "tcp", port: int = 80, family: AddressFamily | None = None
) -> Claim:
    return Claim(order, protocol, port, filtered, 4000, "", family)


@pytest.mark.parametrize(
    ("one", "other", "excludes"),
    [
        (claim(1, filtered=False), claim(2, filtered=False), True),
        (claim(1, filtered=True), claim(2, filtered=False), True),
        (claim(1, filtered=False), claim(2, filtered=True), False),
        (claim(1, filtered=True), claim(2, filtered=True), False),
        (claim(1, filtered=False), claim(2, filtered=False, port=81), False),
        (claim(1, filtered=False), claim(2, filtered=False, protocol="udp"), False),
        (claim(1, filtered=False), claim(2, filtered=False, family="inet6"), True),
        (claim(1, filtered=False, family="inet6"), claim(2, filtered=False, family="inet6"), True),
        (claim(1, filtered=False, family="inet4"), claim(2, filtered=False, family="inet6"), False),
    ],
)
def test_whoever_is_in_front_needs_a_filter(one: Claim, other: Claim, excludes: bool) -> None:
    assert one.excludes(other) == excludes
    assert other.excludes(one) == excludes


@in_trio
async def test_each_comes_behind_those_that_are_there(pod: Network) -> None:
    first, second, third = [await Membership.join() for _ in range(3)]
    assert [first.order, second.order, third.order] == [1, 2, 3]
    second.close()
    last = await Membership.join()
    assert last.order == 4
    for each in (first, third, last):
        each.close()


@in_trio
async def test_a_port_is_free_again_when_its_claim_is_closed(pod: Network) -> None:
    first, second = await Membership.join(), await Membership.join()
    held = await first.claim("tcp", 80, 4000, "alice\n", filtered=False)
    with pytest.raises(OSError, match=r"alice\? steals tcp port 80 without a filter; steal with") as caught:
        await second.claim("tcp", 80, 4000, "bob", filtered=False)
    assert caught.value.errno == errno.EADDRINUSE
    for port, filtered in ((80, True), (81, False)):
        (await second.claim("tcp", port, 4000, "bob", filtered=filtered)).close()
    held.close()
    (await second.claim("tcp", 80, 4000, "bob", filtered=False)).close()
    first.close()
    second.close()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_sessions_that_are_stopped_or_killed(pod: Network, number: signal.Signals) -> None:
    """The claims of the first stand, those of the second are gone."""

    async def join_and_claim() -> int:
        membership = await Membership.join()
        try:
            (await membership.claim("tcp", 80, 4000, "bob", filtered=False)).close()
        finally:
            membership.close()
        return membership.order

    owner = "a" * 200
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, owner], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"1\n"
        os.kill(holder.pid, number)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if number is signal.SIGKILL:
            assert trio.run(join_and_claim) == 1
        else:
            with pytest.raises(OSError, match=r"a{40,} steals tcp port 80"):
                trio.run(join_and_claim)
        holder.kill()


@in_trio
async def test_they_choose_one_after_the_other(pod: Network) -> None:
    orders: list[int] = []
    members: list[Membership] = []

    async def join() -> None:
        member = await Membership.join()
        members.append(member)
        orders.append(member.order)

    with socket.socket(socket.AF_UNIX) as choosing:
        choosing.bind(b"\0mirrord-trace/incoming/choosing")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(join)
            await trio.testing.wait_all_tasks_blocked()
            assert orders == []
            choosing.close()
    assert sorted(orders) == list(range(1, 21))
    for member in members:
        member.close()


def test_whoever_never_ends_choosing_is_told_of(pod: Network) -> None:
    async def join() -> None:
        await Membership.join()

    with socket.socket(socket.AF_UNIX) as choosing:
        choosing.bind(b"\0mirrord-trace/incoming/choosing")
        with pytest.raises(OSError, match="its agent is stopped"):
            trio.run(join, clock=trio.testing.MockClock(autojump_threshold=0))
