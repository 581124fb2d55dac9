"""The lapse-rate model: out-of-sample margins → a dataset's flip rate, and each pair's probability of being flipped.

For a margin h with magnitude m = |h|, a calibrating slope a and a flip rate ε,

    P(the label agrees with the sign of h | m) = (1 − ε)·σ(a·m) + ε·σ(−a·m)
    p_flip = ε·σ(−a·h) / [(1 − ε)·σ(a·h) + ε·σ(−a·h)]

ε̂ and a are fitted by maximum likelihood, with a weak prior against slopes so steep that the evidence would hardly ever
err (a half-normal in log a, felt where a times the margins' root mean square is above 3): else many weak margins are
explained as few errors of a nearly perfect model. The interval is the profile likelihood's. `p_flip` is averaged over
the likelihood of ε, so that a rate that the data leaves open does not turn into a certainty. The margins must come from
a model that has not seen the labels: in-sample margins hide the flips.

By hand: ε = 0.2, a = 1, h = −ln 3, so that σ(a·h) = 1/4: p_flip = 0.2·0.75 / (0.8·0.25 + 0.2·0.75) = 3/7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit
from scipy.stats import chi2

Floats = NDArray[np.float64]

_RATES = np.linspace(0.0, 0.5, 101)  # where the likelihood of ε is looked at
_LOG_SLOPES = (-12.0, 6.0)  # of a, per standard deviation of the margins
_USUAL_LOG_SLOPE, _LOG_SLOPE_SPREAD = float(np.log(3.0)), 0.4  # of the prior on a, per root mean square
_LOG_LIKELIHOOD_DROP = float(chi2.ppf(0.95, 1)) / 2  # of a 95 % profile interval
_SLOPES = 37  # looked at for the best, before it is refined
_CONDENSED = 2_048  # margins that stand for all in the likelihood
_COARSE = 256  # the same, where the fit must be quick
_WIDEST_INTERVAL = 0.35  # a rate that is known less exactly than this is not known
_CURVE_BINS = 12
_CHUNK = 1 << 16


@dataclass(frozen=True)
class LapseFit:
    """The fitted model.

    rate, low, high: ε̂ and its 95 % profile-likelihood interval, within [0, 0.5].
    slope: a at ε̂, per unit of the margin; 0 where the margins say nothing about the labels.
    pairs: how many margins it was fitted to.
    p_value: of the likelihood-ratio test that the margins say anything about the labels.
    rates_R, slopes_R, likelihood_R: ε on a grid, the best a for each, and its likelihood (sum 1).
    """

    rate: float
    low: float
    high: float
    slope: float
    pairs: int
    p_value: float
    rates_R: Floats
    slopes_R: Floats
    likelihood_R: Floats

    @property
    def can_tell(self) -> bool:
        """Whether the data says how noisy it is. Margins without information fit any rate, so 0 to 0.5."""
        return self.high - self.low <= _WIDEST_INTERVAL


@dataclass(frozen=True)
class AgreementCurve:
    """Agreement of labels with margins by magnitude, for plotting; G bins of equal counts.

    magnitude_G: mean |margin|; agreement_G: share that agrees; low_G, high_G: its 95 % Wilson interval;
    pairs_G: counts; fit_G: what the model expects.
    """

    magnitude_G: Floats
    agreement_G: Floats
    low_G: Floats
    high_G: Floats
    pairs_G: NDArray[np.int64]
    fit_G: Floats

    @property
    def follows_model(self) -> bool:
        """Whether the agreement is what the model expects: within chance (χ², 1 %), or nowhere off by 0.03."""
        off_G = self.agreement_G - self.fit_G
        squares = float(np.sum(self.pairs_G * off_G**2 / np.maximum(self.fit_G * (1 - self.fit_G), 1e-9)))
        by_chance = chi2.sf(squares, max(len(off_G) - 2, 1)) > 0.01
        return bool(by_chance or np.abs(off_G).max(initial=0.0) < 0.03)


def fit_lapse(margin_N: Floats) -> LapseFit:
    """Fit flip rate and slope to out-of-sample margins.

    Args:
        margin_N: h_i, shape (N,), finite, positive where the model agrees with the label; zeros say nothing.

    Raises:
        ValueError: margin_N is empty, not one-dimensional or not finite.
    """
    margin = np.asarray(margin_N, dtype=np.float64)
    if margin.ndim != 1 or margin.size == 0 or not np.isfinite(margin).all():
        raise ValueError(f"margins must be finite and of shape (N,) with N > 0, found shape {margin.shape}")
    scale = float(np.sqrt(np.mean(margin**2))) or 1.0
    unit_M, count_M = _condense(margin / scale)
    log_a_grid = np.linspace(*_LOG_SLOPES, _SLOPES)
    right_SM = expit(np.exp(log_a_grid)[:, None] * unit_M)

    def profile(rate: float) -> tuple[float, float]:
        """The best log a for a rate, and the log-likelihood there."""
        if rate >= 0.5:
            return _LOG_SLOPES[0], -len(margin) * np.log(2.0)  # at ε = 1/2 the margins say nothing, whatever the slope
        at = int((_log_agreement(right_SM, rate) @ count_M - _steepness(log_a_grid)).argmax())
        bounds = log_a_grid[max(at - 1, 0)], log_a_grid[min(at + 1, _SLOPES - 1)]
        best = minimize_scalar(
            lambda log_a: float(_steepness(log_a) - _log_agreement(expit(np.exp(log_a) * unit_M), rate) @ count_M),
            bounds=bounds,
            method="bounded",
        )
        return float(best.x), -float(best.fun)

    profiled = [profile(rate) for rate in _RATES]
    log_likelihood_R = np.array([value for _, value in profiled])
    at = int(log_likelihood_R.argmax())
    near = _RATES[max(at - 1, 0)], _RATES[min(at + 1, len(_RATES) - 1)]
    best = minimize_scalar(lambda rate: -profile(rate)[1], bounds=near, method="bounded", options={"xatol": 1e-5})
    rate, top = (
        (float(best.x), -float(best.fun)) if -best.fun > log_likelihood_R[at] else (_RATES[at], log_likelihood_R[at])
    )
    slope = float(np.exp(profile(rate)[0])) / scale

    def above(other: float) -> float:
        return profile(other)[1] - top + _LOG_LIKELIHOOD_DROP

    low = 0.0 if above(0.0) >= 0 else float(brentq(above, 0.0, rate, xtol=1e-5))
    high = 0.5 if above(0.5) >= 0 else float(brentq(above, rate, 0.5, xtol=1e-5))
    weight_R = np.exp(log_likelihood_R - log_likelihood_R.max())
    return LapseFit(
        rate=float(rate),
        low=low,
        high=high,
        slope=slope,
        pairs=len(margin),
        p_value=float(chi2.sf(2 * max(top + len(margin) * np.log(2.0), 0.0), 1)),
        rates_R=_RATES,
        slopes_R=np.array([np.exp(log_a) for log_a, _ in profiled]) / scale,
        likelihood_R=weight_R / weight_R.sum(),
    )


def _steepness(log_slope: Any) -> Any:
    """Minus the log-prior of a slope, per root mean square of the margins; nothing up to the usual."""
    return np.maximum(log_slope - _USUAL_LOG_SLOPE, 0.0) ** 2 / (2 * _LOG_SLOPE_SPREAD**2)


def _condense(margin_N: Floats, points: int = _CONDENSED) -> tuple[Floats, Floats]:
    """At most M margins that stand for all of them, and how many each stands for: M bins of equal counts."""
    bins = np.array_split(np.sort(margin_N), min(len(margin_N), points))
    return np.array([part.mean() for part in bins]), np.array([float(len(part)) for part in bins])


def _log_agreement(right: Floats, rate: float) -> Floats:
    """log P(the label is as it is | |h|), where `right` is σ(a·h)."""
    return np.asarray(np.log(np.maximum(rate + (1 - 2 * rate) * right, 1e-300)))


def flip_posterior(margin_N: Floats, rate: float, slope: float) -> Floats:
    """p_flip at one rate and slope, shape (N,)."""
    right = expit(slope * np.asarray(margin_N, dtype=np.float64))
    lapsed = rate * (1 - right)
    total = (1 - rate) * right + lapsed
    posterior: Floats = np.divide(lapsed, total, out=np.ones_like(total), where=total != 0)
    return posterior


def expected_labels(margin_N: Floats) -> Floats:
    """What each label is worth to learn from: about 1, or less the likelier it is flipped, shape (N,).

    1 − 2·p_flip at the likeliest rate and slope of a coarse grid, scaled to a mean size of 1, and blended with 1 by
    (2·ε)²: least squares bears symmetric noise well by itself, and doubting labels pays only where it is heavy. Ones
    where a coin is as likely at 95 %: there, rates near 1/2 and steep slopes fit as well as any.
    """
    scale = float(np.sqrt(np.mean(margin_N**2))) or 1.0
    unit_M, count_M = _condense(margin_N / scale, _COARSE)
    slopes = np.exp(np.linspace(*_LOG_SLOPES, _SLOPES))
    right_SM = expit(slopes[:, None] * unit_M)
    likelihood_RS = np.stack([_log_agreement(right_SM, rate) @ count_M for rate in _RATES[:-1:4]])
    if likelihood_RS.max() + len(margin_N) * np.log(2.0) <= _LOG_LIKELIHOOD_DROP:
        return np.ones(len(margin_N))
    at, slope = np.unravel_index(likelihood_RS.argmax(), likelihood_RS.shape)
    rate = float(_RATES[4 * at])
    expected = 1 - 2 * flip_posterior(margin_N / scale, rate, slopes[slope])
    doubt = (2 * rate) ** 2
    return np.asarray(1 - doubt + doubt * expected / np.mean(np.abs(expected)))


def p_flip(margin_N: Floats, fit: LapseFit) -> Floats:
    """Probability that each pair's label is flipped, averaged over the likelihood of ε, shape (N,); NaN for NaN."""
    margin = np.asarray(margin_N, dtype=np.float64)
    plausible = fit.likelihood_R > 1e-6
    grid = list(zip(fit.likelihood_R[plausible], fit.rates_R[plausible], fit.slopes_R[plausible], strict=True))
    mean_N = np.zeros(len(margin))
    for start in range(0, len(margin), _CHUNK):
        part = slice(start, start + _CHUNK)
        for weight, rate, slope in grid:
            mean_N[part] += weight * flip_posterior(margin[part], rate, slope)
    mean_N /= fit.likelihood_R[plausible].sum()
    return mean_N


def agreement_curve(margin_N: Floats, fit: LapseFit) -> AgreementCurve:
    """Observed and expected agreement of label and margin, by |margin|; margins of zero are left out."""
    margin = np.asarray(margin_N, dtype=np.float64)
    ordered = margin[np.argsort(np.abs(margin), kind="stable")]
    bins = [part for part in np.array_split(ordered[ordered != 0], _CURVE_BINS) if len(part)]
    agreement = np.array([(part > 0).mean() for part in bins])
    pairs = np.array([len(part) for part in bins])
    z2 = float(chi2.ppf(0.95, 1))
    centre = (agreement + z2 / (2 * pairs)) / (1 + z2 / pairs)
    spread = np.sqrt(z2 * (agreement * (1 - agreement) / pairs + z2 / (4 * pairs**2))) / (1 + z2 / pairs)
    expected = [np.mean(fit.rate + (1 - 2 * fit.rate) * expit(fit.slope * np.abs(part))) for part in bins]
    return AgreementCurve(
        magnitude_G=np.array([np.abs(part).mean() for part in bins]),
        agreement_G=agreement,
        low_G=centre - spread,
        high_G=centre + spread,
        pairs_G=pairs,
        fit_G=np.array(expected),
    )
