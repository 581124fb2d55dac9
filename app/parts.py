"""Pieces that pages are made of. Text from data passes through `plain`, `code` or `figure`, never as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from app import state

PAIRS = "app_pages/pairs.py"
_PLOT = {"displayModeBar": False, "responsive": True}


@dataclass(frozen=True)
class Tile:
    """A number, what it is, and the predicate of the pairs that it counts (None: it leads nowhere)."""

    label: str
    value: str
    note: str = ""
    where: str | None = None
    link: str = "Show the pairs"


def tiles(shown: Sequence[Tile]) -> None:
    """Numbers side by side, as many as fit; each with a link to its pairs."""
    with st.container(horizontal=True, gap="small"):
        for number, tile in enumerate(shown):
            with st.container(border=True, width=216, height="stretch", key=f"tile_{number}_{tile.label}"):
                st.metric(tile.label, tile.value)
                if tile.note:
                    st.caption(tile.note)
                if tile.where is not None:
                    pairs_link(tile.link, tile.where)


def pairs_link(label: str, where: str) -> None:
    """A link to the page Pairs with a predicate (docs/rules.md); "" is all pairs. The label is ours, not the data's."""
    st.page_link(PAIRS, label=label, icon=":material/arrow_forward:", query_params=query(where=where))


def query(**parameters: str) -> dict[str, str]:
    """Query parameters of a link within the run that is open; empty ones are left out."""
    name = state.run_name()
    head = {} if name is None else {"run": name}
    return head | {key: value for key, value in parameters.items() if value}


def figure(drawn: go.Figure, key: str, alt: str) -> None:
    """A plotly figure that takes the page's colours; `alt` says in words what it shows."""
    st.plotly_chart(drawn, theme=None, key=key, alt=alt, config=_PLOT)


def clicked(drawn: go.Figure, key: str, alt: str) -> list[dict[str, Any]]:
    """The same, and the points that are selected in it: `x`, `y`, `customdata`, …"""
    event = st.plotly_chart(
        drawn, theme=None, key=key, alt=alt, config=_PLOT, on_select="rerun", selection_mode=("points", "box")
    )
    return [dict(point) for point in event["selection"]["points"]]


def plain(text: str) -> None:
    """Text from data: shown as it is."""
    st.text(text)


def code(text: str) -> None:
    """A command or an error: shown as it is, and to be copied."""
    st.code(text, language=None, wrap_lines=True)


def empty(what: str, command: str = "") -> None:
    """What is missing, and the command that makes it. `what` is ours, the command may name paths."""
    with st.container(border=True):
        st.markdown(what)
        if command:
            code(command)


def fault(message: str) -> None:
    """An error that the reader can mend."""
    st.error("This cannot be shown:", icon=":material/error:")
    code(message)
