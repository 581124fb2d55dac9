"""The page Curate: a plan of rules, what would come of it, the log of decisions with undo, and the export.

`rule` in the URL is a predicate to begin a plan with.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from app import parts, preview_view, state, text
from curate.applying import check_plan
from curate.columns import Columns
from curate.entries import Entry
from curate.errors import ConfigError
from curate.exporters import EXPORTERS, SOURCE
from curate.expressions import Node
from curate.plans import Plan, Rule
from curate.predicates import Action, parse
from curate.preview import Preview, preview
from curate.ready_made import READY_MADE, ready_made
from curate.view import RunView

PAGE = "page curate"
_SHOWN_ENTRIES = 100
_PLAN = "plan_text"
#: What `curate export` writes: by --format.
_FORMATS = (*EXPORTERS, SOURCE)
_POLL_S = 1.0


def choose_plan(view: RunView) -> str:
    """The plan's text: a ready-made plan fills it in, and it can be changed."""
    if _PLAN not in st.session_state:
        st.session_state[_PLAN] = first_plan(st.query_params.get("rule", ""))
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox(
            "Ready-made plan",
            list(READY_MADE),
            index=None,
            placeholder="choose one to begin with",
            format_func=lambda name: f"{name}: {READY_MADE[name].about}",
            width=520,
        )
        values = {} if name is None else {key: ask_parameter(view, key, it) for key, it in of_plan(name).items()}
        st.button("Use it", on_click=use_plan, args=(view, name, values), disabled=name is None)
    st.text_area(
        "Plan (docs/rules.md)",
        key=_PLAN,
        height=260,
        placeholder='[[rules]]\nwhen = \'kind = "defective"\'\nthen = "drop"\nreason = "a check found a defect"',
    )
    return str(st.session_state[_PLAN])


def first_plan(predicate: str) -> str:
    """A plan that drops what a predicate matches; nothing where none is given."""
    if not predicate.strip():
        return ""
    try:
        when: Node = parse(predicate)
    except ConfigError as error:
        parts.fault(f"rule={predicate}: {error}")
        return ""
    return Plan(PAGE, (Rule(when, Action("drop")),)).toml()


def of_plan(name: str) -> Mapping[str, str | float]:
    """A ready-made plan's parameters."""
    return READY_MADE[name].parameters


def ask_parameter(view: RunView, key: str, default: str | float) -> str | float:
    """A column's name, or a share."""
    if not isinstance(default, str):
        return st.number_input(key.replace("_", " "), 0.01, 0.99, float(default), 0.05, key=f"set_{key}", width=140)
    columns = list(Columns.of(view).known)
    place = columns.index(default) if default in columns else None
    chosen = st.selectbox(f"{key.replace('_', ' ')} (a column)", columns, place, key=f"set_{key}", width=240)
    return default if chosen is None else chosen


def use_plan(view: RunView, name: str, values: Mapping[str, str | float]) -> None:
    """Put a ready-made plan's text into the editor."""
    try:
        st.session_state[_PLAN] = ready_made(name, Columns.of(view).known, **values).toml()
    except ConfigError as error:
        st.session_state["plan_fault"] = str(error)


def read_plan(view: RunView, written: str) -> Plan | None:
    """The plan that a text says, if it is one and fits the run; else what is wrong with it is shown."""
    if (fault := st.session_state.pop("plan_fault", None)) is not None:
        parts.fault(fault)
    if not written.strip():
        parts.empty("Choose a ready-made plan, write rules, or make a plan of a filter on the page Pairs.")
        return None
    try:
        plan = Plan.from_toml(written, PAGE)
        check_plan(view, plan)
    except ConfigError as error:
        parts.fault(str(error))
        return None
    return plan


@st.cache_data(max_entries=16, show_spinner="Looking at what would come of it …")
def previewed(fingerprint: str, written: str, entries: int, *, spare: bool) -> Preview:
    """What would stand; the same run, plan and log give the same."""
    plan = Plan.from_toml(written, PAGE) if written else Plan("")
    return preview(state.view(), plan, state.decisions(), spare_reviewed=spare)


