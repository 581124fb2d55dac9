"""Preference losses: per-pair log-probs → implicit reward margins → one loss per pair. Pure functions of tensors.

A loss is put together from three small parts, and `LOSSES` names the combinations:

    reward   r(y) of one side; the margin is h = r(chosen) − r(rejected)        `REWARDS`
    link     ℓ(z), small where z = h − γ is large                               `logistic`, `hinge`, `squared`
    mix      (a, b): shares of the pair as labelled and of the flipped pair     `as_labelled`, `smoothed`, `debiased`

    loss_i = w_i·[a_i·ℓ(h_i − γ_i) + b_i·ℓ(−h_i − γ_i)]

with target margin γ_i and weight w_i. A soft label p_i (`p_flip`: how probable it is that the label is the wrong way
round) mixes the pair with its flipped self once more: (1 − p)·loss(pair) + p·loss(flipped pair), which is the same
expression with (1 − p)·a + p·b and (1 − p)·b + p·a. γ, w and p are data: no gradient flows into them.

Nothing is reduced here. Dimension key: B pairs of a batch, N pairs of the batches of all processes.

By hand: log π = (−2, −6) of 2 and 3 tokens, log π_ref = (−3, −3), β = 2:
h = 8 (`dpo`), 3 (`dpo_norm`), 2 (`simpo`), −2 − (−6) = 4, twice that = 8 (`logprob`), and with a length weight of 0.5
8 + 0.5·(2 − 3) = 7.5 (R-DPO). At h = 0 every logistic loss without a target is log 2 = 0.6931; at h = log 3 it is
log 4/3 = 0.2877, of the flipped pair log 4 = 1.3863, and with p = 1/4 it is 0.75·0.2877 + 0.25·1.3863 = 0.5623.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from curate.errors import ConfigError

# --- per-pair log-probs and reward margins ---


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probs of a batch: sums over the scored completion tokens (nats), and their counts; each of shape (B,).

    The reference's may be missing, and of another dtype (they are stored). Half precision is widened to float32 before
    anything is computed, but sums that were rounded to it stay rounded: sum in float32 or better.
    """

    policy_chosen_B: Tensor
    policy_rejected_B: Tensor
    chosen_tokens_B: Tensor
    rejected_tokens_B: Tensor
    reference_chosen_B: Tensor | None = None
    reference_rejected_B: Tensor | None = None

    def swap(self) -> PairLogProbs:
        """The same pairs with chosen and rejected exchanged; every margin changes its sign."""
        return PairLogProbs(
            policy_chosen_B=self.policy_rejected_B,
            policy_rejected_B=self.policy_chosen_B,
            chosen_tokens_B=self.rejected_tokens_B,
            rejected_tokens_B=self.chosen_tokens_B,
            reference_chosen_B=self.reference_rejected_B,
            reference_rejected_B=self.reference_chosen_B,
        )


class _Side(NamedTuple):
    policy_B: Tensor
    reference_B: Tensor
    tokens_B: Tensor


def _ratio(side: _Side) -> Tensor:
    return side.policy_B - side.reference_B


def _ratio_per_token(side: _Side) -> Tensor:
    return _per_token(side.policy_B - side.reference_B, side.tokens_B)


def _log_prob_per_token(side: _Side) -> Tensor:
    return _per_token(side.policy_B, side.tokens_B)


def _log_prob(side: _Side) -> Tensor:
    return side.policy_B


def _per_token(sum_B: Tensor, tokens_B: Tensor) -> Tensor:
    """NaN for a side without tokens, which has no mean; its gradient is 0 where the loss's is."""
    return torch.where(tokens_B > 0, sum_B / tokens_B.clamp(min=1), math.nan)


@dataclass(frozen=True)
class Reward:
    """r(y)/β of one side, and whether it needs a reference model."""

    unscaled: Callable[[_Side], Tensor]
    needs_reference: bool


#: The first three are the kinds of `curate.margins`; `logprob` is SLiC's.
REWARDS: dict[str, Reward] = {
    "dpo": Reward(_ratio, needs_reference=True),
    "dpo_norm": Reward(_ratio_per_token, needs_reference=True),
    "simpo": Reward(_log_prob_per_token, needs_reference=False),
    "logprob": Reward(_log_prob, needs_reference=False),
}


