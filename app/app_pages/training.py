"""The page Training: curves of trainings as they grow, how each pair's margin went, what treatments are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import charts, parts, state
from app.parts import Tile
from curate.arms import by_arm
from curate.charts import arm_accuracies
from curate.store import Run
from curate.trainings import EVALUATED, Comparison, Training, comparisons, stamp

_PAIRS_SHOWN = 5_000
_EVERY_S = 5
#: Logged numbers → title and number format; held-out ones beside those of the training pairs.
_CURVES = {
    "loss": ("loss", ""),
    "accuracy": ("share of positive margins", ".0%"),
    "margin": ("margin (nats)", ""),
    "target_margin": ("target margin γ (nats)", ""),
    "calibration_error": ("calibration error", ""),
}
_HELD_OUT = {
    "loss": "Loss",
    "accuracy": "Accuracy",
    "margin": "Margin (nats)",
    "likelihood_accuracy": "Accuracy of log-probs",
    "calibration_error": "Calibration error",
}
_ARMS: dict[str, Any] = {
    "arm": "Arm",
    "trained": st.column_config.NumberColumn("Pairs", format="%.0f"),
    "noise": st.column_config.NumberColumn("Wrong labels", format="percent"),
    "accuracy": st.column_config.NumberColumn("Accuracy", format="%.3f"),
    "low": st.column_config.NumberColumn("From", format="%.3f"),
    "high": st.column_config.NumberColumn("To", format="%.3f"),
    "lead": st.column_config.NumberColumn("Lead over raw", format="%+.3f"),
    "lead_low": st.column_config.NumberColumn("From ", format="%+.3f"),
    "lead_high": st.column_config.NumberColumn("To ", format="%+.3f"),
    "recovered": st.column_config.NumberColumn("Gap closed", format="percent"),
}


def choose() -> Training | None:
    """A training of this run's data."""
    found = {name: Training.open(path) for name, path in state.workspace().trainings().items()}
    mine = {name: training for name, training in found.items() if training.is_of(state.view())}
    if not mine:
        parts.empty("Nothing was trained on these pairs yet.", parts.command("train", "-o OUT"))
        if found:
            st.caption(f"{len(found):,} trainings here are of other data.")
        return None
    name = st.selectbox("Training", list(mine), key="training", bind="query-params")
    return mine[name]


def curves(metrics: pd.DataFrame) -> None:
    """A figure for each number that was logged."""
    drawn = []
    for name, (title, form) in _CURVES.items():
        columns = [(name, "training pairs"), (EVALUATED + name, "held-out pairs")]
        if known := [(column, label) for column, label in columns if column in metrics]:
            drawn.append((name, charts.learning_curve(metrics, known, title, form)))
    if not drawn:
        st.markdown("Nothing is logged yet.")
        return
    for pair in (drawn[at : at + 2] for at in range(0, len(drawn), 2)):
        for column, (name, figure) in zip(st.columns(2), pair, strict=False):
            with column:
                parts.figure(figure, f"curve_{name}", f"{_CURVES[name][0]} by update")


def progress(training: Training) -> None:
    """Counts, and the held-out pairs before and after, or as far as it is."""
    report, metrics = training.report(), training.metrics()
    settings = training.settings
    parts.plain(f"{settings['model']}, {settings['loss']}, β {settings['beta']:g}, treatment {settings['treat']}")
    dropped = ""
    updates = int(metrics["step"].max()) if len(metrics) else 0
    tiles = [Tile("Updates", f"{updates:,}", "done" if report else "not finished: it runs, or was cut off")]
    if report:
        counts = dict(report["counts"])
        tiles += [Tile(name.capitalize(), f"{counts.pop(key):,}", "pairs") for name, key in _COUNTED if key in counts]
        tiles.append(Tile("Left out", f"{sum(counts.values()):,}", "pairs"))
        dropped = "; ".join(f"{pairs:,} {reason}" for reason, pairs in counts.items())
    parts.tiles(tiles)
    if dropped:
        parts.plain(f"Left out: {dropped}")
    curves(metrics)
    if report and report.get("before") and report.get("after"):
        lines = [
            {"what": name, "before": report["before"].get(key), "after": report["after"].get(key)}
            for key, name in _HELD_OUT.items()
        ]
        number: dict[str, Any] = {
            name: st.column_config.NumberColumn(name.capitalize(), format="%.4f") for name in ("before", "after")
        }
        columns = {"what": "Held-out pairs", **number}
        st.dataframe(pd.DataFrame(lines), hide_index=True, column_config=columns, width="content")


_COUNTED = (("Trained on", "trained"), ("Held out", "held_out"))


@st.fragment(run_every=_EVERY_S)
@parts.guarded
def follow(training: Training) -> None:
    """The same, again and again while it is not done."""
    progress(training)
    if training.report():
        st.rerun()


@st.cache_data(max_entries=8, show_spinner="Reading the dynamics …")
def visited(path: str, key: str, run: str) -> pd.DataFrame:
    """Pairs with mean and standard deviation of their margin."""
    return Training.open(Path(path)).dynamics(state.view(), _PAIRS_SHOWN)


@st.fragment
@parts.guarded
def dynamics(training: Training) -> None:
    """Mean margin against its spread, coloured by kind."""
    st.subheader("Dynamics", anchor=False)
    if not training.has_dynamics():
        st.markdown("There is a summary of every pair's margins once the training is done, with `dynamics = true`.")
        return
    if not parts.has("diagnosis"):
        return
    pairs = visited(str(training.path), stamp(training.path), state.fingerprint())
    st.caption(
        f"{len(pairs):,} pairs that were trained on{', drawn at random' if len(pairs) == _PAIRS_SHOWN else ''}. "
        "In sample: the model learns the label that it is judged by. A pair that was visited once has no spread. "
        "A click opens the pair."
    )
    chosen = parts.clicked(
        charts.dynamics(pairs), "dynamics", f"Mean and spread of the margins of {len(pairs):,} pairs"
    )
    if chosen is not None:
        parts.show_pair(str(chosen["customdata"]))


def compared() -> None:
    """What `curate compare` measured."""
    st.subheader("Treatments compared", anchor=False)
    found = comparisons(Run.open(state.run_path()))
    if not found:
        parts.empty("No treatments were compared on this run yet.", parts.command("compare", "--plant 0.3"))
        return
    for one in found:
        comparison(one)


def comparison(one: Comparison) -> None:
    """One table and its plot."""
    results = one.results
    planted = f"{one.compared['plant']:.0%} planted flips" if one.compared["plant"] else "no planted flips"
    held_out = results["held_out"]
    st.caption(
        f"{planted}, {results['seed'].nunique()} seeds, {held_out.min():,} to {held_out.max():,} held-out pairs each; "
        f"accuracy with 95% intervals."
    )
    summary = by_arm(results, one.compared["arms"])
    parts.figure(arm_accuracies(results, summary), f"arms_{one.key}", "Accuracy of each arm on held-out pairs, by seed")
    st.dataframe(summary, hide_index=True, column_order=list(_ARMS), column_config=_ARMS, key=f"arms_table_{one.key}")


st.title("Training")
parts.need("pairs")
training = choose()
if training is not None:
    if training.report():
        progress(training)
    else:
        follow(training)
    dynamics(training)
compared()
