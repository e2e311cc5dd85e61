import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.netlink_messages import (
    ERROR,
    Acknowledgement,
    Attribute,
    Message,
    decode_acknowledgement,
    decode_attributes,
    decode_messages,
    encode_attributes,
    encode_message,
    number,
    text,
)

KINDS = st.integers(0, 0x3FFF)
LEAVES = st.builds(Attribute, KINDS, st.binary(max_size=30))
ATTRIBUTES = st.recursive(
    LEAVES, lambda inner: st.builds(Attribute, KINDS, st.lists(inner, max_size=4).map(tuple)), max_leaves=12
)
LISTS = st.lists(ATTRIBUTES, max_size=5).map(tuple)
NUMBERS = st.integers(0, 2**32 - 1)
MESSAGES = st.builds(Message, st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), NUMBERS, st.binary(max_size=60))
CAPPED, WITH_ATTRIBUTES = 0x100, 0x200


def depth(attributes: tuple[Attribute, ...]) -> int:
    return 1 + max((depth(each.value) for each in attributes if isinstance(each.value, tuple)), default=0)


@given(LISTS.filter(lambda attributes: depth(attributes) <= 16))
def test_attributes_survive(attributes: tuple[Attribute, ...]) -> None:
    raw = encode_attributes(attributes)
    assert len(raw) % 4 == 0
    assert decode_attributes(raw) == attributes


@given(st.lists(MESSAGES, max_size=5))
def test_messages_survive(messages: list[Message]) -> None:
    assert list(decode_messages(b"".join(map(encode_message, messages)))) == messages


@given(LISTS.filter(bool), st.data())
def test_attributes_that_are_cut_are_an_error_or_fewer(attributes: tuple[Attribute, ...], data: st.DataObject) -> None:
    raw = encode_attributes(attributes)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    try:
        found = decode_attributes(cut)
    except ValueError:
        return
    assert found == attributes[: len(found)]


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_an_error(raw: bytes) -> None:
    try:
        assert len(decode_attributes(raw)) <= len(raw) // 4 + 1
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_an_error(raw: bytes) -> None:
    try:
        for message in decode_messages(raw):
            decode_acknowledgement(message)
    except ValueError:
        pass


@given(MESSAGES, st.data())
def test_a_message_that_is_cut_is_an_error(message: Message, data: st.DataObject) -> None:
    raw = encode_message(message)[: 16 + len(message.body)]
    with pytest.raises(ValueError, match=r"cut short|no netlink message"):
        list(decode_messages(raw[: data.draw(st.integers(1, len(raw) - 1))]))


@given(
    NUMBERS,
    st.integers(0, 4095),
    st.binary(max_size=20),
    st.none() | st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=30),
    st.none() | NUMBERS,
    st.booleans(),
)
def test_acknowledgements_with_the_kernels_words(
    sequence: int, errno: int, request: bytes, words: str | None, offset: int | None, capped: bool
) -> None:
    said = [] if words is None else [text(1, words)]
    said += [] if offset is None else [Attribute(2, struct.pack("=I", offset))]
    answered = encode_message(Message(10, 5, sequence, request))
    body = struct.pack("=i", -errno) + (answered[:16] if capped else answered)
    flags = (CAPPED if capped else 0) | (WITH_ATTRIBUTES if said else 0)
    message = Message(ERROR, flags, sequence, body + encode_attributes(said))
    assert decode_acknowledgement(message) == Acknowledgement(sequence, errno, words or "", offset)


@pytest.mark.parametrize(
    ("attribute", "raw"),
    [
        (number(2, 0x01020304), b"\x08\0\x02\0\x01\x02\x03\x04"),
        (number(2, -300), b"\x08\0\x02\0\xff\xff\xfe\xd4"),
        (text(3, "nat"), b"\x08\0\x03\0nat\0"),
        (text(3, "ab"), b"\x07\0\x03\0ab\0\0"),
        (Attribute(4, (text(1, "abc"),)), b"\x0c\0\x04\x80\x08\0\x01\0abc\0"),
        (Attribute(4, ()), b"\x04\0\x04\x80"),
    ],
)
def test_layout(attribute: Attribute, raw: bytes) -> None:
    assert encode_attributes([attribute]) == raw


def test_what_is_too_long_is_refused() -> None:
    assert len(encode_attributes([Attribute(1, bytes(0xFFFF - 4))])) == 0x10000
    with pytest.raises(ValueError, match="too long"):
        encode_attributes([Attribute(1, bytes(0xFFFF - 3))])


def test_attributes_nested_without_end_are_refused() -> None:
    attribute = Attribute(1, b"")
    for _ in range(15):
        attribute = Attribute(1, (attribute,))
    assert decode_attributes(encode_attributes([attribute])) == (attribute,)
    with pytest.raises(ValueError, match="deep"):
        decode_attributes(encode_attributes([Attribute(1, (attribute,))]))
