"""The probe: against normal equations solved one by one, blind to the labels it predicts, and on planted cases."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from curate import probe
from curate.metrics import auroc
from curate.noise import expected_labels
from curate.probe import Folds, Probe, assign_folds, cross_fitted, principal_axes, second_moment

HEADS = {"good": ["good"], "both": ["good", "noise"]}


def planted(pairs=120, seed=0, strength=2.0, width=4, noise=6, flips=0.0):
    """Two blocks, one of which knows the labels; the labels as given, and those that are wrong."""
    random = np.random.default_rng(seed)
    blocks = {
        "good": random.normal(size=(pairs, width)).astype(np.float32),
        "noise": random.normal(size=(pairs, noise)).astype(np.float32),
    }
    direction = random.normal(size=width)
    score = blocks["good"] @ (strength * direction / np.linalg.norm(direction))
    truth = np.where(random.random(pairs) < 1 / (1 + np.exp(-2 * score)), 1.0, -1.0)
    flipped = random.random(pairs) < flips
    return blocks, np.where(flipped, -truth, truth), flipped


def margins(blocks, fold, label, heads=HEADS, aware="both"):
    """Of one labelling."""
    found = Probe(blocks, fold).margins(label[:, None], heads, aware)
    return {head: margin[:, 0] for head, margin in found.items()}


def one_by_one(blocks, fold, label, names, aware):
    """The head as the module's docstring defines it: every fit by itself, in float64, only from what it may see."""
    blocks = {name: blocks[name].astype(np.float64) for name in names}

    def fits(train, held, target):
        found = []
        for values in blocks.values():
            penalty = (values**2).sum() / values.shape[1]
            for strength in 10.0 ** np.array([-2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2]):
                normal = values[train].T @ values[train] + strength * penalty * np.eye(values.shape[1])
                found.append(values[held] @ np.linalg.solve(normal, values[train].T @ target[train]))
        return np.stack(found, axis=1)

    margin = np.zeros(len(label))
    for k in range(fold.max() + 1):
        seen = np.where(fold == k, np.nan, label)  # NaN would show in the result if a held-out label were used
        inner = np.full((len(label), 9 * len(blocks)), np.nan)
        for j in set(range(fold.max() + 1)) - {k}:
            inner[fold == j] = fits((fold != j) & (fold != k), fold == j, seen)
        rest = fold != k
        ridge = 1e-7 * (inner[rest] ** 2).sum() + 1e-12
        weight = nnls(
            np.vstack([inner[rest], np.sqrt(ridge) * np.eye(inner.shape[1])]),
            np.append(seen[rest], np.zeros(inner.shape[1])),
        )[0]
        margin[fold == k] = fits(rest, fold == k, seen) @ weight
        if aware:
            expected = np.full(len(label), np.nan)
            expected[rest] = seen[rest] * expected_labels(seen[rest] * (inner[rest] @ weight))
            margin[fold == k] = (margin[fold == k] + fits(rest, fold == k, expected) @ weight) / 2
    return margin


# --- folds ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=60), st.integers(3, 12), st.integers(0, 5))
@example([0, 1], 10, 0)
@example([0] * 50 + [1], 10, 0)
def test_folds_keep_groups_together_and_are_as_equal_as_groups_allow(groups, parts, seed):
    group = np.array(groups)
    if len(set(groups)) < 3:
        with pytest.raises(ValueError, match="at least 3 groups"):
            assign_folds(group, parts, seed)
        return
    fold = assign_folds(group, parts, seed)
    assert fold.tolist() == assign_folds(group, parts, seed).tolist()
    assert all(len(set(fold[group == one])) == 1 for one in set(groups))
    sizes = np.bincount(fold)
    assert 3 <= len(sizes) <= min(parts, len(set(groups)))
    assert sizes.min() >= 1
    assert sizes.max() <= len(group) / min(parts, len(set(groups))) + np.bincount(group).max()


def test_folds_of_single_pairs_differ_by_one_at_most_and_with_the_seed():
    fold = assign_folds(np.arange(103), 10, seed=0)
    assert sorted(np.bincount(fold)) == [10] * 7 + [11] * 3
    assert (fold != assign_folds(np.arange(103), 10, seed=1)).mean() > 0.5


def test_folds_do_not_depend_on_how_groups_are_numbered():
    group = np.random.default_rng(0).integers(0, 20, 200)
    assert assign_folds(group, 5, 0).tolist() == assign_folds(1_000 * group + 7, 5, 0).tolist()


