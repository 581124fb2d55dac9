"""The results of a comparison of trainings as one table. Reads what `curate compare` writes.

Dimension key: S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t as student

Floats = NDArray[np.float64]

METRICS = ("accuracy", "margin", "loss", "calibration_error")


def by_arm(results: pd.DataFrame, order: Sequence[str]) -> pd.DataFrame:
    """One row an arm, in this order: means over the seeds, accuracy with its 95 % interval, and its lead over `raw`.

    The lead is taken seed by seed. The interval of an accuracy ends at 0 and 1. lead, recovered: NaN for `raw` itself.
    recovered: (arm − raw)/(oracle_drop − raw) of the mean accuracies; NaN where the oracle does not lead clearly.
    """
    accuracy = results.pivot(index="seed", columns="arm", values="accuracy")
    rows = [_summary(results[results["arm"] == arm], accuracy, arm) for arm in order if arm in accuracy]
    return pd.DataFrame(rows)


def _summary(of_arm: pd.DataFrame, accuracy: pd.DataFrame, arm: str) -> dict[str, Any]:
    low, high = np.clip(_interval(accuracy[arm].to_numpy()), 0.0, 1.0)
    row: dict[str, Any] = {"arm": arm, "seeds": len(of_arm)}
    row |= {name: float(of_arm[name].mean()) for name in ("trained", "noise", *METRICS)}
    row |= {"low": low, "high": high, "lead": np.nan, "lead_low": np.nan, "lead_high": np.nan, "recovered": np.nan}
    if "raw" in accuracy and arm != "raw":
        lead_S = (accuracy[arm] - accuracy["raw"]).to_numpy()
        row["lead"] = float(lead_S.mean())
        row["lead_low"], row["lead_high"] = _interval(lead_S)
        if "oracle_drop" in accuracy:
            gap_S = (accuracy["oracle_drop"] - accuracy["raw"]).to_numpy()
            if _interval(gap_S)[0] > 0:
                row["recovered"] = float(lead_S.mean() / gap_S.mean())
    return row


def _interval(values_S: Floats) -> tuple[float, float]:
    """Student's 95 % interval of the mean; NaN for one seed."""
    if len(values_S) < 2:
        return np.nan, np.nan
    spread = float(student.ppf(0.975, len(values_S) - 1) * np.std(values_S, ddof=1) / np.sqrt(len(values_S)))
    mean = float(values_S.mean())
    return mean - spread, mean + spread
