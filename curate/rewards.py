"""Rewards: whole conversations → the one logit of a sequence classifier, by the model's own forward pass.

    padded   batches of right-padded conversations, the longest first
    alone    one conversation at a time: for models without a padding token, or to whom padding makes a difference

A `Rewarder` tries `padded` against `alone` on a few sequences when it starts, and uses it only if they agree. Where the
reward is read is the model's affair: decoders read it at the last token that is no padding, encoders at the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from curate.errors import ModelError
from curate.logprobs import BATCH_TOKENS, keep_in_float32
from curate.models import Device
from curate.schema import REWARDS
from curate.tokens import Ids, TokenizedPair

#: Changes whenever rewards may differ from those of the version before.
KERNEL_VERSION = 1

_AGREEMENT = {"float32": 1e-3, "tf32": 0.05, "float16": 0.05, "bfloat16": 0.25}  # of the largest reward


class Rewarder:
    """Rewards conversations with one model on one device."""

    def __init__(self, model: torch.nn.Module, device: Device, *, batch_tokens: int | None = None) -> None:
        """Prepare the model and try whether padding leaves its rewards alone.

        Raises:
            ModelError: it gives no single finite number, not even for one conversation at a time.
        """
        self.model = cast("Any", model)
        self.device = device
        self.batch_tokens = batch_tokens or BATCH_TOKENS["cuda" if device.is_cuda else "cpu"]
        config = self.model.config.get_text_config()
        config.use_cache = False
        self.vocabulary = int(self.model.get_input_embeddings().weight.shape[0])
        self.pad = config.pad_token_id if config.pad_token_id in range(self.vocabulary) else 0
        if device.dtype == "float16":
            for layer in self.model.modules():
                if isinstance(layer, torch.nn.Linear) and layer.out_features == 1:
                    keep_in_float32(layer)
        self.why_alone = self._why_alone()

    @property
    def kernel(self) -> str:
        """How it goes about it: `padded` or `alone`."""
        return "padded" if self.why_alone is None else "alone"

    def reward(self, conversations: Sequence[Ids]) -> NDArray[np.float64]:
        """The reward of every conversation (at least one token), shape (C,), in the model's own unit.

        Raises:
            ModelError: a single conversation does not fit into the device's memory.
        """
        reward_C = np.zeros(len(conversations))
        for batch in _batches(conversations, self.batch_tokens if self.why_alone is None else 1):
            reward_C[batch] = self._run([conversations[index] for index in batch])
        return reward_C

    def _run(self, batch: list[Ids]) -> NDArray[np.float64]:
        """Reward a batch; where it does not fit into the device's memory, in halves."""
        try:
            return self._forward(batch)
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                raise ModelError(
                    f"a conversation of {len(batch[0]):,} tokens does not fit into the memory of {self.device.name}; "
                    "lower --max-length, or choose a smaller dtype"
                ) from error
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return np.concatenate([self._run(half) for half in (batch[:middle], batch[middle:])])

    @torch.inference_mode()
    def _forward(self, batch: list[Ids]) -> NDArray[np.float64]:
        place = torch.device(self.device.name)
        ids_BT = torch.full((len(batch), max(map(len, batch))), self.pad)
        mask_BT = torch.zeros_like(ids_BT)
        for index, ids in enumerate(batch):
            ids_BT[index, : len(ids)] = torch.tensor(ids)
            mask_BT[index, : len(ids)] = 1
        with torch.autocast(place.type, dtype=torch.float16, enabled=self.device.dtype == "float16"):
            logits_B1 = self.model(input_ids=ids_BT.to(place), attention_mask=mask_BT.to(place)).logits
        reward_B: NDArray[np.float64] = logits_B1.reshape(len(batch)).double().cpu().numpy()
        return reward_B

    def _why_alone(self) -> str | None:
        """None where a padded batch gives the rewards of each sequence alone, else the reason against it."""
        random = np.random.default_rng(0)
        probe = [tuple(random.integers(0, self.vocabulary, length).tolist()) for length in (23, 9, 1, 14)]
        try:
            expected_C = np.concatenate([self._forward([ids]) for ids in probe])
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ModelError(f"the reward model cannot be run: {' '.join(str(error).split())}") from error
        if not np.isfinite(expected_C).all():
            raise ModelError(f"the model's rewards are not finite in {self.device.dtype}: choose another --dtype")
        try:
            difference = float(np.abs(self._forward(probe) - expected_C).max())
        except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            return " ".join(str(error).split()) or type(error).__name__
        if difference <= _AGREEMENT[self.device.dtype] * float(np.abs(expected_C).max()):
            return None
        return f"padding moves the rewards by {difference:.2g}"


def _batches(conversations: Sequence[Ids], budget: int) -> Iterator[list[int]]:
    """Places of the conversations, the longest first, as many at a time as fit the budget with their padding."""
    order = sorted(range(len(conversations)), key=lambda index: len(conversations[index]), reverse=True)
    start = 0
    while start < len(order):
        stop = start + max(1, budget // len(conversations[order[start]]))
        yield order[start:stop]
        start = stop


class Conversations:
    """The unique conversations of some pairs, and where each pair's sides are among them.

    all: prompt and side in one.
    side_N2: index of the one with the chosen and the one with the rejected side; −1 where the pair is unscored.
    """

    def __init__(self, encoded: Sequence[TokenizedPair | str], first: int | None) -> None:
        """Join prompts and sides.

        Args:
            first: the token from which an encoder reads the reward: a prompt that was cut at its head keeps it.
        """
        places: dict[Ids, int] = {}
        self.side_N2: NDArray[np.int64] = np.full((len(encoded), 2), -1)
        for index, pair in enumerate(encoded):
            if isinstance(pair, TokenizedPair):
                keep = pair.prompt_truncated and first is not None
                prompt = (cast("int", first), *pair.prompt[1:]) if keep else pair.prompt
                sides = pair.chosen, pair.rejected
                self.side_N2[index] = [places.setdefault(prompt + side, len(places)) for side in sides]
        self.all = list(places)

    @property
    def tokens(self) -> int:
        """How many tokens there are, without padding."""
        return sum(map(len, self.all))


def rewards_table(
    pairs: pa.Table,
    encoded: Sequence[TokenizedPair | str],
    conversations: Conversations,
    reward_C: NDArray[np.float64],
) -> pa.Table:
    """The table REWARDS, one row a pair; an unscored pair has nulls and its reason."""
    reward_N2 = np.append(reward_C, np.nan)[conversations.side_N2]
    finite_N = np.isfinite(reward_N2).all(axis=1)
    encoded = [
        pair if isinstance(pair, str) or finite else "a reward is not finite; choose another --dtype"
        for pair, finite in zip(encoded, finite_N, strict=True)
    ]
    scored = [pair if isinstance(pair, TokenizedPair) else None for pair in encoded]
    columns: dict[str, Any] = {
        "pair_id": pairs["pair_id"],
        "row": pairs["row"],
        "unscored": [pair if isinstance(pair, str) else None for pair in encoded],
    }
    for number, side in enumerate(("chosen", "rejected")):
        rewards = reward_N2[:, number].tolist()
        columns[f"reward_{side}"] = [pair and reward for pair, reward in zip(scored, rewards, strict=True)]
    for part in ("chosen", "rejected", "prompt"):
        columns[f"{part}_truncated"] = [pair and getattr(pair, f"{part}_truncated") for pair in scored]
    return pa.table({name: columns[name] for name in REWARDS.names}, schema=REWARDS)
