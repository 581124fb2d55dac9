"""Losses: by hand, against plain Python in float64, against finite differences, and what theory says of them."""

import math
import random
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import ConfigError
from curate.margins import LogProbs, implicit_margin
from training.losses import (
    LOSSES,
    REWARDS,
    BetaSettings,
    BetaState,
    LossSettings,
    PairLogProbs,
    debiased,
    dynamic_beta,
    hinge,
    logistic,
    loss_named,
    reward_margin,
    squared,
)

quick = settings(deadline=None, max_examples=40)
each_loss = pytest.mark.parametrize("name", LOSSES)
each_margin = pytest.mark.parametrize("kind", REWARDS)


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def made_up(pairs, seed=0):
    """Plausible log-probs of a batch, in float64."""
    generator = torch.Generator().manual_seed(seed)
    tokens = [torch.randint(1, 60, (pairs,), generator=generator) for _ in range(2)]
    policy, reference = (
        [-count * (0.5 + torch.rand(pairs, generator=generator, dtype=torch.float64)) for count in tokens]
        for _ in range(2)
    )
    return PairLogProbs(*policy, *tokens, *reference)


HAND = PairLogProbs(doubles(-2), doubles(-6), doubles(2), doubles(3), doubles(-3), doubles(-3))

# --- margins ---


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (LossSettings("dpo", beta=2), 8.0),
        (LossSettings("dpo_norm", beta=2), 3.0),
        (LossSettings("simpo", beta=2), 2.0),
        (LossSettings("logprob", beta=2), 8.0),
        (LossSettings("dpo", beta=2, length_weight=0.5), 7.5),
    ],
)
def test_the_margins_of_the_docstring(chosen, expected):
    assert reward_margin(HAND, chosen).tolist() == [expected]


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm", "simpo"])
def test_margins_are_those_of_curate(kind):
    logps = made_up(50)
    theirs = LogProbs(**{item.name: getattr(logps, f"{item.name}_B").numpy() for item in fields(LogProbs)})
    found = reward_margin(logps, LossSettings(kind, beta=3.0)).numpy()
    assert found == pytest.approx(implicit_margin(theirs, kind, beta=3.0), abs=1e-12)


@each_margin
def test_swapping_the_sides_turns_the_margin_round(kind):
    chosen = LossSettings(kind, length_weight=0.2)
    logps = made_up(20)
    torch.testing.assert_close(reward_margin(logps.swap(), chosen), -reward_margin(logps, chosen), rtol=0, atol=1e-12)


@each_margin
def test_half_precision_is_widened_before_anything_is_computed(kind):
    logps = made_up(20)
    names = [item.name for item in fields(PairLogProbs) if "tokens" not in item.name]
    half = replace(logps, **{name: getattr(logps, name).bfloat16() for name in names})
    single = replace(logps, **{name: getattr(half, name).float() for name in names})
    found = reward_margin(half, LossSettings(kind))
    assert found.dtype == torch.float32
    assert torch.equal(found, reward_margin(single, LossSettings(kind)))


def test_a_stored_reference_in_float64_is_not_narrowed():
    logps = replace(
        HAND, policy_chosen_B=HAND.policy_chosen_B.float(), policy_rejected_B=HAND.policy_rejected_B.float()
    )
    assert reward_margin(logps, LossSettings("dpo")).dtype == torch.float64


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm"])
def test_a_margin_without_its_reference_is_refused(kind):
    with pytest.raises(ConfigError, match=f"margin {kind} needs a reference"):
        reward_margin(replace(HAND, reference_rejected_B=None), LossSettings(kind))


@pytest.mark.parametrize("kind", ["simpo", "logprob"])
def test_margins_of_the_policy_alone_need_no_reference(kind):
    alone = replace(HAND, reference_chosen_B=None, reference_rejected_B=None)
    assert torch.equal(reward_margin(alone, LossSettings(kind)), reward_margin(HAND, LossSettings(kind)))


@pytest.mark.parametrize("kind", ["dpo_norm", "simpo"])
def test_a_side_without_tokens_has_no_mean_and_leaks_nothing(kind):
    policy = doubles(-2.0, 0.0).requires_grad_()
    logps = PairLogProbs(policy, doubles(-6, -6), doubles(2, 0), doubles(3, 3), doubles(-3, 0), doubles(-3, -3))
    margin = reward_margin(logps, LossSettings(kind, beta=2.0))
    assert margin.isnan().tolist() == [False, True]
    LOSSES["dpo_norm"](margin, weight_B=doubles(1, 0)).sum().backward()
    assert policy.grad.isfinite().all()
    assert policy.grad[1] == 0