# --- axes -----------------------------------------------------------------------------------------


def test_axes_by_hand():
    axes = principal_axes(np.diag([4.0, 9.0]) * 10, pairs=10)  # features of size 2 and 3 that do not go together
    assert np.abs(axes).tolist() == [[0.5, 0.0], [0.0, np.float32(1 / 3)]]


def test_axes_of_features_make_components_uncorrelated_and_keep_their_whole_size():
    values = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32) * np.float32([1, 10, 0.1, 3, 1e4])
    values[:, 1] += 50 * values[:, 0]
    turned = values @ principal_axes(second_moment(values), 500)
    moment = turned.T.astype(np.float64) @ turned / 500
    assert np.abs(moment - np.diag(np.diag(moment))).max() < 1e-4
    assert np.trace(moment) == pytest.approx(5, rel=1e-5)


def test_wide_features_keep_their_256_largest_components():
    random = np.random.default_rng(0)
    values = (random.normal(size=(400, 10)) @ random.normal(size=(10, 300))).astype(np.float32)  # rank 10
    turned = values @ principal_axes(second_moment(values), 400)
    assert turned.shape == (400, 256)
    assert (turned**2).sum() == pytest.approx(300 * 400, rel=1e-4)  # all of it: 300 features of size 1


def test_moments_are_summed_over_chunks(monkeypatch):
    monkeypatch.setattr(probe, "_CHUNK", 7)
    values = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    np.testing.assert_allclose(second_moment(values), values.astype(np.float64).T @ values, rtol=1e-5, atol=1e-5)
    assert second_moment(values[:0]).tolist() == [[0.0] * 3] * 3


@pytest.mark.parametrize("scale", [1e-4, 30.0, 1e5])
def test_the_scale_of_a_feature_does_not_matter(scale):
    blocks, label, _ = planted()
    fold = assign_folds(np.arange(120), 5, 0)
    found = []
    for factor in (1.0, scale):
        values = blocks["good"] * np.float32([1, factor, 1, 1])
        found.append(
            margins({"good": values @ principal_axes(second_moment(values), 120)}, fold, label, {"h": ["good"]})
        )
    np.testing.assert_allclose(found[1]["h"], found[0]["h"], atol=1e-3)


# --- margins by hand and one by one ---------------------------------------------------------------


def test_margins_by_hand():
    """One feature, 1 for all, all labels +1, three folds of two: a fit without j and k gives 2 / (2 + 6λ) for each λ.

    All these are multiples of one another, and stacking brings the sum of them to 1 on the inner folds. On the outer
    fold a fit gives 4 / (4 + 6λ), which is 2·(2 + 6λ)/(4 + 6λ) as much: between 1 and 2 times the 1.
    """
    found = margins({"one": np.ones((6, 1), dtype=np.float32)}, np.arange(6) % 3, np.ones(6), {"h": ["one"]}, None)["h"]
    assert np.ptp(found) == 0
    candidates = [2 * (2 + 6 * strength) / (4 + 6 * strength) for strength in 10.0 ** np.arange(-2, 2.01, 0.5)]
    assert min(candidates) - 1e-5 <= found[0] <= max(candidates) + 1e-5


@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_margins_are_those_of_fits_made_one_by_one(seed, aware):
    blocks, label, _ = planted(pairs=70, seed=seed, strength=0.7, flips=0.1)
    fold = assign_folds(np.repeat(np.arange(35), 2), 4, seed)
    found = margins(blocks, fold, label, aware="both" if aware else None)
    np.testing.assert_allclose(found["both"], one_by_one(blocks, fold, label, ("good", "noise"), aware), atol=2e-3)
    np.testing.assert_allclose(found["good"], one_by_one(blocks, fold, label, ("good",), False), atol=2e-3)


def test_labellings_do_not_mix():
    blocks, label, _ = planted()
    fold = assign_folds(np.arange(120), 5, 0)
    labels = np.stack([label, np.roll(label, 1), -label], axis=1)
    together = Probe(blocks, fold).margins(labels, HEADS, "both")
    for column in range(3):
        for head, margin in margins(blocks, fold, labels[:, column]).items():
            np.testing.assert_allclose(together[head][:, column], margin, atol=1e-3)


