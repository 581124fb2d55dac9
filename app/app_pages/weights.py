"""The page Weights: γ-PO's target margins and weights against the margin, with settings that move at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from app import charts, parts, state
from app.parts import Tile
from curate.aggregates import MarginPoints, margin_points
from curate.gamma import GammaWeights

_LIMITS = {"beta": (0.01, 100.0), "ratio": (0.01, 5.0), "tau": (0.01, 1000.0)}


@dataclass(frozen=True)
class Setting:
    """β, γ0/β and τ."""

    beta: float
    ratio: float
    tau: float

    def __str__(self) -> str:
        return f"β {self.beta:g}, γ0/β {self.ratio:g}, τ {self.tau:g}"


@st.cache_data(max_entries=8, show_spinner="Counting margins …")
def margins(key: str) -> MarginPoints:
    """The margins as a fine histogram."""
    return margin_points(state.view())


@st.cache_data(max_entries=8, show_spinner=False)
def lighter(key: str) -> int:
    """Pairs of less than the mean weight."""
    return int(state.view().sql("SELECT count(*) AS pairs FROM weights WHERE weight < 1")["pairs"][0])


def ask(name: str, default: Setting) -> Setting:
    """Three numbers, which the URL holds."""
    fields = {
        "beta": "β: the reward's scale",
        "ratio": "γ0/β: the mean target margin",
        "tau": "τ: pull to equal weights",
    }
    found = {}
    for field, label in fields.items():
        low, high = _LIMITS[field]
        found[field] = st.number_input(
            label, low, high, float(getattr(default, field)), format="%g", key=f"{name}_{field}", bind="query-params"
        )
    return Setting(**found)


def solved(points: MarginPoints, setting: Setting) -> GammaWeights[np.typing.NDArray[np.float64]]:
    """The exact optimum at a setting."""
    return points.weights(beta=setting.beta, gamma_beta_ratio=setting.ratio, tau=setting.tau)


def figures(points: MarginPoints, settings: dict[str, Setting]) -> pd.DataFrame:
    """A line a setting."""
    lines = []
    for name, setting in settings.items():
        found = solved(points, setting)
        effective, labelled = points.effective(found.weight), points.pairs_P.sum()
        lines.append(
            {
                "name": name,
                "setting": str(setting),
                "effective": f"{effective:,.1f}",
                "share": f"{effective / labelled:.1%}",
                "least": f"{found.weight.min():.3f}",
                "most": f"{found.weight.max():.3f}",
                "gammas": f"{found.target_margin.min():.3g} to {found.target_margin.max():.3g}",
            }
        )
    return pd.DataFrame(lines)


@st.fragment
@parts.guarded
def workbench(points: MarginPoints, stored: Setting) -> None:
    """Two settings, their curves and what they come to."""
    first, second = st.columns(2, gap="large")
    with first:
        st.markdown("**A**: what the run was weighed with, unless you change it")
        a = ask("a", stored)
    with second:
        compares = st.toggle("**B**: compare with another setting", key="b", bind="query-params")
        b = ask("b", Setting(stored.beta, stored.ratio, stored.tau / 10)) if compares else None
    settings = {"A": a} | ({"B": b} if b is not None else {})
    labelled = int(points.pairs_P.sum())
    drawn = charts.weights_by_margin(
        points.at(a.beta),
        points.pairs_P,
        {f"{name}: {it}": (points.at(it.beta), solved(points, it).weight) for name, it in settings.items()},
    )
    parts.figure(drawn, "curve", f"Weight against margin of {labelled:,} labelled pairs")
    names = {
        "name": "",
        "setting": "Setting",
        "effective": "Effective pairs",
        "share": "Of all",
        "least": "Least weight",
        "most": "Most",
        "gammas": "Target margins (nats)",
    }
    st.dataframe(figures(points, settings), hide_index=True, column_config=names)
    if a != stored:
        st.caption("The run still has its own weights. This command weighs it with A:")
        flags = (f"--beta {a.beta:g}", f"--gamma-beta-ratio {a.ratio:g}", f"--tau {a.tau:g}")
        parts.code(parts.command("weigh", *flags))


st.title("Weights")
parts.need("pairs", "scores", "weights")
weighed = state.view().stage("weigh")
config = weighed["config"]
points = margins(state.fingerprint())
stored = Setting(config["beta"], config["gamma_beta_ratio"], config["tau"])
effective = points.effective(solved(points, stored).weight)
st.markdown(
    "γ-PO asks more of confident pairs: γ_i = γ0·w_i. A weight is a function of the pair's own margin; "
    "it tells a trainer how much to ask of a pair, and finds no noise."
)
parts.tiles(
    [
        Tile("Labelled pairs", f"{weighed['population']:,}", "have a weight", where="weight is not null"),
        Tile("Effective pairs", f"{effective:,.1f}", "(Σw)²/Σw² at the run's setting"),
        Tile("Weight below 1", f"{lighter(state.fingerprint()):,}", "count less than on average", where="weight < 1"),
    ]
)
workbench(points, stored)
