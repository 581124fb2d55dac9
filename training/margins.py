"""Target margins for a trainer: objects `(margin_B, batch) → Targets`, whose state is checkpointed.

`TARGETS` names them: `constant`, `column` (the exact optimum over the whole dataset, from the file), `online` (γ-PO as
it was published: a few mirror-descent steps on the batch), `online_exact` (the exact optimum on the same pairs), and
`dynamic_beta` (β-DPO, which selects pairs and scales margins instead of giving targets).

What depends on the batch depends on the batches of *all* processes: margins are gathered, every process computes the
same thing from the same state and keeps the rows of its own pairs. With gradient accumulation a batch is one
micro-batch of every process. An evaluation (`training=False`) neither reads random numbers nor leaves a trace.

Pairs of weight 0 and pairs whose margin is not finite belong to no population: they change nobody's target margin, and
theirs is γ0.

Dimension key: B pairs of this process's batch, N of all processes' batches, M of the population, H of the history.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, distributed

from curate.errors import ConfigError, RunError
from curate.gamma import gamma_weights_torch
from training.losses import BetaSettings, BetaState, LossSettings, dynamic_beta

HISTORY = 2048  # margins that the published γ-PO remembers
CONTEXT = 256  # pairs that it solves for at most, those of the batch included
SEED_DRAWS = 8  # standard-normal draws that its history starts with
ITERATES = 20  # of its mirror descent; uniform weights are the first


class Targets(NamedTuple):
    """What a loss is called with.

    target_margin_B: γ_i, shape (B,), in the margin's unit, dtype and device, without gradient.
    weight_B: to be multiplied with the pairs' own weights, shape (B,); None is 1.
    scale: to be multiplied with the margins before the loss; β_batch/β of β-DPO, else 1.
    """

    target_margin_B: Tensor
    weight_B: Tensor | None = None
    scale: float = 1.0


class TargetMargins(Protocol):
    """The source of a trainer's target margins. Its state fits into a checkpoint, and `{}` is no state.

    Called with the margins h of this process's pairs, shape (B,), and their columns, each of shape (B,); `weight` is
    read from these where it is there. Every process makes the same calls, with any B.
    """

    def __call__(self, margin_B: Tensor, batch: Mapping[str, Tensor], *, training: bool = True) -> Targets:
        """γ_i of this process's pairs; `training=False` leaves the state alone."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs to go on as if it had not been interrupted; the same on every process."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises RunError if it is another kind's state."""
        ...


# --- without state ---


class _Stateless:
    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises RunError unless it is empty."""
        _require_keys(state, set())


class ConstantMargin(_Stateless):
    """The same target margin for every pair: SimPO's γ; 0 for DPO."""

    def __init__(self, target_margin: float) -> None:
        self.target_margin = target_margin

    def __call__(self, margin_B: Tensor, batch: Mapping[str, Tensor], *, training: bool = True) -> Targets:
        """γ for every pair."""
        return Targets(torch.full_like(margin_B.detach(), self.target_margin))


class ColumnMargin(_Stateless):
    """Target margins that come with the pairs, such as the exact γ over the whole dataset.

    missing: for a pair whose value is NaN (ties have none).
    """

    def __init__(self, missing: float, column: str = "target_margin") -> None:
        self.missing, self.column = missing, column

    def __call__(self, margin_B: Tensor, batch: Mapping[str, Tensor], *, training: bool = True) -> Targets:
        """The column's values. Raises ConfigError if the batch has no such column."""
        if self.column not in batch:
            raise ConfigError(f"the pairs have no column {self.column!r}: export them with it, or train with online γ")
        value_B = batch[self.column].detach().to(margin_B)
        return Targets(torch.where(torch.isfinite(value_B), value_B, self.missing))


# --- γ-PO on the current batch ---

#: (margin_M float64, γ0, τ) → γ_M
Solver = Callable[[Tensor, float, float], Tensor]


