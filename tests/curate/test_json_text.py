"""A JSON object's text with some values changed: as loading, changing and dumping it, but for the bytes of the rest."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from curate.json_text import edited

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), values, max_size=6)


@settings(deadline=None)
@given(objects, objects, st.booleans(), st.sampled_from([None, 2]), st.data())
def test_it_loads_as_if_it_had_been_changed(before, new, ascii_only, indent, data):
    text = json.dumps(before, ensure_ascii=ascii_only, indent=indent)
    moves = {}
    if before:
        moves = data.draw(st.dictionaries(st.sampled_from(sorted(before)), st.sampled_from(sorted(before)), max_size=2))
    new = {name: value for name, value in new.items() if name not in moves}
    changed = edited(text, moves, new)
    assert json.loads(changed) == before | {name: before[other] for name, other in moves.items()} | new


@pytest.mark.parametrize(
    ("text", "moves", "new", "expected"),
    [
        ('{"a":1,"b": 2.50e0}', {"a": "b", "b": "a"}, {}, '{"a":2.50e0,"b": 1}'),
        (' {"a" : "\\u00e9", "n":1e400 }\r\n', {}, {"w": 0.5}, ' {"a" : "\\u00e9", "n":1e400, "w": 0.5 }\r\n'),
        ("{}\n", {}, {"w": 1}, '{"w": 1}\n'),
        ('{"a":1,"a":2,"b":3}', {"a": "b"}, {}, '{"a":1,"a":3,"b":3}'),
        ('{"}":"{","b":[{"a":1}],"a":NaN}', {}, {"a": None}, '{"}":"{","b":[{"a":1}],"a":null}'),
        ('{"a":1}', {}, {}, '{"a":1}'),
    ],
)
def test_all_else_is_left_byte_for_byte(text, moves, new, expected):
    assert edited(text, moves, new) == expected
