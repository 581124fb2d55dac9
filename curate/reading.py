"""Rows → what came of them: a pair, several pairs, or a reason why not. Every row stands in exactly one reading.

Rows that are joined (ratings of one answer each, unpaired answers with a label) must stand next to each other: a
prompt's answers are those of the consecutive rows that have that prompt, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from curate.canon import Pair, Ranking, Refused
from curate.extras import with_extras
from curate.form import Format
from curate.rankings import pairs_of
from curate.readers import Row

#: So many consecutive rows of one prompt are joined at most; what follows counts as another prompt's.
GROUP_ROWS = 256


@dataclass(frozen=True, slots=True)
class Reading:
    """Some rows, and the pairs that they gave; without pairs it is one row with the reason why."""

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...] = ()
    reason: str = ""


def readings(form: Format, pairing: str, rows: Iterable[Row]) -> Iterator[Reading]:
    """What came of each row, in the order of the rows.

    Args:
        pairing: a policy of `curate.rankings.LINKS`, for formats whose rows are not pairs.
    """
    if form.shape == "joined":
        yield from chain.from_iterable(_joined(group, pairing) for group in _groups(form, rows))
        return
    for row in rows:
        try:
            if form.rowwise:
                yield Reading((row,), (form.read(row.values),))
            else:
                found = pairs_of(form.rank(row.values), pairing)
                yield Reading((row,), tuple(with_extras(pair, row.values) for _, pair in found))
        except Refused as refusal:
            yield Reading((row,), reason=str(refusal))


Ranked = tuple[Row, Ranking]


def _groups(form: Format, rows: Iterable[Row]) -> Iterator[list[Ranked] | Reading]:
    """Runs of rows with the same prompt; rows that cannot be read stand between them and do not part them."""
    group: list[Ranked] = []
    for row in rows:
        try:
            ranking = form.rank(row.values)
        except Refused as refusal:
            yield Reading((row,), reason=str(refusal))
            continue
        if group and (ranking.prompt != group[0][1].prompt or len(group) == GROUP_ROWS):
            yield group
            group = []
        group.append((row, ranking))
    if group:
        yield group


def _joined(group: list[Ranked] | Reading, pairing: str) -> list[Reading]:
    """The pairs of one prompt's rows as a single reading, and a refusal for each row that is in none of them."""
    if isinstance(group, Reading):
        return [group]
    rows = [row for row, _ in group]
    answers = tuple(answer for _, ranking in group for answer in ranking.answers)
    try:
        found = pairs_of(replace(group[0][1], answers=answers), pairing)
    except Refused as refusal:
        return [Reading((row,), reason=str(refusal)) for row in rows]
    used = {at for link, _ in found for at in link}
    pairs = tuple(with_extras(pair, rows[0].values) for _, pair in found)
    left_out = f"not in a pair: --pairing {pairing} leaves out some of the {len(rows)} answers to this prompt"
    return [
        Reading(tuple(rows[at] for at in sorted(used)), pairs),
        *(Reading((row,), reason=left_out) for at, row in enumerate(rows) if at not in used),
    ]
