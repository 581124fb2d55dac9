"""Attention over packed sequences that share their prompts: one row of tokens, no padding, exact.

A batch is one row: prompt, completion, completion, …, next prompt, … Every completion sees its own
prompt and itself. Registered with transformers under the name `PACKED`, so that any model whose attention
goes through its attention interface can use it; the segments travel as a keyword of the forward call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

PACKED = "curate_packed"


class UnsupportedAttentionError(NotImplementedError):
    """The model's attention does something that the packed form does not know."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A prompt and its completions as token ranges [start, stop) of the row; the first follows the prompt at once."""

    prompt: tuple[int, int]
    completions: tuple[tuple[int, int], ...]


def packed_attention(
    module: torch.nn.Module,
    query_1HTd: torch.Tensor,
    key_1KTd: torch.Tensor,
    value_1KTd: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: tuple[Segment, ...],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **other: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it (H query heads, K key heads). Returns the output as (1, T, H, d).

    Raises:
        UnsupportedAttentionError: the model passes something that would change the result (attention sinks, a bias).
    """
    unknown = [name for name in ("s_aux", "position_bias", "head_mask") if other.get(name) is not None]
    if unknown or attention_mask is not None:
        raise UnsupportedAttentionError(f"packed attention does not know {unknown or 'an explicit mask'}")
    # autocast leaves queries and keys, which were rotated, wider than values, and narrows them itself but for a bias
    query_1HTd, key_1KTd = (tensor.to(value_1KTd.dtype) for tensor in (query_1HTd, key_1KTd))
    groups = query_1HTd.shape[1] // key_1KTd.shape[1]
    key, value = (
        tensor.repeat_interleave(groups, dim=1) if groups > 1 else tensor for tensor in (key_1KTd, value_1KTd)
    )
    output = query_1HTd.new_empty((*query_1HTd.shape[:3], value.shape[-1]))

    def attend(start: int, stop: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        output[:, :, start:stop] = _attend(query_1HTd[:, :, start:stop], keys, values, scaling, sliding_window, softcap)

    for segment in segments:
        (begin, end), (first, *others) = segment.prompt, segment.completions
        attend(begin, first[1], key[:, :, begin : first[1]], value[:, :, begin : first[1]])
        for start, stop in others:
            ranges = (slice(begin, end), slice(start, stop))
            attend(start, stop, *(torch.cat([t[:, :, r] for r in ranges], dim=2) for t in (key, value)))
    return output.transpose(1, 2), None


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """Causal attention of the last queries of a sequence to all of its keys."""
    queries, keys = query.shape[2], key.shape[2]
    if softcap is None and (window is None or keys <= window):
        if queries == keys:
            return scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        bias = causal_lower_right(queries, keys)
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)
    distance = torch.arange(keys - queries, keys, device=query.device)[:, None] - torch.arange(
        keys, device=query.device
    )
    visible = (distance >= 0) & (distance < (window or keys))
    if softcap is None:
        return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    scores = query @ key.transpose(2, 3) * (scaling if scaling is not None else query.shape[-1] ** -0.5)
    scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~visible, float("-inf"))
    return scores.float().softmax(dim=-1).to(value.dtype) @ value


def register() -> None:
    """Make `PACKED` known to transformers. Without a mask function of its own no mask is built for it."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED, packed_attention)
