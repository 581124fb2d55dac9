"""One contract for all signals: finite or missing, aligned, the same in any order, and of the right sign."""

import numpy as np
import pytest

from curate.detect import (
    CONTROLLED,
    EXPLANATIONS,
    FUSED,
    FUSED_RANDOM,
    GROUPED,
    RANDOM,
    RESERVED,
    UNFITTED,
    VOTES,
    detect,
)
from curate.evidence import Evidence
from curate.metrics import auroc
from curate.probe import Folds
from curate.signals import COLUMNS, SIGNALS, given_block, length_block, likelihood_block, swapped

PAIRS = 240
FOLDS = Folds(5, 2)
KNOWING = 0.65  # AUROC of whatever is not mere length or a margin


def make_evidence(seed=0, pairs=PAIRS, per_prompt=2):
    """Pairs of which chosen is the better side, with every column, two imported signals and one layer of states.

    Pairs 0 and 1 are not learnt from. Ratings are missing in a third, the judge's verdicts in half of the pairs.
    """
    rng = np.random.default_rng(seed)
    gap_N = np.abs(rng.normal(0, 3, pairs))
    columns = {}
    for side, sign in (("chosen", 0.5), ("rejected", -0.5)):
        tokens = rng.integers(5, 60, pairs).astype(float)
        columns[f"{side}_tokens"] = tokens
        columns[f"policy_{side}_logp"] = -2 * tokens + sign * gap_N + rng.normal(0, 1, pairs)
        columns[f"policy_unconditional_{side}_logp"] = -3 * tokens + rng.normal(0, 1, pairs)
        columns[f"reference_{side}_logp"] = -2 * tokens + rng.normal(0, 1, pairs)
        columns[f"reward_{side}"] = sign * gap_N + rng.normal(0, 0.5, pairs)
        columns[f"rating_{side}"] = np.where(np.arange(pairs) % 3 == 0, np.nan, sign * gap_N + rng.normal(0, 1, pairs))
    logps = (columns[f"policy_{side}_logp"] / columns[f"{side}_tokens"] for side in ("chosen", "rejected"))
    columns["margin"] = np.subtract(*logps)
    judge_N = np.where(np.arange(pairs) % 2 == 0, np.nan, np.sign(gap_N + rng.normal(0, 1, pairs)))
    imported = {"judge": judge_N, "scorer": gap_N + rng.normal(0, 1, pairs)}
    states = gap_N[:, None] * rng.normal(size=6) + rng.normal(0, 4, (pairs, 6))
    blocks = {"length": length_block(columns), "likelihood": likelihood_block(columns)}
    blocks |= {"given": given_block(list(imported.values())), "hidden_middle": states.astype(np.float32)}
    prompt_N = np.arange(pairs) // per_prompt
    return Evidence(columns, imported, blocks, np.zeros(pairs, bool), np.arange(pairs) > 1, prompt_N, np.arange(pairs))


def other_way_round(evidence, turned_N):
    """The same pairs with the sides of some exchanged."""
    sign_N = np.where(turned_N, -1.0, 1.0)
    exchanged = swapped(evidence.columns)
    return Evidence(
        {name: np.where(turned_N, exchanged[name], values) for name, values in evidence.columns.items()},
        {name: sign_N * values for name, values in evidence.imported.items()},
        {name: (sign_N[:, None] * block).astype(np.float32) for name, block in evidence.blocks.items()},
        evidence.tie_N,
        evidence.learns_N,
        evidence.prompt_N,
        evidence.content_N,
    )


def flips(evidence, rate, labellings=1, seed=1):
    shape = len(evidence.learners), labellings
    return np.where(np.random.default_rng(seed).random(shape) < rate, -1.0, 1.0)


@pytest.fixture(scope="module")
def evidence():
    return make_evidence()


@pytest.fixture(scope="module", name="target_MT")
def fixture_target(evidence):
    return flips(evidence, 0.2, labellings=2)


