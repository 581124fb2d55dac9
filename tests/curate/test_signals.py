"""Signals without a fit: by hand, with their sign, and what a swap of the sides does to them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.signals import SIGNALS, available, given_block, length_block, likelihood_block, swapped

#: Two pairs. Of the first, all speaks for the chosen side but the sum of log-probs.
COLUMNS = {
    "margin": np.array([0.7, -0.2]),
    "policy_chosen_logp": np.array([-20.0, -9.0]),
    "policy_rejected_logp": np.array([-12.0, -6.0]),
    "policy_unconditional_chosen_logp": np.array([-40.0, -10.0]),
    "policy_unconditional_rejected_logp": np.array([-15.0, -12.0]),
    "reference_chosen_logp": np.array([-24.0, -8.0]),
    "reference_rejected_logp": np.array([-11.0, -7.0]),
    "chosen_tokens": np.array([10.0, 2.0]),
    "rejected_tokens": np.array([6.0, 3.0]),
    "rating_chosen": np.array([4.5, 2.0]),
    "rating_rejected": np.array([3.0, 2.5]),
    "reward_chosen": np.array([1.25, -3.0]),
    "reward_rejected": np.array([-0.75, 1.0]),
}

#: Worked out on paper: with the prompt, chosen gains 20 and 1 nats, rejected 3 and 6.
BY_HAND = {
    "margin": [0.7, -0.2],
    "log_prob": [-8.0, -3.0],
    "prompt_gain": [17.0, -5.0],
    "ifd": [-math.exp(-20 / 10), -math.exp(-1 / 2)],
    "ifd_gap": [math.exp(-3 / 6) - math.exp(-20 / 10), math.exp(-6 / 3) - math.exp(-1 / 2)],
    "token_difference": [4.0, -1.0],
    "rating": [1.5, -0.5],
    "reward_model": [2.0, -4.0],
}

numbers = st.floats(-1e4, 1e4).map(lambda value: 0.0 if abs(value) < 1e-3 else value)


def drawn(values):
    """The columns with numbers of one's own, pair by pair."""
    return {name: np.array(column) for name, column in zip(COLUMNS, np.array(values).T, strict=True)}


pairs_of_numbers = st.lists(
    st.lists(numbers, min_size=len(COLUMNS), max_size=len(COLUMNS)), min_size=1, max_size=12
).map(drawn)


@pytest.mark.parametrize("name", SIGNALS)
def test_by_hand(name):
    np.testing.assert_allclose(SIGNALS[name].of(COLUMNS), BY_HAND[name], rtol=1e-12)


def test_a_swap_exchanges_the_sides_and_turns_what_has_none():
    found = swapped(COLUMNS)
    assert found.keys() == COLUMNS.keys()
    assert found["policy_unconditional_chosen_logp"].tolist() == [-15.0, -12.0]
    assert found["policy_unconditional_rejected_logp"].tolist() == [-40.0, -10.0]
    assert found["chosen_tokens"].tolist() == [6.0, 3.0]
    assert found["rating_rejected"].tolist() == [4.5, 2.0]
    assert found["margin"].tolist() == [-0.7, 0.2]
    for name, values in swapped(found).items():
        assert values.tolist() == COLUMNS[name].tolist()


@settings(deadline=None, max_examples=50)
@given(pairs_of_numbers)
def test_signals_are_antisymmetric_but_for_ifd_which_looks_at_the_chosen_side_alone(columns):
    turned = swapped(columns)
    for name in SIGNALS.keys() - {"ifd"}:
        np.testing.assert_array_equal(SIGNALS[name].of(turned), -SIGNALS[name].of(columns), err_msg=name)
    both = SIGNALS["ifd"].of(columns) - SIGNALS["ifd"].of(turned)
    np.testing.assert_array_equal(both, SIGNALS["ifd_gap"].of(columns))


@pytest.mark.parametrize("name", SIGNALS)
def test_a_number_that_is_missing_leaves_its_pair_without_the_signal_and_no_other(name):
    read = [column for column in SIGNALS[name].needs if name != "ifd" or "chosen" in column]  # ifd: of chosen alone
    for column in read:
        missing = COLUMNS | {column: np.array([np.nan, COLUMNS[column][1]])}
        found = SIGNALS[name].of(missing)
        assert np.isnan(found[0]), column
        assert found[1] == pytest.approx(BY_HAND[name][1])


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_reads_the_columns_that_it_needs_and_no_others(name):
    needed = {column: COLUMNS[column] for column in SIGNALS[name].needs}
    np.testing.assert_allclose(SIGNALS[name].of(needed), BY_HAND[name], rtol=1e-12)
    assert available(needed).keys() >= {name}
    for column in needed:
        fewer = {other: values for other, values in COLUMNS.items() if other != column}
        assert name not in available(fewer)


