"""The card shows texts of data and logs as they are, read by a Markdown parser."""

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from markdown_it import MarkdownIt

from curate.dataset_card import _inline
from curate.progress import printable

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
texts = st.text(st.sampled_from("ab *_`~|<>[]()!&;#$\\:/.@-1\n")) | st.text()


def shown(cell):
    """What a reader sees of a table's cell; fails where it is anything but text."""
    _, body = (token for token in MARKDOWN.parse(f"| x |\n| --- |\n| {cell} |") if token.type == "inline")
    assert {child.type for child in body.children} <= {"text", "text_special"}
    return "".join(child.content for child in body.children)


@given(texts)
@example("*a* __b__ `c` ~~d~~ <b>e</b> [f](g) ![h](i) &amp; \\* | $j$ snake_case_name")
def test_a_cell_shows_the_text_as_it_is(text):
    assert shown(_inline(text)) == printable(text).strip()


@pytest.mark.parametrize("text", ["see https://example.com/a_b", "WWW.example.com", "ftp://x", "a@example.com"])
def test_addresses_are_no_links(text):
    """An autolink needs `://`, `www.` or `@` in the Markdown itself."""
    escaped = _inline(text)
    assert not any(mark in escaped.lower() for mark in ("s://", "p://", "www.", "e@", "a@"))
    assert shown(escaped) == text