# --- each loss, by hand and in plain Python ---


def softplus(x):
    """log(1 + e^x) = −log σ(−x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def slow_loss(name, pair, s, target, weight, p_flip):
    """One pair's loss in plain Python, written from the papers' equations."""

    def one(policy_w, policy_l, n_w, n_l, ref_w, ref_l):
        plain = s.beta * ((policy_w - ref_w) - (policy_l - ref_l))
        mean = s.beta * ((policy_w - ref_w) / n_w - (policy_l - ref_l) / n_l)
        alone = s.beta * (policy_w / n_w - policy_l / n_l)
        match name:
            case "dpo" | "beta_dpo":
                return softplus(target - plain)
            case "dpo_norm":
                return softplus(target - mean)
            case "simpo" | "gamma_simpo":
                return softplus(target - alone)
            case "gamma_dpo":
                return softplus(target - s.gamma_beta_ratio * s.beta - mean)
            case "ipo":
                delta = (policy_w - ref_w) / n_w - (policy_l - ref_l) / n_l
                return (delta - 1 / (2 * s.beta) - target / s.beta) ** 2
            case "length_dpo":
                return softplus(target - plain - s.length_weight * n_w + s.length_weight * n_l)
            case "cdpo":
                e = s.label_smoothing
                return (1 - e) * softplus(target - plain) + e * softplus(target + plain)
            case "robust_dpo":
                e = s.label_smoothing
                return ((1 - e) * softplus(target - plain) - e * softplus(target + plain)) / (1 - 2 * e)
            case "hinge":
                return max(0.0, 1 + target - plain)
            case "slic":
                return max(0.0, 1 + target - s.beta * (policy_w - policy_l))
        raise AssertionError(name)

    won, lost, n_won, n_lost, ref_won, ref_lost = pair
    flipped = one(lost, won, n_lost, n_won, ref_lost, ref_won)
    return weight * ((1 - p_flip) * one(*pair) + p_flip * flipped)


def pairs_of(logps):
    return list(zip(*(getattr(logps, item.name).tolist() for item in fields(PairLogProbs)), strict=True))


@each_loss
def test_agrees_with_plain_python(name):
    loss, logps = LOSSES[name], made_up(64)
    extras = [torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)]
    target, weight, p_flip = 6 * extras[0] - 2, 3 * extras[1], extras[2]
    found = loss(reward_margin(logps, loss.defaults), target_margin_B=target, weight_B=weight, p_flip_B=p_flip).tolist()
    numbers = zip(pairs_of(logps), target.tolist(), weight.tolist(), p_flip.tolist(), strict=True)
    expected = [slow_loss(name, pair, loss.defaults, t, w, p) for pair, t, w, p in numbers]
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-11)


@each_loss
def test_float32_agrees_with_float64(name):
    loss, logps = LOSSES[name], made_up(64)
    wide = reward_margin(logps, loss.defaults)
    torch.testing.assert_close(loss(wide.float()).double(), loss(wide), rtol=2e-5, atol=1e-6)
    assert loss(wide.half()).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "margin", "target", "p_flip", "expected"),
    [
        ("dpo", 0.0, 0.0, 0.0, math.log(2)),
        ("dpo", math.log(3), 0.0, 0.0, math.log(4 / 3)),
        ("dpo", math.log(3), 0.0, 1.0, math.log(4)),
        ("dpo", math.log(3), 0.0, 0.25, 0.75 * math.log(4 / 3) + 0.25 * math.log(4)),
        ("dpo", math.log(3) + 2, 2.0, 0.0, math.log(4 / 3)),
        ("gamma_dpo", math.log(3), 4.0, 0.0, math.log(4 / 3)),  # γ_i = γ0 = 0.4·10
        ("gamma_dpo", math.log(3) + 1, 5.0, 0.0, math.log(4 / 3)),
        ("gamma_simpo", math.log(3) + 4, 4.0, 0.0, math.log(4 / 3)),
        ("ipo", 0.2, 0.0, 0.0, 9.0),
        ("ipo", 0.2, 0.1, 0.0, 16.0),
        ("hinge", 0.25, 0.0, 0.0, 0.75),
        ("hinge", 0.25, 1.0, 0.0, 1.75),
        ("hinge", 1.5, 0.0, 0.0, 0.0),
        ("slic", -1.0, 0.0, 0.0, 2.0),
        ("cdpo", math.log(3), 0.0, 0.0, 0.9 * math.log(4 / 3) + 0.1 * math.log(4)),
        ("robust_dpo", math.log(3), 0.0, 0.0, (0.9 * math.log(4 / 3) - 0.1 * math.log(4)) / 0.8),
    ],
)
def test_by_hand(name, margin, target, p_flip, expected):
    found = LOSSES[name](doubles(margin), target_margin_B=doubles(target), p_flip_B=doubles(p_flip))
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "gamma0"), [("dpo", 0.0), ("simpo", 2.5 * 0.55), ("gamma_simpo", 4.0), ("hinge", 0.0)]
)
def test_without_targets_every_pair_gets_gamma0(name, gamma0):
    margin = doubles(-1, 0.5)
    assert torch.equal(LOSSES[name](margin), LOSSES[name](margin, target_margin_B=torch.full_like(margin, gamma0)))


def test_the_length_term_works():
    """Chosen is 10 tokens longer: α = 0.05 adds 0.5 to the margin, so the loss asks less of it."""
    logps = replace(HAND, chosen_tokens_B=doubles(13))
    loss = LOSSES["length_dpo"]
    chosen = replace(loss.defaults, length_weight=0.05)
    margin = reward_margin(logps, chosen)
    assert margin.item() == pytest.approx(0.1 * 4 + 0.5)
    assert loss(margin, chosen) < LOSSES["dpo"](reward_margin(logps, LOSSES["dpo"].defaults))


def test_the_debiased_loss_is_unbiased():
    """The mean over flips at rate ε is the clean loss."""
    chosen = replace(LOSSES["robust_dpo"].defaults, label_smoothing=0.25)
    assert debiased(chosen) == (1.5, -0.5)
    margin = torch.linspace(-4, 4, 9, dtype=torch.float64)
    noisy = 0.75 * LOSSES["robust_dpo"](margin, chosen) + 0.25 * LOSSES["robust_dpo"](-margin, chosen)
    torch.testing.assert_close(noisy, LOSSES["dpo"](margin))


@pytest.mark.parametrize(
    ("link", "z", "value"), [(logistic, -1000.0, 1000.0), (hinge, -1e6, 1e6 + 1), (squared, 1e3, 9.99001e7)]
)
def test_links_are_stable_far_out(link, z, value):
    assert link(torch.tensor([z]), LossSettings(beta=0.1)).item() == pytest.approx(value, rel=1e-6)
    assert logistic(torch.tensor([1000.0]), LossSettings()).item() == 0


# --- gradients ---


def gradients(loss, logps, **extras):
    """Each loss and the gradients of their sum with respect to the policy's log-probs."""
    policy = [value.clone().requires_grad_() for value in (logps.policy_chosen_B, logps.policy_rejected_B)]
    logps = replace(logps, policy_chosen_B=policy[0], policy_rejected_B=policy[1])
    value = loss(reward_margin(logps, loss.defaults), **extras)
    return (value.detach(), *torch.autograd.grad(value.sum(), policy))