@pytest.fixture(scope="module")
def detected(evidence, target_MT):
    return detect(evidence, target_MT, FOLDS)


HEADS = ["length", "likelihood", "hidden_middle", FUSED, CONTROLLED, *VOTES]
KEYS = [(name, folds) for folds in (GROUPED, RANDOM) for name in HEADS]
KEYS += [(name, UNFITTED) for name in (*SIGNALS, "judge", "scorer")]


def test_the_signals(detected):
    assert set(detected.values) == set(KEYS)
    assert set(HEADS) <= EXPLANATIONS.keys()
    assert {*EXPLANATIONS, FUSED_RANDOM, "oracle"} == set(RESERVED)
    assert all(EXPLANATIONS.values())
    assert {column for signal in SIGNALS.values() for column in signal.needs} <= set(COLUMNS)


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_each_is_a_number_or_missing_for_each_pair_and_labelling(evidence, target_MT, detected, key):
    value_MT = detected.values[key]
    assert value_MT.shape == target_MT.shape
    missing = {"rating": np.isnan(evidence.columns["rating_chosen"]), "judge": np.isnan(evidence.imported["judge"])}
    expected = missing.get(key[0], np.zeros(PAIRS, bool))[evidence.learners]
    np.testing.assert_array_equal(np.isnan(value_MT), np.repeat(expected[:, None], 2, axis=1))
    assert not np.isinf(value_MT).any()


@pytest.mark.parametrize("key", KEYS, ids="-".join)
def test_each_has_the_right_sign(target_MT, detected, key):
    """Flipped pairs have the lower values: clearly so where the signal knows anything but length."""
    values, flipped = np.nan_to_num(detected.values[key]), target_MT < 0
    found = np.mean([auroc(*column) for column in zip(values.T, flipped.T, strict=True)])
    if key[0] in ("length", "token_difference", "margin", "ifd", "ifd_gap", "vote_all", "log_prob", "prompt_gain"):
        assert found > 0.4  # lengths were drawn at random
    elif key[0] == "judge":
        assert found > 0.6  # silent about half of the pairs
    else:
        assert found > KNOWING


def test_the_fused_signal_is_the_best_and_bests_length(target_MT, detected):
    flipped = target_MT[:, 0] < 0
    found = {key: auroc(np.nan_to_num(values[:, 0]), flipped) for key, values in detected.values.items()}
    assert found[FUSED, GROUPED] > max(found["likelihood", GROUPED], found["hidden_middle", GROUPED])
    assert found[FUSED, GROUPED] > 0.85


def test_order_does_not_matter(evidence, target_MT, detected):
    order = np.random.default_rng(3).permutation(PAIRS)
    place = np.searchsorted(evidence.learners, order[evidence.learns_N[order]])
    other = detect(evidence.take(order), target_MT[place], FOLDS)
    for key in KEYS:
        np.testing.assert_allclose(other.values[key], detected.values[key][place], atol=2e-3, err_msg=str(key))
    np.testing.assert_allclose(other.error_MT, detected.error_MT[place], atol=2e-3)


def test_which_side_is_called_chosen_does_not_matter(evidence, target_MT, detected):
    """A flipped label over exchanged sides is the right label."""
    turned_N = np.random.default_rng(4).random(PAIRS) < 0.5
    sign_M = np.where(turned_N[evidence.learners], -1.0, 1.0)
    other = detect(other_way_round(evidence, turned_N), sign_M[:, None] * target_MT, FOLDS)
    for key in KEYS:
        np.testing.assert_allclose(other.values[key], detected.values[key], atol=2e-3, err_msg=str(key))


def test_all_labels_turned_round(evidence, detected, target_MT):
    """What is fitted to the labels says the same again; what is not, the opposite."""
    other = detect(evidence, -target_MT, FOLDS)
    for name, folds in KEYS:
        if folds != UNFITTED and name not in VOTES:  # ratings and imported signals vote too
            np.testing.assert_allclose(other.values[name, folds], detected.values[name, folds], atol=2e-3)
        elif name in ("margin", "rating", "judge", "token_difference"):
            np.testing.assert_allclose(other.values[name, folds], -detected.values[name, folds], atol=1e-12)


