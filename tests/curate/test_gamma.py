"""γ-PO weights: against the release, against slow independent references, and against what theory says of them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from curate.errors import ConfigError
from curate.gamma import gamma_weights, gamma_weights_torch

GOLDEN = Path(__file__).parents[2].parent / "shared" / "golden" / "gamma_official.json"
ENTRIES = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else []
PUBLISHED = [entry for entry in ENTRIES if "beta" in entry]

needs_golden = pytest.mark.skipif(not ENTRIES, reason="golden values are not on this machine (../shared/golden)")
quick = settings(deadline=None, max_examples=60)

wide_margins = st.lists(st.floats(-50, 50), min_size=1, max_size=30)
gamma0s = st.floats(0.01, 10)
taus = st.floats(0.1, 100)


def solve_numpy(h, gamma0, tau):
    return gamma_weights(np.array(h), gamma0=gamma0, tau=tau)


def solve_torch(h, gamma0, tau):
    found = gamma_weights_torch(torch.tensor(h, dtype=torch.float64), gamma0=gamma0, tau=tau)
    return type(found)(found.target_margin.numpy(), found.weight.numpy(), found.residual)


both = pytest.mark.parametrize("solve", [solve_numpy, solve_torch])


def objective(h, w, gamma0, tau):
    """(1/N) Σ −log σ(h − γ0·w) + τ·KL(p ‖ uniform) with p = w/N."""
    h, w = np.asarray(h), np.asarray(w)
    return float(np.logaddexp(0, gamma0 * w - h).mean() + tau * (w * np.log(w)).mean())


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def bisected(increasing, low, high):
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if increasing(middle) < 0 else (low, middle)
    return (low + high) / 2


def slow_weights(h, gamma0, tau):
    """Two nested bisections, one pair at a time, in plain Python."""

    def weights(lam):
        return [
            math.exp(
                bisected(
                    lambda u, one=one: gamma0 * sigmoid(gamma0 * math.exp(u) - one) + tau * u - lam,
                    (lam - gamma0) / tau,
                    lam / tau,
                )
            )
            for one in h
        ]

    return weights(bisected(lambda lam: sum(weights(lam)) / len(h) - 1, 0.0, gamma0))


# --- against the release and against slow references ---


def settings_of(entry):
    gamma0 = entry["gamma0"] if "gamma0" in entry else entry["beta"] * entry["gamma_beta_ratio"]
    return entry["reward_margin"], gamma0, entry["tau"]


def named(entry):
    return f"{entry['setting']}-{len(entry['reward_margin'])}"


@needs_golden
@both
@pytest.mark.parametrize("entry", PUBLISHED, ids=named)
def test_agrees_with_the_released_code_at_the_published_settings(entry, solve):
    found = solve(*settings_of(entry))
    np.testing.assert_allclose(found.target_margin, entry["gamma_official_20_steps"], rtol=0, atol=1e-5)


@needs_golden
@both
@pytest.mark.parametrize("entry", ENTRIES, ids=named)
def test_agrees_with_the_exact_optimum(entry, solve):
    found = solve(*settings_of(entry))
    np.testing.assert_allclose(found.target_margin, entry["gamma_exact"], rtol=0, atol=1e-9)


@needs_golden
@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "objective_official" in entry], ids=named)
def test_reaches_a_better_objective_than_the_release_where_that_does_not_converge(entry):
    h, gamma0, tau = settings_of(entry)
    value = objective(h, solve_numpy(h, gamma0, tau).weight, gamma0, tau)
    assert value == pytest.approx(entry["objective_exact"], abs=1e-12)
    assert value < entry["objective_official"]


@pytest.mark.parametrize(("gamma0", "tau"), [(4.0, 10.0), (1.0, 1.0), (4.0, 1.0), (3.0, 0.3), (10.0, 0.1)])
def test_agrees_with_nested_bisections_in_plain_python(gamma0, tau):
    h = [-7.5, -0.3, 0.0, 0.2, 12.0]
    found = solve_numpy(h, gamma0, tau)
    np.testing.assert_allclose(found.weight, slow_weights(h, gamma0, tau), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("gamma0", "tau"), [(4.0, 10.0), (1.0, 1.0), (3.0, 0.5)])
def test_agrees_with_a_general_minimiser_of_the_primal(gamma0, tau):
    h = np.array([-3.0, -0.5, 0.4, 2.0])
    primal = minimize(
        lambda w: objective(h, w, gamma0, tau),
        np.ones(4),
        method="SLSQP",
        bounds=[(1e-9, 4.0)] * 4,
        constraints={"type": "eq", "fun": lambda w: w.mean() - 1},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(solve_numpy(h, gamma0, tau).weight, primal.x, rtol=0, atol=1e-5)


# --- by hand ---


@both
def test_the_case_of_the_docstring(solve):
    found = solve([1.0, -1.0], 1.0, 1.0)
    np.testing.assert_allclose(found.weight, [1.1601, 0.8399], rtol=0, atol=5e-5)
    left = [sigmoid(w - h) + math.log(w) for w, h in zip(found.weight, [1.0, -1.0], strict=True)]
    assert left == pytest.approx([0.6885, 0.6885], abs=5e-5)


@both
@pytest.mark.parametrize("h", [[0.0, 0.0], [2.5] * 7, [-1e6] * 3, [1e6] * 3, [3.0], [-1e6], [0.0]])
def test_equal_margins_get_equal_weights(solve, h):
    found = solve(h, 4.0, 10.0)
    np.testing.assert_allclose(found.weight, np.ones(len(h)), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.target_margin, np.full(len(h), 4.0), rtol=0, atol=1e-11)
    assert found.residual <= 1e-12


@both
def test_ties_share_their_weight(solve):
    weight = solve([1.0, -2.0, 1.0, -2.0, 1.0], 2.0, 1.0).weight
    assert weight[0] == weight[2] == weight[4] > 1 > weight[1] == weight[3]


@both
def test_huge_margins_saturate(solve):
    """γ0·σ is 0 for h = 1e6 and γ0 for h = −1e6: the ratio of the weights is exp(γ0/τ) exactly."""
    low, high = solve([-1e6, 1e6], 3.0, 2.0).weight
    assert high / low == pytest.approx(math.exp(1.5), rel=1e-12)
    assert low + high == pytest.approx(2.0, abs=1e-12)


# --- what theory says ---


@quick
@given(wide_margins, gamma0s, taus)
def test_mean_positivity_bound_and_residual(h, gamma0, tau):
    found = solve_numpy(h, gamma0, tau)
    assert found.weight.shape == (len(h),)
    assert found.target_margin.mean() == pytest.approx(gamma0, rel=1e-9)
    np.testing.assert_array_equal(found.target_margin, gamma0 * found.weight)
    assert found.weight.min() > 0
    assert math.log(found.weight.max() / found.weight.min()) <= gamma0 / tau + 1e-9
    assert found.residual <= 1e-9


@quick
@given(wide_margins, gamma0s, taus)
def test_the_residual_is_that_of_the_optimality_conditions(h, gamma0, tau):
    found = solve_numpy(h, gamma0, tau)
    left = [gamma0 * sigmoid(gamma0 * w - one) + tau * math.log(w) for w, one in zip(found.weight, h, strict=True)]
    assert max(left) - min(left) <= found.residual + 1e-11
    assert abs(found.weight.mean() - 1) <= found.residual + 1e-12


@quick
@given(wide_margins, gamma0s, taus)
def test_weights_never_fall_as_the_margin_rises(h, gamma0, tau):
    weight = solve_numpy(sorted(h), gamma0, tau).weight
    assert np.all(np.diff(weight) >= -1e-10)


@quick
@given(st.sets(st.integers(-30, 30), min_size=2, max_size=30), st.floats(0.1, 2), st.floats(1, 10))
def test_weights_rise_strictly_where_floats_can_tell(tenths, gamma0, tau):
    found = solve_numpy(np.array(sorted(tenths)) / 10, gamma0, tau)
    assert np.all(np.diff(found.weight) > 0)
    assert np.all(np.diff(found.target_margin) > 0)


@quick
@given(wide_margins, gamma0s, taus, st.randoms(use_true_random=False))
def test_permuting_pairs_permutes_weights(h, gamma0, tau, random):
    order = list(range(len(h)))
    random.shuffle(order)
    permuted = solve_numpy([h[i] for i in order], gamma0, tau).weight
    np.testing.assert_allclose(permuted, solve_numpy(h, gamma0, tau).weight[order], rtol=0, atol=1e-8)


@quick
@given(wide_margins, gamma0s, taus, st.integers(2, 4))
def test_duplicating_every_pair_changes_nothing(h, gamma0, tau, copies):
    repeated = solve_numpy(h * copies, gamma0, tau).weight
    np.testing.assert_allclose(repeated, np.tile(solve_numpy(h, gamma0, tau).weight, copies), rtol=0, atol=1e-8)


@quick
@given(wide_margins, gamma0s)
def test_a_strong_pull_makes_all_weights_one(h, gamma0):
    weight = solve_numpy(h, gamma0, 1e9).weight
    np.testing.assert_allclose(weight, np.ones(len(h)), rtol=0, atol=2 * gamma0 / 1e9)


@quick
@given(wide_margins, gamma0s, taus, st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.1, 2.0]))
def test_no_other_weights_have_a_lower_objective(h, gamma0, tau, seed, size):
    found = solve_numpy(h, gamma0, tau).weight
    other = found * np.exp(size * np.random.default_rng(seed).normal(size=len(h)))
    best = objective(h, found, gamma0, tau)
    slack = 1e-10 * max(1.0, abs(best))
    assert best <= objective(h, np.ones(len(h)), gamma0, tau) + slack
    assert best <= objective(h, other / other.mean(), gamma0, tau) + slack


@quick
@given(wide_margins, gamma0s, taus)
def test_the_twins_agree(h, gamma0, tau):
    np.testing.assert_allclose(
        solve_torch(h, gamma0, tau).weight, solve_numpy(h, gamma0, tau).weight, rtol=0, atol=1e-12
    )


# --- large and extreme ---


@pytest.mark.parametrize(("gamma0", "tau"), [(4.0, 10.0), (3.0, 0.3)])
def test_a_million_pairs(gamma0, tau):
    h = np.random.default_rng(0).normal(0.5, 4.0, 1_000_000)
    found = gamma_weights(h, gamma0=gamma0, tau=tau)
    assert found.residual <= 1e-9
    assert found.weight.mean() == pytest.approx(1.0, abs=1e-9)
    order = np.argsort(h)
    assert np.all(np.diff(found.weight[order]) >= -1e-10)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0, 1e6])
@pytest.mark.parametrize(("gamma0", "tau"), [(1e-3, 1e3), (10.0, 0.1), (100.0, 1.0), (1.0, 0.01)])
def test_extreme_settings_up_to_a_ratio_of_a_hundred(scale, gamma0, tau):
    h = scale * np.random.default_rng(1).normal(size=200)
    found = gamma_weights(h, gamma0=gamma0, tau=tau)
    assert found.residual <= 1e-9
    assert found.weight.min() > 0


@both
def test_beyond_a_ratio_of_a_thousand_it_still_solves_and_keeps_quiet(solve):
    """The pairs at −1e6 get e^−1000 = 0 times the others' weight, so half of the pairs share everything."""
    found = solve([-1e6, 1e6] * 10, 1000.0, 1.0)
    np.testing.assert_allclose(found.weight, [0.0, 2.0] * 10, rtol=0, atol=1e-9)


