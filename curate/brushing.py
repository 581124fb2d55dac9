"""A histogram to draw a range on: all pairs in grey, those that match in front. In the style of `curate.charts`."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from curate.charts import ACCENT, NEUTRAL, blank, label

_HEIGHT = 200


def brushable(bins: pd.DataFrame, name: str, limits: tuple[float, float] | None = None) -> go.Figure:
    """Bars to draw a range on.

    Args:
        bins: `low`, `high`, `pairs` and `matching`, as `curate.browsing.Browser.bins` gives them.
        name: of the axis.
        limits: the range that is asked for already; it is shaded.
    """
    figure = blank(_HEIGHT, barmode="overlay", bargap=0.04, showlegend=False, dragmode="select", selectdirection="h")
    middle, width = (bins["low"] + bins["high"]) / 2, bins["high"] - bins["low"]
    spans = bins[["low", "high"]].to_numpy()
    for column, colour, said in (("pairs", NEUTRAL, "pairs"), ("matching", ACCENT, "match")):
        figure.add_bar(
            x=middle,
            y=bins[column],
            width=width.where(width > 0),
            marker={"color": colour, "opacity": 0.35 if column == "pairs" else 1.0},
            customdata=spans,
            hovertemplate="%{customdata[0]:.3g} to %{customdata[1]:.3g}: %{y:,} " + said + "<extra></extra>",
            selected={"marker": {"opacity": 0.35 if column == "pairs" else 1.0}},
            unselected={"marker": {"opacity": 0.35 if column == "pairs" else 1.0}},
        )
    if limits is not None:
        figure.add_vrect(*limits, fillcolor=ACCENT, opacity=0.12, line_width=0)
    figure.update_xaxes(title_text=f"{label(name)}: draw a range")
    figure.update_yaxes(title_text="pairs", rangemode="tozero", tickformat=",~d", fixedrange=True)
    figure.update_layout(margin={"t": 8, "b": 40})
    return figure
