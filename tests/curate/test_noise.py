"""The lapse-rate model: by hand, against a slow grid, on simulated margins, and where it cannot tell."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.noise import AgreementCurve, agreement_curve, expected_labels, fit_lapse, flip_posterior, p_flip


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
    assert np.median([fit.slope for fit in fits]) == pytest.approx(1.0, rel=0.15)  # at 0.4 the prior is felt


def test_weak_evidence_is_not_taken_for_nearly_perfect_signs():
    for seed in range(20):
        margins, _ = simulate(0.2, 300, seed, spread=0.5)
        assert fit_lapse(margins).slope * np.sqrt(np.mean(margins**2)) < 12


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


# --- expected labels ------------------------------------------------------------------------------


def doubted(margins, rate, slope):
    """Expected labels at one rate and slope, as the docstring has them."""
    expected = 1 - 2 * flip_posterior(margins, rate, slope)
    return (1 - 4 * rate**2) + 4 * rate**2 * expected / np.abs(expected).mean()


def test_expected_labels_by_hand():
    """64 margins of 1, 16 of −1, 80 of 0: likeliest ε = 1/5 and an endless slope, so p_flip is 0, 1 and 1/5.

    1 − 2·p_flip is 1, −1 and 3/5, of mean size (80 + 80·3/5)/160 = 4/5: 5/4, −5/4 and 3/4, blended with 1 by 4/25.
    """
    found = expected_labels(np.repeat([1.0, -1.0, 0.0], [64, 16, 80]))
    assert found == pytest.approx(np.repeat([1.04, 0.64, 0.96], [64, 16, 80]))


@pytest.mark.parametrize(("rate", "spread"), [(0.0, 1.0), (0.1, 2.0), (0.3, 4.0), (0.4, 8.0)])
def test_expected_labels_are_those_of_the_best_of_a_slow_grid(rate, spread):
    margins, _ = simulate(rate, 200, seed=1, spread=spread)
    unit = margins / math.sqrt(sum(h * h for h in margins) / 200)
    grid = [(r / 50, math.exp(-12 + s / 2)) for r in range(25) for s in range(37)]
    best = max(grid, key=lambda at: log_likelihood(unit, *at))
    assert expected_labels(margins) == pytest.approx(doubted(unit, *best), abs=1e-9)


@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_the_coarse_grid_changes_expected_labels_little(rate):
    margins, _ = simulate(rate, 20_000, seed=2)
    fit = fit_lapse(margins)
    assert np.abs(expected_labels(margins) - doubted(margins, fit.rate, fit.slope)).mean() < 0.04


def test_flips_are_worth_less_than_other_labels_and_the_less_the_more_there_are():
    worth = []
    for rate in (0.1, 0.2, 0.4):
        margins, flipped = simulate(rate, 4_000, seed=4)
        found = expected_labels(margins)
        worth.append(found[flipped].mean() / found[~flipped].mean())
    assert 1 > worth[0] > worth[1] > worth[2]
    assert worth[2] < 0.1


@pytest.mark.parametrize("pairs", [1, 30, 500, 5_000])
def test_margins_that_say_nothing_leave_the_labels_as_they_are(pairs):
    """Of 50 coins about one in twenty looks like more than a coin; rates near 1/2 fit a coin as well as any."""
    coins = np.random.default_rng(pairs).normal(size=(50, pairs))
    assert np.mean([np.all(expected_labels(coin) == 1) for coin in coins]) >= 0.86
    assert expected_labels(np.zeros(pairs)).tolist() == [1.0] * pairs


def test_labels_without_noise_keep_their_whole_worth():
    assert expected_labels(simulate(0.0, 2_000, seed=0, spread=50.0)[0]) == pytest.approx(np.ones(2_000), abs=0.01)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60), st.sampled_from([2.0**-20, 0.25, 2.0**30]))
def test_expected_labels_follow_the_margins_at_any_scale(margins, scale):
    found = expected_labels(np.sort(margins))
    assert np.isfinite(found).all()
    assert np.all(np.diff(found) >= -1e-9)
    assert np.abs(found).mean() <= 1 + 1e-9
    assert expected_labels(np.sort(margins) * scale) == pytest.approx(found)


@pytest.mark.parametrize("margins", [np.zeros(0), np.zeros((2, 2)), np.array([1.0, np.nan])])
def test_refuses_margins_without_a_meaning(margins):
    with pytest.raises(ValueError, match="finite and of shape"):
        fit_lapse(margins)


def test_a_curve_says_whether_it_follows_the_model():
    margins, _ = simulate(0.1, 20_000, seed=5)
    fit = fit_lapse(margins)
    assert agreement_curve(margins, fit).follows_model
    bent = np.where(
        np.abs(margins) > np.quantile(np.abs(margins), 0.8), -np.abs(margins), margins
    )  # the surest all err
    assert not agreement_curve(bent, fit_lapse(bent)).follows_model


def test_departures_that_are_certain_but_small_are_borne():
    pairs = np.full(3, 10**7)
    fit = np.array([0.6, 0.7, 0.8])
    for off, follows in ((0.02, True), (0.04, False)):
        curve = AgreementCurve(fit, fit + off, fit, fit, pairs, fit)
        assert curve.follows_model is follows
