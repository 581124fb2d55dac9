"""Figures of a diagnosed run: tables or arrays in, plotly figures out. Nothing here knows where they are shown.

Reads: the tables `diagnosis`, `slices` and `selftest` as DataFrames, and an `AgreementCurve`.

No text of a pair enters a figure. Names that come from the data (sources, annotators, clusters, signals) do, as plain
text: plotly reads some HTML, so `label` escapes it. Backgrounds are transparent and the text has no colour of its own,
so that a page in light or dark can give it one.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from curate.noise import AgreementCurve
from curate.progress import printable
from curate.schema import KINDS

Floats = NDArray[np.float64]

#: Kinds of pairs → colours. Apart under protan, deutan and tritan vision, and visible on white and on near-black.
KIND_COLOURS: Mapping[str, str] = {
    "clean": "#37A3DB",
    "flipped": "#C43A1C",
    "ambiguous": "#C5992E",
    "defective": "#A84690",
    "unresolved": "#9A9C9F",
}
#: Kinds → marker symbols, so that colour is never alone in telling them apart.
KIND_SYMBOLS: Mapping[str, str] = {
    "clean": "circle",
    "flipped": "x",
    "ambiguous": "diamond",
    "defective": "triangle-up",
    "unresolved": "square",
}
ACCENT = "#3B7DC4"
NEUTRAL = "#82888F"
GRID = "rgba(130, 136, 143, 0.22)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: Slices are shown in this order.
SLICE_ORDER = ("source", "annotator", "cluster", "length", "turns")
#: Signals that stand beside any detector: length alone, and what is left of the fused one without length.
BASELINES = ("length", "fused_length_controlled")

_UNFITTED = "none"  # folds of signals that need no fit, and so hold beside any folds
_ORACLE = "oracle"  # what a perfect detector would reach
_GAINS = ("auroc_above_length",)  # metrics that are differences

_STEPS = ("#2FA39A", "#3B7DC4", "#7B4FA8", "#B5527A", "#C5992E")  # by planted noise rate
_STEP_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
_BINS = 40
_TAIL = 0.005  # of the evidence, on each side, goes into the outermost bin
_LABEL = 32  # characters
_NAMED_CLUSTERS = 8  # on the map itself; the others show on hovering
_ROW = 22  # pixels

_TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(_STEPS),
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "hoverlabel": {"font": {"family": FONT, "size": 13}, "align": "left"},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "title": {"font": {"size": 13}},
        },
        "separators": ".,",
        "dragmode": False,
        **{
            axis: {
                "gridcolor": GRID,
                "linecolor": NEUTRAL,
                "zeroline": False,
                "automargin": True,
                "ticks": "",
                "ticklabelstandoff": 4,
                "title": {"standoff": 12, "font": {"size": 13}},
            }
            for axis in ("xaxis", "yaxis")
        },
    }
)


def label(text: object, longest: int = _LABEL) -> str:
    """Any name as plain text for a figure: escaped, on one line, control characters shown, cut to `longest`."""
    line = printable(" ".join(str(text).split()))
    return html.escape(line if len(line) <= longest else line[: longest - 1].rstrip() + "…", quote=False)


def blank(height: int, **layout: object) -> go.Figure:
    """An empty figure, so many pixels high, in the style of all."""
    return go.Figure(layout={"template": _TEMPLATE, "height": height, **layout})


def rule(figure: go.Figure, at: float, axis: Literal["x", "y"], text: str = "", **line: object) -> None:
    """A dotted line across the figure at a value of one axis, with its name above its right end or its top."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": at, f"{axis}1": at, f"{axis}ref": axis, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    figure.add_shape(type="line", layer="below", line={"color": NEUTRAL, "width": 1.5, "dash": "dot", **line}, **ends)
    if text:
        place = {axis: at, f"{axis}ref": axis, other: 1, f"{other}ref": "paper", "yanchor": "bottom"}
        side = {} if axis == "x" else {"xanchor": "right"}
        figure.add_annotation(text=text, showarrow=False, font={"size": 12}, **place, **side)