@dataclass(frozen=True)
class LossSettings:
    """The numbers of a loss. Each entry of `LOSSES` brings its own defaults; change them with `dataclasses.replace`.

    margin: which reward, a key of `REWARDS`.
    beta: β > 0, the reward's scale.
    gamma_beta_ratio: γ0/β ≥ 0, so that γ0 = ratio·β is the target margin of a pair that brings none.
    label_smoothing: ε in [0, 1/2), the share of labels taken to be flipped, of cDPO and rDPO.
    length_weight: α of R-DPO, added to the reward for each token of the completion (1/token).

    Raises:
        ConfigError: a value outside these.
    """

    margin: str = "dpo"
    beta: float = 0.1
    gamma_beta_ratio: float = 0.0
    label_smoothing: float = 0.0
    length_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.margin not in REWARDS:
            raise ConfigError(f"margin {self.margin!r} is unknown: choose one of {', '.join(REWARDS)}")
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ConfigError(f"beta is {self.beta}: it must be positive and finite")
        if not (math.isfinite(self.gamma_beta_ratio) and self.gamma_beta_ratio >= 0):
            raise ConfigError(f"gamma_beta_ratio is {self.gamma_beta_ratio}: it must be finite, 0 or more")
        if not 0 <= self.label_smoothing < 0.5:
            raise ConfigError(f"label_smoothing is {self.label_smoothing}: it must be at least 0 and below 1/2")
        if not math.isfinite(self.length_weight):
            raise ConfigError(f"length_weight is {self.length_weight}: it must be finite")

    @property
    def gamma0(self) -> float:
        """γ0 = ratio·β, in the margin's unit."""
        return self.gamma_beta_ratio * self.beta

    @property
    def needs_reference(self) -> bool:
        """Whether the reward compares the policy with a reference model."""
        return REWARDS[self.margin].needs_reference


def reward_margin(logps: PairLogProbs, settings: LossSettings) -> Tensor:
    """Implicit reward margins h = r(chosen) − r(rejected), shape (B,), float32 or wider; NaN where there are no tokens.

        dpo        r = β·(log π(y|x) − log π_ref(y|x))                      arXiv:2305.18290, eq. 5
        dpo_norm   r = (β/|y|)·(log π(y|x) − log π_ref(y|x))                arXiv:2411.15124
        simpo      r = (β/|y|)·log π(y|x)                                   arXiv:2405.14734
        logprob    r = β·log π(y|x)                                         arXiv:2305.10425

    and + α·|y| with a length weight α (R-DPO, arXiv:2403.19159): the policy that maximises reward − α·|y| under the KL
    constraint has that implicit reward, so a longer chosen side explains a part of the preference.

    Raises:
        ConfigError: the reward needs a reference and there is none.
    """
    if settings.needs_reference and (logps.reference_chosen_B is None or logps.reference_rejected_B is None):
        raise ConfigError(f"margin {settings.margin} needs a reference model: score with --reference, or train SimPO")
    chosen = _reward(logps.policy_chosen_B, logps.reference_chosen_B, logps.chosen_tokens_B, settings)
    return chosen - _reward(logps.policy_rejected_B, logps.reference_rejected_B, logps.rejected_tokens_B, settings)


def _reward(policy_B: Tensor, reference_B: Tensor | None, tokens_B: Tensor, settings: LossSettings) -> Tensor:
    policy_B = _wide(policy_B)
    side = _Side(policy_B, torch.zeros_like(policy_B) if reference_B is None else _wide(reference_B), tokens_B)
    reward_B = settings.beta * REWARDS[settings.margin].unscaled(side)
    return reward_B + settings.length_weight * tokens_B.to(reward_B) if settings.length_weight else reward_B


def _wide(value_B: Tensor) -> Tensor:
    return value_B if value_B.dtype in (torch.float32, torch.float64) else value_B.to(torch.float32)


# --- links ---


def logistic(z_B: Tensor, settings: LossSettings) -> Tensor:
    """−log σ(z), the Bradley–Terry likelihood (arXiv:2305.18290, eq. 7). By hand: ℓ(0) = log 2, ℓ(−1000) = 1000."""
    return -functional.logsigmoid(z_B)


def hinge(z_B: Tensor, settings: LossSettings) -> Tensor:
    """max(0, 1 − z) (SLiC-HF, arXiv:2305.10425; on DPO's margin RSO, arXiv:2309.06657). By hand: ℓ(0.25) = 0.75."""
    return functional.relu(1 - z_B)


