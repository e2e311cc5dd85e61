import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.policy.environment import STAYS_LOCAL, process_environment

LOCAL = {b"PATH": b"/local/bin", b"HOME": b"/home/me", b"EDITOR": b"vi", b"GREETING": b"from here"}
TARGET = {b"PATH": b"/pod/bin", b"HOME": b"/root", b"GREETING": b"from the pod", b"SHOP_URL": b"http://shop:8080"}


def test_target_lies_over_local() -> None:
    assert process_environment(LOCAL, TARGET) == {
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
    assert process_environment({}, {name.encode(): b"x"}) == {}
    assert process_environment({}, {name.encode(): b"x"}, include=["*"]) == {}


@pytest.mark.parametrize("name", ["PATHS", "XPATH", "path", "HOME2", "BUNDLE_", "BUNDLER_ORIG", "PWD\nX"])
def test_similar_names_do_not_stay_local(name: str) -> None:
    assert process_environment({}, {name.encode(): b"x"}) == {name.encode(): b"x"}


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
    assert set(process_environment({}, TARGET, include=include, exclude=exclude)) == expected


def test_names_and_values_need_not_be_text() -> None:
    assert process_environment({}, {b"\xff\n": b"\x80"}, include=["\udcff*"]) == {b"\xff\n": b"\x80"}


@given(st.text("AB*?", max_size=6), st.text("AB", max_size=6))
def test_wildcards_mean_what_the_shell_means(wildcard: str, name: str) -> None:
    selected = process_environment({}, {name.encode(): b""}, include=[wildcard])
    assert bool(selected) == fnmatch.fnmatchcase(name, wildcard)


def test_arguments_are_left_as_they_are() -> None:
    local, target = dict(LOCAL), dict(TARGET)
    process_environment(local, target)
    assert (local, target) == (LOCAL, TARGET)