def kind_counts(kinds: Mapping[str, int]) -> go.Figure:
    """How many pairs are of each kind, as labelled bars from zero."""
    counts = np.array([int(kinds.get(kind, 0)) for kind in KINDS])
    total = max(int(counts.sum()), 1)
    figure = blank(44 * len(KINDS), showlegend=False, bargap=0.35)
    figure.add_bar(
        x=counts,
        y=list(KINDS),
        orientation="h",
        marker_color=[KIND_COLOURS[kind] for kind in KINDS],
        text=[f"{count:,} ({count / total:.1%})" for count in counts],
        textposition="outside",
        cliponaxis=False,
        hoverinfo="skip",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(range=[0, max(int(counts.max()), 1)], visible=False)
    figure.update_layout(margin_r=136)  # the longest bar's text
    return figure


def agreement(curve: AgreementCurve, rate: float | None = None) -> go.Figure:
    """Observed and expected agreement of labels with the evidence, by |evidence|; G points of equal counts.

    Args:
        curve: the observed shares with their 95 % intervals, and the fitted ones.
        rate: the noise rate, in [0, 0.5]; 1 − rate is where the fitted curve levels off.
    """
    figure = blank(360, hovermode="closest")
    figure.add_scatter(
        x=curve.magnitude_G, y=curve.fit_G, mode="lines", name="fitted", line={"color": NEUTRAL, "width": 2}
    )
    figure.add_scatter(
        x=curve.magnitude_G,
        y=curve.agreement_G,
        error_y={
            "type": "data",
            "symmetric": False,
            "array": np.maximum(curve.high_G - curve.agreement_G, 0),
            "arrayminus": np.maximum(curve.agreement_G - curve.low_G, 0),
            "thickness": 1.5,
            "width": 0,
        },
        mode="markers",
        name="observed, with 95% interval",
        marker={"color": ACCENT, "size": 8},
        customdata=np.stack([curve.low_G, curve.high_G, curve.pairs_G], axis=1),
        hovertemplate="|evidence| %{x:.2f}: %{y:.1%} agree<br>95% interval %{customdata[0]:.1%} to "
        "%{customdata[1]:.1%}<br>%{customdata[2]:,} pairs<extra></extra>",
    )
    lowest = min(0.4, float(np.min(curve.low_G, initial=0.4)) - 0.02)
    figure.update_xaxes(title_text="|evidence| (fused margin)", rangemode="tozero")
    figure.update_yaxes(title_text="labels that agree", tickformat=".0%", range=[lowest, 1.02])
    rule(figure, 0.5, "y", "a coin")
    if rate is not None:
        rule(figure, 1 - rate, "y", "1 − noise rate", color=KIND_COLOURS["flipped"])
        figure.layout.annotations[-1].update(x=0, xanchor="left", xshift=4)  # where no points are
    return figure


def evidence_bins(evidence_N: Floats, kind_N: pd.Series[str], bins: int = _BINS) -> tuple[Floats, NDArray[np.int64]]:
    """Count the evidence by kind, in about `bins` equal bins of which zero is a border.

    Args:
        evidence_N: log-odds, shape (N,); NaN where there is none, which is not counted.
        kind_N: each pair's kind, shape (N,).

    Returns:
        edges of the E bins, shape (E+1,), and counts, shape (kinds, E); what lies outside is in the outer bins.
    """
    known = ~np.isnan(evidence_N)
    finite = evidence_N[np.isfinite(evidence_N)]
    low, high = np.quantile(finite, [_TAIL, 1 - _TAIL]) if len(finite) else (-1.0, 1.0)
    low, high = min(low, 0.0), max(high, 0.0)
    width = (high - low) / bins or 1.0
    edges = np.arange(np.floor(low / width), np.ceil(high / width) + 1) * width
    edges = edges if len(edges) > 1 else np.array([-width, 0.0, width])
    codes = pd.Categorical(kind_N, categories=list(KINDS)).codes
    inside = np.clip(evidence_N, edges[0], edges[-1])
    counts = [np.histogram(inside[known & (codes == code)], edges)[0] for code in range(len(KINDS))]
    return edges, np.stack(counts)


def evidence_histogram(diagnosis: pd.DataFrame) -> go.Figure:
    """Pairs by the log-odds that chosen is the better side, stacked by kind; the bins are counted beforehand.

    Args:
        diagnosis: columns `evidence` and `kind`; N rows.
    """
    edges, counts = evidence_bins(diagnosis["evidence"].to_numpy(dtype=np.float64, na_value=np.nan), diagnosis["kind"])
    figure = blank(340, barmode="stack", bargap=0.04, legend_traceorder="normal")
    spans = np.stack([edges[:-1], edges[1:]], axis=1)
    for kind, count in zip(KINDS, counts, strict=True):
        if count.any():
            figure.add_bar(
                x=spans.mean(axis=1),
                y=count,
                name=kind,
                marker_color=KIND_COLOURS[kind],
                customdata=spans,
                hovertemplate="%{customdata[0]:.2f} to %{customdata[1]:.2f}: %{y:,} " + kind + "<extra></extra>",
            )
    figure.update_xaxes(title_text="evidence that chosen is better (log-odds)")
    figure.update_yaxes(title_text="pairs", rangemode="tozero", tickformat=",~d")
    rule(figure, 0.0, "x")
    return figure


def worst_slices(slices: pd.DataFrame, limit: int = 30) -> pd.DataFrame:
    """The slices with the highest rates, at most `limit`, shared out among the kinds of slices.

    Args:
        slices: the table; slices without a rate, and those that have no other to compare with, are left out.

    Returns:
        its rows, grouped by `by`, the highest rate first.
    """
    rated = slices[slices["rate"].notna()]
    rated = rated[rated.groupby("by")["value"].transform("size") > 1]
    ordered = rated.sort_values(["rate", "pairs"], ascending=False, kind="stable")
    place = ordered.groupby("by").cumcount().sort_values(kind="stable").index[:limit]
    kept = ordered.loc[ordered.index.isin(place)]
    rank = {by: position for position, by in enumerate(SLICE_ORDER)}
    return kept.sort_values("by", key=lambda by: by.map(rank).fillna(len(rank)), kind="stable")


def slice_rates(worst: pd.DataFrame, overall: float | None = None) -> go.Figure:
    """Noise rates of slices with their 95 % intervals, a row each, under the name of what they are slices of.

    Args:
        worst: rows of the table `slices`, in the order to show them, as `worst_slices` gives them.
        overall: the rate of the whole, in [0, 1]; drawn as a line.
    """
    rows, ticks = _slice_rows(worst)
    figure = blank(_ROW * len(ticks) + 60, showlegend=False)
    above = worst["low"] > (np.inf if overall is None else overall)
    figure.add_scatter(
        x=worst["rate"],
        y=rows,
        mode="markers",
        marker={"size": 9, "color": np.where(above, KIND_COLOURS["flipped"], ACCENT)},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (worst["high"] - worst["rate"]).clip(lower=0),
            "arrayminus": (worst["rate"] - worst["low"]).clip(lower=0),
            "color": NEUTRAL,
            "thickness": 1.5,
            "width": 0,
        },
        customdata=np.stack([worst["low"], worst["high"], worst["pairs"]], axis=1),
        hovertemplate="%{x:.1%}, 95% interval %{customdata[0]:.1%} to %{customdata[1]:.1%}<br>"
        "%{customdata[2]:,} pairs<extra></extra>",
    )
    for row, pairs in zip(rows, worst["pairs"], strict=True):
        figure.add_annotation(
            text=f"{pairs:,}", x=1, xref="paper", xanchor="right", xshift=60, y=row, showarrow=False, font={"size": 12}
        )
    figure.update_layout(margin_r=72)
    figure.update_yaxes(
        tickvals=list(range(len(ticks))), ticktext=ticks, range=[len(ticks) - 0.4, -0.6], showgrid=False
    )
    highest = float(worst[["rate", "high"]].to_numpy().max())
    figure.update_xaxes(tickformat=".0%", range=[0, highest * 1.04 or 1], title_text="noise rate")
    if overall is not None:
        rule(figure, overall, "x", f"all: {overall:.1%}", color=NEUTRAL)
        figure.update_layout(margin_t=28)
    return figure


