"""Signals that need no fit: functions of a pair's numbers, positive where they agree with its label.

A signal is one function and one entry of `SIGNALS`. It reads columns by name; what it says if the label were the other
way round is the same function of the columns with chosen and rejected exchanged. The numbers that the probe learns
from are here too, as blocks of differences between chosen and rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]


@dataclass(frozen=True)
class Signal:
    """A number about a pair.

    of: from columns of shape (N,) to (N,); NaN where a column is NaN.
    needs: the columns; a signal is there where all of them are.
    """

    of: Callable[[Columns], Floats]
    needs: tuple[str, ...]
    explanation: str


def swapped(columns: Columns) -> dict[str, Floats]:
    """The columns as they would be with chosen and rejected exchanged; those of no side change their sign."""
    return {_other(name): values if name != _other(name) else -values for name, values in columns.items()}


def _other(name: str) -> str:
    if "chosen" in name:
        return name.replace("chosen", "rejected")
    return name.replace("rejected", "chosen")


def _difference(name: str) -> Callable[[Columns], Floats]:
    """A column's chosen minus its rejected."""
    return lambda columns: columns[name.format("chosen")] - columns[name.format("rejected")]


def _prompt_gain(columns: Columns) -> Floats:
    return _gain(columns, "chosen") - _gain(columns, "rejected")


def _ifd(columns: Columns) -> Floats:
    return -_difficulty(columns, "chosen")


def _ifd_gap(columns: Columns) -> Floats:
    return _difficulty(columns, "rejected") - _difficulty(columns, "chosen")


def _gain(columns: Columns, side: str) -> Floats:
    """log π(y|x) − log π(y), nats."""
    return columns[f"policy_{side}_logp"] - columns[f"policy_unconditional_{side}_logp"]


def _difficulty(columns: Columns, side: str) -> Floats:
    """Instruction-following difficulty: perplexity of the response with the prompt over that without it."""
    return np.exp(np.clip(-_gain(columns, side) / np.maximum(columns[f"{side}_tokens"], 1), -50, 50))


def _both(name: str) -> tuple[str, str]:
    return name.format("chosen"), name.format("rejected")


_CONDITIONAL, _UNCONDITIONAL = _both("policy_{}_logp"), _both("policy_unconditional_{}_logp")
_TOKENS, _RATINGS, _REWARDS = _both("{}_tokens"), _both("rating_{}"), _both("reward_{}")

SIGNALS = {
    "margin": Signal(lambda columns: columns["margin"], ("margin",), "implicit reward margin of the scored policy"),
    "log_prob": Signal(_difference("policy_{}_logp"), _CONDITIONAL, "log π(y|x), chosen − rejected"),
    "prompt_gain": Signal(
        _prompt_gain, _CONDITIONAL + _UNCONDITIONAL, "log π(y|x) − log π(y), chosen − rejected: what the prompt adds"
    ),
    "ifd": Signal(
        _ifd,
        _CONDITIONAL + _UNCONDITIONAL + _TOKENS,
        "minus the instruction-following difficulty of chosen: perplexity with the prompt over that without it",
    ),
    "ifd_gap": Signal(
        _ifd_gap, _CONDITIONAL + _UNCONDITIONAL + _TOKENS, "instruction-following difficulty, rejected − chosen"
    ),
    "token_difference": Signal(_difference("{}_tokens"), _TOKENS, "length in tokens, chosen − rejected"),
    "rating": Signal(_difference("rating_{}"), _RATINGS, "ratings that came with the data, chosen − rejected"),
    "reward_model": Signal(_difference("reward_{}"), _REWARDS, "the reward model's r(x, y), chosen − rejected"),
}


#: What signals and blocks are computed from.
COLUMNS = sorted({column for signal in SIGNALS.values() for column in signal.needs} | {*_both("reference_{}_logp")})


def available(columns: Columns) -> dict[str, Signal]:
    """The signals whose columns are all there."""
    return {name: signal for name, signal in SIGNALS.items() if all(column in columns for column in signal.needs)}


# --- what the probe learns from ------------------------------------------------------------------


def length_block(columns: Columns) -> NDArray[np.float32]:
    """Differences of length: tokens and their logarithm, shape (N, 2)."""
    chosen, rejected = (columns[name] for name in _TOKENS)
    return _block([chosen - rejected, np.log1p(chosen) - np.log1p(rejected)])


def likelihood_block(columns: Columns) -> NDArray[np.float32]:
    """Differences of log-probs, whole and per token: the policy's, those without the prompt, the reference's."""
    names = [name for name in _LIKELIHOODS if all(column in columns for column in _both(name))]
    found = []
    for chosen, rejected in zip(*(_log_probs(columns, names, side) for side in ("chosen", "rejected")), strict=True):
        per_token = [
            values / np.maximum(columns[tokens], 1) for values, tokens in zip((chosen, rejected), _TOKENS, strict=True)
        ]
        found += [chosen - rejected, per_token[0] - per_token[1]]
    return _block(found)


_FAR = 4.5  # typical sizes, or three standard deviations of normal values
_LIKELIHOODS = ("policy_{}_logp", "policy_unconditional_{}_logp", "reference_{}_logp")


def _log_probs(columns: Columns, names: list[str], side: str) -> list[Floats]:
    """The policy's log-probs, the others, and the policy's minus each of the others."""
    policy, *others = [columns[name.format(side)] for name in names]
    return [policy, *others, *(policy - other for other in others)]


def given_block(values: list[Floats]) -> NDArray[np.float32]:
    """Signals that others have computed, shape (N, number of them); 0 where there is none."""
    return _block(values)


def _block(columns: list[Floats]) -> NDArray[np.float32]:
    return np.stack([_squash(values) for values in columns], axis=1).astype(np.float32)


def _squash(values: Floats) -> Floats:
    """Linear over the bulk of the values, logarithmic far out; 0 for NaN. Odd, so that a swap changes the sign."""
    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    size = np.abs(finite[finite != 0])
    far = _FAR * np.median(size) if size.size else 1.0
    return np.asarray(np.arcsinh(finite / far))
