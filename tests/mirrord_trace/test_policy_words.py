"""The word without which a pattern finds nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_trace.config.patterns import path_pattern
from mirrord_trace.policy.words import necessary_word


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("/Etc/App", b"/etc/app"),
        (r"^/srv/.+\.jsonc$", b".jsonc"),
        (r"^/srv/.+\.py$", b"/srv/"),
        (r".+\.(json|yaml)", b"."),
        ("abcd*ef", b"abc"),
        ("abcd+ef", b"abcd"),
        ("ab+?c", b"ab"),
        ("abc{2,3}d", b"ab"),
        ("abc{0}d", b"ab"),
        ("a(bcd)?ef", b"ef"),
        ("(?<name>xyz)ab", b"ab"),
        ("(?!abc)d", b"d"),
        (r"ab\dcde", b"cde"),
        (r"a\.b\-c", b"a.b-c"),
        ("a[xyz]bc", b"bc"),
        (r"a[]xyz]bc", b"bc"),
        (r"a[^]x\]yz]bc", b"bc"),
        (r"\(ab\|cd", b"(ab|cd"),
        ("ab\u00e9c", b"ab"),
        ("(?m)^ab", b"ab"),
        ("}ab]", b"}ab]"),
    ],
)
def test_the_longest_that_cannot_be_missing_is_taken(pattern: str, word: bytes) -> None:
    assert necessary_word(path_pattern(pattern)) == word


@pytest.mark.parametrize(
    "pattern",
    [
        *(".*", "a?", "a*", "(ab|cd)", "ab|cd", r"\d+", "[abc]", "\u00e9", "^$"),
        *(r"\x41bc", r"\u0041bc", r"\101bc", r"(a)\1bc", r"\N{DIGIT ONE}bc", r"a\tbc"),
        *("a{b}c", "(?#(|)ab", "(?x) a b", "(?i:x)(?x:a b # (\n)cd"),
    ],
)
def test_of_some_patterns_none_can_be_told(pattern: str) -> None:
    assert necessary_word(path_pattern(pattern)) is None


def test_a_pattern_that_may_hold_comments_is_beyond_us() -> None:
    assert necessary_word(re.compile("ab # cd", re.VERBOSE)) is None


CHARACTERS = st.sampled_from("abkS.-/}{]é")
LEAVES = (
    CHARACTERS.map(re.escape)
    | CHARACTERS
    | st.sampled_from(["\\d", "\\w", ".", "[ab]", "[^]k]", "\\b", "^", "$", "\\|", "\\(", "[|]", "[(]", "\\x41"])
)
PATTERNS = st.recursive(
    st.lists(LEAVES, min_size=1, max_size=5).map("".join),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{}|{}".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(["", "?", "*", "+", "{2}", "{0,1}", "{,2}", "+?", "*+"])),
        st.builds("{}{}".format, inner, st.sampled_from(["?", "*", "+", "{2}", "{0,1}", "{0}", "??", "?+", "{x}"])),
        st.builds("(?{}{})".format, st.sampled_from([":", "=", "!", "P<n>", "#"]), inner),
    ),
    max_leaves=6,
)


@given(data=st.data())
def test_what_a_pattern_finds_has_its_word(data: st.DataObject) -> None:
    text = data.draw(PATTERNS)
    try:
        pattern = path_pattern(text)
    except ValueError:
        return
    word = necessary_word(pattern)
    found = data.draw(st.from_regex(pattern) if word is not None else st.just(""))
    assert word is None or not found.isascii() or word in found.lower().encode()