# --- what a margin may know -----------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([2, 3, 5, 9]), st.sampled_from([1.0, 1e3, 1e6]), st.integers(1, 4))
def test_margins_of_a_fold_do_not_know_its_labels(seed, parts, outlier, members):
    """Not one bit changes when one label is turned round, all are, or others come; noise-aware or not."""
    blocks, label, _ = planted(pairs=48, seed=seed, strength=0.5)
    fold = assign_folds(np.arange(48) // members, parts, seed)
    random = np.random.default_rng(seed)
    held = fold == random.integers(fold.max() + 1)
    blocks["good"][np.flatnonzero(held)[0]] *= np.float32(outlier)  # what it adds is huge, and must not leave a trace
    one = np.zeros(48, dtype=bool)
    one[random.choice(np.flatnonzero(held))] = True
    before = margins(blocks, fold, label)
    for turned in (np.where(one, -label, label), np.where(held, -label, label), np.where(held, label[::-1], label)):
        after = margins(blocks, fold, turned)
        assert all(np.array_equal(after[head][held], before[head][held]) for head in HEADS)


@pytest.mark.parametrize("aware", [None, "both"])
def test_margins_of_other_folds_do_know_them(aware):
    blocks, label, _ = planted(pairs=60)
    fold = assign_folds(np.arange(60), 5, 0)
    turned = np.where(fold == 2, -label, label)
    before, after = (margins(blocks, fold, one, aware=aware)["both"] for one in (label, turned))
    assert np.all(np.abs(before - after)[fold != 2] > 1e-6)


@pytest.mark.parametrize("aware", [None, "both"])
def test_labels_that_are_a_coin_are_not_foretold(aware):
    """A leak would show as an AUROC above 1/2."""
    blocks, _, _ = planted(pairs=60)
    fold = assign_folds(np.arange(60) // 2, 5, 0)
    coins = np.where(np.random.default_rng(1).random((60, 60)) < 0.5, 1.0, -1.0)
    found = Probe(blocks, fold).margins(coins, HEADS, aware)["both"]
    foretold = [auroc(-margin, coin > 0) for margin, coin in zip(found.T, coins.T, strict=True)]
    assert np.mean(foretold) < 0.52


# --- symmetries -----------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_a_pair_turned_round_changes_its_own_sign_and_nothing_else(seed, parts):
    blocks, label, _ = planted(pairs=40, seed=seed)
    fold = assign_folds(np.arange(40), parts, seed)
    turn = np.where(np.random.default_rng(seed).random(40) < 0.5, -1.0, 1.0)
    turned = {name: values * turn[:, None].astype(np.float32) for name, values in blocks.items()}
    before, after = margins(blocks, fold, label), margins(turned, fold, label * turn)
    for head in HEADS:
        np.testing.assert_allclose(after[head], turn * before[head], rtol=1e-5, atol=1e-6)


def test_labels_turned_round_turn_the_margins_round():
    blocks, label, _ = planted()
    fold = assign_folds(np.arange(120), 5, 0)
    before, after = margins(blocks, fold, label), margins(blocks, fold, -label)
    assert all(np.array_equal(after[head], -before[head]) for head in HEADS)


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_pairs_and_folds_does_not_matter(seed):
    blocks, label, _ = planted(pairs=80, seed=seed)
    fold = assign_folds(np.arange(80), 5, seed)
    random = np.random.default_rng(seed)
    order, renamed = random.permutation(80), random.permutation(5)
    before = margins(blocks, fold, label)
    after = margins({name: values[order] for name, values in blocks.items()}, renamed[fold][order], label[order])
    for head in HEADS:
        np.testing.assert_allclose(after[head], before[head][order], atol=1e-3)


# --- edges ----------------------------------------------------------------------------------------


def found_by(blocks, label, parts=5, groups=None, names=None, aware="h"):
    """AUROC of agreement of one head over all blocks with labels, ½ where it says nothing."""
    fold = assign_folds(np.arange(len(label)) if groups is None else groups, parts, 0)
    margin = margins(blocks, fold, label, {"h": names or list(blocks)}, aware)["h"]
    assert np.isfinite(margin).all()
    return auroc(-margin, label > 0), margin


def test_a_block_of_zeros_is_harmless():
    blocks, label, _ = planted()
    alone, _ = found_by({"good": blocks["good"]}, label)
    beside, _ = found_by({"zero": np.zeros((120, 3), dtype=np.float32), "good": blocks["good"]}, label)
    assert beside == pytest.approx(alone, abs=0.005)
    assert found_by({"zero": np.zeros((120, 3), dtype=np.float32)}, label)[1].tolist() == [0.0] * 120


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: np.hstack([values, np.ones((120, 1))]),  # constant
        lambda values: np.hstack([values, values]),
        lambda values: np.hstack([values, np.zeros((120, 2))]),
        lambda values: np.vstack([1e6 * values[:1], values[1:]]),  # one huge outlier
        lambda values: values[:, :1].repeat(4, axis=1) + 1e-4 * values,  # nearly the same
    ],
    ids=["constant", "duplicated", "empty", "outlier", "collinear"],
)
def test_odd_features_do_no_harm(spoil):
    blocks, label, _ = planted(strength=3.0)
    values = spoil(blocks["good"]).astype(np.float32)
    known = values if values.shape[1] > 4 else blocks["good"]
    values = values @ principal_axes(second_moment(values), 120)
    found, _ = found_by({"odd": values, "good": blocks["good"]}, label)
    assert found > found_by({"good": blocks["good"]}, label)[0] - 0.02
    assert found_by({"odd": known}, label)[0] > 0.9


