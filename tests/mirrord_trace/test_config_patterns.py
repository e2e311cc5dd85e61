import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.config.patterns import path_pattern, replacement


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("^/a", "^/a"),
        (r"\.so(\.\d+)*$", r"\.so(\.\d+)*$"),
        ("(?<user>[^/]+)", "(?P<user>[^/]+)"),
        ("(?P<user>x)", "(?P<user>x)"),
        ("(?:(?<a>x)|(?<b>y))", "(?:(?P<a>x)|(?P<b>y))"),
        ("(?<=a)b(?<!c)", "(?<=a)b(?<!c)"),
        (r"\((?<a>x)", r"\((?P<a>x)"),
        (r"\(?<a", r"\(?<a"),
        ("[(?<a>]", "[(?<a>]"),
        ("[](?<a>]", "[](?<a>]"),
        ("[^](?<a>](?<b>c)", "[^](?<a>](?P<b>c)"),
        (r"[\](?<a>](?<b>c)", r"[\](?<a>](?P<b>c)"),
        ("a\n(?<b>c)", "a\n(?P<b>c)"),
    ],
)
def test_named_groups_are_written_as_in_rust(written: str, taken: str) -> None:
    assert path_pattern(written) == re.compile(taken, re.IGNORECASE)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("", "an empty regular expression would find every path"),
        ("(", "'(' is not a regular expression: missing ), unterminated subpattern at position 0"),
        ("(?<a>b)(", "'(?<a>b)(' is not a regular expression: missing ), unterminated subpattern at position 7"),
        ("(?<a>(?<b>x)[", "unterminated character set at position 12"),
        ("(?<1>b)", "bad character in group name '1' at position "),
        ("[", "unterminated character set at position 0"),
        ("\\", "bad escape (end of pattern) at position 0"),
        (r"\z", r"bad escape \z at position 0"),
        ("[[:alpha:]]", "'[[:alpha:]]' is not a regular expression that can be taken: Possible nested set"),
        ("a{99999999999}", "the repetition number is too large"),
        ("(" * 5000 + ")" * 5000, "recursion"),
    ],
)
def test_what_is_wrong_with_an_expression_is_told(written: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        path_pattern(written)


@given(st.text(alphabet=r"ab\[]()?<>!=^-", max_size=12))
def test_no_expression_fails_in_another_way(text: str) -> None:
    with contextlib.suppress(ValueError):
        path_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "written", "path", "replaced"),
    [
        ("^/home/(?<user>[^/]+)/dev", "/etc/tomcat", "/home/johndoe/dev", "/etc/tomcat"),
        ("^/h/(?<user>[^/]+)/(?<app>.+)", "/mnt/${user}-$app", "/h/johndoe/api/c", "/mnt/johndoe-api/c"),
        ("^/(.)/(.)", "/$2/$1", "/a/b", "/b/a"),
        ("^/(.)", "/${1}0", "/a", "/a0"),
        ("(?<a1>.+)", "/$a1-$0", "/x", "//x-/x"),
        ("^/(a)?(b)", "/$1$2", "/b", "/b"),
        ("^/a", "/$$1", "/a", "/$1"),
        ("^/a", "/$", "/a", "/$"),
        ("^/a", r"/\1\g<0>\n", "/a", r"/\1\g<0>\n"),
        ("^/a", "", "/a", ""),
    ],
)
def test_replacements_name_groups_as_in_rust(pattern: str, written: str, path: str, replaced: str) -> None:
    compiled = path_pattern(pattern)
    found = compiled.search(path)
    assert found
    assert found.expand(replacement(compiled, written)) == replaced


@pytest.mark.parametrize(
    ("pattern", "written", "group"),
    [("a", "$1", "1"), ("(a)", "$2", "2"), ("(?<b>a)", "$ba", "ba"), ("(a)", "${}", ""), ("(a)", "$1x", "1x")],
)
def test_replacements_name_groups_that_exist(pattern: str, written: str, group: str) -> None:
    with pytest.raises(ValueError, match=f"names the group '{group}', which .* does not have"):
        replacement(path_pattern(pattern), written)
