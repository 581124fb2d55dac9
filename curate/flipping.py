"""The other label, in a format's own columns: the inverse of `curate.formats`, as far as a row alone can say it.

Every two columns whose names differ in `chosen` and `rejected` alone change places; where a column holds the label, it
gets the other one. Reading a flipped row gives `pair.swap()`, but for a lone annotator, whose vote is taken to be for
the label. Columns that say nothing of the label stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from curate.formats import label_side, label_sides

Relabel = Callable[[Any], Any]


@dataclass(frozen=True)
class Flip:
    """How a row is flipped.

    moves: columns that change places, both ways, beside those that are named after chosen and rejected.
    stays: columns that do not, whatever their names.
    labels: column → its other label, from one.
    """

    moves: Mapping[str, str] = field(default_factory=dict)
    stays: frozenset[str] = frozenset()
    labels: Mapping[str, Relabel] = field(default_factory=dict)

    def moved(self, columns: Iterable[str]) -> dict[str, str]:
        """Column → the one whose value it gets."""
        names = set(columns)
        twins = {**{name: _twin(name) for name in names - self.stays}, **self.moves}
        return {name: twin for name, twin in twins.items() if name != twin and {name, twin} <= names}


def _twin(name: str) -> str:
    """`score_chosen` → `score_rejected`, and back; the name itself where it is named after neither, or both."""
    if ("chosen" in name) == ("rejected" in name):
        return name
    return name.replace("chosen", "rejected") if "chosen" in name else name.replace("rejected", "chosen")


def _one_or_two(label: Any) -> Any:
    """1 for 2 and 2 for 1, as text where it is text."""
    other = 3 - int(float(label))
    return str(other) if isinstance(label, str) else type(label)(other)


_NAMED_SIDES = (
    "trl_standard",
    "trl_standard_implicit",
    "trl_conversational",
    "trl_conversational_implicit",
    "hh_rlhf",
    "ultrafeedback_binarized",
    "argilla_cleaned",
    "argilla_responses",
    "orca_dpo",
    "llamafactory_alpaca",
    "llamafactory_sharegpt",
)

#: A format's name → how its rows are flipped, or why they cannot be.
FLIPS: dict[str, Flip | str] = {
    **dict.fromkeys(_NAMED_SIDES, Flip()),
    "llmbar": Flip(labels={"label": _one_or_two}),
    "pandalm": "the label is the majority of three annotators' votes, which a flip would rewrite",
}


def mapped_flip(columns: Mapping[str, str], label_values: Mapping[str, str] | None) -> Flip:
    """The flip of an explicit mapping, see `curate.formats.mapped`."""
    if "label" in columns:
        sides = ("response_a", "response_b", "rating_chosen", "rating_rejected")
        stays = frozenset(columns[name] for name in sides if name in columns)
        return Flip(stays=stays, labels={columns["label"]: _other_label(label_sides(label_values))})
    twos = [("chosen", "rejected"), ("rating_chosen", "rating_rejected")]
    pairs = [(columns[one], columns[two]) for one, two in twos if {one, two} <= columns.keys()]
    return Flip(moves=dict([*pairs, *((two, one) for one, two in pairs)]))


def _other_label(sides: Mapping[str, str]) -> Relabel:
    texts = {side: text for text, side in sides.items()}

    def other(label: Any) -> Any:
        text = texts["b" if label_side(label, sides) == "a" else "a"]
        if isinstance(label, str):
            return text
        try:
            return json.loads(text)
        except ValueError:
            return text

    return other
