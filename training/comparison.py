"""The results of a comparison as text and as a plot. Reads what `training.compare` writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from curate import arms
from curate.charts import arm_accuracies
from training.worlds import ARMS

METRICS = arms.METRICS


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """See `curate.arms.summarise`, in the order of `ARMS`."""
    return arms.summarise(results, ARMS)


def as_text(summary: pd.DataFrame) -> str:
    """The table, for a terminal or a Markdown page."""
    lines = ["| arm | pairs | wrong labels | accuracy | 95 % | lead over raw | 95 % | recovered |", "|---" * 8 + "|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in summary.to_dict("records")]
    return "\n".join(lines)


def _cells(row: Mapping[Any, Any]) -> list[str]:
    def number(value: float, form: str = ".3f") -> str:
        return "–" if np.isnan(value) else format(value, form)

    return [
        str(row["arm"]),
        f"{row['trained']:,.0f}",
        number(row["noise"], ".1%"),
        number(row["accuracy"]),
        f"{number(row['low'])} to {number(row['high'])}",
        number(row["lead"], "+.3f"),
        f"{number(row['lead_low'], '+.3f')} to {number(row['lead_high'], '+.3f')}",
        number(row["recovered"], ".0%"),
    ]


def plot(results: pd.DataFrame) -> go.Figure:
    """Accuracy on the held-out pairs, a row an arm: each seed, their mean and its 95 % interval."""
    return arm_accuracies(results, summarise(results))