def squared(z_B: Tensor, settings: LossSettings) -> Tensor:
    """((z − 1/2)/β)² (IPO, arXiv:2310.12036, eq. 17: with z = β·Δ it is (Δ − 1/(2β))²).

    By hand: β = 0.1 and Δ = 2, so z = 0.2: ((0.2 − 0.5)/0.1)² = 9 = (2 − 5)².
    """
    return torch.square((z_B - 0.5) / settings.beta)


# --- mixes ---


def as_labelled(settings: LossSettings) -> tuple[float, float]:
    """(1, 0): the label is taken as it is."""
    return 1.0, 0.0


def smoothed(settings: LossSettings) -> tuple[float, float]:
    """(1 − ε, ε): conservative DPO (E. Mitchell, "A note on DPO with noisy preferences", 2023)."""
    return 1.0 - settings.label_smoothing, settings.label_smoothing


def debiased(settings: LossSettings) -> tuple[float, float]:
    """((1 − ε), −ε)/(1 − 2ε): unbiased under flips at rate ε (rDPO, arXiv:2403.00409).

    By hand: ε = 0.25 gives (1.5, −0.5); flipping a quarter of the labels averages back to
    0.75·(1.5, −0.5) + 0.25·(−0.5, 1.5) = (1, 0).
    """
    epsilon = settings.label_smoothing
    return (1 - epsilon) / (1 - 2 * epsilon), -epsilon / (1 - 2 * epsilon)


# --- losses ---


@dataclass(frozen=True)
class Loss:
    """A preference loss, called with margins.

    defaults: its recommended settings, published ones where there are any.
    targets: where its target margins usually come from, a key of `training.margins.TARGETS`.
    centred: γ_i − γ0 takes the place of γ_i, so that pairs at the mean target margin see the untargeted loss.
    equation, citation: for people.
    """

    defaults: LossSettings
    equation: str
    citation: str
    link: Callable[[Tensor, LossSettings], Tensor] = logistic
    mix: Callable[[LossSettings], tuple[float, float]] = as_labelled
    targets: str = "constant"
    centred: bool = False

    @property
    def needs_reference(self) -> bool:
        """Whether its default margin needs a reference model."""
        return self.defaults.needs_reference

    def __call__(
        self,
        margin_B: Tensor,
        settings: LossSettings | None = None,
        *,
        target_margin_B: Tensor | None = None,
        weight_B: Tensor | None = None,
        p_flip_B: Tensor | None = None,
    ) -> Tensor:
        """w·[(1 − p)·loss(h) + p·loss(−h)] of every pair, shape (B,), in the margins' dtype (float32 or wider).

        A pair of weight 0 has loss 0 and gradient 0, whatever its margin, target and p_flip are, NaN and ±inf included.
        Anything else that is not a number shows in its own pair's loss; values are not checked here.

        Args:
            margin_B: h from `reward_margin`, shape (B,).
            settings: of this loss; None takes `defaults`.
            target_margin_B: γ_i, in the margin's unit, shape (B,); None is γ0 for every pair.
            weight_B: w_i ≥ 0, shape (B,); None is 1.
            p_flip_B: p_i in [0, 1], shape (B,); None is 0.

        Raises:
            ValueError: shapes differ.
        """
        settings = settings or self.defaults
        margin_B = _wide(margin_B)
        weight_B = _aligned("weight", weight_B, margin_B)
        live_B = None if weight_B is None else weight_B != 0
        h_B = _where(live_B, margin_B)
        gamma_B = self._target(_aligned("target_margin", target_margin_B, margin_B), live_B, settings)
        p_flip_B = _aligned("p_flip", p_flip_B, margin_B)
        label, flip = _mixed(self.mix(settings), p_flip_B if p_flip_B is None else _where(live_B, p_flip_B))
        loss_B = self._share(label, h_B - gamma_B, settings) + self._share(flip, -h_B - gamma_B, settings)
        return loss_B if weight_B is None else weight_B * loss_B

    def _target(self, target_B: Tensor | None, live_B: Tensor | None, settings: LossSettings) -> Tensor | float:
        centre = settings.gamma0 if self.centred else 0.0
        return settings.gamma0 - centre if target_B is None else _where(live_B, target_B) - centre

    def _share(self, share: Tensor | float, z_B: Tensor, settings: LossSettings) -> Tensor:
        """share·ℓ(z), exactly 0 where the share is 0, even where ℓ is infinite."""
        if isinstance(share, Tensor):
            return share * self.link(_where(share != 0, z_B), settings)
        return share * self.link(z_B, settings) if share else torch.zeros_like(z_B)