def mirror_descent(margin_M: Tensor, gamma0: float, tau: float) -> Tensor:
    """γ-PO's target margins as its authors' release finds them, shape (M,) (arXiv:2506.03690).

    With w = γ/γ0, starting at w = 1, the objective's slope in p_i is γ0·σ(γ0·w_i − h_i) + τ·(1 + log w_i); a step is

        log w ← log w − η·(γ0·σ(γ0·w − h) + τ·log w) − const,   η = min(0.5/τ, 1),   const such that mean(w) = 1.

    The start counts as the first of the 20 iterates. Where γ0 is large against τ it does not converge: `exact_optimum`
    does.

    By hand: h = (1, −1), γ0 = τ = 1, so η = 1/2: the slopes at w = 1 are σ(0) = 0.5 and σ(2) = 0.8808, hence
    w ∝ (e^−0.25, e^−0.4404) = (0.7788, 0.6438) and w = (1.0949, 0.9051) after one step.
    """
    h_M = margin_M.detach().to(torch.float64)
    log_w_M = torch.zeros_like(h_M)
    for _ in range(ITERATES - 1):
        log_w_M = _mirror_step(log_w_M, h_M, gamma0, tau)
    return gamma0 * torch.exp(log_w_M)


def _mirror_step(log_w_M: Tensor, h_M: Tensor, gamma0: float, tau: float) -> Tensor:
    slope_M = gamma0 * torch.sigmoid(gamma0 * torch.exp(log_w_M) - h_M) + tau * log_w_M
    moved_M = log_w_M - min(0.5 / tau, 1.0) * slope_M
    return moved_M - torch.logsumexp(moved_M, 0) + math.log(len(moved_M))


def exact_optimum(margin_M: Tensor, gamma0: float, tau: float) -> Tensor:
    """γ-PO's target margins at the exact optimum of the same problem, shape (M,); see `curate.gamma`."""
    return gamma_weights_torch(margin_M, gamma0=gamma0, tau=tau).target_margin


