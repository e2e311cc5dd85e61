"""Refusals of the kernel, in words; and batches that are carried out as a whole."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from mirrord_agent.incoming import nft, ruleset
from mirrord_agent.incoming.expressions import Expression
from mirrord_agent.incoming.netlink import NETLINK_NETFILTER, Netlink, Refused
from mirrord_agent.incoming.netlink_messages import REQUEST, Attribute, number, text
from mirrord_agent.incoming.nft import Family, Hook, Request, Table
from tests.mirrord_agent.incoming.networks import Network, network
from tests.rights import as_user

TABLE = Table(Family.INET, "tried")


@pytest.fixture
def here() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def netlink(here: Network) -> Iterator[Netlink]:
    with here.entered(), Netlink(NETLINK_NETFILTER) as opened:
        yield opened


def refusal(netlink: Netlink, *batch: Request) -> Refused:
    with pytest.raises(Refused) as refused:
        netlink.carry_out(batch)
    return refused.value


def test_a_batch_is_carried_out_as_a_whole_or_not_at_all(here: Network, netlink: Netlink) -> None:
    good = [nft.new_table(TABLE), nft.new_port_map(TABLE, "ports", 1), nft.map_ports(TABLE, "ports", {1: 2})]
    bad = nft.unmap_ports(TABLE, "ports", [3])
    refused = refusal(netlink, *good, bad)
    assert refused.request == bad
    assert here.ruleset() == ""
    netlink.carry_out(good)
    before = here.ruleset()
    refusal(netlink, nft.unmap_ports(TABLE, "ports", [1]), nft.map_ports(TABLE, "ports", {4: 5}), bad)
    assert here.ruleset() == before


def test_batches_go_on_after_one_that_was_refused(here: Network, netlink: Netlink) -> None:
    for _ in range(3):
        refusal(netlink, nft.new_table(TABLE), nft.unmap_ports(TABLE, "ports", [1]))
        netlink.carry_out([nft.new_table(TABLE)])
        assert str(TABLE) in here.ruleset()
        netlink.carry_out([nft.delete_table(TABLE)])


def test_nothing_is_left_of_a_refused_batch_for_the_next(netlink: Netlink) -> None:
    """The kernel goes on to look at the rest of one, and tells of that as well."""
    missing = nft.unmap_ports(TABLE, "ports", [1])
    first = refusal(netlink, missing, missing, nft.new_table(TABLE), missing)
    assert first.request is missing
    netlink.carry_out([nft.new_table(TABLE)])
    netlink.carry_out([nft.delete_table(TABLE)])


NO_SUCH_EXPRESSION = attrs.evolve(
    nft.new_rule(TABLE, "chain", [Expression("none-such", ())]), options=("CONFIG_NFT_NONE_SUCH", "CONFIG_NFT_OTHER")
)
NO_SUCH_CHAIN_TYPE = attrs.evolve(
    nft.new_base_chain(TABLE, "chain", "none-such", Hook.OUTPUT, 0), options=("CONFIG_NFT_NONE_SUCH",)
)
NO_SUCH_FLAG = attrs.evolve(nft.new_table(TABLE), attributes=(*nft.new_table(TABLE).attributes, number(2, 0x80000000)))
CHAIN = nft.new_base_chain(TABLE, "chain", "filter", Hook.OUTPUT, 0)


@pytest.mark.parametrize(
    ("batch", "expected", "words"),
    [
        pytest.param(
            [nft.new_table(TABLE), CHAIN, NO_SUCH_EXPRESSION],
            errno.ENOENT,
            r"making a rule of the chain chain of the table inet tried: No such file or directory; that takes a kernel "
            r"with CONFIG_NFT_NONE_SUCH and CONFIG_NFT_OTHER, and the node's \(\S+\) seems to be without",
            id="expression",
        ),
        pytest.param(
            [nft.new_table(TABLE), NO_SUCH_CHAIN_TYPE],
            errno.ENOENT,
            r"making the none-such chain chain of the table inet tried: .*CONFIG_NFT_NONE_SUCH",
            id="chain type",
        ),
        pytest.param(
            [NO_SUCH_FLAG],
            errno.EOPNOTSUPP,
            r"making the table inet tried: Operation not supported; .*CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
            id="table flag",
        ),
        pytest.param(
            [nft.map_ports(TABLE, "ports", {1: 2})],
            errno.ENOENT,
            r"adding port 1 to the map ports of the table inet tried: No such file or directory; somebody has removed",
            id="removed",
        ),
        pytest.param(
            [nft.new_table(TABLE), nft.new_table(TABLE)],
            errno.EEXIST,
            r"^\[Errno 17\] making the table inet tried: File exists$",
            id="twice",
        ),
    ],
)
def test_words_for_what_is_refused(netlink: Netlink, batch: list[Request], expected: int, words: str) -> None:
    refused = refusal(netlink, *batch)
    assert refused.errno == expected
    assert refused.request == batch[-1]
    assert re.search(words, str(refused))


def test_the_kernels_own_words_are_told(netlink: Netlink) -> None:
    short = attrs.evolve(nft.new_table(TABLE), attributes=(text(1, "tried"), Attribute(2, b"\0")))
    refused = refusal(netlink, short)
    assert re.search(r"making the table inet tried: [^(]+ \(Attribute [^)]+\)$", str(refused))


def test_a_table_that_another_owns(netlink: Netlink) -> None:
    table = ruleset.table_of(1, Family.INET)
    netlink.carry_out(ruleset.make(table, 1, is_owned=True))
    with Netlink(NETLINK_NETFILTER) as other:
        refused = refusal(other, *ruleset.make(table, 1, is_owned=False))
    assert refused.errno == errno.EPERM
    assert str(refused).endswith("another agent that runs has this table")


WITHOUT_RIGHTS = """
from mirrord_agent.incoming.redirects import Redirects
try:
    Redirects.open(1)
except OSError as error:
    print(error)
"""


def test_without_the_capability(here: Network) -> None:
    said = here.run(*as_user(reads_everything=True), sys.executable, "-c", WITHOUT_RIGHTS)
    assert (
        "asking nftables: Operation not permitted; the agent runs as uid 65534 without CAP_NET_ADMIN; it needs" in said
    )


def test_in_another_user_namespace(here: Network) -> None:
    """Root of a user namespace has the capability there, and not where the network namespace belongs."""
    with here.entered():
        said = subprocess.run(
            ["unshare", "--user", "--map-root-user", sys.executable, "-c", WITHOUT_RIGHTS],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    assert "has CAP_NET_ADMIN; so a security module" in said
    assert "would need CAP_NET_ADMIN in another user namespace" in said


def test_what_no_kernel_has(netlink: Netlink) -> None:
    with pytest.raises(Refused, match=r"trying: .*; that takes a kernel with CONFIG_NONE_SUCH"):
        netlink.command(0xFE << 8, REQUEST, bytes(4), "trying", ("CONFIG_NONE_SUCH",))


def test_a_socket_in_the_place_of_another(here: Network) -> None:
    place = os.open("/dev/null", os.O_RDONLY)
    with here.entered(), Netlink(NETLINK_NETFILTER, place) as netlink:
        assert os.readlink(f"/proc/self/fd/{place}").startswith("socket:")
        assert not os.get_inheritable(place)
        netlink.carry_out([nft.new_table(TABLE)])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(place)
