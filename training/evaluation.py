"""Pairs judged by a model: margins, losses, and how often, how surely and how rightly it agrees with the labels.

Dimension key: N pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch
from training.losses import PairLogProbs
from training.margins import gather_pairs

if TYPE_CHECKING:
    from training.data import Pairs
    from training.trainer import PairTrainer

Floats = NDArray[np.float64]
BINS = 10
#: Metrics of `Judgement` that mean something where the model is its own reference, so that all margins are 0.
WITHOUT_MARGIN = ("loss", "likelihood_accuracy")


@dataclass(frozen=True)
class Judgement:
    """N pairs, in their order.

    margin_N: the loss's reward margin h. loss_N. gap_N: difference of the log-probs per token, nats, which needs no
    reference.
    """

    margin_N: Floats
    loss_N: Floats
    gap_N: Floats

    def metrics(self) -> dict[str, float]:
        """loss, accuracy and margin, means over the pairs; likelihood_accuracy; calibration_error and brier of σ(h)."""
        return {
            "loss": float(self.loss_N.mean()),
            "accuracy": accuracy(self.margin_N),
            "margin": float(self.margin_N.mean()),
            "likelihood_accuracy": accuracy(self.gap_N),
            "calibration_error": calibration_error(self.margin_N),
            "brier": float(np.mean((1 - _sigmoid(self.margin_N)) ** 2)),
        }


def accuracy(margin_N: Floats) -> float:
    """Share of positive margins; a margin of 0 counts half, NaN not at all. By hand: (1, −1, 0, 2) gives 2.5/4."""
    known = margin_N[~np.isnan(margin_N)]
    return float(((known > 0) + 0.5 * (known == 0)).mean()) if len(known) else math.nan


def calibration_error(margin_N: Floats) -> float:
    """Expected calibration error of σ(|h|) as the probability that the sign is right, in 10 bins of equal width.

    By hand: three pairs with h = log 3 (75 % sure), two of them right: |2/3 − 3/4| = 0.0833.
    """
    margin_N = margin_N[~np.isnan(margin_N)]
    if not len(margin_N):
        return math.nan
    sure_N = _sigmoid(np.abs(margin_N))
    right_N = (margin_N > 0) + 0.5 * (margin_N == 0)
    bin_N = np.minimum(((sure_N - 0.5) * 2 * BINS).astype(int), BINS - 1)
    gap = np.bincount(bin_N, weights=right_N - sure_N, minlength=BINS)
    return float(np.abs(gap).sum() / len(margin_N))


def _sigmoid(margin_N: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(margin_N / 2)))


@torch.no_grad()
def judge(trainer: PairTrainer, model: torch.nn.Module, pairs: Pairs) -> Judgement:
    """Judge pairs, every process its share; all get the whole."""
    model.eval()
    size, rank, world = trainer.config.micro_batch, trainer.args.process_index, trainer.args.world_size
    found: list[torch.Tensor] = []
    for start in range(0, len(pairs), size * world):
        first = start + rank * size
        positions = range(first, min(first + size, len(pairs))) or [len(pairs)]
        found.append(_judge(trainer, model, trainer.collate([pairs[position] for position in positions])))
    columns = torch.cat(found, dim=1)
    index_N, *values = (gather_pairs(column)[0].numpy() for column in columns)
    order = np.argsort(index_N, kind="stable")[np.argsort(np.argsort(pairs.at, kind="stable"), kind="stable")]
    return Judgement(*(value_N[order] for value_N in values))


def _judge(trainer: PairTrainer, model: torch.nn.Module, collated: Any) -> torch.Tensor:
    """index, margin, loss and gap of a batch's real pairs, (4, B)."""
    batch = cast("Batch", trainer._prepare_inputs(collated))
    with trainer.accelerator.autocast():
        logps = trainer.log_probs(model, batch)
    margin_B, loss_B = trainer.losses_of(model, logps, batch)
    real_B = batch["real"]
    rows: Sequence[torch.Tensor] = (batch["index"], margin_B, loss_B, _gap(logps))
    return torch.stack([row.double()[real_B] for row in rows])


def _gap(logps: PairLogProbs) -> torch.Tensor:
    return logps.policy_chosen_B / logps.chosen_tokens_B - logps.policy_rejected_B / logps.rejected_tokens_B
