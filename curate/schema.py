"""The tables of a run: their columns, types and meaning. Every other module takes them from here.

Dimension key: N pairs, B batch, T tokens, C completions, V vocabulary, D features.

All tables carry `pair_id` (hash of the canonical prompt, chosen and rejected: it survives
re-ordering and re-download; exact duplicates share it) and `row` (running number over all files, from 0, of what was
read: each pair and each refused row takes the next; unique). Margins are positive when the model agrees with the label.
"""

from __future__ import annotations

from collections.abc import Iterable

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
        ("line", pa.int64()),  # from 1; for Parquet the row within the file; pairs of one ranking share it
        ("original", pa.string()),  # the row as it was, as JSON; of joined rows the first
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

#: Columns of the pass of a reward model, which has its own tokens.
REWARDS = pa.schema(
    [
        *_KEY,
        ("reward_chosen", pa.float64()),  # r(x, y), the model's logit
        ("reward_rejected", pa.float64()),
        *[PASS.field(f"{part}_truncated") for part in ("chosen", "rejected", "prompt")],
        PASS.field("unscored"),
    ]
)

SCORES = pa.schema(
    [
        *_KEY,
        *[(f"{name}_{side}_logp", pa.float64()) for name in PASSES for side in ("chosen", "rejected")],
        *[REWARDS.field(f"reward_{side}") for side in ("chosen", "rejected")],  # null without a reward model
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

#: What `curate.checks` looks for, the gravest first.
CHECKS = (
    "identical",
    "identical_tokens",
    "empty",
    "prompts_differ",
    "last_turn",
    "opposite_label",
    "cycle",
    "duplicate",
    "near_duplicate",
    "template_tokens",
    "repeated_text",
    "cut_off",
    "truncated",
    "other_script",
    "length_ratio",
    "refusal_chosen",
    "tie",
)

#: A defect, oddity or remark: one row for each pair and check that found something.
FINDINGS = pa.schema(
    [
        *_KEY,
        ("check", pa.string()),  # one of CHECKS
        ("severity", pa.string()),  # defect, warning or note
        ("detail", pa.string()),  # the evidence in words
    ]
)

KINDS = ("clean", "flipped", "ambiguous", "defective", "unresolved")

DIAGNOSIS = pa.schema(
    [
        *_KEY,
        ("kind", pa.string()),  # one of KINDS
        ("p_flip", pa.float64()),  # that the label is the wrong way round; null where nothing speaks for either side
        ("evidence", pa.float64()),  # calibrated log-odds, from the other pairs, that chosen is the better side
        ("checks", pa.list_(pa.string())),  # of CHECKS, what found something in the pair
        ("reasons", pa.list_(pa.string())),  # for its kind, in words, the weightiest first
        ("cluster", pa.int32()),  # of similar texts; null without features
        ("x", pa.float32()),  # place on the map of similar texts
        ("y", pa.float32()),
    ]
)

#: Noise by source, annotator, cluster, length and turns: one row a group.
SLICES = pa.schema(
    [
        ("by", pa.string()),  # source, annotator, cluster, length or turns
        ("value", pa.string()),  # which group of these, as it is shown
        ("pairs", pa.int64()),  # labels in it: pairs, or an annotator's votes
        ("rate", pa.float64()),  # flip rate, shrunk towards the whole; null where the data cannot tell
        ("low", pa.float64()),  # its 95 % interval
        ("high", pa.float64()),
        *[(kind, pa.int64()) for kind in KINDS],  # pairs of each kind
    ]
)

#: What a bulk decision decided, pair by pair (see `curate.decisions`).
DECIDED = pa.schema(
    [
        *_KEY,  # row: where the pair stood at that time
        ("copy", pa.int32()),  # of pairs that are the same word for word the first (0), the second (1), …
        ("action", pa.string()),
        ("value", pa.float64()),  # of soft and weight, else null
        ("target_margin", pa.float64()),  # γ_i, where the plan sets it
        ("reason", pa.string()),
        ("origin", pa.string()),  # the rule
        ("margin", pa.float32()),  # at that time
        ("p_flip", pa.float32()),
    ]
)

#: How well planted noise is found: one row for each kind of noise, rate, kind of folds, signal and metric.
SELFTEST = pa.schema(
    [
        ("noise", pa.string()),  # what was planted: random, hard, hard_fused, longer, annotator or ties
        ("rate", pa.float64()),  # at which rate
        ("folds", pa.string()),  # grouped (by prompt), random, or none where the signal needs no fit
        ("signal", pa.string()),
        ("metric", pa.string()),
        ("mean", pa.float64()),  # over the seeds
        ("low", pa.float64()),  # 95 % interval of the mean; null where nothing was repeated
        ("high", pa.float64()),
    ]
)


def signals_schema(names: Iterable[str]) -> pa.Schema:
    """Signals: numbers about a pair, positive where they agree with its label; null where there is none."""
    return pa.schema([*_KEY, *[(name, pa.float64()) for name in names]])


def features_schema(width: int) -> pa.Schema:
    """Pooled hidden states, float16[width]: mean over the completion's tokens, of the middle and the last layer."""
    vector = pa.list_(pa.float16(), width)
    return pa.schema(
        [*_KEY, *[(f"{side}_{layer}", vector) for side in ("chosen", "rejected") for layer in ("middle", "last")]]
    )