def test_what_is_available():
    assert available(COLUMNS) == SIGNALS
    assert available({}) == {}
    assert available({"margin": np.zeros(1), "rating_chosen": np.zeros(1)}).keys() == {"margin"}


def test_empty_short_and_unlikely_responses_have_a_difficulty():
    odd = {
        "chosen_tokens": np.array([0.0, 1.0, 1.0]),
        "policy_chosen_logp": np.array([0.0, -3.0, -1e6]),
        "policy_unconditional_chosen_logp": np.array([0.0, -1.0, 0.0]),
    }
    assert SIGNALS["ifd"].of(odd).tolist() == [-1.0, -np.exp(2), -np.exp(50)]


# --- blocks ---------------------------------------------------------------------------------------


def test_lengths_by_hand():
    """Differences 4 and −1, of typical size 2.5; logarithms ln(11/7) and ln(3/4); linear up to 4.5 typical sizes."""
    logs = [math.log(11 / 7), math.log(3 / 4)]
    typical = (logs[0] - logs[1]) / 2
    expected = [
        [math.asinh(4 / 2.5 / 4.5), math.asinh(logs[0] / typical / 4.5)],
        [math.asinh(-1 / 2.5 / 4.5), math.asinh(logs[1] / typical / 4.5)],
    ]
    np.testing.assert_allclose(length_block(COLUMNS), expected, rtol=1e-6)


def test_log_probs_by_hand():
    """Whole and per token: policy, without the prompt, reference, policy − without the prompt, policy − reference."""
    first = [-8, -2 + 2, -25, -4 + 2.5, -13, -2.4 + 11 / 6, 17, 2 - 0.5, 5, 0.4 + 1 / 6]
    second = [-3, -4.5 + 2, 2, -5 + 4, -1, -4 + 7 / 3, -5, 0.5 - 2, -2, -0.5 - 1 / 3]
    found = likelihood_block(COLUMNS)
    assert found.shape == (2, 10)
    for column, (one, two) in enumerate(zip(first, second, strict=True)):
        typical = np.median([abs(value) for value in (one, two) if value])
        np.testing.assert_allclose(
            found[:, column], np.arcsinh(np.array([one, two]) / typical / 4.5), rtol=1e-5, atol=1e-6
        )


def test_log_probs_that_are_not_there_are_left_out():
    without = {name: values for name, values in COLUMNS.items() if not name.startswith("reference")}
    np.testing.assert_array_equal(likelihood_block(without), likelihood_block(COLUMNS)[:, [0, 1, 2, 3, 6, 7]])


def test_given_numbers_by_hand():
    found = given_block([np.array([2.0, np.nan, -6.0, 0.0]), np.array([np.inf, 1.0, -np.inf, -1.0]), np.zeros(4)])
    expected = [
        [math.asinh(0.5 / 4.5), 0, 0],
        [0, math.asinh(1 / 4.5), 0],
        [math.asinh(-1.5 / 4.5), 0, 0],
        [0, math.asinh(-1 / 4.5), 0],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(pairs_of_numbers)
def test_blocks_are_odd_and_finite(columns):
    columns |= {name: np.abs(columns[name]) for name in ("chosen_tokens", "rejected_tokens")}
    for block in (length_block, likelihood_block):
        found = block(columns)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(block(swapped(columns)), -found)
    given_values = [columns["margin"], columns["rating_chosen"]]
    np.testing.assert_array_equal(given_block([-values for values in given_values]), -given_block(given_values))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 0.0])
@pytest.mark.parametrize("column", [name for name in COLUMNS if "logp" in name or "tokens" in name])
def test_odd_numbers_leave_blocks_finite_and_other_pairs_present(column, odd):
    columns = COLUMNS | {column: np.array([odd if "logp" in column else abs(odd), COLUMNS[column][1]])}
    for block in (length_block, likelihood_block):
        found = block(columns)
        assert np.isfinite(found).all()
        assert np.all(found[1] != 0)


def test_the_scale_of_a_given_number_does_not_matter_nor_does_an_outlier():
    values = np.random.default_rng(0).normal(size=201)
    np.testing.assert_allclose(given_block([1e6 * values]), given_block([values]), rtol=1e-5)
    far = given_block([np.append(values[:200], 1e30)])
    assert 60 < far.max() < 80  # a logarithm
    np.testing.assert_allclose(far[:200], given_block([values])[:200], rtol=0.05)
