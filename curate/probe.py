"""The probe: a cross-fitted Bradley–Terry head on differences of features → out-of-fold margins.

Each block Z (N, D) holds features of chosen minus those of rejected, so that swapping a pair's sides changes its sign.
Heads have no intercept: the margin g = Σ_b Z_b·w_b is antisymmetric, and only its sign and size speak. A head is fitted
by least squares on the labels (+1 as the data has it, −1 where a flip is planted) with a ridge penalty, in closed form:

    w_λ = (ZᵀZ + λ·n·s)⁻¹ Zᵀt      s: mean squared feature

For the pairs of a held-out fold k, everything is fitted without them. Strengths λ and blocks are weighed against each
other by non-negative least squares on inner out-of-fold margins (fitted without j and k, for the pairs of each other
fold j), so that a weak block shrinks to nothing. The noise-aware head is one step of expectation–maximisation on top:
the lapse-rate model, fitted to those inner margins, says what each label is worth (`noise.expected_labels`), and the
head is fitted again to labels of that worth; its margin is the mean of both.

The factorisations do not depend on the labels, so many labellings (a self-test's) cost little more than one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from curate.noise import expected_labels

Floats = NDArray[np.float64]
Features = NDArray[np.float32]
Codes = NDArray[np.int64]

_MANY_PAIRS, _FEW_REPEATS = 50_000, 2
_STRENGTHS = 10.0 ** np.arange(-2.0, 2.01, 0.5)  # λ
_COMPONENTS = 256  # of a wider block: its first principal components
_CHUNK = 1 << 15
_STREAM = 0xF01D  # of random numbers, for folds alone

FEWEST_GROUPS = 3
Heads = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Folds:
    """How often and into how many parts the pairs are split."""

    parts: int = 10
    repeats: int = 3

    def repeats_for(self, pairs: int) -> int:
        """How often: averaging steadies the margins of small datasets, large ones are steady."""
        return self.repeats if pairs <= _MANY_PAIRS else min(self.repeats, _FEW_REPEATS)


def assign_folds(group_N: Codes, parts: int, seed: int) -> Codes:
    """A fold for each pair, shape (N,): pairs of a group share theirs, and folds are as equal as groups allow.

    Raises:
        ValueError: there are fewer than three groups, so that no fit could leave out two folds.
    """
    groups, member_N, count_G = np.unique(group_N, return_inverse=True, return_counts=True)
    if len(groups) < FEWEST_GROUPS:
        raise ValueError(f"cross-fitting needs at least {FEWEST_GROUPS} groups")
    order_G = np.random.default_rng([seed, _STREAM]).permutation(len(groups))
    fold_G = np.empty(len(groups), dtype=np.int64)
    load_K = np.zeros(min(parts, len(groups)))
    large_G = count_G[order_G] > len(group_N) / (2 * parts)
    for group in order_G[large_G]:
        fold_G[group] = load_K.argmin()
        load_K[fold_G[group]] += count_G[group]
    small = order_G[~large_G]
    room_K = _room(load_K, float(count_G[small].sum()))
    middle_G = count_G[small].cumsum() - count_G[small] / 2
    fold_G[small] = np.searchsorted(room_K.cumsum(), middle_G)
    return np.unique(fold_G[member_N], return_inverse=True)[1].astype(np.int64)


def _room(load_K: Floats, more: float) -> Floats:
    """How much of `more` each fold takes, so that the least loaded fill up to the same level."""
    sorted_K = np.sort(load_K)
    filled = np.arange(1, len(load_K) + 1)
    levels = (sorted_K.cumsum() + more) / filled  # if the first 1, 2, … folds took it all
    level = levels[np.flatnonzero(levels >= sorted_K)[-1]]
    room_K: Floats = np.maximum(level - load_K, 0.0)
    return room_K


def principal_axes(moment_DD: Floats, pairs: int) -> Features:
    """Projection of features onto at most 256 principal components, each feature scaled to size 1, shape (D, C).

    From ZᵀZ alone: no labels, and nothing that a swap of sides could change.
    """
    mean_square_D = np.diag(moment_DD) / max(pairs, 1)
    scale_D = np.sqrt(np.where(mean_square_D > 0, mean_square_D, 1.0))
    _, vectors_DD = np.linalg.eigh(moment_DD / np.outer(scale_D, scale_D))
    axes_DC: Features = (vectors_DD[:, -_COMPONENTS:] / scale_D[:, None]).astype(np.float32)
    return axes_DC


def second_moment(values_ND: Features) -> Floats:
    """ZᵀZ, summed up in float64, shape (D, D)."""
    width = values_ND.shape[1]
    total_DD = np.zeros((width, width))
    for start in range(0, len(values_ND), _CHUNK):
        part_nD = values_ND[start : start + _CHUNK]
        total_DD += part_nD.T @ part_nD
    return total_DD


class _Ridge:
    """One block's fits without fold k, and without folds j and k, for all strengths."""

    def __init__(self, values_ND: Features, rows: Sequence[Codes]) -> None:
        self._values_KnD = [np.ascontiguousarray(values_ND[row]) for row in rows]
        moments = [second_moment(values) for values in self._values_KnD]
        total_DD = np.sum(moments, axis=0)
        penalty = _STRENGTHS * (np.trace(total_DD) / max(values_ND.shape[1], 1) or 1.0)
        self._factors = {
            (j, k): _factor(total_DD - moments[k] - (moments[j] if j != k else 0.0), penalty)
            for k in range(len(rows))
            for j in range(k + 1)
        }

    def moments(self, target_KnT: Sequence[Features]) -> Features:
        """Zᵀt of every fold, shape (K, D, T)."""
        return np.stack([values.T @ target for values, target in zip(self._values_KnD, target_KnT, strict=True)])

    def predict(self, held: int, without: int, moment_KDT: Features) -> Features:
        """Margins of the fold `held` from fits without it and without the fold `without`, shape (n, L, T)."""
        vectors_DD, inverse_DL = self._factors[min(held, without), max(held, without)]
        kept = [fold for fold in range(len(moment_KDT)) if fold not in (held, without)]
        turned_DT = vectors_DD.T @ moment_KDT[kept].sum(axis=0)  # a difference of sums would keep a trace of the labels
        weight_DLT = inverse_DL[:, :, None] * turned_DT[:, None, :]
        margin_nA = self._values_KnD[held] @ (vectors_DD @ weight_DLT.reshape(len(turned_DT), -1))
        return np.asarray(margin_nA.reshape(-1, *weight_DLT.shape[1:]))


