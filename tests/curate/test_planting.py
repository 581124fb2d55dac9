"""Planted noise: as much as was asked, where it should be, and the same again."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.planting import bad_annotator, hard_flips, longer_wins, made_up_annotators, random_flips
from curate.probe import assign_folds


@settings(deadline=None)
@given(st.integers(1, 200), st.floats(0, 1), st.integers(1, 5))
def test_random_flips_are_as_many_as_asked_and_the_same_again(pairs, rate, seeds):
    target = random_flips(pairs, rate, seeds)
    assert target.shape == (pairs, seeds)
    assert set(np.unique(target)) <= {-1.0, 1.0}
    assert (target < 0).sum(axis=0).tolist() == [round(rate * pairs)] * seeds
    np.testing.assert_array_equal(target, random_flips(pairs, rate, seeds))
    np.testing.assert_array_equal(target[:, :1], random_flips(pairs, rate, 1))  # a seed more changes no other


def test_random_flips_fall_on_all_pairs_alike_and_differ_by_seed():
    times = (random_flips(50, 0.2, 400) < 0).sum(axis=1)
    assert times.sum() == 400 * 10
    assert np.all((times > 40) & (times < 130))  # 80 each, ± 8


def test_flips_do_not_gather_in_the_folds_of_the_same_seed():
    target = random_flips(1_000, 0.2, 5)
    for seed in range(5):
        flips = np.bincount(assign_folds(np.arange(1_000), 10, seed), weights=target[:, seed] < 0)
        assert np.all((flips > 5) & (flips < 38))  # 20 each, ± 4


def test_flips_at_a_lower_rate_are_among_those_at_a_higher_one():
    low, high = random_flips(100, 0.1, 3), random_flips(100, 0.4, 3)
    assert np.all(high[low < 0] == -1)


def test_hard_flips_are_the_smallest_margins_by_hand():
    target = hard_flips(np.array([3.0, -0.5, 0.1, -2.0, 0.0, 1.0]), 0.5)
    assert target.tolist() == [[1], [-1], [-1], [1], [-1], [1]]
    assert hard_flips(np.zeros(4), 0.5).tolist() == [[-1], [-1], [1], [1]]  # equal margins: as they come


@settings(deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_no_pair_that_keeps_its_label_is_harder_than_one_that_is_flipped(margins, rate):
    margin, target = np.array(margins), hard_flips(np.array(margins), rate)[:, 0]
    assert (target < 0).sum() == round(rate * len(margin))
    assert np.abs(margin[target < 0]).max(initial=0) <= np.abs(margin[target > 0]).min(initial=np.inf)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=60), st.floats(0, 1))
def test_longer_wins_where_the_shorter_had_won(differences, rate):
    difference = np.array(differences, dtype=np.float64)
    target = longer_wins(difference, rate, 3)
    assert np.all(difference[(target < 0).any(axis=1)] < 0)
    wanted = min(round(rate * len(difference)), int((difference < 0).sum()))
    assert (target < 0).sum(axis=0).tolist() == [wanted] * 3
    np.testing.assert_array_equal(target, longer_wins(difference, rate, 3))


# --- annotators -----------------------------------------------------------------------------------


def votes():
    """30 pairs with three votes, 20 with one, 10 with none; four annotators; a few disagree with the label."""
    random = np.random.default_rng(0)
    pair = np.append(np.repeat(np.arange(30), 3), np.arange(30, 50))
    return pair, np.arange(len(pair)) % 4, np.where(random.random(len(pair)) < 0.1, -1.0, 1.0)


def test_a_bad_annotator_turns_two_fifths_of_his_own_votes_and_the_majority_labels():
    pair, annotator, vote = votes()
    planted = bad_annotator(pair, annotator, vote, pairs=60, seeds=6)
    assert planted.bad_T.tolist() == [0, 1, 2, 3, 0, 1]
    assert planted.target_MT.shape == (60, 6)
    for seed, bad in enumerate(planted.bad_T):
        turned = planted.votes_VT[:, seed] != vote
        assert set(annotator[turned]) == {bad}
        assert turned.sum() == round(0.4 * (annotator == bad).sum()) > 0
        assert np.all(planted.votes_VT[turned, seed] == -vote[turned])
        for one in range(60):
            total = sum(planted.votes_VT[at, seed] for at in range(len(pair)) if pair[at] == one)
            assert planted.target_MT[one, seed] == (-1 if total < 0 else 1)
    assert np.any(planted.votes_VT[:, 0] != planted.votes_VT[:, 4])  # the same annotator, other votes


def test_the_votes_given_are_left_alone_and_the_noise_is_the_same_again():
    pair, annotator, vote = votes()
    before = vote.copy()
    once, again = (bad_annotator(pair, annotator, vote, 60, 3) for _ in range(2))
    np.testing.assert_array_equal(vote, before)
    np.testing.assert_array_equal(once.votes_VT, again.votes_VT)
    np.testing.assert_array_equal(once.target_MT, again.target_MT)


def test_a_majority_by_hand():
    """Votes of 0, 1 and 2 on two pairs, of whom annotator 2 never gets his way, and a pair where two cancel out."""
    pair, annotator = np.array([0, 0, 0, 1, 1, 1, 2, 2]), np.array([0, 1, 2, 0, 1, 2, 0, 1])
    planted = bad_annotator(pair, annotator, np.array([1.0, 1, -1, -1, -1, 1, 1, -1]), pairs=3, seeds=3)
    assert planted.target_MT[:, 2].tolist() == [1, -1, 1]
    assert (planted.votes_VT[:, 2] != planted.votes_VT[:, 0]).sum() == 1 + 1  # 40 % of 2 votes is 1, of 3 is 1


@pytest.mark.parametrize("pairs", [5, 100, 103])
def test_made_up_annotators_share_the_pairs_equally(pairs):
    pair, annotator, vote = made_up_annotators(pairs)
    assert pair.tolist() == list(range(pairs))
    assert vote.tolist() == [1.0] * pairs
    counts = np.bincount(annotator, minlength=5)
    assert counts.sum() == pairs
    assert np.ptp(counts) <= 1
    assert annotator.tolist() == made_up_annotators(pairs)[1].tolist()
    planted = bad_annotator(pair, annotator, vote, pairs, seeds=5)
    assert (planted.target_MT < 0).sum(axis=0).tolist() == [round(0.4 * counts[bad]) for bad in range(5)]


def test_made_up_annotators_do_not_follow_the_order_of_pairs():
    annotator = made_up_annotators(1_000, annotators=2)[1]
    assert abs(annotator[:500].mean() - 0.5) < 0.1
    assert np.any(np.diff(annotator) == 0)
