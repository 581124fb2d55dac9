"""The results of a comparison as text and as a plot. Reads what `training.compare` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from curate import arms
from curate.charts import arm_accuracies
from training.trials import ARMS

METRICS = arms.METRICS


def by_arm(results: pd.DataFrame) -> pd.DataFrame:
    """See `curate.arms.by_arm`, in the order of `ARMS`."""
    return arms.by_arm(results, ARMS)


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
    return arm_accuracies(results, by_arm(results))