def _factor(moment_DD: Floats, penalty_L: Floats) -> tuple[Features, Features]:
    """Eigenvectors of ZᵀZ, and 1/(eigenvalue + penalty)."""
    values_D, vectors_DD = np.linalg.eigh(moment_DD)
    inverse_DL = 1.0 / (np.maximum(values_D, 0.0)[:, None] + penalty_L)
    return vectors_DD.astype(np.float32), inverse_DL.astype(np.float32)


class Probe:
    """Heads over blocks of features, cross-fitted over one assignment of folds."""

    def __init__(self, blocks: Mapping[str, Features], fold_N: Codes) -> None:
        """Factorise.

        Args:
            blocks: by name, each (N, D), projected on its `principal_axes`.
            fold_N: 0 to K − 1, none empty, K ≥ 3.
        """
        self._rows = [np.flatnonzero(fold_N == fold) for fold in range(int(fold_N.max()) + 1)]
        self._ridges = {name: _Ridge(values, self._rows) for name, values in blocks.items()}

    def margins(self, target_NT: Floats, heads: Heads, aware: str | None = None) -> dict[str, Floats]:
        """Out-of-fold margins, positive where the evidence is for the side that the features call chosen.

        Args:
            target_NT: T labellings of the N pairs, each +1 or −1.
            heads: name → the blocks that it is fitted on.
            aware: the head that is noise-aware.

        Returns:
            name → (N, T).
        """
        found = {name: np.zeros(target_NT.shape) for name in heads}
        target_KnT = [target_NT[row].astype(np.float32) for row in self._rows]
        moments = {name: ridge.moments(target_KnT) for name, ridge in self._ridges.items()}
        for fold, row in enumerate(self._rows):
            others = [other for other in range(len(self._rows)) if other != fold]
            label_nT = np.concatenate([target_KnT[other] for other in others])
            inner, outer = {}, {}
            for name, ridge in self._ridges.items():
                inner[name] = np.concatenate([ridge.predict(other, fold, moments[name]) for other in others])
                outer[name] = ridge.predict(fold, fold, moments[name])
            for head, blocks in heads.items():
                inner_nST = np.concatenate([inner[name] for name in blocks], axis=1)
                outer_nST = np.concatenate([outer[name] for name in blocks], axis=1)
                weight_ST = _stack(inner_nST, label_nT)
                margin_nT = np.einsum("nst,st->nt", outer_nST, weight_ST)
                if head == aware:
                    expected_nT = label_nT * _expected_labels(label_nT * np.einsum("nst,st->nt", inner_nST, weight_ST))
                    again_nST = self._refit(blocks, fold, others, expected_nT)
                    margin_nT = (margin_nT + np.einsum("nst,st->nt", again_nST, weight_ST)) / 2
                found[head][row] = margin_nT
        return found

    def _refit(self, blocks: Sequence[str], fold: int, others: Sequence[int], expected_nT: Features) -> Features:
        """Margins of a fold from heads fitted to expected labels outside it, (n, S, T)."""
        ends = np.cumsum([len(self._rows[other]) for other in others])[:-1]
        expected = dict(zip(others, np.split(expected_nT, ends), strict=True))
        expected[fold] = np.zeros((len(self._rows[fold]), expected_nT.shape[1]), dtype=np.float32)
        in_order = [expected[at] for at in range(len(self._rows))]
        ridges = [self._ridges[name] for name in blocks]
        return np.concatenate([ridge.predict(fold, fold, ridge.moments(in_order)) for ridge in ridges], axis=1)


