import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.config import EnvironmentConfiguration
from mirrord_trace.policy.environment import STAYS_LOCAL, process_environment

LOCAL = {b"PATH": b"/local/bin", b"HOME": b"/home/me", b"EDITOR": b"vi", b"GREETING": b"from here"}
TARGET = {b"PATH": b"/pod/bin", b"HOME": b"/root", b"GREETING": b"from the pod", b"SHOP_URL": b"http://shop:8080"}


def rules(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> EnvironmentConfiguration:
    return EnvironmentConfiguration(include=tuple(include), exclude=tuple(exclude))


def test_target_lies_over_local() -> None:
    assert process_environment(LOCAL, TARGET, rules()) == {
        b"PATH": b"/local/bin",
        b"HOME": b"/home/me",
        b"EDITOR": b"vi",
        b"GREETING": b"from the pod",
        b"SHOP_URL": b"http://shop:8080",
    }


@pytest.mark.parametrize(
    "name", [*(name for name in STAYS_LOCAL if "*" not in name), "BUNDLER_ORIG_PATH", "BUNDLER_ORIG_"]
)
def test_stays_local(name: str) -> None:
    assert process_environment({}, {name.encode(): b"x"}, rules()) == {}
    assert process_environment({}, {name.encode(): b"x"}, rules(include=["*"])) == {}


@pytest.mark.parametrize("name", ["PATHS", "XPATH", "path", "HOME2", "BUNDLE_", "BUNDLER_ORIG", "PWD\nX"])
def test_similar_names_do_not_stay_local(name: str) -> None:
    assert process_environment({}, {name.encode(): b"x"}, rules()) == {name.encode(): b"x"}


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["SHOP_*"], [], {b"SHOP_URL"}),
        (["SHOP_UR?"], [], {b"SHOP_URL"}),
        (["SHOP_UR"], [], set()),
        (["shop_url"], [], set()),
        (["P*"], [], {b"PATH"}),
        (["PATH", "GREETING"], [], {b"PATH", b"GREETING"}),
        (["*", "HOME"], [], {b"HOME", b"GREETING", b"SHOP_URL"}),
        ([], ["GREETING"], {b"SHOP_URL"}),
        ([], ["*"], set()),
        ([], ["S?OP*", "nothing"], {b"GREETING"}),
        (["[S]HOP_URL", "SHOP.URL"], [], set()),
    ],
)
def test_selection(include: list[str], exclude: list[str], expected: set[bytes]) -> None:
    assert set(process_environment({}, TARGET, rules(include, exclude))) == expected


def test_names_and_values_need_not_be_text() -> None:
    assert process_environment({}, {b"\xff\n": b"\x80"}, rules(include=["\udcff*"])) == {b"\xff\n": b"\x80"}


@given(st.text("AB*?", max_size=6), st.text("AB", max_size=6))
def test_wildcards_mean_what_the_shell_means(wildcard: str, name: str) -> None:
    selected = process_environment({}, {name.encode(): b""}, rules(include=[wildcard]))
    assert bool(selected) == fnmatch.fnmatchcase(name, wildcard)


def test_arguments_are_left_as_they_are() -> None:
    local, target = dict(LOCAL), dict(TARGET)
    process_environment(local, target, rules())
    assert (local, target) == (LOCAL, TARGET)


@pytest.mark.parametrize(
    ("said", "greeting", "region"),
    [
        ({}, b"from the pod", b"here"),
        ({"from_file": {b"GREETING": b"file"}}, b"file", b"here"),
        ({"exclude": ("*",), "from_file": {b"GREETING": b"file"}}, b"file", b"here"),
        ({"mapping": ((re.compile("ETING$"), "mapped"),)}, b"mapped", b"here"),
        ({"mapping": ((re.compile("GREE"), "first"), (re.compile("TING"), "second"))}, b"first", b"here"),
        ({"mapping": ((re.compile("greeting"), "mapped"),)}, b"from the pod", b"here"),
        ({"mapping": ((re.compile("REGION"), "local variables are not mapped"),)}, b"from the pod", b"here"),
        ({"mapping": ((re.compile("."), "m"),), "from_file": {b"REGION": b"file"}}, b"m", b"m"),
        ({"mapping": ((re.compile("."), "m"),), "override": {"REGION": "\u00fc"}}, b"m", b"\xc3\xbc"),
        ({"override": {"GREETING": ""}, "from_file": {b"GREETING": b"file"}}, b"", b"here"),
        ({"unset": ("greeting",)}, None, b"here"),
        ({"unset": ("Reg*", "GREETIN?"), "override": {"GREETING": "a"}}, None, None),
        ({"enabled": False, "override": {"REGION": "1"}}, b"from the pod", b"1"),
    ],
)
def test_what_is_said_besides(said: dict[str, Any], greeting: bytes | None, region: bytes | None) -> None:
    local = {b"GREETING": b"local", b"REGION": b"here"}
    found = process_environment(local, {b"GREETING": b"from the pod"}, EnvironmentConfiguration(**said))
    assert (found.get(b"GREETING"), found.get(b"REGION")) == (greeting, region)


def test_variables_that_stay_local_can_be_set_by_name() -> None:
    said = EnvironmentConfiguration(from_file={b"HOME": b"/file"}, override={"PATH": "/mine"})
    found = process_environment(LOCAL, TARGET, said)
    assert (found[b"HOME"], found[b"PATH"]) == (b"/file", b"/mine")
