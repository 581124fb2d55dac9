"""The page Runs: choose one, compare two of the same data, start an audit and follow it."""

from __future__ import annotations

from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from app import charts, parts, state
from app.parts import Tile
from curate.jobs import Job
from curate.movement import Movement, movement
from curate.schema import KINDS
from curate.workspace import manifest_fingerprint, run_facts

_EVERY_S = 2
_OVERVIEW = "app_pages/overview.py"


def listed() -> None:
    """All runs that can be opened."""
    found = state.workspace().found()
    if not found:
        parts.empty("There is no run here yet: start an audit below, or", "curate audit DATA -o RUN")
        return
    lines = [{"name": name, "path": str(path), **run_facts(path)} for name, path in found.items()]
    table = pd.DataFrame(lines)
    table["stages"] = [
        ", ".join(stages) or fault for stages, fault in zip(table["stages"], table["fault"], strict=True)
    ]
    table["created"] = table["created"].str[:16].str.replace("T", " ")
    table["noise"] = 100 * table["noise"].astype(float)
    columns = {
        "name": "Run",
        "pairs": st.column_config.NumberColumn("Pairs", format="localized"),
        "noise": st.column_config.NumberColumn("Noise rate", format="%.1f %%"),
        "stages": "Done",
        "created": "Made (UTC)",
        "path": "Folder",
    }
    st.caption(f"{len(found):,} runs. A click opens one.")
    chosen = parts.rows(table, "runs", **columns)
    if chosen is not None:
        st.switch_page(_OVERVIEW, query_params={"run": table["name"][chosen]})


@st.cache_data(max_entries=4, show_spinner="Comparing the runs …")
def moved(before: str, after: str, key: str) -> Movement:
    """What changed from one run to the other."""
    found = state.runs()
    return movement(state.open_view(found[before]), state.open_view(found[after]))


@st.fragment
@parts.guarded
def compare() -> None:
    """How margins and kinds moved from one run to another."""
    st.subheader("Compare two runs of the same data", anchor=False)
    found = state.workspace().found()
    names = [name for name, path in found.items() if "diagnose" in run_facts(path)["stages"]]
    if len(names) < 2:
        parts.empty("It takes two diagnosed runs. Another policy, or other settings, make a second one:", _SECOND)
        return
    left, right = st.columns(2)
    with left:
        before = st.selectbox("From", names, key="before", bind="query-params")
    with right:
        others = [name for name in names if name != before]
        after = st.selectbox("To", others, key="after", bind="query-params")
    key = "".join(manifest_fingerprint(found[name]) for name in (before, after))
    shown(before, after, moved(before, after, key))


_SECOND = "curate audit DATA --policy MODEL -o RUN"


def shown(before: str, after: str, found: Movement) -> None:
    """The figures of a comparison."""
    correlation = "none" if found.correlation is None else f"{found.correlation:.3f}"
    parts.tiles(
        [
            Tile("Pairs in both", f"{found.pairs:,}"),
            Tile("Correlation", correlation, f"of the margins; mean shift {found.shift:+.3g} nats"),
            Tile("Turned", f"{found.turned:,}", "margins of another sign"),
            Tile("Other kind", f"{found.other_kind:,}", "pairs"),
        ]
    )
    left, right = st.columns(2, gap="large")
    with left:
        parts.figure(
            charts.moved_margins(found.margins, before, after), "moved", "Margins of both runs, counted in bins"
        )
    with right:
        kinds = found.kinds.pivot(index="was", columns="now", values="pairs").reindex(index=KINDS, columns=KINDS)
        st.caption("Pairs by kind: lines are the first run's, columns the second's.")
        st.dataframe(kinds.fillna(0).astype(int).rename_axis(index="Kind", columns=None))
    st.caption("Pairs whose chance of a flip moved most:")
    with st.container(horizontal=True):
        for pair in found.furthest.itertuples():
            label = f"row {pair.row:,}: {pair.p_flip_was:.2f} → {pair.p_flip:.2f}"
            st.page_link(parts.PAIR, label=label, query_params={"run": after, "id": str(pair.pair_id)})


@parts.guarded
def audit() -> None:
    """Start an audit of a file under the roots."""
    st.subheader("Start an audit", anchor=False)
    if state.read_only():
        st.markdown("This dashboard is read only: audits are started on the command line.")
        parts.code("curate audit DATA -o RUN")
        return
    with st.form("audit", border=True):
        data = st.text_input("Data", placeholder="a file or folder: JSONL, Parquet, CSV, …")
        run = st.text_input("Run", placeholder="a new folder for the run, or one to go on with")
        policy = st.text_input("Policy", placeholder="a hub id or a folder; empty: the embedded model")
        limit = st.number_input("Pairs at most", min_value=1, value=None, placeholder="all")
        if not st.form_submit_button("Start", type="primary"):
            return
    begin(data.strip(), run.strip(), policy.strip(), limit)


def begin(data: str, run: str, policy: str, limit: int | None) -> None:
    """Start the audit as a process of its own.

    Raises:
        ConfigError: a path lies outside the roots, or does not exist.
    """
    workspace = state.workspace()
    if not (data and run):
        st.warning("Say which data, and where the run shall be.")
        return
    arguments = ["audit", str(workspace.allowed(data)), f"--output={workspace.allowed_new(run)}"]
    arguments += [f"--policy={workspace.model(policy)}"] if policy else []
    arguments += [f"--limit={limit}"] if limit else []
    state.jobs().start("audit", arguments)


@st.fragment(run_every=_EVERY_S)
@parts.guarded
def follow() -> None:
    """Commands that were started here, with what they print."""
    jobs = state.jobs().all()
    if not jobs:
        return
    st.subheader("Commands", anchor=False)
    for number, job in enumerate(jobs):
        followed(len(jobs) - number, job)


def followed(number: int, job: Job) -> None:
    """One command."""
    states = {None: "running", 0: "done"}
    minutes = (datetime.now(UTC) - job.started).total_seconds() / 60
    with st.expander(
        f"{job.title}: {states.get(job.returncode, 'failed')}", expanded=number == len(state.jobs().all())
    ):
        parts.code(" ".join(["curate", *job.arguments]))
        parts.plain(job.output() or "nothing printed yet")
        if job.is_running:
            st.caption(f"since {minutes:.0f} minutes")
            if not state.read_only() and st.button("Stop", key=f"stop_{number}"):
                job.stop()


st.title("Runs")
listed()
audit()
follow()
compare()
