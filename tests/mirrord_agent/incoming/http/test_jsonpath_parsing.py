import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirrord_agent.incoming.http.jsonpath import Run
from mirrord_agent.incoming.http.jsonpath_parsing import MAX_QUERY, MAX_SEGMENTS, parse_query


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "expected $, found the end at character 1"),
        ("a", "expected $, found 'a' at character 1"),
        (" $", "expected $, found ' '"),
        ("$ ", "expected a segment, such as .name or [0], or the end, found ' ' at character 2"),
        ("$a", "expected a segment"),
        ("$.", "expected a name or *, found the end"),
        ("$..", "expected a name or *"),
        ("$.a..", "expected a name or *"),
        ("$. a", "expected a name or *"),
        ("$.1a", "expected a name or *"),
        ("$.a-b", "expected a segment"),
        ("$.'a'", "expected a name or *"),
        ("$[]", "expected a name in quotes, a number"),
        ("$[a]", "expected a name in quotes"),
        ("$[0", "expected ], found the end"),
        ("$[0,]", "expected a name in quotes"),
        ("$[01]", "expected ], found '1'"),
        ("$[-0]", "expected a name in quotes"),
        ("$[1.0]", "expected ], found '.'"),
        ("$[9007199254740992]", "out of range"),
        ("$[" + "9" * 4000 + "]", "out of range"),
        ("$[1:2:3:4]", "expected ], found ':'"),
        ("$['a]", "expected a text with quotes at both its ends"),
        ("$['a\n']", "expected a text"),
        ('$["\\\'"]', "expected a text"),
        ("$['\\\"']", "expected a text"),
        ("$['\\x']", "expected a text"),
        ("$['\\ud800']", "half a surrogate pair"),
        ("$[?]", "expected a query from @ or $"),
        ("$[?@.a==]", "expected a query from @ or $"),
        ("$[?1]", "expected an operator to compare with"),
        ("$[?'a']", "expected an operator"),
        ("$[?true]", "expected an operator"),
        ("$[?length(@)]", "expected an operator"),
        ("$[?!1]", "expected an operator"),
        ("$[?!@.a==1]", "expected ], found '='"),
        ("$[?@.a=1]", "expected ], found '='"),
        ("$[?@.a==1==1]", "expected ], found '='"),
        ("$[?@.a&&]", "expected a query"),
        ("$[?@.a & @.b]", "expected ]"),
        ("$[?(@.a]", "expected ), found ']'"),
        ("$[?@.*==1]", "what may find several values is no value"),
        ("$[?@[0,1]==1]", "what may find several values"),
        ("$[?@..a==1]", "what may find several values"),
        ("$[?@[0:1]==1]", "what may find several values"),
        ("$[?@=={}]", "expected a query"),
        ("$[?@==[1]]", "expected a query"),
        ("$[?@==.5]", "expected a query"),
        ("$[?@==1.]", "expected ], found '.'"),
        ("$[?@==01]", "expected ], found '1'"),
        ("$[?@==True]", "expected a query"),
        ("$[?match(@,'a')==true]", "match and search give no value"),
        ("$[?length(match(@,'a'))==1]", "match and search give no value"),
        ("$[?length(@.*)==1]", "what may find several values"),
        ("$[?count(1)==1]", "expected a query from @ or $, found '1'"),
        ("$[?count(length(@))==1]", "expected a query from @ or $"),
        ("$[?count()==1]", "expected a query"),
        ("$[?length(@,@)==1]", "expected ), found ','"),
        ("$[?match(@)]", "expected ,"),
        ("$[?nothing(@)]", "no function is named 'nothing'; there are length, count, value, match, search, typeof"),
        ("$[?length (@)==1]", "expected a query"),
        ("$[?" + "(" * 1500 + "@" + ")" * 1500 + "]", "nested too deep"),
        ("$" + ".a" * (MAX_SEGMENTS + 1), "more than 100 segments"),
        ("$" + "a" * MAX_QUERY, "shorten"),
    ],
)
def test_what_is_no_query_is_refused_with_the_place(query: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        parse_query(query)


@pytest.mark.parametrize(
    "query",
    [
        "$",
        "$[ 'a' , 0 , 1 : 2 , * , ?@ ]",
        "$[?@.a == 1 || @.b != 'x' && !(@.c) || match ( @, 'x')]".replace("match (", "match("),
        "$[?length( @ ) <= -1.5e-3]",
        "$[?count(@['a', \"b\"]) > 1]",
        "$[?$.a[?@.b]]",
        "$..[?@..*]",
        "$" + ".a" * MAX_SEGMENTS,
    ],
)
def test_what_is_one_is_read(query: str) -> None:
    parse_query(query)


@given(st.text(alphabet="$@.[]()?*:,'\"0123-+eE abtrue!=<>&|\\\n", max_size=30))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    for query in (text, "$" + text, f"$[?{text}]"):
        try:
            parsed = parse_query(query)
        except ValueError:
            continue
        value = {"a": [1, {"b": "text"}], "t": None}
        list(parsed.find(value, Run(value)))


@given(st.text())
def test_any_name_can_be_asked_for_in_either_quotes(name: str) -> None:
    quoted = "".join(f"\\u{unit:04x}" for unit in memoryview(name.encode("utf-16-le", "surrogatepass")).cast("H"))
    if any("\ud800" <= character <= "\udfff" for character in name):
        return
    for query in (f"$['{quoted}']", f'$["{quoted}"]'):
        assert list(parse_query(query).find({name: 1}, Run({name: 1}))) == [1]
