import attrs
import pytest

from mirrord_agent.wire import ProtocolError, frames, handshake
from mirrord_agent.wire.frames import Goodbye, GoodbyeKind

SECRET = b"s" * 32
HASH = handshake.hash_secret(SECRET)
FACTS = frames.Facts("web-0", "(none)", 7, 0.0)


def test_the_right_secret_is_welcome() -> None:
    accepted = handshake.answer_hello(handshake.hello(SECRET), HASH)
    assert isinstance(accepted, handshake.Accepted)
    welcomed = handshake.read_answer(accepted.welcome(FACTS))
    assert welcomed == handshake.Welcomed(handshake.FEATURES, FACTS)


def test_a_hash_in_capitals_is_the_same_hash() -> None:
    assert isinstance(handshake.answer_hello(handshake.hello(SECRET), HASH.upper()), handshake.Accepted)


@pytest.mark.parametrize("secret", [b"", b"s" * 31, b"t" * 32, HASH.encode()])
def test_a_wrong_secret_is_refused_before_anything_else_is_looked_at(secret: bytes) -> None:
    stranger = attrs.evolve(handshake.hello(secret), version=99)
    refused = handshake.answer_hello(stranger, HASH)
    assert isinstance(refused, handshake.Refused)
    assert refused.goodbye.kind is GoodbyeKind.SECRET


def test_another_version_is_refused_by_the_agent_and_both_are_named() -> None:
    refused = handshake.answer_hello(attrs.evolve(handshake.hello(SECRET), version=99), HASH)
    assert isinstance(refused, handshake.Refused)
    assert refused.goodbye.kind is GoodbyeKind.VERSION
    assert str(handshake.VERSION) in refused.goodbye.message
    assert "99" in refused.goodbye.message


def test_another_version_is_refused_by_the_client() -> None:
    refused = handshake.read_answer(frames.Welcome(99, (), FACTS))
    assert isinstance(refused, handshake.Refused)
    assert refused.goodbye.kind is GoodbyeKind.VERSION


def test_only_features_of_both_sides_are_agreed_on() -> None:
    hello = attrs.evolve(handshake.hello(SECRET), features=("files", "telepathy"))
    assert handshake.answer_hello(hello, HASH) == handshake.Accepted(("files",))


def test_the_first_frame_must_be_a_hello() -> None:
    refused = handshake.answer_hello(frames.Ping(1), HASH)
    assert isinstance(refused, handshake.Refused)
    assert refused.goodbye.kind is GoodbyeKind.PROTOCOL


def test_the_client_understands_a_goodbye_and_nothing_else() -> None:
    goodbye = Goodbye(GoodbyeKind.PERMISSION, "no")
    assert handshake.read_answer(goodbye) == handshake.Refused(goodbye)
    with pytest.raises(ProtocolError, match="Pong"):
        handshake.read_answer(frames.Pong(1))


def test_secrets_differ() -> None:
    assert len(handshake.new_secret()) == handshake.SECRET_LENGTH
    assert handshake.new_secret() != handshake.new_secret()