def _slice_rows(worst: pd.DataFrame) -> tuple[list[int], list[str]]:
    """Where each slice stands, and the names of all rows with the headings among them."""
    rows, ticks, last = [], [], None
    for by, value in zip(worst["by"], worst["value"], strict=True):
        if by != last:
            ticks.append(f"<b>{label(by)}</b>")
            last = by
        rows.append(len(ticks))
        ticks.append(label(value, 28))
    return rows, ticks


def text_map(
    diagnosis: pd.DataFrame,
    cluster_names: Mapping[int, str],
    colour: Literal["kind", "p_flip"] = "kind",
    limit: int = 5_000,
) -> go.Figure:
    """Pairs on the map of similar texts; the same `limit` of them each time where there are more.

    Args:
        diagnosis: columns `pair_id`, `kind`, `p_flip`, `cluster`, `x` and `y`; pairs without a place are left out.
        cluster_names: by the cluster's number.
        colour: what the colour shows.
    """
    placed = diagnosis[diagnosis["x"].notna() & diagnosis["y"].notna()]
    shown = placed if len(placed) <= limit else placed.sample(limit, random_state=0)
    names = {int(number): label(name) for number, name in cluster_names.items()}
    figure = blank(560, hovermode="closest", dragmode="zoom")
    if colour == "kind":
        for kind in KINDS:
            _add_points(figure, shown[shown["kind"] == kind], names, kind)
    else:
        _add_points(figure, shown.sort_values("p_flip", na_position="first"), names, None)
    for number in shown["cluster"].value_counts().index[:_NAMED_CLUSTERS]:
        if int(number) in names:
            middle = shown.loc[shown["cluster"] == number, ["x", "y"]].median()
            _name_place(figure, float(middle["x"]), float(middle["y"]), names[int(number)])
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(legend={"itemsizing": "constant"})
    return figure


