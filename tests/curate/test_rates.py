"""Rates of groups and annotators: in closed form, by integration, on simulated labels, and their symmetries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import betaln, expit
from scipy.stats import beta

from curate.rates import annotator_rates, group_rates

#: The hyperprior, written out: μ and κ of each Beta distribution.
MEANS = np.repeat(np.arange(0.01, 0.5, 0.02), 12)
CONCENTRATIONS = np.tile(300.0 ** (np.arange(12) / 11), 25)
A, B = MEANS * CONCENTRATIONS, (1 - MEANS) * CONCENTRATIONS


def by_integration(right, group, groups, points=400):
    """Posterior means and intervals: the likelihood, pair by pair, at the quantiles of every Beta distribution."""
    rate_HQ = beta.ppf((np.arange(points) + 0.5) / points, A[:, None], B[:, None])
    likelihoods = []
    for one in range(groups):
        likelihood_HQ = np.ones_like(rate_HQ)
        for q in right[group == one]:
            likelihood_HQ *= (1 - rate_HQ) * q + rate_HQ * (1 - q)
        likelihoods.append(likelihood_HQ)
    evidence_GH = np.array([likelihood_HQ.mean(axis=1) for likelihood_HQ in likelihoods])
    found = []
    for one in range(groups):
        others_H = np.delete(evidence_GH, one, axis=0).prod(axis=0)
        mass = (likelihoods[one] * others_H[:, None]).ravel()
        order = np.argsort(rate_HQ, axis=None)
        below = np.cumsum(mass[order]) / mass.sum()
        low, high = (rate_HQ.ravel()[order][np.searchsorted(below, share)] for share in (0.025, 0.975))
        found.append(((mass @ rate_HQ.ravel()) / mass.sum(), low, high))
    return np.array(found).T


def simulate(seed, groups=12, mean=0.15, concentration=10.0, spread=2.5):
    """Groups of 20 to 300 labels, turned at rates of a Beta distribution; evidence that is calibrated."""
    random = np.random.default_rng(seed)
    rate = random.beta(mean * concentration, (1 - mean) * concentration, groups)
    group = np.repeat(np.arange(groups), random.integers(20, 300, groups))
    first_is_better = expit(random.normal(0, spread, len(group)))
    truth = random.random(len(group)) < first_is_better
    label = truth ^ (random.random(len(group)) < rate[group])
    return rate, np.where(label, first_is_better, 1 - first_is_better), group


def votes_of(rate, pairs, each, seed, spread=0.0):
    """Log-odds of the pairs, and votes of `each` annotators a pair who err at their rates."""
    random = np.random.default_rng(seed)
    log_odds = random.normal(0, spread, pairs)
    truth = random.random(pairs) < expit(log_odds)
    pair = np.repeat(np.arange(pairs), each)
    annotator = np.concatenate([random.permutation(len(rate))[:each] for _ in range(pairs)])
    vote = np.where(truth[pair] ^ (random.random(len(pair)) < rate[annotator]), 1.0, -1.0)
    return log_odds, pair, annotator, vote


# --- groups ---------------------------------------------------------------------------------------


def test_labels_that_are_surely_right_or_wrong_have_a_closed_form():
    """k of n wrong, and the prior Beta(a, b): mean (a + k)/(a + b + n), evidence B(a + k, b + n − k)/B(a, b)."""
    wrong, labels = np.array([0, 3, 45]), np.array([100, 12, 50])
    evidence_GH = np.exp(betaln(A + wrong[:, None], B + (labels - wrong)[:, None]) - betaln(A, B))
    weight_H = evidence_GH.prod(axis=0)
    expected = ((A + wrong[:, None]) / (A + B + labels[:, None])) @ weight_H / weight_H.sum()
    right = np.concatenate([np.arange(n) >= k for k, n in zip(wrong, labels, strict=True)]).astype(float)
    found = group_rates(right, np.repeat(np.arange(3), labels), 3)
    assert found.rate_G == pytest.approx(expected, abs=0.002)  # the rates looked at are 0.005 apart
    assert found.labels_G.tolist() == labels.tolist()
    assert found.rate_G[0] < 0.02
    assert found.low_G[2] > 0.7


@pytest.mark.parametrize("labels", [0, 100, 1_000_000])
def test_labels_that_say_nothing_leave_the_prior_however_many_they_are(labels):
    found = group_rates(np.full(labels, 0.5), np.zeros(labels, dtype=np.int64), 1)
    assert found.rate_G[0] == pytest.approx(0.25, abs=1e-3)  # the mean of the means 0.01, 0.03 … 0.49
    assert found.high_G[0] - found.low_G[0] > 0.6


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_an_integration(seed):
    _, right, group = simulate(seed, groups=3)
    right, group = right[::4], group[::4]
    found = group_rates(right, group, 3)
    rate, low, high = by_integration(right, group, 3)
    assert found.rate_G == pytest.approx(rate, abs=0.003)
    assert found.low_G == pytest.approx(low, abs=0.0075)
    assert found.high_G == pytest.approx(high, abs=0.0075)
    assert np.all((found.low_G <= low + 1e-3) & (found.high_G >= high - 1e-3))  # of the grid, the edges further out


@pytest.mark.parametrize(("mean", "concentration"), [(0.15, 10.0), (0.3, 5.0), (0.05, 50.0), (0.05, 2.0)])
def test_intervals_cover_simulated_rates(mean, concentration):
    inside, error = [], []
    for seed in range(40):
        rate, right, group = simulate(seed, mean=mean, concentration=concentration)
        found = group_rates(right, group, 12)
        inside.append((found.low_G <= rate) & (rate <= found.high_G))
        error.append(found.rate_G - rate)
    assert 0.9 <= np.mean(inside) <= 0.99
    assert abs(np.mean(error)) < 0.01


def test_small_groups_take_their_rate_from_the_others_and_large_ones_keep_theirs():
    """Eight groups of 1,000 at 5 %, one of 1,000 at 60 %, and two of 4, of which one is all wrong."""
    sizes = [1_000] * 9 + [4, 4, 0]
    shares = [0.05] * 8 + [0.6, 1.0, 0.0, 0.0]
    right = np.concatenate([np.arange(n) >= share * n for n, share in zip(sizes, shares, strict=True)]).astype(float)
    found = group_rates(right, np.repeat(np.arange(12), sizes), 12)
    assert found.rate_G[:8] == pytest.approx(np.full(8, 0.05), abs=0.01)
    assert found.rate_G[8] == pytest.approx(0.6, abs=0.02)
    assert found.low_G[8] > 0.5
    assert found.rate_G[10] < found.rate_G[11] < found.rate_G[9] < 0.9
    assert np.all((found.high_G - found.low_G)[9:] > 3 * (found.high_G - found.low_G)[:9].max())
    assert found.labels_G.tolist() == sizes


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_rates_are_in_range_and_neither_order_nor_names_matter(labels, random):
    right, group = (np.array(values) for values in zip(*labels, strict=True))
    found = group_rates(right, group, 5)
    assert np.all((found.low_G >= 0) & (found.low_G <= found.rate_G))
    assert np.all((found.rate_G <= found.high_G) & (found.high_G <= 1))
    order = np.array(random.sample(range(len(right)), len(right)))
    renamed = np.array(random.sample(range(5), 5))
    again = group_rates(right[order], renamed[group][order], 5)
    np.testing.assert_allclose(again.rate_G[renamed], found.rate_G, atol=1e-9)
    np.testing.assert_array_equal(again.labels_G[renamed], found.labels_G)


def test_a_wrong_label_more_raises_a_rate():
    right = np.linspace(0.6, 0.9, 50)
    rates = [
        group_rates(np.where(np.arange(50) < k, 1 - right, right), np.zeros(50, dtype=np.int64), 1) for k in range(9)
    ]
    assert np.all(np.diff([found.rate_G[0] for found in rates]) > 0)


def test_neither_a_million_labels_nor_a_few_beside_them_underflow():
    right = np.where(np.arange(1_000_000) % 10 < 3, 0.0, 1.0)
    found = group_rates(right, np.minimum(np.arange(1_000_000), 20), 21)  # the first 20 are groups of their own
    assert found.rate_G[20] == pytest.approx(0.3, abs=0.005)
    assert np.all(found.rate_G[:3] > found.rate_G[3])
    assert np.all((found.rate_G[:20] > 0.1) & (found.rate_G[:20] < 0.9))


# --- annotators -----------------------------------------------------------------------------------


def test_a_vote_alone_rests_on_the_evidence_about_its_pair():
    random = np.random.default_rng(0)
    log_odds, annotator, vote = random.normal(0, 3, 90), random.integers(0, 4, 90), random.choice([-1.0, 1.0], 90)
    found = annotator_rates(log_odds, np.arange(90), annotator, vote, 4)
    alone = group_rates(expit(vote * log_odds), annotator, 4)
    np.testing.assert_allclose(found.rate_G, alone.rate_G, atol=1e-12)
    np.testing.assert_allclose(found.low_G, alone.low_G, atol=1e-12)


def test_votes_rest_on_one_another_as_far_as_their_annotators_are_trusted():
    """The rates reproduce themselves when each vote's `right` is worked out from them, vote by vote."""
    rate = np.array([0.05, 0.1, 0.3, 0.45])
    log_odds, pair, annotator, vote = votes_of(rate, 120, 3, seed=1, spread=1.0)
    found = annotator_rates(log_odds, pair, annotator, vote, 4)
    right = []
    for mine in range(len(vote)):
        odds = np.exp(vote[mine] * log_odds[pair[mine]])
        for other in range(len(vote)):
            if other != mine and pair[other] == pair[mine]:
                error = found.rate_G[annotator[other]]
                odds *= ((1 - error) / error) ** (vote[mine] * vote[other])
        right.append(odds / (1 + odds))
    assert group_rates(np.array(right), annotator, 4).rate_G == pytest.approx(found.rate_G, abs=1e-3)