def show_plan(view: RunView, plan: Plan, written: str) -> None:
    """The preview of a plan, and the button that decides."""
    decisions = state.decisions()
    spare = st.checkbox("Leave out pairs that were decided one by one", key="spare")
    try:
        found = previewed(state.fingerprint(), written, len(decisions.log.entries()), spare=spare)
    except ConfigError as error:
        parts.fault(str(error))
        return
    preview_view.show(found)
    if st.button("Decide so", type="primary", key="apply", disabled=state.read_only()):
        before = len(decisions.log.entries())
        entry = decisions.apply(plan, origin=PAGE, who=state.who(), spare_reviewed=spare)
        new = decisions.log.place(entry) >= before
        st.toast(f"{entry.said['pairs']:,} pairs are decided about" if new else "Nothing changes: it stands already")
        st.rerun()


def show_log() -> None:
    """Entries, the latest first, and taking them back."""
    st.header("What was decided", anchor=False)
    log = state.decisions().log
    entries = log.entries()[-_SHOWN_ENTRIES:][::-1]
    if not entries:
        parts.empty("Nothing was decided yet: decide on the pages Pair and Pairs, or with a plan above.")
        return
    told = pd.DataFrame([in_words(entry, stands=log.stands(entry)) for entry in entries])
    event = st.dataframe(
        told, hide_index=True, key=f"log_{len(log.entries())}", on_select="rerun", selection_mode="single-row"
    )
    chosen = event["selection"]["rows"]
    entry = entries[chosen[0]] if chosen else next((it for it in entries if it.kind != "undo" and log.stands(it)), None)
    label = "Take back the selected entry" if chosen else "Take back the latest decision"
    off = state.read_only() or entry is None or not log.stands(entry)
    if st.button(label, icon=":material/undo:", key="undo", disabled=off) and entry is not None:
        state.decisions().undo(entry.id, state.who())
        st.rerun()
    if len(log.entries()) > len(entries):
        st.caption(f"The latest {len(entries):,} of {len(log.entries()):,} entries.")


def in_words(entry: Entry, *, stands: bool) -> dict[str, object]:
    """An entry as a line of the table."""
    said = entry.said
    if entry.kind == "pair":
        what = f"{said['action']} {said['pair_id'][:8]}: {said['reason'] or 'no reason given'}"
    elif entry.kind == "bulk":
        what = ", ".join(f"{action} {pairs:,}" for action, pairs in said["actions"].items())
    else:
        what = f"takes back {said['of'][:8]}"
    return {
        "When": entry.at[:19],
        "Who": text.one_line(entry.who),
        "What": text.one_line(what),
        "From": text.one_line(said.get("origin", "")),
        "Stands": stands,
        "Entry": entry.id[:8],
    }


def show_export(view: RunView) -> None:
    """Write the pairs as they are decided about, by `curate export`."""
    st.header("Export", anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        folder = st.text_input("Folder", f"{view.path}-export", key="export_folder", width=420)
        form = str(st.selectbox("Format", _FORMATS, key="export_format", width=180))
        container = st.selectbox("Container", ["parquet", "jsonl"], None, placeholder="by format", width=140)
        share = st.number_input("Share of prompts to test on", 0.0, 0.9, 0.0, 0.05, key="test_share", width=200)
        seed = st.number_input("Seed", 0, None, 0, key="export_seed", width=120)
    arguments = ["export", str(view.path), "-o", folder, "--format", form]
    arguments += ["--test-share", f"{share:g}", "--seed", f"{seed}"]
    arguments += ["--container", container] if container else []
    if st.button("Export", type="primary", disabled=state.read_only() or not folder.strip(), key="export"):
        arguments[3] = str(state.workspace().allowed_new(folder.strip()))
        st.session_state["export_job"] = state.jobs().start(f"Export of {view.path.name}", arguments)
    if "export_job" in st.session_state:
        follow_export()


@st.fragment(run_every=_POLL_S)
@parts.guarded
def follow_export() -> None:
    """How far the export is, until it has ended."""
    job = st.session_state["export_job"]
    if job.is_running:
        st.progress(0, "Exporting …")
    elif job.returncode == 0:
        st.success("Exported.", icon=":material/check:")
    parts.code(job.output() or "It has said nothing yet.")


st.title("Curate")
view = state.view()
written = choose_plan(view)
plan = read_plan(view, written)
if plan is not None:
    show_plan(view, plan, written)
else:
    st.header("As it stands", anchor=False)
    preview_view.show(previewed(state.fingerprint(), "", len(state.decisions().log.entries()), spare=False))
show_log()
show_export(view)
