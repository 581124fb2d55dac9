"""A preview of decisions (`curate.preview`) on the page: before and after, side by side."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import deciding, pairs_table, parts, text
from curate.preview import Noise, Preview

_MOST_LINES = 50
_PERCENT = st.column_config.ProgressColumn(format="percent", min_value=0.0, max_value=1.0)


def show(found: Preview) -> None:
    """All of a preview."""
    with st.container(horizontal=True, gap="medium"):
        _metric("Pairs that stay", f"{found.staying:,}", f"of {found.pairs:,}")
        st.metric("Effective size", f"{found.effective:,.0f}")
        if found.noise is not None:
            _show_noise(found.noise)
        if found.length is not None and found.length["longer"].notna().all():
            before, after = found.length["longer"]
            st.metric(
                "Longer side preferred", f"{after:.1%}", f"{before:.1%} before", delta_color="off", delta_arrow="off"
            )
    what, mix = st.columns(2, gap="large")
    with what:
        st.subheader("What becomes of them", anchor=False)
        st.dataframe(_actions(found), hide_index=True, key="preview_actions")
    with mix:
        if len(found.sources) > 1:
            st.subheader("Sources", anchor=False)
            config = {"Before": _PERCENT, "After": _PERCENT}
            st.dataframe(_sources(found), hide_index=True, column_config=config, key="preview_sources")
        for title, bins in (("Weights", found.weights), ("Soft labels", found.labels)):
            if len(bins) > 1:
                st.subheader(title, anchor=False)
                named = bins.assign(low=bins["low"].map("{:.2g}".format))
                st.bar_chart(named, x="low", y="pairs", x_label=f"{title.lower()}, from", y_label="pairs", height=180)
    if len(found.examples):
        with st.expander("First examples of each reason"):
            st.dataframe(_examples(found), hide_index=True, key="preview_examples")


def _metric(name: str, value: str, beside: str) -> None:
    st.metric(name, value, beside, delta_color="off", delta_arrow="off")


def _show_noise(noise: Noise) -> None:
    left = "" if noise.share_left is None else f"{noise.share_left:.0%} of {noise.before:,.0f}"
    _metric("Wrong labels left", f"{noise.left + noise.new:,.0f}", left)
    st.metric("Right labels lost", f"{noise.lost:.1%}")
    if not noise.can_tell:
        parts.plain("The noise of these data cannot be told: take these numbers with care.")


def _actions(found: Preview) -> pd.DataFrame:
    lines = found.actions[:_MOST_LINES]
    return pd.DataFrame(
        {
            "Action": lines["action"].map(deciding.ACTIONS),
            "Pairs": lines["pairs"],
            "Reason": lines["reason"].map(text.one_line),
            "From": lines["origin"].map(text.one_line),
        }
    )


def _sources(found: Preview) -> pd.DataFrame:
    lines = found.sources[:_MOST_LINES]
    shares = {
        name.capitalize(): lines[name] / max(float(found.sources[name].sum()), 1e-12) for name in ("before", "after")
    }
    names = lines["source"].map(lambda source: text.one_line(source) if isinstance(source, str) else "none named")
    return pd.DataFrame({"Source": names, **shares})


def _examples(found: Preview) -> pd.DataFrame:
    frame = found.examples[["action", "reason", "prompt", "chosen", "rejected"]].map(text.one_line)
    return frame.rename(columns={**pairs_table.NAMES, "action": "Action", "reason": "Reason"})