def _aligned(name: str, value_B: Tensor | None, margin_B: Tensor) -> Tensor | None:
    if value_B is None:
        return None
    if value_B.shape != margin_B.shape:
        raise ValueError(f"{name} has shape {tuple(value_B.shape)}, the margins {tuple(margin_B.shape)}")
    return value_B.detach().to(margin_B)


def _where(keep_B: Tensor | None, value_B: Tensor) -> Tensor:
    """`value_B`, and a constant 0 where it is not kept, so that nothing flows back from there."""
    return value_B if keep_B is None else torch.where(keep_B, value_B, 0.0)


def _mixed(mix: tuple[float, float], p_B: Tensor | None) -> tuple[Tensor | float, Tensor | float]:
    label, flip = mix
    if p_B is None:
        return label, flip
    return (1 - p_B) * label + p_B * flip, (1 - p_B) * flip + p_B * label


_DPO = LossSettings("dpo", beta=0.1)
_NORM = LossSettings("dpo_norm", beta=5.0)

#: name → loss. Two papers share a name but for a capital: R-DPO is `length_dpo` here, rDPO is `robust_dpo`.
LOSSES: dict[str, Loss] = {
    "dpo": Loss(_DPO, "−log σ(h − γ)", "DPO, arXiv:2305.18290"),
    "dpo_norm": Loss(_NORM, "−log σ(h − γ), log-probs per token", "length-normalised DPO, arXiv:2411.15124"),
    "simpo": Loss(
        LossSettings("simpo", beta=2.5, gamma_beta_ratio=0.55), "−log σ(h − γ), γ = γ0", "SimPO, arXiv:2405.14734"
    ),
    "gamma_dpo": Loss(
        LossSettings("dpo_norm", beta=10.0, gamma_beta_ratio=0.4),
        "−log σ(h − (γ_i − γ0))",
        "γ-PO, arXiv:2506.03690",
        targets="online",
        centred=True,
    ),
    "gamma_simpo": Loss(
        LossSettings("simpo", beta=10.0, gamma_beta_ratio=0.4),
        "−log σ(h − γ_i)",
        "γ-PO, arXiv:2506.03690",
        targets="online",
    ),
    "ipo": Loss(
        replace(_NORM, beta=0.1),
        "((h − γ − 1/2)/β)², log-probs per token",
        "IPO, arXiv:2310.12036",
        link=squared,
    ),
    "length_dpo": Loss(
        replace(_DPO, length_weight=0.01), "−log σ(h + α·(|y_w| − |y_l|) − γ)", "R-DPO, arXiv:2403.19159"
    ),
    "cdpo": Loss(
        replace(_DPO, label_smoothing=0.1),
        "(1 − ε)·ℓ(h) + ε·ℓ(−h), ℓ = −log σ(· − γ)",
        "conservative DPO, https://ericmitchell.ai/cdpo.pdf",
        mix=smoothed,
    ),
    "robust_dpo": Loss(
        replace(_DPO, label_smoothing=0.1),
        "[(1 − ε)·ℓ(h) − ε·ℓ(−h)]/(1 − 2ε), ℓ = −log σ(· − γ)",
        "rDPO, arXiv:2403.00409",
        mix=debiased,
    ),
    "beta_dpo": Loss(
        _DPO,
        "−log σ((β_batch/β)·h − γ) of the selected pairs",
        "β-DPO, arXiv:2407.08639",
        targets="dynamic_beta",
    ),
    "hinge": Loss(_DPO, "max(0, 1 − (h − γ))", "RSO, arXiv:2309.06657", link=hinge),
    "slic": Loss(
        LossSettings("logprob", beta=1.0),
        "max(0, 1 − (h − γ)), h without a reference",
        "SLiC-HF (its calibration loss), arXiv:2305.10425",
        link=hinge,
    ),
}


