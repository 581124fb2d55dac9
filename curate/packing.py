"""Batches of completions in one row of tokens, without padding: what scorer and trainer feed to `curate.attention`.

Dimension key: T scored tokens of a batch, C completions, V vocabulary, D any width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from curate.attention import Segment

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt (at least one token) and the completions that follow it; each completion has at least one token."""

    prompt: Ids
    completions: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        """How many tokens it takes in a packed row."""
        return len(self.prompt) + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class Row:
    """A packed batch.

    ids, positions: the whole row's.
    tokens, predictors, targets: for each of the T scored tokens where it is, the place that predicts it, and its id.
    lengths: of the C completions, in the order of the groups and of the completions within.
    """

    ids: list[int]
    positions: list[int]
    segments: tuple[Segment, ...]
    tokens: list[int]
    predictors: list[int]
    targets: list[int]
    lengths: list[int]


def pack(batch: Sequence[Group]) -> Row:
    """Lay groups out one after the other."""
    row = Row([], [], (), [], [], [], [])
    segments = []
    for group in batch:
        begin = len(row.ids)
        end = begin + len(group.prompt)
        row.ids.extend(group.prompt)
        row.positions.extend(range(len(group.prompt)))
        ranges = []
        for completion in group.completions:
            start = len(row.ids)
            stop = start + len(completion)
            row.ids.extend(completion)
            row.positions.extend(range(len(group.prompt), len(group.prompt) + len(completion)))
            row.tokens.extend(range(start, stop))
            row.predictors.extend((end - 1, *range(start, stop - 1)))
            row.targets.extend(completion)
            row.lengths.append(len(completion))
            ranges.append((start, stop))
        segments.append(Segment((begin, end), tuple(ranges)))
    return Row(row.ids, row.positions, tuple(segments), row.tokens, row.predictors, row.targets, row.lengths)


def token_log_probs(logits_TV: torch.Tensor, targets_T: torch.Tensor) -> torch.Tensor:
    """log π of each target, shape (T,).

    `log_softmax` in float32 on a CPU is biased by 4e-6 nats a token; this is not.
    """
    return logits_TV.gather(1, targets_T[:, None])[:, 0] - logits_TV.logsumexp(dim=1)


def sum_by(values_TD: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """Sums over consecutive stretches of the given lengths, shape (C, D)."""
    counts = torch.tensor(lengths, device=values_TD.device)
    owner_T = torch.repeat_interleave(torch.arange(len(lengths), device=values_TD.device), counts)
    return values_TD.new_zeros((len(lengths), values_TD.shape[1])).index_add_(0, owner_T, values_TD)
