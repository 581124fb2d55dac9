"""All signals of a run's pairs under one or many labellings: fitted out of fold, and those that need no fit.

A labelling is +1 where a pair keeps its label and −1 where it is turned round. Signals are positive where they agree
with the labelling. Fitted signals come twice: with folds grouped by prompt, which is what they promise on new prompts,
and with random folds, where other pairs of the same prompt may help (copies of the same pair stay together even so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.evidence import Evidence
from curate.probe import FEWEST_GROUPS, Floats, Folds, cross_fitted
from curate.signals import swapped

VERSION = 1  # of what is computed: another one makes runs be diagnosed again
FEWEST_PAIRS = 30  # to learn from
FUSED, FUSED_RANDOM = "fused", "fused_random_folds"
CONTROLLED = "fused_length_controlled"
VOTES = ("vote_majority", "vote_all")
GROUPED, RANDOM, UNFITTED = "grouped", "random", "none"
IMPORTED = "imported"  # explanation of a signal from a file
CROSSFIT, CROSSFIT_RANDOM = "crossfit", "crossfit_random_folds"
CROSSFIT_EXPLANATIONS = {
    CROSSFIT: "margins of policies that were trained on other prompts",
    CROSSFIT_RANDOM: "margins of policies that were trained on other pairs, of the same prompt too: shown, not fused",
}
IMPORTED_IN_SAMPLE = "imported, in-sample: shown, not fused"
ORACLE = "oracle"  # what a perfect detector would reach

EXPLANATIONS = {
    "length": "cross-fitted on lengths alone: the baseline to beat",
    "likelihood": "cross-fitted on log-probs",
    "hidden_middle": "cross-fitted on hidden states of the middle layer",
    "hidden_last": "cross-fitted on hidden states of the last layer",
    "given": "cross-fitted on the reward model's and imported signals",
    FUSED: "cross-fitted on all of these, aware of noise",
    FUSED_RANDOM: "the same with random folds",
    CONTROLLED: "what is left of fused when length is taken out",
    "vote_majority": "mean of the signs of the cross-fitted signals, the ratings, the rewards and the imported signals",
    "vote_all": "negative only where all of them disagree with the label",
}

#: Names that imported signals must not have.
RESERVED = (*EXPLANATIONS, ORACLE)

Key = tuple[str, str]


@dataclass(frozen=True)
class Detected:
    """Signals of the M pairs that the probe learns from, under T labellings.

    values: (signal, kind of folds) → (M, T), NaN where there is none.
    error_MT: standard error of the fused signal (grouped folds) over the repeated cross-fits.
    length_share: share of the fused signal's variance that length explains, of the first labelling.
    """

    values: Mapping[Key, Floats]
    error_MT: Floats
    length_share: float


def can_learn(evidence: Evidence) -> bool:
    """Whether there are pairs and prompts enough to fit anything."""
    at = evidence.learners
    return len(at) >= FEWEST_PAIRS and len(np.unique(evidence.prompt_N[at])) >= FEWEST_GROUPS


def detect(evidence: Evidence, target_MT: Floats, folds: Folds) -> Detected:
    """Compute every signal.

    Args:
        target_MT: labellings of `evidence.learners`, each +1 or −1.

    Raises:
        ValueError: the pairs have fewer than three prompts.
    """
    at = evidence.learners
    blocks = {name: values[at] for name, values in evidence.blocks.items()}
    heads = {name: (name,) for name in blocks if name != "given"} | {FUSED: tuple(blocks)}
    values = _unfitted(evidence, target_MT)
    voters = [
        values[name, UNFITTED] for name in ("rating", "reward_model", *evidence.imported) if (name, UNFITTED) in values
    ]
    fitted: dict[Key, Floats] = {}
    margins, errors = cross_fitted(blocks, evidence.prompt_N[at], target_MT, heads, FUSED, folds)
    fitted |= _oriented(margins, GROUPED, blocks, voters, target_MT)
    if len(np.unique(evidence.prompt_N[at])) < len(at):
        margins, _ = cross_fitted(blocks, evidence.content_N[at], target_MT, heads, FUSED, folds)
    fitted |= _oriented(margins, RANDOM, blocks, voters, target_MT)
    share = 1 - _size(fitted[CONTROLLED, GROUPED][:, 0]) / max(_size(fitted[FUSED, GROUPED][:, 0]), 1e-300)
    return Detected(values | fitted, errors[FUSED], float(share))


def _oriented(
    margins: Mapping[str, Floats],
    kind: str,
    blocks: Mapping[str, NDArray[np.float32]],
    voters: list[Floats],
    target_MT: Floats,
) -> dict[Key, Floats]:
    """Fitted signals, what length leaves of the fused one, and votes: positive where they agree with a labelling."""
    oriented = {name: target_MT * margin for name, margin in margins.items()}
    votes = _vote([value for name, value in oriented.items() if name != FUSED] + voters)
    oriented[CONTROLLED] = target_MT * _without(margins[FUSED], blocks["length"])
    return {(name, kind): value for name, value in {**oriented, **dict(zip(VOTES, votes, strict=True))}.items()}


def _unfitted(evidence: Evidence, target_MT: Floats) -> dict[Key, Floats]:
    at = evidence.learners
    turned = swapped(evidence.columns)
    found: dict[Key, Floats] = {}
    for name, signal in evidence.signals.items():
        kept, flipped = signal.of(evidence.columns)[at], signal.of(turned)[at]
        found[name, UNFITTED] = np.where(target_MT > 0, kept[:, None], flipped[:, None])
    for name, values in evidence.imported.items():
        found[name, UNFITTED] = target_MT * values[at][:, None]
    return found


def _without(margin_MT: Floats, block_MD: NDArray[np.float32]) -> Floats:
    """What a linear function of the block does not explain; uses no labels."""
    explained: Floats = block_MD @ np.linalg.lstsq(block_MD.astype(np.float64), margin_MT, rcond=None)[0]
    return margin_MT - explained


def _size(values_M: Floats) -> float:
    return float(np.mean(values_M**2))


def _vote(signals: list[Floats]) -> tuple[Floats, Floats]:
    """Mean sign, and the most favourable of the signals in units of their own size; NaN abstains."""
    present = np.stack([np.nan_to_num(values) for values in signals])
    size_ST = np.sqrt(np.mean(present**2, axis=1, keepdims=True))
    most = np.stack([np.where(np.isnan(values), -np.inf, values) for values in signals]) / np.where(
        size_ST > 0, size_ST, 1
    )
    return np.sign(present).mean(axis=0), most.max(axis=0)
