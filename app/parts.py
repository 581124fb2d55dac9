"""Pieces that pages are made of. Text from data passes through `plain`, `code` or `figure`, never as Markdown."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, ParamSpec

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from app import state
from curate.errors import CurateError

P = ParamSpec("P")

#: Tables → what is missing where one is not there, and the command that makes it.
_STAGES = {
    "pairs": ("The run holds no pairs yet.", "ingest DATA -o"),
    "scores": ("The pairs are not scored yet.", "score"),
    "weights": ("There are no margins and weights yet.", "weigh"),
    "diagnosis": ("The run is not diagnosed yet.", "diagnose"),
    "selftest": ("There is no self-test yet: without it nobody knows how good the evidence is.", "selftest"),
}
PAIRS = "app_pages/pairs.py"
PAIR = "app_pages/pair.py"
_TILE, _NARROW_TILE = 256, 192  # pixels: three, or four, side by side at 1280
_FONT = '"Source Sans", sans-serif'  # that of the pages
_INK = {"light": "#1b1f24", "dark": "#e7e9ec"}
_PLOT = {"displayModeBar": False, "responsive": True}


@dataclass(frozen=True)
class Tile:
    """A number, what it is, and the predicate of the pairs that it counts (None: it leads nowhere).

    Label and note are Markdown: nothing of the data's, or of a file's, may stand in them.
    """

    label: str
    value: str
    note: str = ""
    where: str | None = None
    link: str = "Show the pairs"


def tiles(shown: Sequence[Tile]) -> None:
    """Numbers side by side, as many as fit; each with a link to its pairs."""
    width = _NARROW_TILE if len(shown) == 4 else _TILE
    with st.container(horizontal=True, gap="small"):
        for number, tile in enumerate(shown):
            with st.container(border=True, width=width, height="stretch", key=f"tile_{number}_{tile.label}"):
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


def styled(drawn: go.Figure) -> go.Figure:
    """A figure in the page's font, and in a text colour that can be read on its background."""
    ink = _INK["dark" if st.context.theme.type == "dark" else "light"]
    return drawn.update_layout(font={"family": _FONT, "color": ink})


def figure(drawn: go.Figure, key: str, alt: str) -> None:
    """A plotly figure that takes the page's colours; `alt` says in words what it shows."""
    st.plotly_chart(styled(drawn), theme=None, key=key, alt=alt, config=_PLOT)


def clicked(drawn: go.Figure, key: str, alt: str) -> dict[str, Any] | None:
    """The same, and the point or bar that was clicked: `x`, `y`, `point_index`, `customdata`, …"""
    still = styled(drawn).update_xaxes(fixedrange=True).update_yaxes(fixedrange=True)  # a drag moves nothing
    event = st.plotly_chart(
        still, theme=None, key=key, alt=alt, config=_PLOT, on_select="rerun", selection_mode="points"
    )
    points = event["selection"]["points"]
    return dict(points[0]) if points else None


def boxed(drawn: go.Figure, key: str, alt: str) -> dict[str, Any] | None:
    """The same, and the box that was drawn in it: `x` and `y`, two numbers each."""
    event = st.plotly_chart(
        styled(drawn), theme=None, key=key, alt=alt, config=_PLOT, on_select="rerun", selection_mode="box"
    )
    boxes = event["selection"]["box"]
    return dict(boxes[0]) if boxes else None


def rows(frame: pd.DataFrame, key: str, **columns: Any) -> int | None:
    """A table of one page, and the position of the row that was clicked.

    Args:
        columns: how a column of the frame is shown (`st.column_config`); others are left out.
    """
    event = st.dataframe(
        frame,
        key=key,
        hide_index=True,
        column_order=list(columns),
        column_config=columns,
        on_select="rerun",
        selection_mode="single-row",
    )
    chosen = event["selection"]["rows"]
    return int(chosen[0]) if chosen else None


def show_pairs(where: str) -> NoReturn:
    """Go to the page Pairs with a predicate."""
    st.switch_page(PAIRS, query_params=query(where=where))


def show_pair(pair_id: str) -> NoReturn:
    """Go to the page of one pair."""
    st.switch_page(PAIR, query_params=query(id=pair_id))


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


def command(name: str, *flags: str) -> str:
    """A `curate` command about the run that is open, as it is typed."""
    return " ".join(["curate", name, shlex.quote(str(state.run_path())), *flags])


def has(table: str) -> bool:
    """Whether the run has a table; where it does not, the page says which command makes it."""
    if state.view().has(table):
        return True
    what, stage = _STAGES[table]
    empty(what, command(stage))
    return False


def need(*tables: str) -> None:
    """End the page here where the run lacks one of these tables."""
    for table in tables:
        if not has(table):
            st.stop()


def guarded(draw: Callable[P, None]) -> Callable[P, None]:
    """A part of a page that shows its own errors. Fragments need it: they run again without the page around them."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            draw(*args, **kwargs)
        except CurateError as error:
            fault(str(error))

    return drawn


def fault(message: str) -> None:
    """An error that the reader can mend."""
    st.error("This cannot be shown:", icon=":material/error:")
    code(message)
