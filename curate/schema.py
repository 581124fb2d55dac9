"""The tables of a run: their columns, types and meaning. Every other module takes them from here.

Dimension key: N pairs, B batch, T tokens, C completions, V vocabulary, D features.

All tables carry `pair_id` (hash of the canonical prompt, chosen and rejected: it survives
re-ordering and re-download; exact duplicates share it) and `row` (position of the pair's row in the input, over all
files, from 0; unique). Margins are positive when the model agrees with the label.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
MESSAGES = pa.list_(MESSAGE)

#: One annotator's vote: +1 agrees with the label, −1 contradicts it, 0 called it a tie.
#: In a pair that is itself a tie, +1 is a vote for the side listed first.
VOTE = pa.struct([("annotator", pa.string()), ("vote", pa.int8())])

_KEY = [pa.field("pair_id", pa.string(), nullable=False), pa.field("row", pa.int64(), nullable=False)]

PAIRS = pa.schema(
    [
        *_KEY,
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("tie", pa.bool_()),  # no side was preferred: "chosen" is merely the side listed first
        ("source", pa.string()),
        ("votes", pa.list_(VOTE)),
        ("rating_chosen", pa.float64()),
        ("rating_rejected", pa.float64()),
        ("file", pa.string()),
        ("line", pa.int64()),  # from 1; for Parquet the row within the file
        ("original", pa.string()),  # the row as it was, as JSON
    ]
)

REFUSED = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        ("file", pa.string()),
        ("line", pa.int64()),
        ("reason", pa.string()),
        ("original", pa.string()),
    ]
)

#: Columns of one scoring pass (one model, one way to render). Log-probs in nats, float64.
PASS = pa.schema(
    [
        *_KEY,
        ("chosen_logp", pa.float64()),
        ("rejected_logp", pa.float64()),
        ("chosen_tokens", pa.int32()),  # scored tokens
        ("rejected_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("chosen_truncated", pa.bool_()),
        ("rejected_truncated", pa.bool_()),
        ("prompt_truncated", pa.bool_()),
        ("identical_tokens", pa.bool_()),  # both sides are the same to the model, after truncation
        ("boundary_shift_tokens", pa.int32()),  # prompt tokens that count to the completion, see tokens.py
        ("unscored", pa.string()),  # why there is no score, else null
    ]
)

#: Rescored pairs, in another batch shape: what arithmetic alone does to the log-probs.
NOISE_FLOOR = pa.schema([*_KEY, ("chosen_logp", pa.float64()), ("rejected_logp", pa.float64())])

PASSES = ("policy", "reference", "policy_unconditional")

SCORES = pa.schema(
    [
        *_KEY,
        *[(f"{name}_{side}_logp", pa.float64()) for name in PASSES for side in ("chosen", "rejected")],
        *[PASS.field(name) for name in PASS.names[4:]],
    ]
)

WEIGHTS = pa.schema(
    [
        *_KEY,
        ("margin", pa.float64()),  # h_i; null where a side has no score
        ("target_margin", pa.float64()),  # γ_i; null for ties and where there is no margin
        ("weight", pa.float64()),  # w_i = γ_i/γ0, mean 1
    ]
)


def features_schema(width: int) -> pa.Schema:
    """Pooled hidden states, float16[width]: mean over the completion's tokens, of the middle and the last layer."""
    vector = pa.list_(pa.float16(), width)
    return pa.schema(
        [*_KEY, *[(f"{side}_{layer}", vector) for side in ("chosen", "rejected") for layer in ("middle", "last")]]
    )
