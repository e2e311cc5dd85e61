"""The stand-in's label selectors: what they select, and how those that are none are refused."""

from __future__ import annotations

import pytest

from tests.cluster.standin.label_selectors import label_tests
from tests.cluster.standin.status import Refused

THINGS = {
    "a": {"app": "web", "tier": "front", "example.com/size": "7"},
    "b": {"app": "web", "tier": ""},
    "c": {"app": "db", "example.com/size": "12"},
    "d": {},
}
NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric"
    " character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is"
    " '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and"
    " end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", "abcd"),
        (" ", "abcd"),
        ("app=web", "ab"),
        ("app = web", "ab"),
        ("app==web,tier=front", "a"),
        ("app!=web", "cd"),
        ("app", "abc"),
        ("!app", "d"),
        ("! app", "d"),
        ("tier=", "b"),
        ("tier=,app", "b"),
        ("app in (web, db)", "abc"),
        ("app in(web)", "ab"),
        ("app notin (web)", "cd"),
        ("tier in (front),app", "a"),
        ("tier in ()", "b"),
        ("tier in (,front)", "ab"),
        ("tier notin (front,)", "cd"),
        ("app in (in)", ""),
        ("example.com/size>7", "c"),
        ("example.com/size<12", "a"),
        ("app>1", ""),
    ],
)
def test_what_is_selected(selector: str, expected: str) -> None:
    tests = label_tests(selector)
    assert [name for name, labels in THINGS.items() if all(test(labels) for test in tests)] == list(expected)


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("!!a", "unable to parse requirement: found '!', expected: identifier"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a===b", "unable to parse requirement: found '=', expected: identifier"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("-a", f'unable to parse requirement: <nil>: Invalid value: "-a": {NAME_PART}'),
        ("a=-b", f'unable to parse requirement: values[0][a]: Invalid value: "-b": {VALUE}'),
        (
            "a in (c,-b,b_)",
            f'unable to parse requirement: [values[0][a]: Invalid value: "-b": {VALUE},'
            f' values[1][a]: Invalid value: "b_": {VALUE}]',
        ),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must"
            " be an integer",
        ),
    ],
)
def test_what_is_no_selector(selector: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        label_tests(selector)
    assert (refused.value.code, refused.value.message) == (400, message)
