"""Figures of the pages that the report does not have: tables in, plotly figures out. Streamlit is not known here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from curate.charts import ACCENT, KIND_COLOURS, KIND_SYMBOLS, NEUTRAL, blank, label, rule
from curate.schema import KINDS
from curate.trainings import EVALUATED

Floats = NDArray[np.float64]

SECOND = "#C43A1C"  # the second of two settings or runs


def margin_histogram(bins: pd.DataFrame, unit: str) -> go.Figure:
    """Pairs by margin, stacked by kind.

    Args:
        bins: as `curate.aggregates.margin_bins` counts them.
        unit: what the margin is, for the axis.
    """
    figure = blank(340, barmode="stack", bargap=0.04, legend_traceorder="normal")
    named = bins.assign(kind=bins["kind"].fillna("pairs"))
    for kind in [*KINDS, "pairs"]:
        part = named[named["kind"] == kind]
        if len(part):
            figure.add_bar(
                x=part["middle"],
                y=part["pairs"],
                width=part["width"] * 0.96,
                name=kind,
                marker_color=KIND_COLOURS.get(kind, ACCENT),
                customdata=[span(low, high) for low, high in zip(part["low"], part["high"], strict=True)],
                hovertemplate="%{customdata}: %{y:,} " + kind + "<extra></extra>",
            )
    figure.update_xaxes(title_text=f"margin ({unit})")
    figure.update_yaxes(title_text="pairs", rangemode="tozero", tickformat=",~d")
    rule(figure, 0.0, "x")
    return figure


def span(low: float, high: float) -> str:
    """An interval in words; one side may be open."""
    if not np.isfinite(low):
        return f"below {high:g}"
    return f"{low:g} and more" if not np.isfinite(high) else f"{low:g} to {high:g}"


def longer_side(lengths: pd.DataFrame) -> go.Figure:
    """Share of pairs whose chosen, or rejected, side is the longer one; a row a kind, and one of all.

    Args:
        lengths: as `curate.aggregates.length_bias` gives them.
    """
    names = [f"{'all' if pd.isna(kind) else kind}" for kind in lengths["kind"]]
    figure = blank(60 + 34 * len(lengths), barmode="relative", bargap=0.35, legend_traceorder="normal")
    sides = (("chosen_longer", "chosen is longer", ACCENT, 1), ("rejected_longer", "rejected is longer", NEUTRAL, -1))
    for column, name, colour, sign in sides:
        figure.add_bar(
            x=sign * lengths[column],
            y=names,
            orientation="h",
            name=name,
            marker_color=colour,
            customdata=np.stack([lengths[column], lengths["pairs"]], axis=1),
            text=[f"{share:.0%}" for share in lengths[column]],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{customdata[0]:.1%} of %{customdata[1]:,} pairs<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(visible=False, range=[-1.02, 1.02])
    rule(figure, 0.0, "x")
    return figure


def weights_by_margin(margin_P: Floats, pairs_P: Floats, settings: Mapping[str, tuple[Floats, Floats]]) -> go.Figure:
    """Weights against margins, a curve each setting, over the number of pairs.

    Args:
        margin_P, pairs_P: margins of the first setting, and how many pairs each point stands for.
        settings: the name of each, at most two → margins and weights, shape (P,).
    """
    figure = make_subplots(specs=[[{"secondary_y": True}]])
    figure.update_layout(blank(380, hovermode="x", bargap=0).layout)
    counts, edges = np.histogram(margin_P, bins=60, weights=pairs_P)
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        name="pairs",
        marker_color="rgba(130, 136, 143, 0.35)",
        hovertemplate="%{y:,} pairs<extra></extra>",
        secondary_y=True,
    )
    styles = zip((ACCENT, SECOND), ("solid", "dash"), settings.items(), strict=False)
    for colour, dash, (name, (x_P, weight_P)) in styles:
        figure.add_scatter(
            x=x_P,
            y=weight_P,
            mode="lines",
            name=name,
            line={"color": colour, "width": 2.5, "dash": dash},
            hovertemplate="margin %{x:.2f}: weight %{y:.3f}<extra></extra>",
        )
    figure.update_xaxes(title_text="margin (nats)")
    figure.update_yaxes(title_text="weight (mean 1)", rangemode="tozero", secondary_y=False)
    figure.update_yaxes(visible=False, rangemode="tozero", secondary_y=True)
    rule(figure, 1.0, "y")
    return figure


def learning_curve(metrics: pd.DataFrame, columns: Sequence[tuple[str, str]], title: str, form: str = "") -> go.Figure:
    """A number by update: of training pairs as a line, of held-out pairs with marks.

    Args:
        metrics: `step` and the columns, NaN where a line of the log has none.
        columns: name in the frame, and in the legend.
    """
    figure = blank(240, hovermode="x unified", showlegend=len(columns) > 1)
    for column, name in columns:
        colour, dash = (SECOND, "dash") if column.startswith(EVALUATED) else (ACCENT, "solid")
        known = metrics[metrics[column].notna()]
        figure.add_scatter(
            x=known["step"],
            y=known[column],
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 5},
        )
    figure.update_xaxes(title_text="update", rangemode="tozero")
    figure.update_yaxes(title_text=title, tickformat=form)
    return figure


def dynamics(pairs: pd.DataFrame) -> go.Figure:
    """Mean margin of a pair over its visits against its standard deviation, coloured by kind.

    Args:
        pairs: columns `pair_id`, `kind`, `mean` and `variability`.
    """
    figure = blank(460, hovermode="closest")
    for kind in KINDS:
        part = pairs[pairs["kind"] == kind]
        if len(part):
            figure.add_scattergl(
                x=part["variability"],
                y=part["mean"],
                mode="markers",
                name=kind,
                marker={"color": KIND_COLOURS[kind], "symbol": KIND_SYMBOLS[kind], "size": 6, "opacity": 0.75},
                customdata=part["pair_id"],
                text=[label(pair_id[:8]) for pair_id in part["pair_id"]],
                hovertemplate="%{text}<br>mean %{y:.2f}, sd %{x:.2f}<extra>" + kind + "</extra>",
            )
    figure.update_xaxes(title_text="standard deviation of the margin over its visits (nats)", rangemode="tozero")
    figure.update_yaxes(title_text="mean margin (nats)")
    rule(figure, 0.0, "y")
    return figure


def _every_bin(middles: pd.Series[float]) -> Floats:
    """Bins without pairs stand among those that have some."""
    found_B: Floats = np.unique(middles.to_numpy(np.float64))
    width = float(np.diff(found_B).min(initial=np.inf))
    if not np.isfinite(width):
        return found_B
    return np.asarray(np.arange(found_B[0], found_B[-1] + width / 2, width), dtype=np.float64)


def moved_margins(margins: pd.DataFrame, before: str, after: str) -> go.Figure:
    """Margins of one run against those of another, as counts of pairs in bins.

    Args:
        margins: `was`, `now` and `pairs`.
        before, after: the runs' names.
    """
    table = margins.pivot(index="now", columns="was", values="pairs")
    now_B, was_B = _every_bin(margins["now"]), _every_bin(margins["was"])
    table = table.reindex(index=now_B, method="nearest", tolerance=1e-9)
    table = table.reindex(columns=was_B, method="nearest", tolerance=1e-9)
    figure = blank(420, hovermode="closest")
    figure.add_heatmap(
        x=table.columns,
        y=table.index,
        z=np.log10(table.to_numpy()),
        customdata=table.to_numpy(),
        colorscale="Blues",
        showscale=False,
        hovertemplate="%{x:.3g} → %{y:.3g}: %{customdata:,} pairs<extra></extra>",
    )
    figure.update_xaxes(title_text=f"margin in {label(before)} (nats)")
    figure.update_yaxes(title_text=f"margin in {label(after)} (nats)")
    rule(figure, 0.0, "x")
    rule(figure, 0.0, "y")
    return figure
