"""What queries find. The examples are those of RFC 9535, and cases in which implementations are known to differ."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.jsonpath import Run
from mirrord_agent.incoming.http.jsonpath_parsing import parse_query
from mirrord_agent.incoming.http.patterns import TooSlowError


def found(query: str, value: Any) -> list[Any]:
    return list(parse_query(query).find(value, Run(value)))


STORE = {
    "store": {
        "book": [
            {"category": "reference", "author": "Nigel Rees", "title": "Sayings of the Century", "price": 8.95},
            {"category": "fiction", "author": "Evelyn Waugh", "title": "Sword of Honour", "price": 12.99},
            {"category": "fiction", "author": "Herman Melville", "isbn": "0-553-21311-3", "price": 8.99},
            {"category": "fiction", "author": "J. R. R. Tolkien", "isbn": "0-395-19395-8", "price": 22.99},
        ],
        "bicycle": {"color": "red", "price": 399},
    }
}
BOOKS: list[Any] = STORE["store"]["book"]  # type: ignore[assignment]
AUTHORS = [book["author"] for book in BOOKS]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("$.store.book[*].author", AUTHORS),
        ("$..author", AUTHORS),
        ("$.store.*", [BOOKS, STORE["store"]["bicycle"]]),
        ("$..book[2]", [BOOKS[2]]),
        ("$..book[2].author", [AUTHORS[2]]),
        ("$..book[2].publisher", []),
        ("$..book[-1]", [BOOKS[3]]),
        ("$..book[0,1]", BOOKS[:2]),
        ("$..book[:2]", BOOKS[:2]),
        ("$..book[?@.isbn]", BOOKS[2:]),
        ("$..book[?@.price<10]", [BOOKS[0], BOOKS[2]]),
        ("$..book[?@.price < 10 && @.isbn]", [BOOKS[2]]),
        ("$['store']['bicycle'][\"color\"]", ["red"]),
        ("$.store.book[?@.category == $.store.book[0].category].author", AUTHORS[:1]),
        ("$.store.book[?search(@.author, 'R\\\\.')].author", AUTHORS[3:]),
    ],
)
def test_the_store_of_the_rfc(query: str, values: list[Any]) -> None:
    assert found(query, STORE) == values


COMPARED = {"obj": {"x": "y"}, "arr": [2, 3]}


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [
        ("$.absent1 == $.absent2", True),
        ("$.absent1 <= $.absent2", True),
        ("$.absent == 'g'", False),
        ("$.absent1 != $.absent2", False),
        ("$.absent != 'g'", True),
        ("1 <= 2", True),
        ("1 > 2", False),
        ("13 == '13'", False),
        ("'a' <= 'b'", True),
        ("'a' > 'b'", False),
        ("$.obj == $.arr", False),
        ("$.obj != $.arr", True),
        ("$.obj == $.obj", True),
        ("$.obj != $.obj", False),
        ("$.arr == $.arr", True),
        ("$.arr != $.arr", False),
        ("$.obj == 17", False),
        ("$.obj != 17", True),
        ("$.obj <= $.arr", False),
        ("$.obj < $.arr", False),
        ("$.obj <= $.obj", True),
        ("$.arr <= $.arr", True),
        ("1 <= $.arr", False),
        ("1 >= $.arr", False),
        ("1 > $.arr", False),
        ("1 < $.arr", False),
        ("true <= true", True),
        ("true > true", False),
        ("1 == 1.0", True),
        ("1e2 == 100", True),
        ("-0 == 0", True),
        ("1 == true", False),
        ("0 == false", False),
        ("null == null", True),
        ("'ab' == \"a\\u0062\"", True),
    ],
)
def test_comparisons_of_the_rfc(comparison: str, holds: bool) -> None:
    assert bool(found(f"$.arr[?{comparison}]", COMPARED)) is holds


@pytest.mark.parametrize(
    ("query", "value", "values"),
    [
        ("$", 1, [1]),
        ("$[?@]", [False, 0, None, "", {}, []], [False, 0, None, "", {}, []]),
        ("$[?!@]", [False, 0], []),
        ("$[?@.a]", [{"a": None}, {"b": 1}, 1], [{"a": None}]),
        ("$[?@==1]", [1, True, 1.0, "1"], [1, 1.0]),
        ("$[?@==true]", [1, True], [True]),
        ("$[?@==$[0]]", [[True], [1], [True]], [[True], [True]]),
        ("$[?@==$[0]]", [{"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ("$[?count(@)==1]", [1, [2]], [1, [2]]),
        ("$[?count(@.*)==1]", [1, [2], [2, 3]], [[2]]),
        ("$[?value(@..a)==1]", [{"a": 1}, {"a": 1, "b": {"a": 1}}], [{"a": 1}]),
        ("$[?length(@)==2]", ["ab", "☃☃", [1, 2], {"a": 1, "b": 2}, 2, "abc"], ["ab", "☃☃", [1, 2], {"a": 1, "b": 2}]),
        ("$[?length(@)==$.absent]", [1, "a"], [1]),
        ("$[?match(@, 'a.c')]", ["abc", "xabc", "a\rc", "a\nc", 1], ["abc"]),
        ("$[?match(@, '[.]')]", [".", "a"], ["."]),
        ("$[?match(@, '\\\\.')]", [".", "a"], ["."]),
        ("$[?search(@, 'b')]", ["abc", "xyz", ["b"]], ["abc"]),
        ("$[?search(@, '(')]", ["("], []),
        ("$[?search(@, 1)]", ["1"], []),
        ("$[?!match(@, 'a')]", ["a", 1], [1]),
        ("$[?typeof(@) == 'number']", [1, "1", 2.5, True, None, [], {}], [1, 2.5]),
        ("$[?typeof(@) == 'bool' || typeof(@) == 'null']", [1, True, None], [True, None]),
        ("$[?typeof(@.*) == 'string']", [["a", "b"], ["a", 1], []], [["a", "b"]]),
        ("$[?typeof(@.*) == $.absent]", [["a"], ["a", 1], []], [["a", 1], []]),
        ("$[?(@ > 1 || @ < 0) && !(@ == 5)]", [-1, 0, 1, 2, 5], [-1, 2]),
        ("$[1:3]", [0, 1, 2, 3], [1, 2]),
        ("$[::-1]", [0, 1, 2], [2, 1, 0]),
        ("$[5:1:-2]", list(range(7)), [5, 3]),
        ("$[-2:]", [0, 1, 2], [1, 2]),
        ("$[1:3:0]", [0, 1, 2], []),
        ("$[ : : ]", [0, 1], [0, 1]),
        ("$[-3]", [0, 1], []),
        ("$[0]", {"0": 1}, []),
        ("$[0]", "text", []),
        ("$.length", [1], []),
        ("$[0, 0, 'a']", [7], [7, 7]),
        ("$..*", [[1]], [[1], 1]),
        ("$..[0]", [[1, [2]]], [[1, [2]], 1, 2]),
        ("$ .a ['b']\n..c", {"a": {"b": {"c": 1}}}, [1]),
        ("$.☃", {"☃": 1}, [1]),
        (r"$['\u2603\uD83D\ude00\'\\/\n']", {"☃😀'\\/\n": 1}, [1]),
        (r"""$["'\""]""", {"'\"": 1}, [1]),
        (r"""$['"']""", {'"': 1}, [1]),
        ("$.true[?@.null==null]", {"true": [{"null": None}, {}]}, [{"null": None}]),
        ("$[?(@.a)]", [{"a": 1}], [{"a": 1}]),
        ("$[?@.a,?@.b]", [{"a": 1, "b": 2}], [{"a": 1, "b": 2}, {"a": 1, "b": 2}]),
    ],
)
def test_cases_in_which_implementations_differ(query: str, value: Any, values: list[Any]) -> None:
    assert json.dumps(found(query, value)) == json.dumps(values)


@pytest.mark.parametrize(
    "query", ["$..*..*", "$[?count($..*)>1]", "$..[?@ == $]", "$[*][*][*][*]", "$[::][::][::][::]"]
)
def test_a_query_that_visits_too_much_is_given_up(query: str) -> None:
    value: Any = [list(range(300)) for _ in range(300)]
    for _ in range(90):
        value = [value, value]
    with pytest.raises(TooSlowError, match="visited more than"):
        found(query, [value, [[list(range(300)) for _ in range(300)] for _ in range(10)]])


@pytest.mark.parametrize("function", ["match", "search"])
def test_searches_that_are_slow_together_are_given_up(function: str) -> None:
    query = rf"$[?{function}(@, '((a+)(a+))+\\2\\3c')]"
    with pytest.raises(TooSlowError, match="searches of a JSONPath query"):
        found(query, ["a" * 14] * 20_000)


def test_a_document_nested_very_deep_is_searched_in_depth() -> None:
    value: Any = {"a": 1}
    for _ in range(900):
        value = [value]
    assert found("$..a", value) == [1]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)


def below(value: Any) -> list[Any]:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(inner for child in children for inner in below(child))]


@given(values)
def test_everything_below_is_found_once_whatever_way_it_is_asked_for(value: Any) -> None:
    everything = sorted(map(json.dumps, below(value)[1:]))
    assert sorted(map(json.dumps, found("$..*", value))) == everything
    assert sorted(map(json.dumps, found("$..[?@ == @]", value))) == everything
    assert sorted(map(json.dumps, found("$..[?typeof(@) != 'x']", value))) == everything


@given(st.lists(st.integers(), max_size=8), *[st.none() | st.integers(-9, 9)] * 3)
def test_slices_are_pythons_except_for_a_step_of_0(
    value: list[int], start: int | None, end: int | None, step: int | None
) -> None:
    text = ":".join("" if number is None else str(number) for number in (start, end, step))
    assert found(f"$[{text}]", value) == ([] if step == 0 else value[start:end:step])
