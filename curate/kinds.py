"""The verdict on a pair: clean, flipped, ambiguous, defective or unresolved, and the reasons in words.

In this order: defective where a check of severity `defect` found something; ambiguous where the data itself calls it a
tie; flipped where p_flip reaches the threshold and the evidence is firm; ambiguous where annotators are split or
ratings equal; unresolved where there is no evidence, or it changes its sign from one cross-fit to the next; ambiguous
where neither side is clearly the better; else clean. Firm is evidence that is neither of the last two: a hard pair is
not a flipped one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from curate.config import DiagnoseConfig
from curate.schema import KINDS

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_CODE = {kind: code for code, kind in enumerate(KINDS)}
_VOICES = {
    "length": "length",
    "likelihood": "log-probs",
    "hidden_middle": "hidden states (middle layer)",
    "hidden_last": "hidden states (last layer)",
    "reward_model": "the reward model",
    "rating": "the ratings",
}
_MOST_ODDS = 1000.0
_CANNOT_TELL = "the evidence cannot tell right labels from wrong ones in this dataset"


@dataclass(frozen=True)
class Facts:
    """What a verdict rests on, each of shape (N,).

    log_odds: calibrated, that chosen is the better side; NaN without evidence. error: its standard error.
    p_flip: NaN without evidence.
    split: annotators are as good as divided. equal: the data's ratings are the same.
    can_tell: whether the evidence says anything about this dataset's labels.
    """

    defect: Mask
    tie: Mask
    split: Mask
    equal: Mask
    log_odds: Floats
    error: Floats
    p_flip: Floats
    can_tell: bool


def classify(facts: Facts, config: DiagnoseConfig) -> NDArray[np.int8]:
    """Kinds as positions in `KINDS`, shape (N,)."""
    known = np.isfinite(facts.log_odds) & facts.can_tell
    p_better = expit(np.nan_to_num(facts.log_odds))
    near = np.abs(p_better - 0.5) < config.near_tie
    firm = ~near & (np.abs(facts.log_odds) >= facts.error)
    rules = [
        (facts.defect, "defective"),
        (facts.tie, "ambiguous"),
        (known & firm & (np.nan_to_num(facts.p_flip) >= config.p_flip), "flipped"),
        (facts.split | facts.equal, "ambiguous"),
        (~known | (np.abs(facts.log_odds) < facts.error), "unresolved"),
        (near, "ambiguous"),
    ]
    return np.select([rule for rule, _ in rules], [_CODE[kind] for _, kind in rules], _CODE["clean"]).astype(np.int8)


def reasons(
    facts: Facts, kind_N: NDArray[np.int8], voices: Mapping[str, Floats], details: Mapping[int, list[str]]
) -> list[list[str]]:
    """Why each pair is of its kind, the weightiest first; a clean pair that nothing speaks against has none.

    Args:
        voices: signals that may speak for or against the label, each (N,).
        details: position → what the checks found, in words.
    """
    found: list[list[str]] = [[] for _ in kind_N]
    for at in np.flatnonzero((kind_N != _CODE["clean"]) | (facts.log_odds < 0)).tolist():
        found[at] = _reasons(facts, KINDS[kind_N[at]], voices, at)
    for at, texts in details.items():
        found[at] = texts + found[at] if kind_N[at] == _CODE["defective"] else found[at] + texts
    return found


def _reasons(facts: Facts, kind: str, voices: Mapping[str, Floats], at: int) -> list[str]:
    if kind == "defective":
        return []
    marks = [
        ("the data calls it a tie", facts.tie[at]),
        ("its annotators are divided", facts.split[at]),
        ("both sides have the same rating", facts.equal[at]),
    ]
    found = [text for text, holds in marks if holds]
    if not np.isfinite(facts.log_odds[at]):
        return found or ["there is no evidence for either side"]
    if not facts.can_tell:
        against = [_odds(facts.log_odds[at]), *_against(voices, at), f"but {_CANNOT_TELL}"]
        return found or (against if facts.log_odds[at] < 0 else [_CANNOT_TELL])
    if kind in ("flipped", "clean"):
        return [_odds(facts.log_odds[at]), *_against(voices, at), *found]
    if kind == "unresolved":
        return [*found, "the evidence changes its sign from one cross-fit to the next"]
    return found or [f"neither side is clearly better: {expit(facts.log_odds[at]):.0%} for the chosen one"]


def _odds(log_odds: float) -> str:
    odds = np.exp(min(abs(log_odds), np.log(_MOST_ODDS)))
    more = "more than " if odds >= _MOST_ODDS * 0.999 else ""
    side = "rejected" if log_odds < 0 else "chosen"
    return (
        f"the evidence is {more}{odds:,.0f} to 1 for the {side} side"
        if odds >= 1.5
        else f"the evidence leans to the {side} side"
    )


def _against(voices: Mapping[str, Floats], at: int) -> list[str]:
    """Which signals prefer the rejected side, and which the chosen one."""
    said = {name: values[at] for name, values in voices.items() if np.isfinite(values[at]) and values[at] != 0}
    against = [_VOICES.get(name, name) for name, value in said.items() if value < 0]
    in_favour = [_VOICES.get(name, name) for name, value in said.items() if value > 0]
    found = [f"against the label: {', '.join(against)}"] if against else []
    return found + ([f"for the label: {', '.join(in_favour)}"] if in_favour else [])