def test_a_group_that_holds_nearly_all_pairs_leaves_folds_enough():
    group = np.r_[np.zeros(90, dtype=np.int64), np.arange(1, 11)]  # as where most prompts are empty
    for seed in range(20):
        sizes = np.bincount(assign_folds(group, 10, seed))
        assert sizes.max() == 90
        assert len(sizes) == 10


def test_three_groups_are_enough_whatever_number_of_folds_is_asked():
    blocks, label, _ = planted()
    assert found_by(blocks, label, parts=10, groups=np.arange(120) % 3)[0] > 0.85


def test_a_fold_a_pair():
    blocks, label, _ = planted(pairs=30)
    assert found_by(blocks, label, parts=99)[0] > 0.8


# --- does it find noise ---------------------------------------------------------------------------


@pytest.mark.parametrize("aware", [None, "both"])
def test_planted_flips_are_found(aware):
    found = []
    for seed in range(5):
        blocks, label, flipped = planted(pairs=600, seed=seed, strength=8.0, flips=0.2)
        found.append(
            auroc(label * margins(blocks, assign_folds(np.arange(600), 10, 0), label, aware=aware)["both"], flipped)
        )
    assert np.mean(found) > 0.95
    assert min(found) > 0.9


def test_noise_shrinks_to_about_nothing_and_does_not_hurt_beside_a_good_block():
    lost, size = [], []
    for seed in range(10):
        blocks, label, flipped = planted(pairs=300, seed=seed, strength=3.0, noise=40, flips=0.2)
        heads = HEADS | {"noise": ["noise"]}
        found = margins(blocks, assign_folds(np.arange(300), 10, seed), label, heads, None)
        lost.append(auroc(label * found["good"], flipped) - auroc(label * found["both"], flipped))
        size.append(np.std(found["noise"]) / np.std(found["good"]))
    assert np.mean(lost) < 0.01
    assert np.mean(size) < 0.25


# --- repeated -------------------------------------------------------------------------------------


def test_repeats_are_averaged_with_their_standard_error():
    blocks, label, _ = planted(pairs=60)
    group = np.arange(60) // 2
    mean, error = cross_fitted(blocks, group, label[:, None], HEADS, "both", Folds(parts=4, repeats=3))
    for head in HEADS:
        drawn = np.stack([margins(blocks, assign_folds(group, 4, seed), label)[head] for seed in range(3)])
        np.testing.assert_allclose(mean[head][:, 0], drawn.mean(axis=0), rtol=1e-9)
        np.testing.assert_allclose(error[head][:, 0], drawn.std(axis=0, ddof=1) / np.sqrt(3), rtol=1e-9)


def test_many_pairs_need_fewer_repeats():
    assert [Folds(repeats=3).repeats_for(pairs) for pairs in (50_000, 50_001)] == [3, 2]
    assert Folds(repeats=1).repeats_for(50_001) == 1


def test_one_repeat_has_no_error():
    blocks, label, _ = planted(pairs=60)
    _, error = cross_fitted(blocks, np.arange(60), label[:, None], HEADS, folds=Folds(parts=4, repeats=1))
    assert not any(one.any() for one in error.values())


def test_one_group_cannot_be_cross_fitted():
    blocks, label, _ = planted(pairs=20)
    with pytest.raises(ValueError, match="at least 3 groups"):
        cross_fitted(blocks, np.zeros(20, dtype=np.int64), label[:, None], HEADS)
