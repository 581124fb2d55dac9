"""What a training does about the noise in its pairs: diagnosis → which pairs, which way round, with which weight.

    raw       every pair as it is labelled
    drop      without the pairs that are called flipped
    flip      these turned round
    soft      with the soft label p_flip: (1 − p)·ℓ(pair) + p·ℓ(flipped pair)
    weights   with weight max(0, 1 − 2p), the share by which a label is more often right than wrong
    gamma     with γ-PO's target margins γ_i (arXiv:2506.03690) of the run; for a γ-PO loss

Defective pairs are dropped by all but `raw`. A pair without p_flip (nothing speaks for either side) is taken as it is.
One more, `decisions`, asks the log of decisions instead of the diagnosis: see `training.decided`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DECISIONS = "decisions"
DROPPED_FLIPPED, DROPPED_DEFECTIVE = "called flipped", "defective"
DROPPED_BY_DECISION, TIE = "by decision", "a tie"


@dataclass(frozen=True)
class Diagnosed:
    """What is known of N pairs. p_flip_N: NaN where nothing is known."""

    p_flip_N: Floats
    flipped_N: Mask
    defective_N: Mask


@dataclass(frozen=True)
class Treated:
    """What becomes of N pairs.

    dropped_N: the reason, or "".
    swap_N: chosen and rejected change places.
    weight_N, p_flip_N: as the losses take them.
    is_label: it says what the labels are, not how to train on them: dropped_N and swap_N hold for held-out pairs as
        well, and a tie with no reason to drop it is trained on.
    """

    dropped_N: NDArray[np.object_]
    swap_N: Mask
    weight_N: Floats
    p_flip_N: Floats
    is_label: bool = False


def as_labelled(pairs: int) -> Treated:
    """Every pair as it is."""
    return Treated(np.full(pairs, "", dtype=object), np.zeros(pairs, dtype=bool), np.ones(pairs), np.zeros(pairs))


def _whole(found: Diagnosed) -> Treated:
    treated = as_labelled(len(found.p_flip_N))
    return replace(treated, dropped_N=_drop(treated.dropped_N, found.defective_N, DROPPED_DEFECTIVE))


def _drop(dropped_N: NDArray[np.object_], mask_N: Mask, reason: str) -> NDArray[np.object_]:
    return np.where((dropped_N == "") & mask_N, reason, dropped_N)


def _raw(found: Diagnosed) -> Treated:
    return as_labelled(len(found.p_flip_N))


def _dropped(found: Diagnosed) -> Treated:
    treated = _whole(found)
    return replace(treated, dropped_N=_drop(treated.dropped_N, found.flipped_N, DROPPED_FLIPPED))


def _flipped(found: Diagnosed) -> Treated:
    return replace(_whole(found), swap_N=found.flipped_N & ~found.defective_N)


def _soft(found: Diagnosed) -> Treated:
    return replace(_whole(found), p_flip_N=np.nan_to_num(found.p_flip_N))


def _weighted(found: Diagnosed) -> Treated:
    return replace(_whole(found), weight_N=np.maximum(0.0, 1 - 2 * np.nan_to_num(found.p_flip_N)))


TREATMENTS: dict[str, Callable[[Diagnosed], Treated]] = {
    "raw": _raw,
    "drop": _dropped,
    "flip": _flipped,
    "soft": _soft,
    "weights": _weighted,
    "gamma": _whole,
}