# --- the public door ---


@pytest.mark.parametrize("solve", [gamma_weights, lambda h, **kw: gamma_weights_torch(torch.as_tensor(h), **kw)])
@pytest.mark.parametrize(
    ("h", "message"),
    [
        (np.zeros(0), "0 values"),
        (np.zeros((2, 2)), "2 dimensions"),
        (np.array(1.0), "0 dimensions"),
        (np.array([0.0, math.nan, math.inf]), "2 of 3 margins are not finite"),
        (np.array([-math.inf]), "1 of 1 margins are not finite"),
    ],
)
def test_refuses_margins_without_a_meaning(solve, h, message):
    with pytest.raises(ValueError, match=message):
        solve(h, gamma0=1.0, tau=1.0)


@pytest.mark.parametrize("solve", [gamma_weights, lambda h, **kw: gamma_weights_torch(torch.as_tensor(h), **kw)])
@pytest.mark.parametrize("name", ["gamma0", "tau"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_refuses_settings_without_a_meaning(solve, name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        solve(np.zeros(2), **{"gamma0": 1.0, "tau": 1.0, name: value})


def test_takes_integers_and_narrow_floats():
    expected = gamma_weights(np.array([1.0, -1.0, 3.0]), gamma0=2.0, tau=1.0)
    for dtype in (np.int64, np.float16, np.float32):
        found = gamma_weights(np.array([1, -1, 3], dtype=dtype), gamma0=2.0, tau=1.0)
        assert found.weight.dtype == np.float64
        np.testing.assert_array_equal(found.weight, expected.weight)


def test_the_torch_twin_takes_float32_and_carries_no_gradient():
    margin = torch.tensor([1.0, -1.0, 3.0], dtype=torch.float32, requires_grad=True)
    found = gamma_weights_torch(margin, gamma0=2.0, tau=1.0)
    assert found.weight.dtype == found.target_margin.dtype == torch.float64
    assert not found.weight.requires_grad
    assert not found.target_margin.requires_grad
    expected = gamma_weights(np.array([1.0, -1.0, 3.0]), gamma0=2.0, tau=1.0)
    np.testing.assert_allclose(found.weight.numpy(), expected.weight, rtol=0, atol=1e-12)
    assert isinstance(found.residual, float)


def test_the_input_is_left_alone():
    h = np.array([1.0, -1.0, 3.0])
    tensor = torch.tensor(h)
    gamma_weights(h, gamma0=2.0, tau=1.0)
    gamma_weights_torch(tensor, gamma0=2.0, tau=1.0)
    assert h.tolist() == tensor.tolist() == [1.0, -1.0, 3.0]


# --- margins that stand for several pairs ---


@quick
@given(h=st.lists(st.tuples(st.floats(-50, 50), st.integers(1, 5)), min_size=1, max_size=20), gamma0=gamma0s, tau=taus)
def test_counts_equal_copies(h, gamma0, tau):
    margin_N, count_N = (np.array(column, dtype=float) for column in zip(*h, strict=True))
    copied = gamma_weights(np.repeat(margin_N, count_N.astype(int)), gamma0=gamma0, tau=tau)
    counted = gamma_weights(margin_N, gamma0=gamma0, tau=tau, count_N=count_N)
    assert counted.residual < 1e-9
    assert np.repeat(counted.weight, count_N.astype(int)) == pytest.approx(copied.weight, rel=1e-8)
    assert count_N @ counted.weight == pytest.approx(count_N.sum())


@pytest.mark.parametrize("count_N", [[1.0], [1.0, 0.0], [1.0, -2.0], [1.0, math.nan], [[1.0, 1.0]]])
def test_counts_must_fit(count_N):
    with pytest.raises(ValueError, match="counts"):
        gamma_weights(np.array([0.0, 1.0]), gamma0=1.0, tau=1.0, count_N=np.array(count_N))
