"""γ-PO (arXiv:2506.03690): the exact optimum of the target margins over a whole dataset.

    minimise over p in the simplex   (1/N) Σ_i −log σ(h_i − γ_i) + τ·KL(p ‖ uniform),   γ_i = γ0·N·p_i

With w_i = N·p_i the optimum satisfies, for one scalar λ,

    F_i = γ0·σ(γ0·w_i − h_i) + τ·log w_i − λ = 0   for every i,      mean(w) = 1.

Given λ every u_i = log w_i solves one increasing equation, and mean(w) increases in λ: two nested one-dimensional
searches, each a bracketed Newton, vectorised over the pairs. It cannot diverge, and a step costs O(N).

By hand: h = (0, 0) gives w = (1, 1); so does any constant h, and any h as τ → ∞. For N = 2, γ0 = τ = 1 and
h = (1, −1): w = (1.1601, 0.8399), since σ(1.1601 − 1) + log 1.1601 = 0.6885 = σ(0.8399 + 1) + log 0.8399.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from curate.errors import ConfigError

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array")

_TOLERANCE = 1e-12
_EPSILON = 2.0**-52
_MAX_STEPS = 200
_LARGEST_LOG = 700.0  # exp(700) is still finite


@dataclass(frozen=True)
class GammaWeights(Generic[Array]):
    """The γ-PO optimum.

    target_margin: γ_i = γ0·w_i, shape (N,); its mean is γ0.
    weight: w_i, shape (N,); positive, mean 1, increasing in the margin.
    residual: max(max_i F_i − min_i F_i, |mean(w) − 1|): how exactly the optimality conditions hold.
    """

    target_margin: Array
    weight: Array
    residual: float


def gamma_weights(
    margin_N: NDArray[Any], *, gamma0: float, tau: float, count_N: NDArray[Any] | None = None
) -> GammaWeights[NDArray[np.float64]]:
    """Exact γ-PO target margins and weights of a population of pairs.

    Args:
        margin_N: h_i, implicit reward margins, shape (N,), finite; positive where the model agrees with the label.
        gamma0: γ0 = ratio·β > 0, the mean target margin, in the margin's unit.
        tau: τ > 0, the strength of the pull towards equal weights.
        count_N: how many pairs have each margin, shape (N,), positive; None: one each. The weights' mean is over pairs.

    Raises:
        ConfigError: gamma0 or tau is not positive and finite.
        ValueError: margin_N is empty, not one-dimensional or not finite, or count_N does not fit it.
    """
    margin = np.asarray(margin_N, dtype=np.float64)
    _check(gamma0, tau, margin.ndim, margin.size, int(np.count_nonzero(~np.isfinite(margin))))
    if count_N is None:
        return _solve(margin, gamma0, tau, np, expit)
    count = np.asarray(count_N, dtype=np.float64)
    if count.shape != margin.shape or not (np.isfinite(count) & (count > 0)).all():
        raise ValueError("counts must be positive and finite, and as many as there are margins")
    share_N = count / count.sum()
    return _solve(margin, gamma0, tau, np, expit, lambda value_N: float(share_N @ value_N))


def gamma_weights_torch(margin_N: torch.Tensor, *, gamma0: float, tau: float) -> GammaWeights[torch.Tensor]:
    """The twin of `gamma_weights` for tensors: computed in float64 on the tensor's device, without gradient.

    Returns float64 tensors. Arguments and errors as `gamma_weights`.
    """
    import torch

    margin = margin_N.detach().to(torch.float64)
    _check(gamma0, tau, margin.ndim, margin.numel(), int((~torch.isfinite(margin)).sum()))
    return _solve(margin, gamma0, tau, torch, torch.sigmoid)


def _check(gamma0: float, tau: float, dimensions: int, size: int, not_finite: int) -> None:
    for name, value in (("gamma0", gamma0), ("tau", tau)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} is {value}: it must be positive and finite")
    if dimensions != 1 or size == 0:
        raise ValueError(f"margins must have shape (N,) with N > 0, found {dimensions} dimensions and {size} values")
    if not_finite:
        raise ValueError(f"{not_finite} of {size} margins are not finite")


def _plain_mean(values: Any) -> float:
    return float(values.mean())


def _solve(
    h: Any,
    gamma0: float,
    tau: float,
    xp: Any,
    sigmoid: Callable[[Any], Any],
    average: Callable[[Any], float] = _plain_mean,
) -> GammaWeights[Any]:
    """Find λ by Newton on log mean(w(λ)), kept inside a bracket; `xp` is NumPy or torch, `average` that over pairs.

    With u = 0 the left side γ0·σ(γ0·w − h) + τ·u is γ0·σ(γ0 − h), so its least and largest value bracket λ.
    """
    at_one = gamma0 * sigmoid(gamma0 - h)
    low, high = float(at_one.min()), float(at_one.max())
    lam = average(at_one)
    u = (lam - at_one) / (tau + gamma0 * at_one * (1 - at_one / gamma0))
    for _ in range(_MAX_STEPS):
        u, w, slope = _log_weights(lam, u, h, gamma0, tau, xp, sigmoid)
        mean = average(w)
        if abs(mean - 1.0) <= _TOLERANCE * max(1.0, gamma0 / tau):
            break
        low, high = (lam, high) if mean < 1.0 else (low, lam)
        growth = average(w / slope) / mean  # d log mean(w) / dλ
        target = lam - math.log(mean) / growth
        step = (target if low < target < high else (low + high) / 2) - lam
        u, lam = u + step / slope, lam + step
    left = gamma0 * sigmoid(gamma0 * w - h) + tau * u
    residual = max(float(left.max() - left.min()), abs(mean - 1.0))
    return GammaWeights(gamma0 * w, w, residual)


def _log_weights(
    lam: float, u: Any, h: Any, gamma0: float, tau: float, xp: Any, sigmoid: Callable[[Any], Any]
) -> tuple[Any, Any, Any]:
    """Solve γ0·σ(γ0·e^u − h) + τ·u = λ for every u_i, starting at `u`. Returns u, w = e^u and the slope in u.

    The left side increases in u, and its first term lies between 0 and γ0, which brackets u. Newton, and bisection
    where Newton leaves the bracket or does not halve the error.
    """
    low = xp.full_like(h, (lam - gamma0) / tau)
    high = xp.full_like(h, min(lam / tau, _LARGEST_LOG))
    u = xp.clip(u, low, high)
    error = xp.full_like(h, math.inf)
    tolerance = max(0.1 * _TOLERANCE * tau, 4 * _EPSILON * (gamma0 + abs(lam)))
    for _ in range(_MAX_STEPS):
        w = xp.exp(u)
        s = sigmoid(gamma0 * w - h)
        slope = tau + gamma0**2 * w * s * (1 - s)
        excess = gamma0 * s + tau * u - lam
        off = abs(excess)
        if float(off.max()) <= tolerance:
            break
        low, high = xp.where(excess < 0, u, low), xp.where(excess > 0, u, high)
        newton = u - excess / slope
        good = (newton >= low) & (newton <= high) & ((2 * off <= error) | (off <= tolerance))
        u, error = xp.where(good, newton, (low + high) / 2), off
    return u, w, slope