@pytest.mark.parametrize(
    ("each", "spread", "annotators"), [(3, 0.0, 6), (2, 2.0, 6), (1, 3.0, 6), (5, 0.0, 10), (2, 0.0, 30)]
)
def test_intervals_cover_simulated_annotators(each, spread, annotators):
    inside, error = [], []
    for seed in range(25):
        rate = np.random.default_rng(100 + seed).beta(1.2, 6.8, annotators)
        found = annotator_rates(*votes_of(rate, 300, each, seed, spread), annotators)
        inside.append((found.low_G <= rate) & (rate <= found.high_G))
        error.append(found.rate_G - rate)
    assert 0.9 <= np.mean(inside) <= 0.99
    assert abs(np.mean(error)) < 0.015


@pytest.mark.parametrize(("rate", "pairs"), [([0.2, 0.2], 300), ([0.2, 0.2], 3_000), ([0.1, 0.1, 0.45], 1_000)])
def test_few_annotators_without_other_evidence_do_not_swing_to_and_fro(rate, pairs):
    found = annotator_rates(*votes_of(np.array(rate), pairs, 2, seed=0), len(rate))
    assert np.all((found.low_G <= rate) & (rate <= found.high_G))
    assert found.rate_G == pytest.approx(rate, abs=0.035)


