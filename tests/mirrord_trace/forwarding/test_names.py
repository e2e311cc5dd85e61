"""What the files say by which a target resolves names. That queries work is seen in test_port_forward.py."""

from __future__ import annotations

import pytest

from mirrord_trace.forwarding.names import NoAddress, ResolverConfiguration, addresses_in_hosts


def test_what_resolv_conf_says() -> None:
    text = "# of the cluster\nsearch a.example b.example\nnameserver 10.0.0.10\nnameserver fd00::10\n"
    text += "nameserver nonsense\noptions ndots:5 timeout:1 attempts:3 rotate\n"
    expected = ResolverConfiguration(("10.0.0.10", "fd00::10"), ("a.example", "b.example"), 5, 1, 3)
    assert ResolverConfiguration.parse(text) == expected


def test_an_empty_resolv_conf_means_the_name_server_of_the_target_itself() -> None:
    assert ResolverConfiguration.parse("options ndots:x timeout:²\n") == ResolverConfiguration(("127.0.0.1",))


@pytest.mark.parametrize(
    ("name", "ndots", "expected"),
    [
        ("shop", 1, ["shop.a.", "shop.b.", "shop."]),
        ("shop.demo", 1, ["shop.demo.", "shop.demo.a.", "shop.demo.b."]),
        ("shop.demo", 5, ["shop.demo.a.", "shop.demo.b.", "shop.demo."]),
        ("shop.", 5, ["shop."]),
    ],
)
def test_the_search_list(name: str, ndots: int, expected: list[str]) -> None:
    configuration = ResolverConfiguration(search=("a", "b"), ndots=ndots)
    assert [candidate.to_text() for candidate in configuration.candidates(name)] == expected


@pytest.mark.parametrize("name", ["a..b", "x" * 64, "." * 3])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(NoAddress):
        ResolverConfiguration().candidates(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("web", ["10.0.0.1", "fd00::1"]), ("WEB.", ["10.0.0.1", "fd00::1"]), ("commented", []), ("other", [])],
)
def test_hosts(name: str, expected: list[str]) -> None:
    text = "\n# nothing\n10.0.0.1 web-0 Web # commented\nfd00::1 web\nnonsense web\n10.0.0.3\n"
    assert addresses_in_hosts(text, name) == expected