@each_loss
def test_gradients_equal_finite_differences(name):
    loss, logps = LOSSES[name], made_up(12, seed=4)
    extras = {
        "target_margin_B": torch.linspace(-1, 2, 12, dtype=torch.float64),
        "weight_B": torch.linspace(0, 2, 12, dtype=torch.float64),
        "p_flip_B": torch.linspace(0, 1, 12, dtype=torch.float64),
    }
    _, chosen, rejected = gradients(loss, logps, **extras)
    step = 1e-5
    for side, found in (("policy_chosen_B", chosen), ("policy_rejected_B", rejected)):
        up, down = (
            loss(reward_margin(replace(logps, **{side: getattr(logps, side) + move}), loss.defaults), **extras)
            for move in (step, -step)
        )
        torch.testing.assert_close(found, (up - down) / (2 * step), rtol=1e-5, atol=1e-7)


@each_loss
def test_no_gradient_reaches_targets_weights_or_soft_labels(name):
    margin = doubles(0.3, -0.2).requires_grad_()
    extras = [doubles(0.5, 0.6).requires_grad_() for _ in range(3)]
    LOSSES[name](margin, target_margin_B=extras[0], weight_B=extras[1], p_flip_B=extras[2]).sum().backward()
    assert margin.grad is not None
    assert [extra.grad for extra in extras] == [None] * 3