def test_a_labelling_is_not_touched_by_the_others(evidence, target_MT, detected):
    alone = detect(evidence, target_MT[:, 1:], FOLDS)
    for key in KEYS:
        np.testing.assert_allclose(alone.values[key], detected.values[key][:, 1:], atol=2e-3, err_msg=str(key))


def test_votes_by_hand(evidence, target_MT, detected):
    """Mean of signs where nobody is asked twice; negative only where all say no."""
    names = [(name, GROUPED) for name in ("length", "likelihood", "hidden_middle")]
    names += [(name, UNFITTED) for name in ("rating", "reward_model", "judge", "scorer")]
    said = np.stack([detected.values[name] for name in names])
    np.testing.assert_allclose(detected.values["vote_majority", GROUPED], np.sign(np.nan_to_num(said)).mean(axis=0))
    against_all = np.nanmax(said, axis=0) < 0
    np.testing.assert_array_equal(detected.values["vote_all", GROUPED] < 0, against_all)
    assert 0 < against_all.sum() < (target_MT < 0).sum()


def test_the_length_controlled_signal_knows_no_length(evidence, detected):
    margin_M = detected.values[CONTROLLED, GROUPED][:, 0] * flips(evidence, 0.2, labellings=2)[:, 0]
    length_MD = evidence.blocks["length"][evidence.learners].astype(float)
    assert np.abs(margin_M @ length_MD).max() < 1e-3 * np.abs(margin_M).sum()
    assert 0 <= detected.length_share < 0.3


def test_where_only_length_counts_length_explains_all():
    evidence = make_evidence()
    longer = np.sign(evidence.blocks["length"][:, 1])[evidence.learners]
    blocks = {name: evidence.blocks[name] for name in ("length",)}
    alone = Evidence(
        evidence.columns, {}, blocks, evidence.tie_N, evidence.learns_N, evidence.prompt_N, evidence.content_N
    )
    assert detect(alone, longer[:, None], FOLDS).length_share == pytest.approx(1, abs=0.02)


def test_a_block_that_says_nothing(evidence, target_MT):
    """All sides of the same length, and an imported signal that is missing everywhere."""
    blocks = evidence.blocks | {"length": np.zeros((PAIRS, 2), np.float32), "given": np.zeros((PAIRS, 1), np.float32)}
    silent = Evidence(
        evidence.columns,
        {"judge": np.full(PAIRS, np.nan)},
        blocks,
        evidence.tie_N,
        evidence.learns_N,
        evidence.prompt_N,
        evidence.content_N,
    )
    found = detect(silent, target_MT, FOLDS)
    assert not found.values["length", GROUPED].any()
    assert np.isnan(found.values["judge", UNFITTED]).all()
    assert np.isfinite(found.values[FUSED, GROUPED]).all()
    assert found.length_share == 0


def test_a_fitted_signal_has_not_seen_the_label_of_its_pair(evidence, target_MT, detected):
    """Turning one pair's label round changes its own value in sign alone."""
    other_MT = target_MT.copy()
    other_MT[5] *= -1
    other = detect(evidence, other_MT, FOLDS)
    for name in ("likelihood", "hidden_middle", FUSED):
        np.testing.assert_allclose(other.values[name, GROUPED][5], -detected.values[name, GROUPED][5], atol=1e-5)


def test_one_prompt_is_not_enough(evidence, target_MT):
    one = Evidence(
        evidence.columns,
        evidence.imported,
        evidence.blocks,
        evidence.tie_N,
        evidence.learns_N,
        np.zeros(PAIRS, np.int64),
        evidence.content_N,
    )
    with pytest.raises(ValueError, match="cross-fitting needs at least"):
        detect(one, target_MT, FOLDS)
