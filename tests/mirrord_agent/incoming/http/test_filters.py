import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.filters import MAX_DEPTH, MAX_FILTERS, Body, FilterError, Request, parse_filter
from mirrord_agent.incoming.http.patterns import TooSlowError
from tests.mirrord_agent.incoming.http.test_patterns import SLOW

HEADERS = [(b"Host", b"pod:80"), (b"X-User", b"me"), (b"User-Agent", b"kube-probe/1.36"), (b"X-Name", b"J\xf6rg \xff")]
GET = Request(b"GET", b"/api/v1?user=me", HEADERS)


@pytest.mark.parametrize(
    ("data", "matches"),
    [
        ({"header": "x-user: me$"}, True),
        ({"header": "^x-USER: ME$"}, True),
        ({"header": "^user"}, True),
        ({"header": "^ser"}, False),
        ({"header": "x-user:me"}, False),
        ({"header": "^User-Agent: (?!kube-probe)"}, False),
        ({"header": "^x-user: (?!you)"}, True),
        ({"header": "Jörg ÿ"}, True),
        ({"path": "^/API/"}, True),
        ({"path": "v1$"}, True),
        ({"path": "user=me$"}, True),
        ({"path": "^/api/v1\\?"}, True),
        ({"path": "^(?!/api/)"}, False),
        ({"method": "get"}, True),
        ({"method": "GET|PUT"}, True),
        ({"method": "E"}, False),
        ({"method": "(?!GET$).*"}, False),
        ({"all_of": [{"method": "get"}, {"path": "^/api"}]}, True),
        ({"all_of": [{"method": "get"}, {"path": "^/x"}]}, False),
        ({"any_of": [{"method": "put"}, {"path": "^/x"}]}, False),
        ({"any_of": [{"method": "put"}, {"path": "^/api"}]}, True),
        ({"any_of": [{"all_of": [{"method": "put"}]}, {"all_of": [{"header": "host"}, {"path": "api"}]}]}, True),
    ],
)
def test_what_is_known_from_the_head_is_said_whatever_the_body(data: Any, matches: bool) -> None:
    for body in (b"", Body.AWAITED, Body.UNKNOWN):
        assert parse_filter(data).judge(GET, body) is matches
    assert not parse_filter(data).needs_body


@pytest.mark.parametrize(
    ("target", "pattern"),
    [
        (b"http://pod:80/api?x", r"^/api$"),
        (b"HTTP://pod", "^/$"),
        (b"*", r"^\*$"),
        (b"/r\xc3\xb6\xff", "^/rÃ¶ÿ$"),
        (b"/http://x/y", "^/http://x/y$"),
        (b"/?x?y", "^/$"),
        (b"/?x?y", r"x\?y"),
        (b"/a?", "^/a$"),
    ],
)
def test_the_path_is_found_in_all_forms_of_targets(target: bytes, pattern: str) -> None:
    assert parse_filter({"path": pattern}).judge(Request(b"GET", target, []), b"") is True


JSON = {"body": "json", "query": "$.users[*]", "matches": '^(me|12|true|null|1.5|{"a":"ö"})$'}


@pytest.mark.parametrize(
    ("body", "matches"),
    [
        (b'{"users": ["you", "me"]}', True),
        (b'{"users": ["ME"]}', False),
        (b'{"users": [12]}', True),
        (b'{"users": [true]}', True),
        (b'{"users": [null]}', True),
        (b'{"users": [1.5]}', True),
        ('{"users": [{ "a" : "ö" }]}'.encode(), True),
        ('\ufeff{"users": ["me"]}'.encode(), True),
        ('{"users": ["me"]}'.encode("utf-16"), True),
        (b'{"users": "me"}', False),
        (b'{"users": ["me"]', False),
        (b'{"users": ["me"], "x": NaN}', False),
        (b'{"users": ["me"], "x": ' + b"1" * 5000 + b"}", False),
        (b"\xff\xfe\xfd", False),
        (b"", False),
        (b"[" * 60000, False),
    ],
)
def test_a_body_decides(body: bytes, matches: bool) -> None:
    judged = parse_filter(JSON)
    assert judged.needs_body
    assert judged.judge(GET, body) is matches


