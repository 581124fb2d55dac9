"""The page Overview: what the dataset is, how noisy, and how far to trust that. Every number leads to its pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import charts, parts, state
from app.parts import Tile
from curate.aggregates import length_bias, margin_bins
from curate.charts import agreement, selftest_scores
from curate.detect import GROUPED
from curate.noise import AgreementCurve
from curate.schema import KINDS
from curate.slices import slice_predicate
from curate.verdict import MEANINGS, NAMES, checks_found, noise_sentence, promised, worst_slices


@st.cache_data(max_entries=8, show_spinner="Counting margins …")
def margins(key: str) -> pd.DataFrame:
    """Bins of the histogram."""
    return margin_bins(state.view())


@st.cache_data(max_entries=8, show_spinner="Comparing lengths …")
def lengths(key: str) -> pd.DataFrame:
    """Which side is longer, by kind."""
    return length_bias(state.view())


def facts(stages: dict[str, Any]) -> None:
    """What was read and scored."""
    ingested = stages["ingest"]
    for entry in ingested["inputs"]:
        parts.plain(f"{entry['path']} ({entry['format']})")
    if "score" in stages:
        models = {name: one["spec"] for name, one in stages["score"]["passes"].items()}
        parts.plain("; ".join(f"{name.replace('_', ' ')}: {spec}" for name, spec in models.items()))
    tiles = [Tile("Pairs", f"{ingested['pairs']:,}", "labelled and ties", where="", link="Show all pairs")]
    if ingested["ties"]:
        tiles.append(Tile("Ties", f"{ingested['ties']:,}", "no side was preferred", where="tie"))
    tiles.append(Tile("Refused rows", f"{ingested['refused']:,}", "could not become pairs"))
    parts.tiles(tiles)
    if ingested["refused"]:
        with st.expander("Why rows were refused"):
            refused = state.view().sql(
                "SELECT reason, count(*) AS rows FROM refused GROUP BY reason ORDER BY rows DESC"
            )
            st.dataframe(refused, hide_index=True, column_config={"reason": "Reason", "rows": "Rows"})


def verdict(diagnosed: dict[str, Any]) -> None:
    """Noise rate and kinds."""
    noise = diagnosed["noise"]
    st.subheader("Noise", anchor=False)
    st.markdown(f"{sentence_case(noise_sentence(noise, diagnosed['learners']))}.")
    can_tell = noise is not None and noise["can_tell"]
    rate = f"{noise['rate']:.1%}" if can_tell else "cannot tell"
    interval = "" if noise is None else f"95% interval {noise['low']:.1%} to {noise['high']:.1%}"
    total = sum(diagnosed["kinds"].values())
    tiles = [Tile("Noise rate", rate, interval, where="p_flip is not null", link="Show the evidence")]
    for kind in KINDS:
        count = diagnosed["kinds"][kind]
        share = f"{count / total:.1%}" if total else ""
        tiles.append(Tile(kind.capitalize(), f"{count:,}", share, where=f'kind = "{kind}"'))
    parts.tiles(tiles)
    with st.expander("What the kinds mean"):
        for kind in KINDS:
            st.markdown(f"**{kind}**: {MEANINGS[kind]}")


def sentence_case(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]


def histogram(weighed: dict[str, Any]) -> None:
    """Margins by kind; a bar leads to its pairs."""
    st.subheader("Margins", anchor=False)
    bins = margins(state.fingerprint())
    pairs = int(bins["pairs"].sum())
    st.caption(f"{pairs:,} pairs with a margin. A click on a bar opens its pairs, of all kinds.")
    drawn = charts.margin_histogram(bins, f"{weighed['margin']}, β = {weighed['beta']:g}, nats")
    chosen = parts.clicked(drawn, "margins", f"Histogram of the margins of {pairs:,} pairs by kind")
    if chosen is not None:
        bar = bins[(bins["middle"] - chosen["x"]).abs() < bins["width"] / 2].iloc[0]
        parts.show_pairs(between("margin", float(bar["low"]), float(bar["high"])))


def between(column: str, low: float, high: float) -> str:
    """A predicate for `low` ≤ column < `high`; either may be infinite."""
    limits = [f"{column} >= {low:g}"] * bool(np.isfinite(low)) + [f"{column} < {high:g}"] * bool(np.isfinite(high))
    return " and ".join(limits) or f"{column} is not null"


def curve(diagnosed: dict[str, Any]) -> None:
    """How often labels agree with the evidence."""
    st.subheader("Agreement", anchor=False)
    if diagnosed["curve"] is None:
        parts.empty(f"{diagnosed['learners']:,} labelled pairs are too few to learn from.")
        return
    noise = diagnosed["noise"]
    st.caption("The stronger the evidence, the more labels should agree with it. Where they never do, they are noisy.")
    observed = AgreementCurve(**{name: np.asarray(values) for name, values in diagnosed["curve"].items()})
    drawn = agreement(observed, noise["rate"] if noise["can_tell"] else None)
    parts.figure(drawn, "agreement", f"Agreement of {noise['pairs']:,} labels with the evidence, observed and fitted")


def length(diagnosed: dict[str, Any]) -> None:
    """How far length decides."""
    st.subheader("Length", anchor=False)
    if diagnosed["length_share"] is not None:
        st.caption(f"Length explains {diagnosed['length_share']:.0%} of the evidence. Ties are left out.")
    parts.figure(charts.longer_side(lengths(state.fingerprint())), "lengths", "Which side is the longer one, by kind")
    parts.pairs_link("Pairs whose chosen side is longer", "chosen_tokens > rejected_tokens")
    parts.pairs_link("Pairs whose rejected side is longer", "chosen_tokens < rejected_tokens")


def checks(diagnosed: dict[str, Any]) -> None:
    """What the checks found."""
    st.subheader("Checks", anchor=False)
    found = checks_found(diagnosed["checks"])
    if not found:
        st.markdown("No check found anything.")
        return
    st.caption("A pair can be in several lines. A click on a line opens its pairs.")
    table = pd.DataFrame(found).assign(name=lambda it: it["check"].str.replace("_", " "))
    chosen = parts.rows(table, "checks", name="Check", severity="Severity", pairs="Pairs", explanation="What it means")
    if chosen is not None:
        parts.show_pairs(f'"{table["check"][chosen]}" in checks')


def slices(diagnosed: dict[str, Any]) -> None:
    """The slices that are most surely noisy."""
    st.subheader("Worst slices", anchor=False)
    worst = pd.DataFrame(worst_slices(state.view()))
    if worst.empty:
        st.markdown("No slice has a noise rate of its own: the data has one source, or the evidence cannot tell.")
        return
    above = worst["clearly_above"].any()
    said = "Clearly above the others of their kind are marked." if above else "None is clearly above the whole."
    st.caption(f"{said} A click on a line opens its pairs.")
    table = worst.assign(mark=np.where(worst["clearly_above"], "above", ""))
    for name in ("rate", "low", "high"):
        table[name] = [f"{share:.0%}" for share in worst[name]]
    names = {
        "by": "By",
        "value": "Slice",
        "rate": "Noise rate",
        "low": "From",
        "high": "To",
        "pairs": "Labels",
        "mark": "",
    }
    chosen = parts.rows(table, "slices", **names)
    if chosen is not None:
        line = worst.iloc[chosen]
        where = slice_predicate(line["by"], line["value"], diagnosed["clusters"] or ())
        if where is not None:
            parts.show_pairs(where)


def selftest() -> None:
    """What the self-test promises."""
    st.subheader("Self-test", anchor=False)
    if not parts.has("selftest"):
        return
    tested = promised(state.view())
    if tested["sentence"] is None:
        st.markdown("The self-test promises nothing: it planted other rates than the one that is quoted.")
        return
    st.markdown(f"{sentence_case(tested['sentence'])}.")
    st.caption(
        f"Labels of {tested['pairs']:,} pairs were flipped on purpose. In italics the yardsticks; AUROC on new prompts."
    )
    drawn = selftest_scores(state.view().table("selftest"), "auroc", GROUPED, names=NAMES)
    parts.figure(drawn, "selftest", "AUROC of each signal for planted flips, by planted rate, with 95 % intervals")


st.title("Overview")
stages = state.view().manifest["stages"]
parts.need("pairs")
facts(stages)
parts.need("scores", "weights")
if not parts.has("diagnosis"):
    histogram(stages["weigh"])
    st.stop()
verdict(stages["diagnose"])
histogram(stages["weigh"])
left, right = st.columns(2, gap="large")
with left:
    curve(stages["diagnose"])
with right:
    length(stages["diagnose"])
checks(stages["diagnose"])
slices(stages["diagnose"])
selftest()