ODD = [math.nan, math.inf, -math.inf, 1e308]


@each_loss
@pytest.mark.parametrize("odd", ODD)
def test_weight_zero_leaves_no_trace(name, odd):
    """Not even of a pair whose log-probs, target and soft label are all odd, nor of one that has no tokens."""
    loss, clean = LOSSES[name], made_up(5)
    extras = {name: torch.rand(5, dtype=torch.float64) for name in ("target_margin_B", "weight_B", "p_flip_B")}
    value, *grads = gradients(loss, clean, **extras)
    dirty = PairLogProbs(
        *(
            torch.cat([getattr(clean, item.name), torch.tensor([0 if "tokens" in item.name else odd])])
            for item in fields(PairLogProbs)
        )
    )
    more = {key: torch.cat([extra, doubles(0 if key == "weight_B" else odd)]) for key, extra in extras.items()}
    found, *found_grads = gradients(loss, dirty, **more)
    assert torch.equal(found, torch.cat([value, doubles(0)]))
    for expected, grad in zip(grads, found_grads, strict=True):
        assert torch.equal(grad, torch.cat([expected, doubles(0)]))


def test_what_is_not_a_number_shows_in_its_own_pair_only():
    margin = doubles(0.5, math.nan, -math.inf).requires_grad_()
    value = LOSSES["dpo"](margin)
    value.sum().backward()
    assert value.isfinite().tolist() == [True, False, False]
    assert margin.grad[0].isfinite()


@pytest.mark.parametrize("p_flip", [0.0, 1.0])
def test_a_certain_label_ignores_the_other_side_even_where_its_loss_is_infinite(p_flip):
    sign = 1 - 2 * p_flip
    margin = doubles(sign * math.inf).requires_grad_()
    value = LOSSES["dpo"](margin, p_flip_B=doubles(p_flip))
    value.sum().backward()
    assert value.item() == 0
    assert margin.grad.item() == 0


# --- what theory says ---

some_margins = st.lists(st.floats(-30, 30), min_size=1, max_size=8)


def alike(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@quick
@given(some_margins, st.floats(0.01, 10))
def test_gamma_dpo_is_dpo_where_every_target_is_gamma0(h, ratio):
    chosen = LossSettings("dpo", beta=0.1, gamma_beta_ratio=ratio)
    margin = doubles(*h)
    target = torch.full_like(margin, chosen.gamma0)
    assert torch.equal(LOSSES["gamma_dpo"](margin, chosen, target_margin_B=target), LOSSES["dpo"](margin))
    assert torch.equal(LOSSES["gamma_dpo"](margin, chosen), LOSSES["dpo"](margin))


@quick
@given(some_margins)
def test_gamma_simpo_at_a_constant_is_simpo(h):
    chosen = LOSSES["simpo"].defaults
    assert torch.equal(LOSSES["gamma_simpo"](doubles(*h), chosen), LOSSES["simpo"](doubles(*h), chosen))


@quick
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 1000), st.floats(-3, 3))
def test_a_certain_flip_is_the_flipped_pair(name, seed, target):
    loss, logps = LOSSES[name], made_up(4, seed)
    target_B = torch.full((4,), target, dtype=torch.float64)
    turned = loss(reward_margin(logps.swap(), loss.defaults), target_margin_B=target_B)
    margin = reward_margin(logps, loss.defaults)
    alike(loss(margin, target_margin_B=target_B, p_flip_B=torch.ones_like(margin)), turned)
    at_zero = loss(margin, target_margin_B=target_B, p_flip_B=torch.zeros_like(margin))
    assert torch.equal(at_zero, loss(margin, target_margin_B=target_B))


@quick
@given(st.sampled_from(sorted(LOSSES)), some_margins, st.floats(-3, 3))
def test_an_even_soft_label_is_symmetric(name, h, target):
    margin = doubles(*h)
    extras = {"target_margin_B": torch.full_like(margin, target), "p_flip_B": torch.full_like(margin, 0.5)}
    alike(LOSSES[name](margin, **extras), LOSSES[name](-margin, **extras))


