"""Implicit margins: arithmetic by hand, antisymmetry, and pairs that have none."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.margins import LogProbs, default_kind, implicit_margin

KINDS = ["dpo", "dpo_norm", "simpo"]
every_kind = pytest.mark.parametrize("kind", KINDS)

logp = st.floats(-1e4, 0)
tokens = st.integers(1, 4096)
sides = st.tuples(logp, logp, tokens)  # policy, reference, tokens


def one_pair(chosen, rejected, reference=True):
    """A single pair from (policy, reference, tokens) of either side."""
    columns = [np.array([float(value)]) for both in zip(chosen, rejected, strict=True) for value in both]
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, chosen_tokens, rejected_tokens = columns
    return LogProbs(
        policy_chosen,
        policy_rejected,
        chosen_tokens,
        rejected_tokens,
        *((reference_chosen, reference_rejected) if reference else ()),
    )


@pytest.mark.parametrize(("kind", "margin"), [("dpo", 8.0), ("dpo_norm", 3.0), ("simpo", 2.0)])
def test_the_case_of_the_docstring(kind, margin):
    logps = one_pair((-2, -3, 2), (-6, -3, 3))
    np.testing.assert_array_equal(implicit_margin(logps, kind, beta=2.0), [margin])


def test_pairs_keep_their_places():
    logps = LogProbs(np.array([-2.0, -6.0]), np.array([-6.0, -2.0]), np.array([2.0, 3.0]), np.array([3.0, 2.0]))
    np.testing.assert_array_equal(implicit_margin(logps, "simpo", beta=1.0), [1.0, -1.0])


@every_kind
@given(sides, sides, st.floats(0.01, 100))
def test_swapping_the_sides_negates(kind, chosen, rejected, beta):
    forth = implicit_margin(one_pair(chosen, rejected), kind, beta=beta)
    back = implicit_margin(one_pair(rejected, chosen), kind, beta=beta)
    np.testing.assert_array_equal(forth, -back)


@every_kind
@given(sides, sides, st.floats(0.01, 100))
def test_scales_with_beta(kind, chosen, rejected, beta):
    logps = one_pair(chosen, rejected)
    unit = implicit_margin(logps, kind, beta=1.0)
    np.testing.assert_allclose(implicit_margin(logps, kind, beta=beta), beta * unit, rtol=1e-15)


@given(sides, sides)
def test_the_reference_itself_has_no_dpo_margin(chosen, rejected):
    same = [(side[0], side[0], side[2]) for side in (chosen, rejected)]
    for kind in ("dpo", "dpo_norm"):
        np.testing.assert_array_equal(implicit_margin(one_pair(*same), kind, beta=1.0), [0.0])


@every_kind
def test_margin_is_positive_where_the_model_agrees_with_the_label(kind):
    logps = one_pair((-10, -12, 5), (-20, -12, 5))
    assert implicit_margin(logps, kind, beta=1.0)[0] > 0


@every_kind
@pytest.mark.parametrize("place", ["policy_chosen", "policy_rejected"])
def test_an_unscored_pair_has_no_margin_and_leaves_the_others_alone(kind, place):
    columns = {
        "policy_chosen": np.array([-2.0, -2.0]),
        "policy_rejected": np.array([-6.0, -6.0]),
        "chosen_tokens": np.array([2.0, 2.0]),
        "rejected_tokens": np.array([3.0, 3.0]),
        "reference_chosen": np.array([-3.0, -3.0]),
        "reference_rejected": np.array([-3.0, -3.0]),
    }
    whole = implicit_margin(LogProbs(**columns), kind, beta=2.0)
    columns[place][0] = math.nan
    found = implicit_margin(LogProbs(**columns), kind, beta=2.0)
    assert math.isnan(found[0])
    assert found[1] == whole[1]


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm"])
def test_an_unscored_reference_leaves_no_margin(kind):
    assert math.isnan(implicit_margin(one_pair((-2, math.nan, 2), (-6, -3, 3)), kind, beta=1.0)[0])


@pytest.mark.parametrize("empty", ["chosen", "rejected", "both"])
@pytest.mark.parametrize(("kind", "has_one"), [("dpo", True), ("dpo_norm", False), ("simpo", False)])
def test_a_side_without_tokens_has_no_normalised_margin(kind, has_one, empty):
    """Its log-prob is 0 with both models: log 1."""
    chosen = (0, 0, 0) if empty in ("chosen", "both") else (-2, -3, 2)
    rejected = (0, 0, 0) if empty in ("rejected", "both") else (-6, -3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        margin = implicit_margin(one_pair(chosen, rejected), kind, beta=2.0)[0]
    if has_one:
        assert margin == 2.0 * ((chosen[0] - chosen[1]) - (rejected[0] - rejected[1]))
    else:
        assert math.isnan(margin)


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm"])
def test_says_what_to_do_without_a_reference(kind):
    with pytest.raises(ConfigError, match="--reference"):
        implicit_margin(one_pair((-2, 0, 2), (-6, 0, 3), reference=False), kind, beta=1.0)


def test_simpo_needs_no_reference():
    logps = one_pair((-2, 0, 2), (-6, 0, 3), reference=False)
    assert implicit_margin(logps, "simpo", beta=2.0)[0] == 2.0


@pytest.mark.parametrize("kind", ["", "DPO", "ipo"])
def test_names_the_kinds_there_are(kind):
    with pytest.raises(ConfigError, match="choose one of dpo, dpo_norm, simpo"):
        implicit_margin(one_pair((-2, -3, 2), (-6, -3, 3)), kind, beta=1.0)


def test_half_a_reference_is_none():
    half = LogProbs(*(np.ones(1) for _ in range(4)), reference_chosen=np.ones(1))
    assert not half.has_reference
    with pytest.raises(ConfigError, match="reference"):
        implicit_margin(half, "dpo", beta=1.0)


@pytest.mark.parametrize(("reference", "kind"), [(True, "dpo_norm"), (False, "simpo")])
def test_the_default_is_length_normalised(reference, kind):
    assert default_kind(one_pair((-2, -3, 2), (-6, -3, 3), reference=reference)) == kind