@pytest.mark.parametrize(
    ("data", "awaited", "unknown"),
    [
        (JSON, None, False),
        ({"all_of": [JSON, {"path": "^/x"}]}, False, False),
        ({"all_of": [JSON, {"path": "^/api"}]}, None, False),
        ({"any_of": [JSON, {"path": "^/x"}]}, None, False),
        ({"any_of": [JSON, {"path": "^/api"}]}, True, True),
        ({"any_of": [{"all_of": [JSON]}, {"path": "^/x"}]}, None, False),
    ],
)
def test_the_body_is_awaited_only_where_it_matters(data: Any, awaited: bool | None, unknown: bool) -> None:
    judged = parse_filter(data)
    assert judged.needs_body
    assert judged.judge(GET, Body.AWAITED) is awaited
    assert judged.judge(GET, Body.UNKNOWN) is unknown


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, 'filter: expected a map with "header", "path"'),
        ([], "filter: expected a map with"),
        ({}, "filter: expected one of"),
        ({"heder": "x"}, "filter: expected one of"),
        ({"heder": "x"}, "got 'heder'"),
        ({"header": "x", "path": "y"}, "and nothing beside it; got 'header', 'path'"),
        ({1: 2}, "filter: expected one of"),
        ({"header": 5}, "filter.header: expected a regular expression, got 5"),
        ({"path": b"x"}, "filter.path: expected a regular expression, got b'x'"),
        ({"method": "("}, "filter.method: '(' is not a regular expression: missing )"),
        ({"any_of": {}}, "filter.any_of: expected a list of one or more filters, got {}"),
        ({"all_of": []}, "filter.all_of: expected a list of one or more filters, got []"),
        ({"any_of": [{"path": "x"}, {"all_of": [{"header": "["}]}]}, "filter.any_of[1].all_of[0].header: '[' is not"),
        ({"body": "xml", "query": "$", "matches": ""}, 'filter.body: expected "json"'),
        ({"body": "json", "query": "$"}, "filter: expected one of"),
        ({"body": "json", "query": 1, "matches": ""}, 'filter.query: expected a JSONPath query, such as "$.user.name"'),
        ({"body": "json", "query": "x", "matches": ""}, "filter.query: not a JSONPath query (RFC 9535): expected $"),
        ({"body": "json", "query": "$", "matches": "("}, "filter.matches: '(' is not a regular expression"),
        ({"any_of": [{"path": "x"}] * MAX_FILTERS}, f"more than {MAX_FILTERS} filters"),
    ],
)
def test_what_is_no_filter_is_refused_with_what_and_where(data: Any, reason: str) -> None:
    with pytest.raises(FilterError, match=re.escape(reason)):
        parse_filter(data)


def test_filters_can_be_nested_only_so_deep() -> None:
    data: Any = {"path": "x"}
    for _ in range(MAX_DEPTH - 1):
        data = {"any_of": [data]}
    parse_filter(data)
    with pytest.raises(FilterError, match=f"nested more than {MAX_DEPTH} deep"):
        parse_filter({"any_of": [data]})


def test_filters_are_values() -> None:
    data = {"any_of": [JSON, {"all_of": [{"header": "x"}, {"path": "y"}, {"method": "z"}]}]}
    assert parse_filter(data) == parse_filter(data)
    assert len({parse_filter(data), parse_filter(data)}) == 1
    assert parse_filter({"header": "x"}) != parse_filter({"path": "x"})


def test_a_pattern_that_takes_too_long_is_not_hidden() -> None:
    with pytest.raises(TooSlowError):
        parse_filter({"header": SLOW}).judge(Request(b"GET", b"/", [(b"x", b"a" * 5000)]), b"")


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["header", "path", "body", "query", "matches", "any_of", "all_of", "x"]), inner
        )
    ),
)


@given(plain)
def test_any_data_is_a_filter_or_refused(data: Any) -> None:
    try:
        judged = parse_filter(data)
    except FilterError:
        return
    assert judged.judge(GET, b"{}") in (True, False)


@given(st.binary(max_size=50), st.binary(max_size=50), st.lists(st.tuples(st.binary(), st.binary())), st.binary())
def test_any_request_is_judged(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    judged = parse_filter({"any_of": [JSON, {"header": "^a: "}, {"path": "^/b$"}, {"method": "c"}]})
    assert judged.judge(Request(method, target, headers), body) in (True, False)
