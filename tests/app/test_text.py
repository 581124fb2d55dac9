"""Texts become HTML that is nothing but text, and a diff loses nothing."""

import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import text

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=60)
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</del></div><style>body{display:none}</style>",
    '"><svg onload=alert(1)>',
    "![x](http://evil.example/a.png)",
    "&lt;b&gt;",
]


def stripped(markup):
    return html.unescape(re.sub(r"</?(?:ins|del|span|div)\b[^>]*>", "", str(markup)))


@given(TEXTS, TEXTS)
def test_a_diff_holds_both_texts_whole(chosen, rejected):
    shown = text.word_diff(chosen, rejected)
    assert (stripped(shown[0]), stripped(shown[1])) == (chosen, rejected)


def test_a_diff_marks_the_words_that_differ():
    chosen, rejected = text.word_diff("The cat sat on the mat.", "The dog sat on the mat!")
    assert chosen == "The <ins>cat</ins> sat on the mat<ins>.</ins>"
    assert rejected == "The <del>dog</del> sat on the mat<del>!</del>"


def test_the_same_texts_have_no_mark():
    assert text.word_diff("all <of> it", "all <of> it") == ("all &lt;of&gt; it",) * 2


def test_long_texts_that_share_little_are_one_block_and_quick():
    words = " ".join(f"a{n}" for n in range(20_000))
    started = time.monotonic()
    chosen, rejected = text.word_diff(f"Start {words} end", f"Start {words.replace('a', 'b')} end")
    assert time.monotonic() - started < 20
    assert chosen.count("<ins>") == rejected.count("<del>") == 1
    assert chosen.startswith("Start <ins>a0 ")
    assert chosen.endswith("</ins> end")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_markup_of_the_data_gets_through(payload):
    messages = [{"role": payload, "content": payload}]
    shown = [
        text.turns(messages),
        text.turns(messages, text.word_diff(text.last_text(messages), "other")[0]),
        *text.word_diff(payload, payload[::-1]),
        text.heat([payload], [1.0], 2.0),
    ]
    for markup in shown:
        assert set(re.findall(r"<(/?\w+)", str(markup))) <= {
            "div",
            "/div",
            "span",
            "/span",
            "ins",
            "/ins",
            "del",
            "/del",
        }
        assert not re.search(r"<[^>]*\b(?:on\w+|src|href)\s*=", str(markup))


def test_hidden_and_turning_characters_are_shown():
    shown = str(text.turns([{"role": "user", "content": "a\u202eb\u200bc\x00d"}]))
    assert all(code in shown for code in (r"\u202e", r"\u200b", r"\x00"))
    assert not {"\u202e", "\u200b", "\x00"} & set(shown)


def test_long_turns_are_folded_until_the_whole_is_asked_for():
    messages = [{"role": "user", "content": "x" * (text.FOLDED + 5)}]
    assert text.is_folded(messages)
    assert "and 5 more characters" in text.turns(messages)
    assert "x" * (text.FOLDED + 5) in text.turns(messages, whole=True)
    assert not text.is_folded([{"role": "user", "content": "x" * text.FOLDED}])


def test_heat_is_as_strong_as_the_value_and_tells_its_sign():
    shown = text.heat(["for", "against", "neither", "unknown"], [2.0, -1.0, 0.0, float("nan")], 2.0)
    colours = re.findall(r"rgba\(([\d,.]+)\)", shown)
    assert colours[:3] == ["59,125,196,0.55", "196,122,28,0.28", "196,122,28,0.00"]
    assert colours[3] == colours[2]


def test_no_turn_says_so():
    assert "nothing" in text.turns([])
    assert text.last_text([]) == ""