def _add_points(figure: go.Figure, points: pd.DataFrame, names: Mapping[int, str], kind: str | None) -> None:
    if points.empty:
        return
    clusters = [
        "" if pd.isna(number) else names.get(int(number), f"cluster {int(number)}") for number in points["cluster"]
    ]
    chances = ["unknown" if pd.isna(chance) else f"{chance:.2f}" for chance in points["p_flip"]]
    marker: dict[str, object] = {"size": 5, "opacity": 0.75}
    if kind is not None:
        marker |= {"color": KIND_COLOURS[kind], "symbol": KIND_SYMBOLS[kind], "size": 4 if kind == "clean" else 6}
    else:
        marker |= {"color": points["p_flip"].to_numpy(np.float64, na_value=np.nan), "colorscale": "Cividis"}
        marker |= {"cmin": 0, "cmax": 1, "colorbar": {"title": {"text": "p_flip"}, "thickness": 12, "outlinewidth": 0}}
    figure.add_scatter(
        x=points["x"].to_numpy(np.float32).round(4),
        y=points["y"].to_numpy(np.float32).round(4),
        mode="markers",
        name=kind or "",
        marker=marker,
        showlegend=kind is not None,
        text=[
            f"{label(pair_id[:8])}<br>{cluster}<br>p_flip {chance}"
            for pair_id, cluster, chance in zip(points["pair_id"], clusters, chances, strict=True)
        ],
        hovertemplate="%{text}<extra>" + (kind or "") + "</extra>",
    )


def _name_place(figure: go.Figure, x: float, y: float, name: str) -> None:
    figure.add_annotation(
        x=x,
        y=y,
        text=name,
        name="place",
        showarrow=False,
        font={"size": 12},
        bgcolor="rgba(255,255,255,0.85)",
        borderpad=3,
    )


def selftest_scores(
    selftest: pd.DataFrame,
    metric: str,
    folds: str,
    noise: str = "random",
    *,
    baselines: Sequence[str] = BASELINES,
    names: Mapping[str, str] | None = None,
) -> go.Figure:
    """How well each signal finds planted noise, by its rate, with 95 % intervals; the baselines stand on top.

    Args:
        selftest: the table; figures of the same metric and noise have the same axes, so that they can be compared.
        metric, folds, noise: which of its rows to show; signals that need no fit are shown with any folds.
        baselines: signals that the others have to beat.
        names: of signals, as they are shown.
    """
    known = planted(selftest, metric, noise)
    shown = known[known["folds"].isin([folds, _UNFITTED])]
    signals = ranked_signals(known, baselines)
    rates = sorted(known["rate"].unique())
    figure = blank(max(_ROW, 13 * len(rates)) * len(signals) + 90, hovermode="closest")
    for position, rate in enumerate(rates):
        part = shown[shown["rate"] == rate]
        lift = (position - (len(rates) - 1) / 2) * 0.6 / len(rates)
        if len(part):
            _add_scores(figure, part, [signals.index(name) + lift for name in part["signal"]], rate, position)
    ticks = [label((names or {}).get(name, name.replace("_", " "))) for name in signals]
    ticks = [f"<i>{tick}</i>" if name in baselines else tick for name, tick in zip(signals, ticks, strict=True)]
    figure.update_yaxes(tickvals=list(range(len(signals))), ticktext=ticks)
    figure.update_yaxes(range=[len(signals) - 0.5, -0.5], showgrid=False)
    figure.update_xaxes(**_score_axis(known, metric))
    figure.update_layout(legend_title_text="planted", legend_title_side="left", showlegend=True)
    if (both := sum(name in baselines for name in signals)) and both < len(signals):
        rule(figure, both - 0.5, "y", color=GRID, dash="solid")
    _add_chance(figure, metric, rates)
    if metric == "auroc" and (best := ceiling(selftest)) is not None:
        rule(figure, best, "x", "ceiling", color=KIND_COLOURS["flipped"])
        figure.update_layout(legend_y=1.08)
    return figure


