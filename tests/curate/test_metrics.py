"""Measures of a ranking: by hand, by counting, with ties, and whether their intervals hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from curate.metrics import METRICS, auroc, auroc_gain, auroc_interval, average_precision, precision_at, recall_at

#: Ranked by value: flipped, flipped, not, flipped, not, not.
VALUE = np.array([3.0, -5.0, 0.0, -2.0, -7.0, 1.0])
FLIPPED = np.array([False, True, True, False, True, False])

ranked = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({flipped for _, flipped in pairs}) == 2
)


def counted(value, flipped):
    """P(a flipped pair is lower), comparing each with each."""
    low, high = value[flipped][:, None], value[~flipped]
    return np.mean((low < high) + (low == high) / 2)


def arrays(pairs):
    value, flipped = zip(*pairs, strict=True)
    return np.array(value, dtype=np.float64), np.array(flipped)


def gaussian(area, pairs, rate, seed):
    """Values of which the AUROC is known, and which pairs are flipped."""
    flipped = np.arange(pairs) < round(rate * pairs)
    return np.random.default_rng(seed).normal(size=pairs) - np.sqrt(2) * norm.ppf(area) * flipped, flipped


def test_by_hand():
    assert auroc(VALUE, FLIPPED) == pytest.approx(8 / 9)  # one of nine comparisons is lost
    assert average_precision(VALUE, FLIPPED) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert [precision_at(VALUE, FLIPPED, first) for first in (0, 1, 2, 3, 4, 6, 99)] == [
        1,
        1,
        1,
        2 / 3,
        3 / 4,
        1 / 2,
        1 / 2,
    ]
    assert [recall_at(VALUE, FLIPPED, precision) for precision in (1.0, 0.76, 0.75, 0.5)] == [2 / 3, 2 / 3, 1, 1]
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([True, False, False])) == 1
    assert auroc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 0


def test_every_metric_of_a_perfect_ranking_is_one_and_of_the_reverse_less_than_the_base_rate():
    flipped = np.arange(1_000) < 200
    value = np.arange(1_000.0)
    assert {name: metric(value, flipped) for name, metric in METRICS.items()} == dict.fromkeys(METRICS, 1.0)
    assert all(metric(-value, flipped) < 0.2 for name, metric in METRICS.items() if "recall" not in name)


def test_the_metrics_look_as_far_as_their_names_say():
    flipped = np.isin(np.arange(1_000), [*range(30), *range(34, 44), *range(500, 580)])  # 120 of them
    found = {name: metric(np.arange(1_000.0), flipped) for name, metric in METRICS.items()}
    assert found["precision_at_100"] == 40 / 100
    assert found["precision_at_n_flip"] == 40 / 120
    assert found["precision_at_top_5_percent"] == 40 / 50
    assert found["recall_at_80_precision"] == 40 / 120  # 40 of the first 44
    assert found["recall_at_95_precision"] == 30 / 120


@settings(deadline=None)
@given(ranked)
def test_auroc_counts_comparisons_and_ties_half(pairs):
    value, flipped = arrays(pairs)
    assert auroc(value, flipped) == pytest.approx(counted(value, flipped), abs=1e-12)
    assert auroc(-value, flipped) == pytest.approx(1 - auroc(value, flipped), abs=1e-12)
    assert auroc(value, ~flipped) == pytest.approx(1 - auroc(value, flipped), abs=1e-12)
    low, high = auroc_interval(value, flipped)
    assert 0 <= low <= auroc(value, flipped) <= high <= 1


@settings(deadline=None, max_examples=50)
@given(ranked, st.randoms(use_true_random=False))
def test_neither_order_nor_an_increasing_function_matters_but_for_ties(pairs, random):
    value, flipped = arrays(pairs)
    value += 0.5 * np.arange(len(value)) / len(value)  # no ties
    order = random.sample(range(len(value)), len(value))
    for name, metric in METRICS.items():
        assert metric(value[order], flipped[order]) == pytest.approx(metric(value, flipped), abs=1e-12), name
        assert metric(np.exp(value), flipped) == pytest.approx(metric(value, flipped), abs=1e-12), name


@settings(deadline=None)
@given(ranked, st.sampled_from([0.5, 0.8, 0.95, 1.0]))
def test_recall_is_the_best_of_all_thresholds(pairs, precision):
    value, flipped = arrays(pairs)
    reached = [flipped[value <= at].sum() / flipped.sum() for at in value if flipped[value <= at].mean() >= precision]
    assert recall_at(value, flipped, precision) == pytest.approx(max(reached, default=0.0), abs=1e-12)


def test_recall_is_nothing_where_the_precision_is_never_reached():
    assert recall_at(np.array([1.0, 2.0, 3.0]), np.array([False, True, False]), 0.8) == 0
    assert recall_at(np.zeros(10), np.arange(10) < 5, 0.8) == 0


def test_values_that_say_nothing_have_the_precision_of_the_base_rate():
    flipped = np.arange(2_000) < 400  # all at the front, as planted flips may be
    same = np.zeros(2_000)
    assert precision_at(same, flipped, 200) == pytest.approx(0.2, abs=0.08)
    assert precision_at(same, flipped, 200) == precision_at(same, flipped, 200)
    assert average_precision(same, flipped) == pytest.approx(0.2)
    assert auroc(same, flipped) == 0.5
    assert auroc_interval(same, flipped) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("area", "pairs", "rate"), [(0.5, 150, 0.2), (0.7, 200, 0.2), (0.9, 400, 0.2), (0.8, 300, 0.4)]
)
def test_the_interval_of_an_auroc_covers_it(area, pairs, rate):
    inside = [
        low <= area <= high for low, high in (auroc_interval(*gaussian(area, pairs, rate, seed)) for seed in range(300))
    ]
    assert 0.9 <= np.mean(inside) <= 0.99


def test_the_interval_of_an_auroc_by_hand():
    """Shares of comparisons won, by flipped pairs 1, 1, 2/3 and by others 1, 2/3, 1: each of variance 1/27 (n − 1)."""
    spread = norm.ppf(0.975) * np.sqrt(1 / 27 / 3 + 1 / 27 / 3)
    assert auroc_interval(VALUE, FLIPPED) == pytest.approx((8 / 9 - spread, 1.0))
    assert auroc_interval(-VALUE, FLIPPED) == pytest.approx((0.0, 1 / 9 + spread))


# --- gains ----------------------------------------------------------------------------------------


def labellings(seed, pairs=60, columns=3, groups=20):
    random = np.random.default_rng(seed)
    flipped = random.random((pairs, columns)) < 0.3
    value, baseline = (random.normal(size=(pairs, columns)).round(1) - size * flipped for size in (1.0, 0.4))
    return value, baseline, flipped, np.append(np.arange(groups), random.integers(0, groups, pairs - groups))


@pytest.mark.parametrize("seed", range(3))
def test_the_gain_is_the_plain_difference_and_its_interval_that_of_groups_drawn_again(seed):
    value, baseline, flipped, group = labellings(seed)

    def gain(at):
        return np.mean(
            [counted(value[at, t], flipped[at, t]) - counted(baseline[at, t], flipped[at, t]) for t in range(3)]
        )

    draws = np.random.default_rng(0).multinomial(20, np.full(20, 1 / 20), size=400)
    again = [
        gain(np.concatenate([np.tile(np.flatnonzero(group == g), n) for g, n in enumerate(draw)])) for draw in draws
    ]
    mean, low, high = auroc_gain(value, baseline, flipped, group)
    assert mean == pytest.approx(gain(np.arange(60)), abs=1e-12)
    assert (low, high) == pytest.approx(tuple(np.quantile(again, [0.025, 0.975])), abs=1e-12)
    plain = [auroc(value[:, t], flipped[:, t]) - auroc(baseline[:, t], flipped[:, t]) for t in range(3)]
    assert mean == pytest.approx(np.mean(plain), abs=1e-12)


def test_a_signal_gains_nothing_on_itself():
    value, _, flipped, group = labellings(0)
    assert auroc_gain(value, value, flipped, group) == (0.0, 0.0, 0.0)


def test_the_gain_of_exchanged_signals_is_the_opposite():
    value, baseline, flipped, group = labellings(1)
    there, back = auroc_gain(value, baseline, flipped, group), auroc_gain(baseline, value, flipped, group)
    assert back == pytest.approx((-there[0], -there[2], -there[1]), abs=1e-12)


def test_draws_without_a_flip_are_left_out():
    flipped = np.arange(12)[:, None] == 0
    value = np.arange(12.0)[:, None]
    assert auroc_gain(value, -value, flipped, np.arange(12)) == (1.0, 1.0, 1.0)


def test_the_interval_of_a_gain_covers_it():
    """Two signals of AUROC .8 and .65 that share half their noise; pairs of a group are alike."""
    inside, widths = [], []
    for seed in range(100):
        random = np.random.default_rng(seed)
        group = np.repeat(np.arange(100), 3)
        flipped = np.repeat(random.random(100) < 0.3, 3)[:, None]
        shared, own, other = (random.normal(size=100)[group][:, None] for _ in range(3))
        value, baseline = (
            (shared + noise) / np.sqrt(2) - np.sqrt(2) * norm.ppf(area) * flipped
            for noise, area in ((own, 0.8), (other, 0.65))
        )
        _, low, high = auroc_gain(value, baseline, flipped, group)
        inside.append(low <= 0.15 <= high)
        _, low_alone, high_alone = auroc_gain(value, baseline, flipped, np.arange(300))
        widths.append((high - low) / (high_alone - low_alone))
    assert 0.9 <= np.mean(inside) <= 0.99
    assert min(widths) > 1.3  # pairs drawn by themselves, as if independent: too sure
