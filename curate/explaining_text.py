"""The list of formats and the reading of a row, as lines for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from curate.canon import Message, Pair
from curate.config import PAIRINGS
from curate.form import Format
from curate.progress import printable

if TYPE_CHECKING:
    from curate.explaining import Explanation

_SHAPES = {
    "pair": "a row is a pair",
    "ranking": "a row ranks several answers",
    "joined": "a row is one answer; consecutive rows of the same prompt belong together",
}
_WIDTH = 11


def format_lines(form: Format) -> Iterator[str]:
    """A format in full: columns, what a row is, options, traps, an example."""
    yield form.name
    yield f"  {form.title}"
    yield f"  {'columns':{_WIDTH}} {columns_of(form)}"
    yield f"  {'a row':{_WIDTH}} {_SHAPES[form.shape]}"
    if form.labels:
        yield f"  {'option':{_WIDTH}} --label {' or '.join(form.labels)} (must be chosen)"
    if not form.rowwise:
        yield f"  {'option':{_WIDTH}} --pairing {', '.join(PAIRINGS)} (default: {PAIRINGS[0]})"
    for trap in form.traps:
        yield f"  {'note':{_WIDTH}} {trap}"
    for example in (form.example, *form.more):
        yield f"  {'example':{_WIDTH}} {json.dumps(example, ensure_ascii=False)}"


def columns_of(form: Format) -> str:
    """The columns that a format needs, in words."""
    named = ", ".join(f"{name} ({kind})" if kind != "any" else name for name, kind in form.columns.items())
    return named + (f"; {form.marks}" if form.marks else "")


def explanation_lines(found: Explanation) -> Iterator[str]:
    """How a row was read."""
    lines = ", ".join(map(str, found.lines))
    yield _line("row", f"line {lines} of {found.file}")
    yield _line("format", f"{found.format}, since {found.why}")
    yield _line("columns", ", ".join(found.columns))
    yield _line("looked at", ", ".join(found.looked_at) or "none")
    if found.reason:
        yield _line("refused", found.reason)
    for number, pair in enumerate(found.pairs, start=1):
        yield ""
        yield from _pair_lines(pair, f"pair {number} of {len(found.pairs)}")


def _pair_lines(pair: Pair, title: str) -> Iterator[str]:
    facts = [
        ("tie", "yes" if pair.tie else None),
        ("source", pair.source),
        ("votes", "; ".join(f"{vote.annotator} {vote.vote:+d}" for vote in pair.votes) or None),
        ("ratings", None if pair.rating_chosen is None else f"{pair.rating_chosen:g} and {pair.rating_rejected:g}"),
    ]
    yield title
    yield from (f"  {_line(name, value)}" for name, value in facts if value is not None)
    for name, turns in (("prompt", pair.prompt), ("chosen", pair.chosen), ("rejected", pair.rejected)):
        yield f"  {name}"
        yield from map(_turn, turns)


def _turn(turn: Message) -> str:
    text = printable(turn.content, keep="\n").replace("\n", "\n      ")
    return f"    {turn.role}: {text}"


def _line(name: str, value: str) -> str:
    return f"{name:{_WIDTH}} {printable(value)}"
