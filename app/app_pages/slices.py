"""The page Slices: where the noise is, by source, annotator, cluster, length and turns, and on the map of texts."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import parts, state
from curate.aggregates import MAP_PAIRS, text_map
from curate.charts import slice_rates, worst_slices
from curate.charts import text_map as map_of
from curate.schema import KINDS
from curate.slices import slice_predicate

_PLOTTED = 25
_COLOURS = ("kind", "chance of a flip")
_WAYS = {"source": "Source", "annotator": "Annotator", "cluster": "Cluster", "length": "Length", "turns": "Turns"}


@st.cache_data(max_entries=8, show_spinner="Drawing pairs for the map …")
def places(key: str) -> pd.DataFrame:
    """Pairs with their place on the map."""
    return text_map(state.view())


def go_to(line: pd.Series) -> None:
    """The pairs of a slice, where the rule language can name them."""
    where = slice_predicate(line["by"], line["value"], clusters)
    if where is None:
        st.caption("The pairs of annotators without a name cannot be asked for.")
    else:
        parts.show_pairs(where)


def rates(shown: pd.DataFrame, overall: float | None) -> None:
    """Noise rates with their intervals, the highest first."""
    worst = worst_slices(shown, _PLOTTED)
    if worst.empty:
        st.markdown("No slice of this kind has a noise rate: there is only one, or the evidence cannot tell.")
        return
    more = f", the highest {len(worst)} of {len(shown)}" if len(worst) < len(shown) else ""
    st.caption(f"Shrunk towards the whole, with 95% intervals{more}; on the right the labels. A click opens the pairs.")
    chosen = parts.clicked(slice_rates(worst, overall), "rates", f"Noise rates of {len(worst)} slices")
    if chosen is not None:
        go_to(worst.iloc[int(chosen["point_index"])])


def table(shown: pd.DataFrame) -> None:
    """All slices with the kinds of their pairs."""
    names = {
        "value": "Slice",
        "pairs": "Labels",
        "rate": st.column_config.NumberColumn("Noise rate", format="%.0f %%"),
        "low": st.column_config.NumberColumn("From", format="%.0f %%"),
        "high": st.column_config.NumberColumn("To", format="%.0f %%"),
        **{kind: kind.capitalize() for kind in KINDS},
    }
    shares = ["rate", "low", "high"]
    chosen = parts.rows(shown.assign(**(100 * shown[shares])), "slices", **names)
    if chosen is not None:
        go_to(shown.iloc[chosen])


@st.fragment
@parts.guarded
def similar_texts() -> None:
    """The map; a box opens the pairs that lie in it."""
    st.subheader("Map of similar texts", anchor=False)
    if not clusters:
        parts.empty(
            "The run was scored without hidden states, so there is no map.", parts.command("score", "--features")
        )
        return
    placed = places(state.fingerprint())
    total = sum(state.view().stage("diagnose")["kinds"].values())
    drawn = (
        f"{MAP_PAIRS:,} of {total:,} pairs, drawn at random" if len(placed) == MAP_PAIRS else f"{len(placed):,} pairs"
    )
    st.caption(f"{drawn}. Near one another are pairs whose texts are similar. Drag a box to open the pairs in it.")
    by = st.segmented_control("Colour", _COLOURS, default=_COLOURS[0], required=True, key="colour", bind="query-params")
    figure = map_of(placed, dict(enumerate(clusters)), "kind" if by == _COLOURS[0] else "p_flip")
    figure.update_layout(dragmode="select")
    figure.update_annotations(bgcolor="rgba(130, 136, 143, 0.2)", selector={"name": "place"})
    box = parts.boxed(figure, "map", f"Map of {drawn}, coloured by {by}")
    if box is not None:
        parts.show_pairs(within(box["x"], box["y"]))


def within(x: list[float], y: list[float]) -> str:
    """A predicate for a place on the map, rounded as it is drawn."""
    limits = {"x": (min(x), max(x)), "y": (min(y), max(y))}
    return " and ".join(f"{axis} between {low:.4f} and {high:.4f}" for axis, (low, high) in limits.items())


st.title("Slices")
parts.need("pairs", "scores", "weights", "diagnosis")
diagnosed = state.view().stage("diagnose")
clusters = diagnosed["clusters"] or []
slices = state.view().table("slices")
ways = [by for by in _WAYS if (slices["by"] == by).any()]
way = st.segmented_control(
    "Noise by", ways, default=ways[0], required=True, format_func=lambda by: _WAYS[by], key="by", bind="query-params"
)
shown = slices[slices["by"] == way].reset_index(drop=True)
noise = diagnosed["noise"]
rates(shown, noise["rate"] if noise is not None and noise["can_tell"] else None)
table(shown)
similar_texts()