@quick
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 1000))
def test_a_duplicated_pair_equals_weight_two(name, seed):
    loss, logps = LOSSES[name], made_up(3, seed)
    twice = PairLogProbs(*(getattr(logps, item.name)[[0, 1, 1, 2]] for item in fields(PairLogProbs)))
    value, chosen, _ = gradients(loss, logps, weight_B=doubles(1, 2, 1))
    repeated, repeated_chosen, _ = gradients(loss, twice)
    alike(value.sum(), repeated.sum())
    alike(chosen[1], repeated_chosen[1] + repeated_chosen[2])


@quick
@given(st.sampled_from(sorted(set(LOSSES) - {"robust_dpo", "cdpo", "ipo"})), some_margins, st.floats(0, 3))
def test_losses_fall_as_the_margin_rises_and_rise_with_the_target(name, h, more):
    margin = doubles(*h)
    assert (LOSSES[name](margin + more) <= LOSSES[name](margin)).all()
    base = torch.full_like(margin, LOSSES[name].defaults.gamma0)
    assert (LOSSES[name](margin, target_margin_B=base + more) >= LOSSES[name](margin)).all()


@quick
@given(some_margins, st.floats(0, 0.49))
def test_smoothing_is_a_soft_label(h, epsilon):
    margin = doubles(*h)
    chosen = replace(LOSSES["cdpo"].defaults, label_smoothing=epsilon)
    alike(LOSSES["cdpo"](margin, chosen), LOSSES["dpo"](margin, p_flip_B=torch.full_like(margin, epsilon)))


# --- the public door ---