def _stack(inner_nST: Features, label_nT: Features) -> Features:
    """Non-negative weights of S fits, shape (S, T), that bring their inner margins closest to the labels."""
    weight_ST = np.zeros(inner_nST.shape[1:], dtype=np.float32)
    for t in range(label_nT.shape[1]):
        fits_nS = inner_nST[:, :, t].astype(np.float64)
        gram_SS = fits_nS.T @ fits_nS
        gram_SS += np.eye(len(gram_SS)) * (1e-7 * np.trace(gram_SS) + 1e-12)
        root_SS = np.linalg.cholesky(gram_SS)
        aim_S = solve_triangular(root_SS, fits_nS.T @ label_nT[:, t], lower=True)
        weight_ST[:, t] = nnls(root_SS.T, aim_S)[0]
    return weight_ST


def _expected_labels(margin_nT: Features) -> Features:
    """What each label is worth, see `expected_labels`; shape (n, T)."""
    columns = [expected_labels(margin_n) for margin_n in margin_nT.T.astype(np.float64)]
    return np.stack(columns, axis=1).astype(np.float32)


def cross_fitted(
    blocks: Mapping[str, Features],
    group_N: Codes,
    target_NT: Floats,
    heads: Heads,
    aware: str | None = None,
    folds: Folds | None = None,
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Out-of-fold margins as `Probe.margins`, averaged over repeated assignments of folds.

    Args:
        group_N: pairs of the same group are held out together.

    Returns:
        The means, and the standard errors over the repeats (0 with one repeat), each name → (N, T).

    Raises:
        ValueError: there are fewer than three groups.
    """
    folds = folds or Folds()
    drawn: list[dict[str, Floats]] = []
    repeats = folds.repeats_for(len(group_N))
    for repeat in range(repeats):
        probe = Probe(blocks, assign_folds(group_N, folds.parts, seed=repeat))
        drawn.append(probe.margins(target_NT, heads, aware))
    mean = {head: np.mean([one[head] for one in drawn], axis=0) for head in heads}
    error = {head: np.std([one[head] for one in drawn], axis=0) / np.sqrt(max(repeats - 1, 1)) for head in heads}
    return mean, error
