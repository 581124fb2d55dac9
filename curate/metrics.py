"""How well a signal ranks flipped pairs first. Signals are positive where they agree with the label, so low is suspect.

All take value_M (M,), finite, and flipped_M (M,) with at least one pair of either kind. Ties are broken at random, with
a fixed seed, or count half.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Codes = NDArray[np.int64]

_RESAMPLES = 400
_Z95 = float(norm.ppf(0.975))


def auroc(value_M: Floats, flipped_M: Mask) -> float:
    """P(a flipped pair has a lower value than another one); equal values count half.

    By hand: values 1, 2, 3, the first flipped: 1; the last flipped: 0.
    """
    flips = int(flipped_M.sum())
    others = len(flipped_M) - flips
    return float(1 - (rankdata(value_M)[flipped_M].sum() - flips * (flips + 1) / 2) / (flips * others))


def auroc_interval(value_M: Floats, flipped_M: Mask) -> tuple[float, float]:
    """95 % interval of the AUROC over pairs (DeLong)."""
    rank_M = rankdata(value_M)
    parts = [mask.sum() for mask in (flipped_M, ~flipped_M)]
    within = [rankdata(value_M[mask]) for mask in (flipped_M, ~flipped_M)]
    shares = [
        (rank_M[mask] - own) / other
        for mask, own, other in zip((flipped_M, ~flipped_M), within, parts[::-1], strict=True)
    ]
    spread = _Z95 * float(np.sqrt(sum(np.var(share) / max(len(share) - 1, 1) for share in shares)))
    middle = auroc(value_M, flipped_M)
    return max(middle - spread, 0.0), min(middle + spread, 1.0)


def average_precision(value_M: Floats, flipped_M: Mask) -> float:
    """Precision, averaged over the flipped pairs as they come in the ranking."""
    return float(average_precision_score(flipped_M, -value_M))


def precision_at(value_M: Floats, flipped_M: Mask, first: int) -> float:
    """Share of flipped pairs among so many that are ranked first."""
    shuffled = np.random.default_rng(0).permutation(len(value_M))
    ranked = shuffled[np.argsort(value_M[shuffled], kind="stable")]
    return float(flipped_M[ranked[: max(first, 1)]].mean())


def recall_at(value_M: Floats, flipped_M: Mask, precision: float) -> float:
    """Largest share of the flipped pairs that can be found at this precision."""
    precisions, recalls, _ = precision_recall_curve(flipped_M, -value_M)
    return float(recalls[precisions >= precision].max())


def _at_flips(value_M: Floats, flipped_M: Mask) -> float:
    return precision_at(value_M, flipped_M, int(flipped_M.sum()))


def _at_top(value_M: Floats, flipped_M: Mask) -> float:
    return precision_at(value_M, flipped_M, round(0.05 * len(value_M)))


METRICS: dict[str, Callable[[Floats, Mask], float]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "precision_at_100": partial(precision_at, first=100),
    "precision_at_n_flip": _at_flips,
    "precision_at_top_5_percent": _at_top,
    "recall_at_80_precision": partial(recall_at, precision=0.80),
    "recall_at_95_precision": partial(recall_at, precision=0.95),
}


def auroc_gain(value_MT: Floats, baseline_MT: Floats, flipped_MT: Mask, group_M: Codes) -> tuple[float, float, float]:
    """How much higher a signal's AUROC is than a baseline's, meant over T labellings: mean and 95 % interval.

    The interval is a paired bootstrap's: groups (prompts) are drawn with replacement, the same for both.
    """
    groups = int(group_M.max()) + 1
    draws = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=_RESAMPLES)
    weight_BM = np.vstack([np.ones(groups), draws])[:, group_M]
    gains_TB = [
        _weighted_aurocs(value_M, flipped_M, weight_BM) - _weighted_aurocs(baseline_M, flipped_M, weight_BM)
        for value_M, baseline_M, flipped_M in zip(value_MT.T, baseline_MT.T, flipped_MT.T, strict=True)
    ]
    gain_B = np.mean(gains_TB, axis=0)
    low, high = np.nanquantile(gain_B[1:], [0.025, 0.975])
    return float(gain_B[0]), float(low), float(high)


def _weighted_aurocs(value_M: Floats, flipped_M: Mask, weight_BM: Floats) -> Floats:
    """AUROC under each of B weightings of the pairs, shape (B,); equal values count half."""
    _, place_M = np.unique(value_M, return_inverse=True)
    order = np.argsort(place_M, kind="stable")
    starts = np.flatnonzero(np.diff(place_M[order], prepend=-1))
    flipped_BV = np.add.reduceat(weight_BM[:, order] * flipped_M[order], starts, axis=1)
    others_BV = np.add.reduceat(weight_BM[:, order] * ~flipped_M[order], starts, axis=1)
    higher_BV = others_BV[:, ::-1].cumsum(axis=1)[:, ::-1] - others_BV / 2
    total_B = flipped_BV.sum(axis=1) * others_BV.sum(axis=1)
    share_B: Floats = (flipped_BV * higher_BV).sum(axis=1) / np.where(total_B > 0, total_B, np.nan)
    return share_B
