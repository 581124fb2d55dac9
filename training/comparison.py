"""The results of a comparison as one table and one plot. Reads what `training.compare` writes.

Dimension key: S seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy.stats import t as student

from curate.charts import ACCENT, FONT, NEUTRAL
from training.trials import ARMS

Floats = NDArray[np.float64]

METRICS = ("accuracy", "margin", "loss", "calibration_error")


def by_arm(results: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: means over the seeds, accuracy with its 95 % interval, and its lead over `raw`, seed by seed.

    The interval of an accuracy ends at 0 and 1. lead, recovered: NaN for `raw` itself.
    recovered: (arm − raw)/(oracle_drop − raw) of the mean accuracies; NaN where the oracle does not lead clearly.
    """
    accuracy = results.pivot(index="seed", columns="arm", values="accuracy")
    arms = [arm for arm in ARMS if arm in accuracy]
    rows = [_summary(results[results["arm"] == arm], accuracy, arm) for arm in arms]
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


def as_text(summary: pd.DataFrame) -> str:
    """The table, for a terminal or a Markdown page."""
    rows = [list(_HEADINGS), *(_cells(row) for row in summary.to_dict("records"))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


_HEADINGS = ("arm", "pairs", "wrong labels", "accuracy", "95 %", "lead over raw", "95 %", "recovered")


def _cells(row: Mapping[Any, Any]) -> list[str]:
    def number(value: float, form: str = ".3f") -> str:
        return "–" if np.isnan(value) else format(value, form)

    def between(low: float, high: float, form: str = ".3f") -> str:
        return "–" if np.isnan(low) else f"{low:{form}} to {high:{form}}"

    return [
        str(row["arm"]),
        f"{row['trained']:,.0f}",
        number(row["noise"], ".1%"),
        number(row["accuracy"]),
        between(row["low"], row["high"]),
        number(row["lead"], "+.3f"),
        between(row["lead_low"], row["lead_high"], "+.3f"),
        number(row["recovered"], ".0%"),
    ]


def plot(results: pd.DataFrame) -> go.Figure:
    """Accuracy on the held-out pairs, a row an arm: each seed, their mean and its 95 % interval."""
    summary = by_arm(results).iloc[::-1]
    figure = go.Figure()
    figure.add_scatter(
        x=results["accuracy"],
        y=results["arm"],
        mode="markers",
        name="a seed",
        marker={"size": 6, "color": NEUTRAL, "opacity": 0.6},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=summary["accuracy"],
        y=summary["arm"],
        mode="markers",
        name="mean, 95 % interval",
        marker={"size": 10, "color": ACCENT},
        error_x={"type": "data", "array": summary["high"] - summary["accuracy"], "color": ACCENT, "thickness": 1.5},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    for arm in ("raw", "oracle_drop"):
        for at in summary.loc[summary["arm"] == arm, "accuracy"]:
            figure.add_vline(at, line={"dash": "dot", "color": NEUTRAL, "width": 1})
    figure.update_yaxes(categoryorder="array", categoryarray=list(summary["arm"]))
    figure.update_xaxes(title_text="accuracy on held-out pairs", tickformat=".0%")
    figure.update_layout(font_family=FONT, height=80 + 40 * len(summary), template="plotly_white")
    return figure