def planted(selftest: pd.DataFrame, metric: str, noise: str) -> pd.DataFrame:
    """The rows of one metric and kind of noise where some was planted, of signals that could be used."""
    chosen = (selftest["metric"] == metric) & (selftest["noise"] == noise) & (selftest["rate"] > 0)
    return selftest[chosen & selftest["mean"].notna() & (selftest["signal"] != _ORACLE)]


def ceiling(selftest: pd.DataFrame) -> float | None:
    """The best AUROC that is possible, since the labels were noisy before; None where the table does not say."""
    best = selftest[(selftest["signal"] == _ORACLE) & (selftest["metric"] == "auroc")]["mean"].dropna()
    return float(best.iloc[0]) if len(best) else None


def _score_axis(known: pd.DataFrame, metric: str) -> dict[str, object]:
    low = float(known["low"].fillna(known["mean"]).min()) - 0.03
    high = float(known["high"].fillna(known["mean"]).max()) + 0.03
    if metric in _GAINS:
        return {"range": [min(low, -0.05), max(high, 0.05)], "tickformat": "+.2f", "nticks": 7}
    return {"range": [min(low, 0.45), 1.02], "tickformat": ".1f", "dtick": 0.1 if low > 0.35 else 0.2}


def _add_chance(figure: go.Figure, metric: str, rates: Sequence[float]) -> None:
    """What a random order scores: a coin's AUROC; as average precision, the planted rate itself. No gain is zero."""
    if metric == "auroc" or metric in _GAINS:
        rule(figure, 0.5 if metric == "auroc" else 0.0, "x")
    elif metric == "average_precision":
        for position, rate in enumerate(rates):
            rule(figure, rate, "x", color=_STEPS[position % len(_STEPS)])


def ranked_signals(selftest: pd.DataFrame, baselines: Sequence[str] = BASELINES) -> list[str]:
    """Signals as they are listed: the baselines first, then the others, the best on average first."""
    means = selftest.groupby("signal")["mean"].mean().sort_values(ascending=False, kind="stable")
    found = [str(name) for name in means.index]
    return [name for name in baselines if name in found] + [name for name in found if name not in baselines]


def _add_scores(figure: go.Figure, part: pd.DataFrame, rows: Sequence[float], rate: float, position: int) -> None:
    colour = _STEPS[position % len(_STEPS)]
    low, high = part["low"].fillna(part["mean"]), part["high"].fillna(part["mean"])
    figure.add_scatter(
        x=part["mean"],
        y=list(rows),
        mode="markers",
        name=f"{rate:.0%}",
        marker={"size": 8, "color": colour, "symbol": _STEP_SYMBOLS[position % len(_STEP_SYMBOLS)]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (high - part["mean"]).clip(lower=0),
            "arrayminus": (part["mean"] - low).clip(lower=0),
            "thickness": 1.5,
            "width": 0,
        },
        customdata=np.stack([low, high], axis=1),
        hovertemplate="%{x:.3f} (%{customdata[0]:.3f} to %{customdata[1]:.3f})<extra>" + f"{rate:.0%} planted</extra>",
    )


def arm_accuracies(results: pd.DataFrame, summary: pd.DataFrame) -> go.Figure:
    """Accuracy on the held-out pairs, a row an arm: each seed, their mean and its 95 % interval.

    Args:
        results: columns `arm` and `accuracy`, a row each seed and arm.
        summary: as `curate.arms.by_arm` gives it.
    """
    summary = summary.iloc[::-1]
    names = {arm: label(arm.replace("_", " ")) for arm in summary["arm"]}
    figure = blank(110 + 36 * len(summary), hovermode="closest")
    figure.add_scatter(
        x=results["accuracy"],
        y=results["arm"].map(names),
        mode="markers",
        name="a seed",
        marker={"size": 6, "color": NEUTRAL, "opacity": 0.6},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure.add_scatter(
        x=summary["accuracy"],
        y=summary["arm"].map(names),
        mode="markers",
        name="mean, 95% interval",
        marker={"size": 10, "color": ACCENT},
        error_x={"type": "data", "array": summary["high"] - summary["accuracy"], "color": ACCENT, "thickness": 1.5},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    for arm in ("raw", "oracle_drop"):
        for at in summary.loc[summary["arm"] == arm, "accuracy"]:
            rule(figure, float(at), "x")
    figure.update_yaxes(categoryorder="array", categoryarray=list(names.values()), showgrid=False)
    figure.update_xaxes(title_text="accuracy on held-out pairs", tickformat=".0%")
    return figure
