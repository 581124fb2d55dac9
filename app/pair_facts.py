"""What is known of a pair besides its texts: kind, doubt, checks, signals and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import deciding, pairs_table, parts, state, text
from curate.browsing import Browser
from curate.signals import SIGNALS

_KINDS = {
    "clean": "the label is more likely right than wrong",
    "flipped": "the label is more likely wrong than right",
    "ambiguous": "a near tie",
    "defective": "it cannot be used as it is",
    "unresolved": "the evidence says nothing certain",
}
_NUMBERS = {
    "p_flip": ("P(flipped)", "probability that the label is the wrong way round"),
    "evidence": ("Evidence", "log-odds from the other pairs that chosen is the better side"),
    "weight": ("Weight", "w_i of γ-PO: how much the pair counts, 1 on average"),
    "target_margin": ("Target margin", "γ_i of γ-PO: how much margin is asked of the pair"),
}
_VOTES = {1: "for the label", -1: "against it", 0: "calls it a tie"}


def show_head(pair: Mapping[str, Any], browser: Browser) -> None:
    """Which pair it is, what it is taken for, and what is decided about it."""
    parts.plain(f"{pair['pair_id'][:12]} · {_place(pair)}")
    with st.container(horizontal=True, gap="medium"):
        if isinstance(kind := pair.get("kind"), str):
            st.metric("Kind", kind.capitalize(), help=_KINDS[kind])
        for column in ("p_flip", "margin", "weight"):
            if pd.notna(value := pair.get(column)):
                st.metric(pairs_table.name_of(column), f"{value:.2f}")
        st.metric("Decision", _decision(pair))


def _place(pair: Mapping[str, Any]) -> str:
    """Where the data has it; a file's name is data too."""
    source = f"source {pair['source']}, " if pair.get("source") else ""
    return text.one_line(f"{source}{pair['file']}, line {pair['line']}")


def _decision(pair: Mapping[str, Any]) -> str:
    found = state.view().sql("SELECT action, value FROM decisions WHERE row = $row", row=pair["row"])
    if found.empty:
        return "None"
    value = "" if pd.isna(found["value"][0]) else f" {found['value'][0]:.2f}"
    return f"{deciding.ACTIONS[found['action'][0]]}{value}"


def show_findings(pair: Mapping[str, Any]) -> None:
    """Why the pair is taken for what it is, and what checks found."""
    st.subheader("Why", anchor=False)
    view = state.view()
    if not view.has("diagnosis"):
        parts.empty("The run is not diagnosed.", f"curate diagnose {view.path}")
        return
    lines = [*pair["reasons"], *_found(pair), *_voted(pair)]
    parts.plain("\n".join(f"· {text.one_line(line)}" for line in lines))


def _found(pair: Mapping[str, Any]) -> list[str]:
    """What the checks say."""
    query = 'SELECT "check", severity, detail FROM findings WHERE row = $row ORDER BY severity, "check"'
    details = state.view().sql(query, row=pair["row"]).itertuples(index=False)
    return [f"{check} ({severity}): {detail}" for check, severity, detail in details]


def _voted(pair: Mapping[str, Any]) -> list[str]:
    """What the annotators say."""
    votes = [] if pair["votes"] is None else pair["votes"]
    return [f"{vote['annotator']}: {_VOTES[vote['vote']]}" for vote in votes]


def show_signals(pair: Mapping[str, Any]) -> None:
    """All numbers, which side they speak for, and what they mean."""
    st.subheader("Signals", anchor=False)
    view = state.view()
    if not view.has("scores"):
        parts.empty("The run is not scored.", f"curate score {view.path}")
        return
    lines = [(name, pair.get(column), "", meaning) for column, (name, meaning) in _NUMBERS.items()]
    lines += [
        (pairs_table.name_of(name), pair[name], _speaks(pair[name]), meaning) for name, meaning in _meanings().items()
    ]
    frame = pd.DataFrame(lines, columns=["Signal", "Value", "Speaks", "What it is"])
    st.dataframe(
        frame[frame["Value"].notna()],
        hide_index=True,
        column_config={"Value": st.column_config.NumberColumn(format="%.3f")},
        key=f"signals_{pair['pair_id']}",
    )


def _meanings() -> dict[str, str]:
    """Signals of the run and what they are."""
    view = state.view()
    if view.has("signals"):
        said: dict[str, str] = view.stage("diagnose")["signals"]
        return {name: said.get(name, "from a file") for name in view.columns("signals")[2:]}
    return {"margin": SIGNALS["margin"].explanation} if view.has("weights") else {}


def _speaks(value: float | None) -> str:
    if value is None or pd.isna(value) or value == 0:
        return "for neither"
    return "for the label" if value > 0 else "against it"
