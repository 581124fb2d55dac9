"""Token heat on the page Pair: the stored one, or a job that computes it, since pages load no model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st
from markupsafe import Markup

from app import parts, state, text
from curate.heat import PairHeat, stored_heat

_POLL_S = 1.0


def marked_sides(pair: Mapping[str, Any]) -> tuple[Markup, ...]:
    """Chosen and rejected in colours, where their heat is known; else none, and a way to get it."""
    run, pair_id = state.run_path(), pair["pair_id"]
    if not state.view().has("scores"):
        parts.empty("The run is not scored, so that no model can say anything.", f"curate score {run}")
        return ()
    if (found := stored_heat(run, pair_id)) is None:
        _compute(run, pair_id)
        return ()
    _explain(found)
    sides = (found.chosen, found.rejected)
    most = max((abs(value) for side in sides for value in side.speaks), default=0.0)
    return tuple(text.heat(side.pieces, side.speaks, most) for side in sides)


def _explain(heat: PairHeat) -> None:
    if heat.reference is None:
        parts.plain(f"Blue: more likely under {heat.policy} than the side's mean token; orange: less. What was scored.")
    else:
        parts.plain(f"Blue: {heat.policy} finds it more likely than {heat.reference}; orange: less. What was scored.")


@st.fragment(run_every=_POLL_S)
@parts.guarded
def _compute(run: Path, pair_id: str) -> None:
    arguments = ("heat", str(run), pair_id, "--json")
    job = next((job for job in state.jobs().all() if job.arguments == arguments), None)
    if job is not None and job.is_running:
        st.caption("The run's model reads this pair …")
        return
    if job is not None and job.returncode == 0 and stored_heat(run, pair_id) is not None:
        st.rerun()
    if job is not None and job.returncode:
        parts.fault(job.output())
    st.button(
        "Compute the token heat of this pair",
        key=f"heat_{pair_id}",
        on_click=lambda: _start(pair_id, arguments),
        disabled=state.read_only(),
    )


def _start(pair_id: str, arguments: tuple[str, ...]) -> None:
    state.jobs().start(f"Token heat of {pair_id[:8]}", arguments)