def loss_named(name: str) -> Loss:
    """The loss of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in LOSSES:
        raise ConfigError(f"loss {name!r} is unknown: choose one of {', '.join(LOSSES)}")
    return LOSSES[name]


# --- β-DPO's dynamic β ---


@dataclass(frozen=True)
class BetaState:
    """Moving averages over the batches so far: M0 and σ of the gaps (nats)."""

    mean: float
    std: float


@dataclass(frozen=True)
class BetaSettings:
    """β-DPO's numbers: α, the share ρ of pairs that is kept, the averages' momentum m, the smallest β_batch/β.

    α = 0.6 and m = 0.9 belong to gaps in nats; the authors bound β_batch at 0.001 for β = 0.1, hence 0.01.
    """

    alpha: float = 0.6
    keep: float = 0.8
    momentum: float = 0.9
    least_scale: float = 0.01

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and 0 < self.keep <= 1 and 0 <= self.momentum < 1 and self.least_scale > 0):
            raise ConfigError(f"{self}: alpha is finite, keep in (0, 1], momentum in [0, 1), least_scale positive")


class BetaStep(NamedTuple):
    """What β-DPO makes of a batch: β_batch/β, 1 for a selected pair and 0 for another (shape (N,)), the next state."""

    scale: float
    selected_N: Tensor
    state: BetaState | None


def dynamic_beta(
    gap_N: Tensor, state: BetaState | None, uniform_N: Tensor, settings: BetaSettings | None = None
) -> BetaStep:
    """β-DPO's batch-level β and selection of pairs (arXiv:2407.08639, algorithm 1), without gradient.

        M_i      = [log π/π_ref](y_w) − [log π/π_ref](y_l) = h_i/β
        M0, σ    ← m·(M0, σ) + (1 − m)·(mean, standard deviation of the batch's M)
        select   round(ρ·N) pairs without replacement, with chances ∝ exp(−(M_i − M0)²/(2σ²))
        β_batch  = [1 + α·(mean of the selected M − M0)]·β

    The averages start at the first batch's values (not at 0), and include a batch before it is judged. Where σ = 0
    all pairs have the same chance. Pairs whose gap is not finite are neither counted nor selected.

    By hand: gaps (0, 2) after M0 = 0, σ = 1, with m = 1/2: M0 = 1/2, σ = (1 + √2)/2; both are kept at ρ = 1, so
    β_batch/β = 1 + 0.6·(1 − 0.5) = 1.3.

    Args:
        gap_N: M in nats, shape (N,), of the batches of all processes.
        state: the averages before this batch; None before the first.
        uniform_N: random numbers in [0, 1), shape (N,), that decide the selection (Gumbel's trick).
    """
    settings = settings or BetaSettings()
    gap_N = gap_N.detach().to(torch.float64)
    member_N = torch.isfinite(gap_N)
    gap_M = gap_N[member_N]
    selected_N = torch.zeros_like(gap_N)
    if gap_M.numel() == 0:
        return BetaStep(1.0, selected_N, state)
    after = _averaged(gap_M, state, settings.momentum)
    count = max(1, round(settings.keep * gap_M.numel()))
    chosen_K = _selected(gap_M, after, uniform_N[member_N].to(gap_M), count)
    selected_N[member_N.nonzero()[:, 0][chosen_K]] = 1.0
    surplus = float(gap_M[chosen_K].mean()) - after.mean
    return BetaStep(max(1 + settings.alpha * surplus, settings.least_scale), selected_N, after)


def _averaged(gap_M: Tensor, state: BetaState | None, momentum: float) -> BetaState:
    mean = float(gap_M.mean())
    std = float(gap_M.std()) if gap_M.numel() > 1 else math.nan
    if state is None:
        return BetaState(mean, 0.0 if math.isnan(std) else std)
    moved = state.std if math.isnan(std) else momentum * state.std + (1 - momentum) * std
    return BetaState(momentum * state.mean + (1 - momentum) * mean, moved)


def _selected(gap_M: Tensor, state: BetaState, uniform_M: Tensor, count: int) -> Tensor:
    """Indices of `count` pairs: the largest of log-chance + Gumbel noise are a weighted draw without replacement."""
    log_chance_M = -0.5 * torch.square((gap_M - state.mean) / state.std) if state.std > 0 else torch.zeros_like(gap_M)
    tiny = torch.finfo(torch.float64).tiny
    gumbel_M = -torch.log(-torch.log(uniform_M.clamp(min=tiny)))
    return torch.topk(log_chance_M + gumbel_M, count).indices
