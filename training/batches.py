"""Batches of pairs, and their log-probs under the model that is trained.

    packed          one row without padding; both sides of a pair share its prompt (see `curate.attention`)
    length_grouped  padded rows of similar length, through the model's own attention

Both run the model's own forward pass, so that the hooks of DDP and FSDP fire, and the output layer only where a
completion's token is predicted.

Dimension key: B pairs of a batch, C = 2·B completions (each pair's chosen side before its rejected one), T scored
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.packing import Group, pack, sum_by, token_log_probs
from training.data import TrainingPair
from training.losses import PairLogProbs

COLUMNS = ("weight", "p_flip", "target_margin", "reference_chosen", "reference_rejected")


class Batch(TypedDict):
    """What the model is called with, and what its logits are to predict.

    model: keywords of the forward pass. at: (T,) rows of the flattened logits; None is all of them, in order.
    targets: (T,) token ids. tokens: (C,) counts.
    columns: (B,) each, float64; index: (B,) places in the file; real: (B,) False for padding.
    """

    model: dict[str, Any]
    at: Tensor | None
    targets: Tensor
    tokens: Tensor
    columns: dict[str, Tensor]
    index: Tensor
    real: Tensor


def collate_packed(pairs: Sequence[TrainingPair]) -> Batch:
    """Pairs in one row; its attention mask is made from the segments."""
    row = pack([Group(tuple(pair.prompt), (tuple(pair.chosen), tuple(pair.rejected))) for pair in pairs])
    forward = {
        "input_ids": torch.tensor([row.ids]),
        "position_ids": torch.tensor([row.positions]),
        "segments": row.segments,
        "logits_to_keep": torch.tensor(row.predictors),
    }
    return _batch(pairs, forward, None, row.targets)


def collate_padded(pairs: Sequence[TrainingPair]) -> Batch:
    """Sides in rows of their own, padded on the right: causal attention needs no mask then."""
    sides = [(pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    width = max(len(prompt) + len(side) for prompt, side in sides)
    first = min(len(prompt) for prompt, _ in sides) - 1
    ids = torch.zeros((len(sides), width), dtype=torch.long)
    places: list[int] = []
    for number, (prompt, side) in enumerate(sides):
        ids[number, : len(prompt) + len(side)] = torch.tensor([*prompt, *side])
        start = number * (width - first) + len(prompt) - 1 - first
        places.extend(range(start, start + len(side)))
    targets = [token for _, side in sides for token in side]
    return _batch(pairs, {"input_ids": ids, "logits_to_keep": width - first}, torch.tensor(places), targets)


def _batch(pairs: Sequence[TrainingPair], forward: dict[str, Any], at: Tensor | None, targets: list[int]) -> Batch:
    return Batch(
        model=forward,
        at=at,
        targets=torch.tensor(targets),
        tokens=torch.tensor([len(side) for pair in pairs for side in (pair.chosen, pair.rejected)]),
        columns={name: torch.tensor([getattr(pair, name) for pair in pairs], dtype=torch.float64) for name in COLUMNS},
        index=torch.tensor([pair.index for pair in pairs]),
        real=torch.tensor([not pair.is_padding for pair in pairs]),
    )


def pair_log_probs(model: torch.nn.Module, batch: Batch) -> PairLogProbs:
    """Log-probs of a batch's completions under the model and, where they are stored, under the reference."""
    logits = model(**batch["model"], use_cache=False).logits.flatten(0, 1)
    logits_TV = (logits if batch["at"] is None else logits[batch["at"]]).float()
    token_T = token_log_probs(logits_TV, batch["targets"])
    logp_B2 = sum_by(token_T.double()[:, None], batch["tokens"].tolist()).view(-1, 2).float()
    tokens_B2 = batch["tokens"].view(-1, 2)
    reference = [batch["columns"][f"reference_{side}"] for side in ("chosen", "rejected")]
    stored = not any(bool(column.isnan().all()) for column in reference)
    return PairLogProbs(
        logp_B2[:, 0],
        logp_B2[:, 1],
        tokens_B2[:, 0],
        tokens_B2[:, 1],
        *(column if stored else None for column in reference),
    )


class GlobalBatches(torch.utils.data.Sampler[list[int]]):
    """The order of the pairs: batches of this process, micro-batch by micro-batch.

    Every epoch draws one order of all pairs, the same in every process, and deals it out in turns of one micro-batch
    a process. The last turn is filled up with padding (positions from `pairs` on), so that all have as many batches.
    """

    def __init__(
        self,
        pairs: int,
        size: int,
        *,
        rank: int = 0,
        world: int = 1,
        seed: int = 42,
        shuffle: bool = True,
        lengths_N: NDArray[np.int64] | None = None,
        group: int = 1,
    ) -> None:
        """lengths_N: keep pairs of similar length together, within stretches of `group` pairs."""
        self.pairs, self.size, self.rank, self.world = pairs, size, rank, world
        self.seed, self.shuffle, self.lengths_N, self.group = seed, shuffle, lengths_N, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch's order is drawn."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of one process."""
        return -(-self.pairs // (self.size * self.world))

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order()
        turn = self.size * self.world
        for start in range(0, self.pairs, turn):
            first = start + self.rank * self.size
            yield order[first : first + self.size] or [self.pairs]

    def _order(self) -> list[int]:
        order_N = np.arange(self.pairs)
        if self.shuffle:
            np.random.default_rng([self.seed, self.epoch]).shuffle(order_N)
        if self.lengths_N is not None:
            stretches = np.split(order_N, range(self.group, self.pairs, self.group))
            order_N = np.concatenate([part[np.argsort(-self.lengths_N[part], kind="stable")] for part in stretches])
        return [int(position) for position in order_N]
