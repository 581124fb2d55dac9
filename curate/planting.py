"""Noise that is planted on purpose, so that one can measure how much of it is found.

A plan turns M pairs into labellings (M, T), one column a seed: +1 keeps a pair's label, −1 flips it. Adding a plan is
one function.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
_STREAM = 0xF11B
BAD_ANNOTATOR = 0.4  # the rate at which a bad annotator errs


@dataclass(frozen=True)
class BadAnnotator:
    """Votes of which one annotator's are spoiled, a column a seed.

    target_MT: the labels that follow from the votes. votes_VT: the votes, ±1. bad_T: whose are spoiled.
    """

    target_MT: Floats
    votes_VT: Floats
    bad_T: Codes


def random_flips(pairs: int, rate: float, seeds: int) -> Floats:
    """Flip the same number of pairs, drawn at random, in every column."""
    return np.stack([_flip(np.arange(pairs), pairs, rate, seed) for seed in range(seeds)], axis=1)


def hard_flips(margin_M: Floats, rate: float) -> Floats:
    """Flip the pairs of the smallest |margin|; one column, for nothing is drawn."""
    target_M = np.ones(len(margin_M))
    target_M[np.argsort(np.abs(margin_M), kind="stable")[: round(rate * len(margin_M))]] = -1
    return target_M[:, None]


def longer_wins(token_difference_M: Floats, rate: float, seeds: int) -> Floats:
    """Flip pairs whose rejected side is the longer one, drawn at random: as if length had been taken for quality.

    At most all of them, so that the rate may come out lower.
    """
    shorter_won = np.flatnonzero(token_difference_M < 0)
    return np.stack([_flip(shorter_won, len(token_difference_M), rate, seed) for seed in range(seeds)], axis=1)


def _random(seed: int) -> np.random.Generator:
    """Not the stream that folds are drawn from with the same seed: flips must not gather in a fold."""
    return np.random.default_rng([seed, _STREAM])


def _flip(candidates: Codes, pairs: int, rate: float, seed: int) -> Floats:
    target_M = np.ones(pairs)
    target_M[_random(seed).permutation(candidates)[: round(rate * pairs)]] = -1
    return target_M


def bad_annotator(pair_V: Codes, annotator_V: Codes, vote_V: Floats, pairs: int, seeds: int) -> BadAnnotator:
    """Turn 40 % of one annotator's votes round, each annotator's in turn, and let the majority label the pairs anew.

    Args:
        pair_V, annotator_V, vote_V: which of the M pairs a vote is about, whose it is, and ±1 for the pair's label.
    """
    votes_VT = np.tile(vote_V[:, None], seeds)
    annotators = int(annotator_V.max()) + 1
    bad_T = np.arange(seeds) % annotators
    for seed, bad in enumerate(bad_T):
        theirs = np.flatnonzero(annotator_V == bad)
        drawn = _random(seed).permutation(theirs)[: round(BAD_ANNOTATOR * len(theirs))]
        votes_VT[drawn, seed] *= -1
    sums = [np.bincount(pair_V, weights=votes_V, minlength=pairs) for votes_V in votes_VT.T]
    return BadAnnotator(np.where(np.stack(sums, axis=1) < 0, -1.0, 1.0), votes_VT, bad_T)


def made_up_annotators(pairs: int, annotators: int = 5) -> tuple[Codes, Codes, Floats]:
    """One vote a pair, of annotators who share the pairs at random: for data that does not name its annotators."""
    return np.arange(pairs), _random(0).permutation(pairs) % annotators, np.ones(pairs)
