"""Histograms to brush: a range that is drawn over the bins becomes a condition of the filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from app import filters, pairs_table, parts, queries
from curate.browsing import Wanted
from curate.brushing import brushable


def show(wanted: Wanted, columns: Sequence[str], change: Callable[[str], None]) -> None:
    """A histogram of each column: all pairs, and those that match.

    change: told the predicate with the range that was drawn.
    """
    for place, column in zip(st.columns(max(len(columns), 1)), columns, strict=False):
        with place:
            _histogram(wanted, column, change)


def _histogram(wanted: Wanted, column: str, change: Callable[[str], None]) -> None:
    bins = queries.bins(column, wanted)
    limits = filters.chosen_range(wanted.where, column)
    name = pairs_table.name_of(column)
    key = f"bins_{column}_{limits}"  # another key forgets what was drawn before

    def brushed() -> None:
        if (drawn := _drawn(key)) is not None:
            change(filters.with_range(wanted.where, column, drawn))

    st.plotly_chart(
        parts.styled(brushable(bins, name, limits)),
        theme=None,
        key=key,
        alt=f"Histogram of {name}: {int(bins['pairs'].sum()):,} pairs, {int(bins['matching'].sum()):,} match",
        config={"displayModeBar": False, "responsive": True},
        on_select=brushed,
        selection_mode="box",
    )
    if limits is not None:
        st.button(
            f"Any {name}",
            key=f"clear_{column}",
            icon=":material/close:",
            on_click=change,
            args=(filters.with_range(wanted.where, column, None),),
        )


def _drawn(key: str) -> tuple[float, float] | None:
    """The range of a selection box, in the units of the axis."""
    boxes = st.session_state[key]["selection"]["box"]
    if not boxes or not boxes[0].get("x"):
        return None
    ends = [float(end) for end in boxes[0]["x"]]
    return min(ends), max(ends)
