"""Texts of pairs as HTML that is nothing but text: word diff, folding, token heat. No streamlit here.

Every piece of data goes through `curate.html.visible`, which escapes it and shows hidden and bidirectional characters
as codes; tags and styles are written here alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from markupsafe import Markup

from curate.html import visible
from curate.progress import printable

FOLDED = 6_000  # characters of a turn that are shown before its whole is asked for
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_MOST_WORK = 4_000_000  # words of one side times words of the other: a longer diff is one block
_FULL_HEAT = 0.55  # opacity

#: Of the page's own markup; colours are seen on white and on near-black.
STYLE = """<style>
.turn {border-left: 3px solid rgba(130,136,143,.35); padding: .1rem 0 .1rem .75rem; margin: 0 0 .75rem 0}
.turn .role {font-size: .8rem; opacity: .75; margin-bottom: .15rem}
.turn .said {white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; line-height: 1.55}
.said ins {background: rgba(59,125,196,.22); text-decoration: none; border-bottom: 2px solid #3B7DC4}
.said del {background: rgba(196,122,28,.22); text-decoration: none; border-bottom: 2px dashed #C47A1C}
.turn .code {font: .75em monospace; border: 1px solid rgba(130,136,143,.6); border-radius: 3px; padding: 0 2px}
.said .more {opacity: .75; font-style: italic}
.said .token {border-radius: 2px}
</style>"""


def turns(messages: Sequence[Mapping[str, Any]], last: Markup | None = None, *, whole: bool = False) -> Markup:
    """Turns under one another.

    Args:
        last: what stands for the last turn's text, which is `last_text`.
        whole: show all of long texts.
    """
    if not messages:
        return turn("", Markup("<i>nothing</i>"))
    shown = []
    for place, message in enumerate(messages):
        said, more = (message["content"], 0) if whole else folded(message["content"])
        note = Markup(' <span class="more">… and {:,} more characters</span>').format(more) if more else Markup("")
        said = last if last is not None and place == len(messages) - 1 else visible(said)
        shown.append(turn(message["role"], said + note))
    return Markup("").join(shown)


def turn(role: str, said: Markup) -> Markup:
    """A turn's role, and its text as HTML."""
    body = '<div class="turn"><div class="role">{}</div><div class="said" dir="auto">{}</div></div>'
    return Markup(body).format(visible(role), said)


def last_text(messages: Sequence[Mapping[str, Any]], *, whole: bool = False) -> str:
    """The last turn's text as far as it is shown."""
    content: str = messages[-1]["content"] if messages else ""
    return content if whole else folded(content)[0]


def folded(text: str) -> tuple[str, int]:
    """The beginning of a long text, and how many characters it leaves out."""
    return (text, 0) if len(text) <= FOLDED else (text[:FOLDED], len(text) - FOLDED)


def is_folded(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any turn is too long to be shown whole at first."""
    return any(len(turn["content"]) > FOLDED for turn in messages)


# --- word diff ---------------------------------------------------------------------------------------


def word_diff(chosen: str, rejected: str) -> tuple[Markup, Markup]:
    """Both texts; what the other does not have is in <ins> (of chosen) and <del> (of rejected)."""
    words = _WORD.findall(chosen), _WORD.findall(rejected)
    parts: tuple[list[Markup], list[Markup]] = ([], [])
    for same, chosen_words, rejected_words in _aligned(*words):
        for out, piece, tag in zip(parts, (chosen_words, rejected_words), ("ins", "del"), strict=True):
            if piece:
                out.append(visible(piece) if same else Markup(f"<{tag}>{visible(piece)}</{tag}>"))
    return Markup("").join(parts[0]), Markup("").join(parts[1])


def _aligned(chosen: list[str], rejected: list[str]) -> list[tuple[bool, str, str]]:
    """Stretches of both texts, and whether they are the same."""
    head = _common(chosen, rejected)
    tail = _common(chosen[head:][::-1], rejected[head:][::-1])
    ends = len(chosen) - tail, len(rejected) - tail
    middle = chosen[head : ends[0]], rejected[head : ends[1]]
    if len(middle[0]) * len(middle[1]) > _MOST_WORK:
        inner = [(False, "".join(middle[0]), "".join(middle[1]))]
    else:
        blocks = SequenceMatcher(None, *middle, autojunk=False).get_opcodes()
        inner = [(tag == "equal", "".join(middle[0][a:b]), "".join(middle[1][c:d])) for tag, a, b, c, d in blocks]
    first, last = "".join(chosen[:head]), "".join(chosen[ends[0] :])
    return [(True, first, first), *inner, (True, last, last)]


def _common(one: list[str], other: list[str]) -> int:
    """How many words both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (left, right) in pairs if left != right), min(len(one), len(other)))


# --- token heat --------------------------------------------------------------------------------------


def heat(pieces: Sequence[str], values: Sequence[float], most: float) -> Markup:
    """Pieces of a text on a background: blue where a value is positive, orange where it is negative.

    most: the size at which the colour is full. The value stands in each piece's tooltip.
    """
    return Markup("").join(
        Markup('<span class="token" style="background:{}" title="{:+.2f} nats">{}</span>').format(
            _colour(value, most), value, visible(piece)
        )
        for piece, value in zip(pieces, values, strict=True)
    )


def _colour(value: float, most: float) -> str:
    share = min(abs(value) / most, 1.0) if most > 0 and math.isfinite(value) else 0.0
    rgb = "59,125,196" if value > 0 else "196,122,28"
    return f"rgba({rgb},{_FULL_HEAT * share:.2f})"


# --- a line ------------------------------------------------------------------------------------------


def one_line(said: str) -> str:
    """Text on one line, for the cell of a table; what hides shows as codes."""
    return printable(" ".join(said.split()))
