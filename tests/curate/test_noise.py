"""The lapse-rate model: by hand, against a slow grid, on simulated margins, and where it cannot tell."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.noise import agreement_curve, fit_lapse, flip_posterior, p_flip


def simulate(rate, pairs, seed, slope=1.0, spread=4.0):
    """Margins of a calibrated model towards labels of which a share is flipped, and which those are."""
    random = np.random.default_rng(seed)
    magnitude = np.abs(random.normal(0, spread, pairs))
    right = random.random(pairs) < 1 / (1 + np.exp(-slope * magnitude))
    flipped = random.random(pairs) < rate
    return np.where(right != flipped, magnitude, -magnitude), flipped


def log_likelihood(margins, rate, slope):
    """Pair by pair, as the equation stands."""
    total = 0.0
    for h in margins:
        sigma = 1 / (1 + math.exp(-slope * abs(h)))
        agree = (1 - rate) * sigma + rate * (1 - sigma)
        total += math.log(max(agree if h > 0 else 1 - agree, 1e-300))
    return total


def test_the_case_of_the_docstring():
    assert flip_posterior(np.array([-math.log(3)]), 0.2, 1.0) == pytest.approx([3 / 7], abs=1e-12)


def test_posteriors_at_the_edges():
    assert flip_posterior(np.array([-1e6, 0.0, 1e6]), 0.2, 1.0).tolist() == [1.0, 0.2, 0.0]
    assert flip_posterior(np.array([-3.0, 3.0]), 0.0, 1.0).tolist() == [0.0, 0.0]
    assert flip_posterior(np.array([-3.0, 3.0]), 0.5, 0.0).tolist() == [0.5, 0.5]


def test_the_fit_is_the_best_of_a_slow_grid():
    margins, _ = simulate(0.15, 300, seed=3, spread=2.0)
    fit = fit_lapse(margins)
    found = log_likelihood(margins, fit.rate, fit.slope)
    grid = [
        log_likelihood(margins, rate, slope)
        for rate in np.linspace(0, 0.45, 19)
        for slope in np.geomspace(0.05, 20, 40)
    ]
    assert found >= max(grid) - 1e-6


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.3, 0.4])
def test_the_rate_of_simulated_margins_is_found_and_covered(rate):
    fits = [fit_lapse(simulate(rate, 5_000, seed=seed)[0]) for seed in range(20)]
    assert abs(np.mean([fit.rate for fit in fits]) - rate) < 0.01
    assert max(abs(fit.rate - rate) for fit in fits) < 0.045  # two standard errors at 0.4
    assert sum(fit.low <= rate + 1e-9 and rate <= fit.high for fit in fits) >= 17
    assert all(fit.can_tell for fit in fits)
    assert np.median([fit.slope for fit in fits]) == pytest.approx(1.0, rel=0.1)


def test_probabilities_are_calibrated():
    margins, flipped = simulate(0.2, 20_000, seed=5)
    probability = p_flip(margins, fit_lapse(margins))
    for low, high in ((0.0, 0.1), (0.1, 0.3), (0.3, 0.6), (0.6, 0.9), (0.9, 1.0)):
        inside = (probability >= low) & (probability < high)
        assert inside.sum() > 100
        assert flipped[inside].mean() == pytest.approx(probability[inside].mean(), abs=0.04)


def test_it_says_when_it_cannot_tell():
    coin = np.random.default_rng(0).normal(size=2_000)  # margins that know nothing of the labels
    fit = fit_lapse(coin)
    assert not fit.can_tell
    assert (fit.low, fit.high) == (0.0, 0.5)
    assert fit.p_value > 0.05 > fit_lapse(simulate(0.2, 500, seed=0)[0]).p_value
    assert not fit_lapse(simulate(0.2, 30, seed=0)[0]).can_tell
    assert not fit_lapse(np.zeros(5)).can_tell


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=40), st.floats(0.01, 100))
def test_scale_does_not_matter_and_all_is_in_range(margins, scale):
    fit = fit_lapse(np.array(margins))
    scaled = fit_lapse(np.array(margins) * scale)
    assert 0 <= fit.low <= fit.rate <= fit.high <= 0.5
    assert scaled.rate == pytest.approx(fit.rate, abs=1e-3)
    probability = p_flip(np.sort(margins), fit)
    assert np.all((probability >= 0) & (probability <= 1))
    assert np.all(np.diff(probability) <= 1e-9)


def test_missing_margins_stay_missing():
    fit = fit_lapse(simulate(0.1, 1_000, seed=1)[0])
    assert np.isnan(p_flip(np.array([1.0, np.nan]), fit)).tolist() == [False, True]


def test_the_agreement_curve_counts_and_follows_the_fit():
    margins, _ = simulate(0.2, 6_000, seed=7)
    fit = fit_lapse(margins)
    curve = agreement_curve(np.append(margins, 0.0), fit)
    assert curve.pairs_G.sum() == 6_000
    assert curve.agreement_G @ curve.pairs_G == pytest.approx((margins > 0).sum())
    assert np.all(np.diff(curve.magnitude_G) > 0)
    assert np.all((curve.low_G < curve.agreement_G) & (curve.agreement_G < curve.high_G))
    assert np.mean((curve.low_G <= curve.fit_G) & (curve.fit_G <= curve.high_G)) >= 0.8


@pytest.mark.parametrize("margins", [np.zeros(0), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_refuses_margins_without_a_meaning(margins):
    with pytest.raises(ValueError, match="finite and of shape"):
        fit_lapse(margins)
