"""Lists of pairs as a table: words for columns, one page at a time. Cells are drawn, never read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd
import streamlit as st

from app import text
from curate.store import fingerprint

#: Columns and what they are called, in the order in which they stand.
NAMES = {
    "action": "Decision",
    "kind": "Kind",
    "p_flip": "P(flipped)",
    "margin": "Margin",
    "weight": "Weight",
    "prompt": "Prompt",
    "chosen": "Chosen",
    "rejected": "Rejected",
    "checks": "Checks",
    "source": "Source",
    "chosen_tokens": "Tokens chosen",
    "rejected_tokens": "Tokens rejected",
}
#: What else pairs are often sorted by.
_MORE_NAMES = {
    "row": "Place in the data",
    "evidence": "Evidence for chosen",
    "target_margin": "Target margin",
    "prompt_tokens": "Tokens of the prompt",
    "cluster": "Cluster",
    "tie": "Tie",
    "abs(margin)": "Size of the margin",
    "abs(evidence)": "Size of the evidence",
    "log_prob": "Log-prob difference",
    "prompt_gain": "What the prompt adds",
    "ifd": "IFD",
    "ifd_gap": "IFD gap",
    "token_difference": "Token difference",
    "reward_model": "Reward model",
    "given": "Given signals, fitted",
    "likelihood": "Log-probs, fitted",
    "length": "Length, fitted",
    "hidden_middle": "Hidden states, middle layer",
    "hidden_last": "Hidden states, last layer",
    "fused": "All signals, fused",
    "fused_random_folds": "All signals, other prompt-mates known",
    "fused_length_controlled": "All signals, length taken out",
    "vote_majority": "Majority of the signals",
    "vote_all": "All signals agree",
}
_NUMBERS = {"p_flip": "%.2f", "margin": "%.2f", "weight": "%.2f", "chosen_tokens": "%d", "rejected_tokens": "%d"}
_ROW_PIXELS, _MOST_ROWS = 35, 16  # the rest of a page is a scroll away


def name_of(column: str) -> str:
    """A column in words; one that a user brought keeps its name."""
    return (NAMES | _MORE_NAMES).get(column, column.replace("_", " "))


def show(page: pd.DataFrame, key: str, *, mode: Literal["multi-row", "single-row"] = "multi-row") -> list[str]:
    """Show pairs (as `curate.browsing` gives them) and return the ids of those that are selected.

    Selections are places in the table: when other pairs stand there, nothing is selected.
    """
    frame = page[[name for name in NAMES if not page[name].isna().all()]]
    for name in ("prompt", "chosen", "rejected"):
        frame = frame.assign(**{name: page[name].map(text.one_line)})
    frame = frame.assign(checks=[", ".join(found) if found is not None else "" for found in page["checks"]])
    config = {
        name: st.column_config.NumberColumn(name_of(name), format=_NUMBERS[name])
        if name in _NUMBERS
        else st.column_config.TextColumn(name_of(name), width="large" if name in ("prompt", "chosen") else None)
        for name in map(str, frame.columns)
    }
    event = st.dataframe(
        frame,
        key=key_of(page, key),
        hide_index=True,
        column_config=config,
        on_select="rerun",
        selection_mode=mode,
        height=_ROW_PIXELS * (min(len(page), _MOST_ROWS) + 1) + 3,
        row_height=_ROW_PIXELS,
    )
    return _ids(page, event["selection"]["rows"])


def key_of(page: pd.DataFrame, key: str) -> str:
    """A name for a table and the pairs in it."""
    return f"{key}_{fingerprint(page['pair_id'].tolist())}"


def _ids(page: pd.DataFrame, places: Sequence[int]) -> list[str]:
    """Selections come as places in the frame; only those that it has count."""
    return [str(page["pair_id"].iloc[place]) for place in places if place < len(page)]
