"""Implicit reward margins from stored log-probs; any β and any kind, without touching a model.

    dpo        h = β·[(log π(y_w|x) − log π_ref(y_w|x)) − (log π(y_l|x) − log π_ref(y_l|x))]
    dpo_norm   the same with each log-prob divided by |y| (the γ-PO release's length_norm)
    simpo      h = β·[log π(y_w|x)/|y_w| − log π(y_l|x)/|y_l|]

By hand: log π = (−2, −6) of 2 and 3 tokens, log π_ref = (−3, −3), β = 2: dpo 2·(1 − (−3)) = 8,
dpo_norm 2·(1/2 − (−3/3)) = 3, simpo 2·(−2/2 − (−6/3)) = 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curate.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LogProbs:
    """Sums of log-probs over the completions (nats) and their token counts, each of shape (N,); NaN where unscored."""

    policy_chosen: Floats
    policy_rejected: Floats
    chosen_tokens: Floats
    rejected_tokens: Floats
    reference_chosen: Floats | None = None
    reference_rejected: Floats | None = None

    @property
    def has_reference(self) -> bool:
        """Whether a reference model was scored too."""
        return self.reference_chosen is not None and self.reference_rejected is not None


def _log_ratios(logps: LogProbs) -> tuple[Floats, Floats]:
    if logps.reference_chosen is None or logps.reference_rejected is None:
        raise ConfigError("this margin needs a reference model: score with --reference, or use --margin simpo")
    return logps.policy_chosen - logps.reference_chosen, logps.policy_rejected - logps.reference_rejected


def _dpo(logps: LogProbs) -> Floats:
    chosen, rejected = _log_ratios(logps)
    return chosen - rejected


def _dpo_norm(logps: LogProbs) -> Floats:
    chosen, rejected = _log_ratios(logps)
    return chosen / logps.chosen_tokens - rejected / logps.rejected_tokens


def _simpo(logps: LogProbs) -> Floats:
    return logps.policy_chosen / logps.chosen_tokens - logps.policy_rejected / logps.rejected_tokens


_UNSCALED: dict[str, Callable[[LogProbs], Floats]] = {"dpo": _dpo, "dpo_norm": _dpo_norm, "simpo": _simpo}


def implicit_margin(logps: LogProbs, kind: str, *, beta: float) -> Floats:
    """Implicit reward margins h_i, shape (N,), in nats (times β); NaN where a pair has none.

    A side without tokens has no length-normalised reward.

    Raises:
        ConfigError: unknown kind, or one that needs a reference where there is none.
    """
    if kind not in _UNSCALED:
        raise ConfigError(f"margin {kind!r} is unknown: choose one of {', '.join(_UNSCALED)}")
    with np.errstate(divide="ignore", invalid="ignore"):
        margin = beta * _UNSCALED[kind](logps)
    return np.where(np.isfinite(margin), margin, np.nan)


def default_kind(logps: LogProbs) -> str:
    """`dpo_norm` where there is a reference, else `simpo`: both length-normalised, as γ-PO was published."""
    return "dpo_norm" if logps.has_reference else "simpo"
