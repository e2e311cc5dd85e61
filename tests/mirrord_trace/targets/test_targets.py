from __future__ import annotations

import pytest

from mirrord_trace.errors import UsageFailure
from mirrord_trace.targets import parse_target
from mirrord_trace.targets.demo import DemoTarget
from mirrord_trace.targets.pid import ProcessTarget


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("demo", DemoTarget()),
        ("pid/1", ProcessTarget(1)),
        ("pid/4711", ProcessTarget(4711)),
    ],
)
def test_accepted(text: str, target: object) -> None:
    assert parse_target(text) == target


def test_sudo_is_for_processes() -> None:
    assert parse_target("pid/7", sudo=True) == ProcessTarget(7, sudo=True)


@pytest.mark.parametrize("text", ["", "pid", "pid/", "pid/0", "pid/-1", "pid/1/2", "pid/x", "pid/٤", "demo/x", "Demo"])
def test_refused_with_what_is_accepted(text: str) -> None:
    with pytest.raises(UsageFailure) as caught:
        parse_target(text)
    assert text in caught.value.message
    assert caught.value.advice is not None
    assert "demo" in caught.value.advice
    assert "pid/PID" in caught.value.advice
