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

from curate.column_mapping import label_side, label_sides

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


def _other(one: Any, two: Any) -> Relabel:
    """One label for the other, as text where it is text, else as a number of its type."""
    others = {one: two, two: one}

    def relabel(label: Any) -> Any:
        if isinstance(label, str):
            return str(others[label if label in others else int(float(label))])
        return type(label)(others[label])

    return relabel


def _negated(label: Any) -> Any:
    """−2 for 2, as text where it is text."""
    return str(-int(float(label))) if isinstance(label, str) else -label


_NAMED_SIDES = (
    *("trl_standard", "trl_standard_implicit", "trl_conversational", "trl_conversational_implicit", "hh_rlhf"),
    *("ultrafeedback_binarized", "argilla_cleaned", "argilla_responses", "orca_dpo", "distilabel_orca"),
    *("axolotl_ultra", "axolotl_chat_template", "llamafactory_alpaca", "llamafactory_sharegpt"),
)
_RANKED = ("nectar", "nemo_rl", "ultrafeedback")
#: Formats in which a pair is made of several rows.
JOINED = ("helpsteer2", "kto")
_KAGGLE = ("winner_model_a", "winner_model_b")

#: A format's name → how its rows are flipped, or why they cannot be.
FLIPS: dict[str, Flip | str] = {
    **dict.fromkeys(_NAMED_SIDES, Flip()),
    **dict.fromkeys(("arena", "arena_json"), Flip(labels={"winner": _other("model_a", "model_b")})),
    **dict.fromkeys(_RANKED, "a row is a ranking of several answers, not a pair"),
    **dict.fromkeys(JOINED, "a pair is made of several rows"),
    "dataset_info": "the columns have names of their own",
    "helpsteer2_preference": Flip(labels={"preference_strength": _negated}),
    "helpsteer3": Flip(labels={"overall_preference": _negated}),
    "llm_comparator": "the score is the mean of the raters', which a flip would rewrite",
    "llmbar": Flip(labels={"label": _other(1, 2)}),
    "lmsys_kaggle": Flip(moves={_KAGGLE[0]: _KAGGLE[1], _KAGGLE[1]: _KAGGLE[0]}),
    "ms_swift": "the chosen side is the end of the messages",
    "openai_summarize": Flip(labels={"choice": _other(0, 1)}),
    "pandalm": "the label is the majority of three annotators' votes, which a flip would rewrite",
    "pku_saferlhf:better": Flip(labels={"better_response_id": _other(0, 1)}),
    "pku_saferlhf:safer": Flip(labels={"safer_response_id": _other(0, 1)}),
    "shp": Flip(labels={"labels": _other(0, 1)}),
    "webgpt": "the label is which score is the higher one, and a flip would rewrite both",
}


def flip_of(form: str, config: Mapping[str, Any]) -> Flip | str:
    """How the rows of a format are flipped, or why they cannot be.

    Args:
        config: of `curate ingest`, as the manifest has it.
    """
    if form == "columns":
        return mapped_flip(config["columns"], config["label_values"])
    return FLIPS[form] if form in FLIPS else FLIPS[f"{form}:{config['label']}"]


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