class OnlineMargins:
    """γ-PO (arXiv:2506.03690): γ_i from the current batch and a random sample of earlier margins.

    The problem is solved for the population of the global batch (M pairs) and at most 256 − M margins, drawn without
    replacement from the last 2,048 of earlier batches; that history starts with 8 standard-normal draws. The batch
    joins the history afterwards. It is solved in float64 on the CPU, where it is a few hundred numbers.

    seed: of the history's start and of the samples; the same on every process.

    Raises:
        ConfigError: gamma0 or tau is not positive and finite.
    """

    def __init__(self, gamma0: float, tau: float, *, solver: Solver = mirror_descent, seed: int = 42) -> None:
        for name, value in (("gamma0", gamma0), ("tau", tau)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}: online γ-PO needs it positive and finite")
        self.gamma0, self.tau, self.solver = gamma0, tau, solver
        self._generator = torch.Generator().manual_seed(seed)
        self._history_H = torch.randn(SEED_DRAWS, generator=self._generator, dtype=torch.float64)

    def __call__(self, margin_B: Tensor, batch: Mapping[str, Tensor], *, training: bool = True) -> Targets:
        """γ_i of this process's pairs."""
        margin_N, own = gather_pairs(_population(margin_B, batch))
        member_N = torch.isfinite(margin_N)
        margin_M = margin_N[member_N]
        target_N = torch.full_like(margin_N, self.gamma0)
        if margin_M.numel():
            context = self._sample(CONTEXT - margin_M.numel(), training)
            solved = self.solver(torch.cat([margin_M, context]), self.gamma0, self.tau)
            target_N[member_N] = solved[: margin_M.numel()]
        if training:
            self._history_H = torch.cat([self._history_H, margin_M])[-HISTORY:]
        return Targets(target_N[own].to(margin_B.detach()))

    def _sample(self, most: int, training: bool) -> Tensor:
        generator = self._generator if training else _copy(self._generator)
        order_H = torch.randperm(len(self._history_H), generator=generator)
        return self._history_H[order_H[: max(most, 0)]]

    def state_dict(self) -> dict[str, Any]:
        """The history and the random state, as tensors."""
        return {"history": self._history_H.clone(), "random": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Raises RunError if it is another kind's state."""
        _require_keys(state, {"history", "random"})
        self._history_H = state["history"].to("cpu", torch.float64)
        self._generator.set_state(state["random"].cpu())


# --- β-DPO ---


class DynamicBeta:
    """β-DPO (arXiv:2407.08639): scales the global batch's margins and selects its pairs; see `losses.dynamic_beta`.

    An evaluation sees every pair at β itself.

    beta: β, to get the gaps in nats from the margins.
    target_margin: for every pair.
    """

    def __init__(
        self, beta: float, *, target_margin: float = 0.0, settings: BetaSettings | None = None, seed: int = 42
    ) -> None:
        self.beta, self.target_margin, self.settings = beta, target_margin, settings or BetaSettings()
        self._state: BetaState | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, margin_B: Tensor, batch: Mapping[str, Tensor], *, training: bool = True) -> Targets:
        """Selected pairs have weight 1, the others 0."""
        target_B = torch.full_like(margin_B.detach(), self.target_margin)
        if not training:
            return Targets(target_B)
        margin_N, own = gather_pairs(_population(margin_B, batch))
        uniform_N = torch.rand(len(margin_N), generator=self._generator, dtype=torch.float64)
        step = dynamic_beta(margin_N / self.beta, self._state, uniform_N, self.settings)
        self._state = step.state
        return Targets(target_B, step.selected_N[own].to(margin_B.detach()), step.scale)

    def state_dict(self) -> dict[str, Any]:
        """The moving averages and the random state."""
        averages = None if self._state is None else [self._state.mean, self._state.std]
        return {"averages": averages, "random": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. Raises RunError if it is another kind's state."""
        _require_keys(state, {"averages", "random"})
        self._state = None if state["averages"] is None else BetaState(*state["averages"])
        self._generator.set_state(state["random"].cpu())


# --- shared ---


def gather_pairs(value_B: Tensor) -> tuple[Tensor, slice]:
    """All processes' values, shape (N,), in the order of their ranks, float64 on the CPU; and where the own ones are.

    Without `torch.distributed` that is the input. Processes may bring different numbers of pairs, also none.
    """
    value_B = value_B.detach().to(torch.float64)
    if not (distributed.is_available() and distributed.is_initialized()):
        return value_B.cpu(), slice(0, len(value_B))
    sizes = _gather(torch.tensor([len(value_B)], device=value_B.device))
    counts = [int(size) for size in sizes]
    padded = torch.zeros(max(counts), dtype=torch.float64, device=value_B.device)
    padded[: len(value_B)] = value_B
    parts = [part[:count].cpu() for part, count in zip(_gather(padded), counts, strict=True)]
    start = sum(counts[: distributed.get_rank()])
    return torch.cat(parts), slice(start, start + len(value_B))


def _gather(value: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(value) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, value)
    return parts


def _population(margin_B: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """The margins in float64, NaN for the pairs of weight 0."""
    margin_B = margin_B.detach().to(torch.float64)
    if "weight" not in batch:
        return margin_B
    return torch.where(batch["weight"].to(margin_B.device) != 0, margin_B, math.nan)


def _copy(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def _require_keys(state: Mapping[str, Any], expected: set[str]) -> None:
    if set(state) != expected:
        found, needed = (", ".join(sorted(keys)) or "nothing" for keys in (state, expected))
        raise RunError(
            f"the checkpoint's target margins hold {found}, these settings need {needed}: "
            "resume with the settings it was trained with"
        )


#: name → how a trainer makes one from the loss's settings, τ and a seed.
TARGETS: dict[str, Callable[[LossSettings, float, int], TargetMargins]] = {
    "constant": lambda loss, tau, seed: ConstantMargin(loss.gamma0),
    "column": lambda loss, tau, seed: ColumnMargin(loss.gamma0),
    "online": lambda loss, tau, seed: OnlineMargins(loss.gamma0, tau, seed=seed),
    "online_exact": lambda loss, tau, seed: OnlineMargins(loss.gamma0, tau, solver=exact_optimum, seed=seed),
    "dynamic_beta": lambda loss, tau, seed: DynamicBeta(loss.beta, target_margin=loss.gamma0, seed=seed),
}


def target_margins(name: str, settings: LossSettings, *, tau: float = 10.0, seed: int = 42) -> TargetMargins:
    """The target margins of that name, for a loss with these settings.

    Raises:
        ConfigError: there are none of that name, or the settings do not suit them.
    """
    if name not in TARGETS:
        raise ConfigError(f"target margins {name!r} are unknown: choose one of {', '.join(TARGETS)}")
    return TARGETS[name](settings, tau, seed)
