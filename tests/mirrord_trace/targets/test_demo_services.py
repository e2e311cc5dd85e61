from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import hypothesis.strategies as st
import pytest
from hypothesis import given

from mirrord_trace.targets.demo_services import answer

NAMES = {"shop.demo.": "198.18.0.10"}


def ask(name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    wire = answer(query.to_wire(), NAMES)
    assert wire is not None
    response = dns.message.from_wire(wire)
    assert query.is_response(response)
    assert response.flags & dns.flags.AA
    return response


@pytest.mark.parametrize("name", ["shop.demo", "SHOP.demo."])
def test_a_known_name_has_an_address(name: str) -> None:
    response = ask(name, "A")
    assert [str(item) for rrset in response.answer for item in rrset] == ["198.18.0.10"]


def test_a_known_name_without_such_a_record_exists() -> None:
    response = ask("shop.demo", "AAAA")
    assert (response.rcode(), response.answer) == (dns.rcode.NOERROR, [])


def test_an_unknown_name_does_not_exist() -> None:
    assert ask("nobody.demo", "A").rcode() == dns.rcode.NXDOMAIN


@given(st.binary(max_size=64))
def test_what_is_no_query_gets_no_answer_or_a_well_formed_one(wire: bytes) -> None:
    response = answer(wire, NAMES)
    if response is not None:
        dns.message.from_wire(response)