@pytest.mark.parametrize("name", ["target_margin_B", "weight_B", "p_flip_B"])
def test_shapes_must_match(name):
    with pytest.raises(ValueError, match=name.removesuffix("_B")):
        LOSSES["dpo"](doubles(1, 2), **{name: doubles(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": "orpo"}, "'orpo' is unknown"),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"gamma_beta_ratio": -0.1}, "gamma_beta_ratio is -0.1"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"label_smoothing": math.nan}, "label_smoothing is nan"),
        ({"length_weight": math.inf}, "length_weight is inf"),
    ],
)
def test_settings_without_a_meaning_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(LossSettings(), **change)


def test_an_unknown_loss_is_refused():
    assert loss_named("dpo") is LOSSES["dpo"]
    with pytest.raises(ConfigError, match=r"loss 'ppo' is unknown: choose one of dpo, "):
        loss_named("ppo")


@each_loss
def test_each_loss_says_what_it_is_and_is_documented(name):
    loss = LOSSES[name]
    assert "arXiv:" in loss.citation or "https://" in loss.citation
    assert loss.needs_reference == (loss.defaults.margin in ("dpo", "dpo_norm"))
    assert f"`{name}`" in (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


# --- β-DPO ---


def uniform(count, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_beta_dpo_by_hand():
    """The docstring's case: M0 = 1/2, σ = (1 + √2)/2, β_batch/β = 1.3."""
    chosen = BetaSettings(keep=1.0, momentum=0.5)
    step = dynamic_beta(doubles(0, 2), BetaState(0.0, 1.0), uniform(2), chosen)
    assert step.scale == pytest.approx(1.3)
    assert step.selected_N.tolist() == [1, 1]
    assert step.state.mean == pytest.approx(0.5)
    assert step.state.std == pytest.approx((1 + math.sqrt(2)) / 2)


def test_the_first_batch_starts_the_averages():
    step = dynamic_beta(doubles(1, 3), None, uniform(2), BetaSettings(keep=1.0))
    assert step.scale == pytest.approx(1.0)
    assert step.state == BetaState(2.0, pytest.approx(math.sqrt(2)))


def test_selection_prefers_ordinary_gaps_by_their_gaussian_chance():
    """One of two is drawn: gaps 0 and 1 at M0 = 0, σ = 1 have chances 1 : e^−1/2, that is 0.6225 for the first."""
    frozen = BetaSettings(keep=0.5, momentum=1 - 1e-12)
    drawn = [dynamic_beta(doubles(0, 1), BetaState(0.0, 1.0), uniform(2, seed), frozen) for seed in range(2000)]
    assert all(step.selected_N.sum() == 1 for step in drawn)
    share = sum(step.selected_N[0].item() for step in drawn) / 2000
    assert share == pytest.approx(1 / (1 + math.exp(-0.5)), abs=0.03)


def test_an_outlier_is_dropped():
    gaps = torch.cat([torch.linspace(-1, 1, 9, dtype=torch.float64), doubles(1000)])
    step = dynamic_beta(gaps, BetaState(0.0, 1.0), uniform(10), BetaSettings(momentum=0.999))
    assert step.selected_N.sum() == 8
    assert step.selected_N[-1] == 0
    kept = gaps[step.selected_N == 1]
    assert step.scale == pytest.approx(max(1 + 0.6 * (kept.mean().item() - step.state.mean), 0.01))
    assert step.scale < 1  # the outlier is in M0 and not in the mean of the selected


def test_selection_acts_on_loss_and_gradient():
    """β_batch scales the margin, and what is not selected leaves no gradient."""
    gap = doubles(0.5, 1.0, 1.5, 40.0).requires_grad_()
    step = dynamic_beta(gap, BetaState(1.0, 1.0), uniform(4), BetaSettings(keep=0.75, momentum=0.9))
    LOSSES["beta_dpo"](step.scale * 0.1 * gap, weight_B=step.selected_N).sum().backward()
    slope = -step.scale * 0.1 * torch.sigmoid(-step.scale * 0.1 * gap.detach())
    torch.testing.assert_close(gap.grad, slope * step.selected_N)
    assert gap.grad[3] == 0


def test_without_alpha_and_selection_beta_dpo_is_dpo():
    step = dynamic_beta(doubles(-1, 5, 2), BetaState(0.3, 2.0), uniform(3), BetaSettings(alpha=0.0, keep=1.0))
    assert step.scale == 1
    assert step.selected_N.tolist() == [1, 1, 1]


def test_the_scale_stays_positive():
    step = dynamic_beta(doubles(-100, -100), BetaState(0.0, 1.0), uniform(2), BetaSettings(keep=1.0))
    assert step.scale == 0.01


@pytest.mark.parametrize("state", [None, BetaState(1.0, 2.0)])
def test_gaps_that_are_no_numbers_are_neither_counted_nor_selected(state):
    clean = dynamic_beta(doubles(1, 2, 4), state, uniform(3), BetaSettings(keep=0.7))
    gaps, draws = (
        doubles(math.nan, 1, 2, math.inf, 4),
        torch.cat([doubles(0.9), uniform(3)[:2], doubles(0.9), uniform(3)[2:]]),
    )
    found = dynamic_beta(gaps, state, draws, BetaSettings(keep=0.7))
    assert found.selected_N.tolist() == [0, *clean.selected_N[:2].tolist(), 0, clean.selected_N[2].item()]
    assert (found.scale, found.state) == (clean.scale, clean.state)
    nothing = dynamic_beta(doubles(math.nan), state, uniform(1))
    assert (nothing.scale, nothing.selected_N.tolist(), nothing.state) == (1.0, [0], state)


@pytest.mark.parametrize("gaps", [[0.0, 0.0, 0.0], [3.0]])
def test_equal_gaps_and_a_single_pair_do_no_harm(gaps):
    step = dynamic_beta(doubles(*gaps), None, uniform(len(gaps)))
    assert step.scale == 1
    assert step.state == BetaState(gaps[0], 0.0)
    assert step.selected_N.sum() == max(1, round(0.8 * len(gaps)))
    assert dynamic_beta(doubles(*gaps), BetaState(0.0, 2.0), uniform(len(gaps))).selected_N.sum() >= 1


@pytest.mark.parametrize(
    "change", [{"keep": 0.0}, {"keep": 1.1}, {"momentum": 1.0}, {"alpha": math.nan}, {"least_scale": 0}]
)
def test_beta_settings_without_a_meaning_are_refused(change):
    with pytest.raises(ConfigError, match="alpha is finite"):
        BetaSettings(**change)


def test_the_order_of_pairs_does_not_matter():
    gaps, draws = uniform(20, 5) * 8, uniform(20, 6)
    order = list(range(20))
    random.Random(0).shuffle(order)
    step, permuted = (dynamic_beta(g, BetaState(3.0, 2.0), u) for g, u in ((gaps, draws), (gaps[order], draws[order])))
    assert torch.equal(permuted.selected_N, step.selected_N[order])
    assert permuted.scale == pytest.approx(step.scale, rel=1e-12)