def test_an_annotator_who_prefers_the_wrong_sides_is_found_among_good_ones():
    found = annotator_rates(*votes_of(np.array([0.1, 0.1, 0.15, 0.1, 0.85]), 300, 3, seed=0), 5)
    assert found.rate_G.argmax() == 4
    assert found.low_G[4] > 0.7
    assert found.high_G[:4].max() < 0.3


def test_which_side_is_called_chosen_does_not_matter():
    log_odds, pair, annotator, vote = votes_of(np.array([0.1, 0.2, 0.4]), 100, 2, seed=0, spread=1.0)
    turn = np.where(np.random.default_rng(1).random(100) < 0.5, -1.0, 1.0)
    found = annotator_rates(log_odds, pair, annotator, vote, 3)
    again = annotator_rates(log_odds * turn, pair, annotator, vote * turn[pair], 3)
    np.testing.assert_allclose(again.rate_G, found.rate_G, atol=1e-12)


def test_one_annotator_without_evidence_keeps_the_prior():
    found = annotator_rates(np.zeros(50), np.arange(50), np.zeros(50, dtype=np.int64), np.ones(50), 1)
    assert found.rate_G[0] == pytest.approx(0.25, abs=1e-3)
    assert found.labels_G.tolist() == [50]


def test_certain_evidence_is_not_too_much():
    found = annotator_rates(np.array([800.0, -800.0] * 20), np.arange(40), np.arange(40) % 2, np.ones(40), 3)
    assert found.rate_G[0] < 0.2 < 0.7 < found.rate_G[1]
    assert np.isfinite(found.rate_G).all()
    assert found.labels_G.tolist() == [20, 20, 0]
