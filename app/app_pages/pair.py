"""The page Pair: one pair with all that is known of it, decided by a key, and the next one at once.

The URL holds the view: `id`, and `where`, `sort` and `state` of the pairs among which it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st
from markupsafe import Markup

from app import deciding, heat_view, pair_facts, pairs_table, parts, queries, state, text
from curate.browsing import STATES, Browser, Order, Wanted
from curate.errors import ConfigError

PAGE = "page pair"
SIDES = ("chosen", "rejected")
#: Actions by key; r and c are Streamlit's own.
KEYS = {"keep": "k", "drop": "d", "flip": "f", "soft": "s", "review": "v"}


def go_to(pair_id: str) -> None:
    """Show another pair."""
    st.query_params["id"] = pair_id


def decide(browser: Browser, wanted: Wanted, pair: Mapping[str, Any], action: str) -> None:
    """Decide about the pair, and go on to the next that nothing is decided about, if that is wished."""
    value = st.session_state.get("soft_label", 0.5) if action == "soft" else None
    choice = deciding.Choice(action, value, st.session_state.get(f"note_{pair['pair_id']}", "").strip())
    state.decisions().decide([choice.of(pair["pair_id"], PAGE)], state.who())
    st.toast(f"{deciding.ACTIONS[action]}: {pair['pair_id'][:8]}")
    if st.session_state.get("go_on", True):
        suspects = Wanted(wanted.where, wanted.order, "undecided")
        following = browser.following(suspects, pair["row"])
        if following is None:
            st.toast("That was the last one.")
        else:
            go_to(following)


def undo(pair_id: str) -> None:
    """Take back the latest decision about the pair alone that stands."""
    if (last := latest(pair_id)) is not None:
        state.decisions().undo(last, state.who())
        st.toast("Taken back")


def latest(pair_id: str) -> str | None:
    """The latest entry about the pair alone that stands."""
    log = state.decisions().log
    return next((entry.id for entry in reversed(log.about(pair_id)) if log.stands(entry)), None)


def show_actions(browser: Browser, wanted: Wanted, pair: Mapping[str, Any]) -> None:
    """Buttons and their keys. A button belongs to its pair: a key that comes late decides about no other."""
    pair_id = pair["pair_id"]
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        for action, shortcut in KEYS.items():
            st.button(
                deciding.ACTIONS[action],
                key=f"{action}_{pair_id}",
                shortcut=shortcut,
                on_click=decide,
                args=(browser, wanted, pair, action),
                disabled=state.read_only(),
            )
        st.button(
            "Undo",
            key=f"undo_{pair_id}",
            shortcut="u",
            icon=":material/undo:",
            on_click=undo,
            args=(pair_id,),
            disabled=state.read_only() or latest(pair_id) is None,
        )
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        st.text_input("Note", key=f"note_{pair_id}", placeholder="why, in words", width=320, disabled=state.read_only())
        st.number_input("Soft label: P(chosen is better)", 0.0, 1.0, 0.5, 0.05, key="soft_label", width=220)
        st.checkbox("Go on to the next undecided pair", value=True, key="go_on")


def show_way(browser: Browser, wanted: Wanted, pair: Mapping[str, Any]) -> None:
    """To the pairs before and after, and back to the list."""
    with st.container(horizontal=True, gap="small"):
        for label, key, found in (
            ("Previous", "p", browser.preceding(wanted, pair["row"])),
            ("Next", "n", browser.following(wanted, pair["row"])),
        ):
            name = f"{label.lower()}_{pair['pair_id']}"
            st.button(label, key=name, shortcut=key, on_click=go_to, args=(found,), disabled=found is None)
        look = parts.query(where=wanted.where, sort=str(wanted.order), state=wanted.state)
        st.page_link("app_pages/pairs.py", label="All of these pairs", icon=":material/table_rows:", query_params=look)


def show_texts(pair: Mapping[str, Any]) -> None:
    """The prompt, and both sides beside one another."""
    prompt = list(pair["prompt"])
    with st.container(horizontal=True, gap="medium"):
        marked = st.segmented_control(
            "Show", ["Differences", "Token heat", "Plain"], default="Differences", required=True, key="marked"
        )
        folded = any(text.is_folded(list(pair[side])) for side in ("prompt", *SIDES))
        whole = folded and st.toggle("Whole texts", key=f"whole_{pair['pair_id']}")
    st.html(text.STYLE)
    st.subheader("Prompt", anchor=False)
    st.html(text.turns(prompt, whole=whole))
    names = ("First", "Second") if pair["tie"] else ("Chosen", "Rejected")
    for column, side, name in zip(st.columns(2), mark_sides(pair, marked, whole=whole), names, strict=True):
        with column:
            st.subheader(name, anchor=False)
            st.html(side)


def mark_sides(pair: Mapping[str, Any], marked: str, *, whole: bool) -> list[Markup]:
    """Both sides as HTML: with what differs, as heat, or plain."""
    messages = [list(pair[side]) for side in SIDES]
    if marked == "Token heat" and (heat := heat_view.marked_sides(pair)):
        return [text.turn("as the model read it", side) for side in heat]
    last: tuple[Markup | None, ...] = (None, None)
    if marked == "Differences":
        last = text.word_diff(*(text.last_text(side, whole=whole) for side in messages))
    return [text.turns(side, mark, whole=whole) for side, mark in zip(messages, last, strict=True)]


def show_others(title: str, found: pd.DataFrame, key: str, nothing: str) -> None:
    """Other pairs, to go to."""
    st.subheader(title, anchor=False)
    if found.empty:
        st.caption(nothing)
        return
    selected = pairs_table.show(found, key, mode="single-row")
    if selected:
        st.button("Read this pair", key=f"go_{key}", on_click=go_to, args=(selected[0],))


def show_history(pair_id: str) -> None:
    """What was decided about the pair."""
    st.subheader("Decisions", anchor=False)
    found = state.decisions().history(pair_id)
    if found.empty:
        st.caption("Nothing was ever decided about this pair.")
        return
    told = pd.DataFrame(
        {
            "When": found["decided_at"].str.slice(0, 19),
            "Who": found["who"].map(text.one_line),
            "Action": found["action"].map(deciding.ACTIONS),
            "Value": found["value"],
            "Reason": found["reason"].map(text.one_line),
            "From": found["origin"].map(text.one_line),
            "Stands": found["stands"],
        }
    )
    st.dataframe(told[::-1], hide_index=True, key=f"history_{pair_id}")


st.title("Pair")
browser = queries.browser()
known = browser.known()
shown = st.query_params.get("state", "all")
order = Order.parse(st.query_params.get("sort") or ("p_flip desc" if "p_flip" in known else "row"))
if shown not in STATES:
    raise ConfigError(f"state={shown}: choose one of {', '.join(STATES)}")
wanted = Wanted(st.query_params.get("where", ""), order, shown)
if not (asked := st.query_params.get("id")):
    first = browser.page(wanted, 0, 1)
    if first.empty:
        parts.empty("No pair matches. Choose others on the page Pairs.")
        st.stop()
    asked = str(first["pair_id"][0])
pair = browser.pair(asked)
pair["row"] = int(pair["row"])
pair_id = pair["pair_id"]

pair_facts.show_head(pair, browser)
show_actions(browser, wanted, pair)
show_way(browser, wanted, pair)
show_texts(pair)
facts, others = st.columns([1, 1], gap="large")
with facts:
    pair_facts.show_findings(pair)
    pair_facts.show_signals(pair)
with others:
    show_history(pair_id)
    show_others("Same prompt", browser.siblings(pair["row"]), f"siblings_{pair_id}", "No other pair has this prompt.")
    nothing = "No other pair of this cluster, or the run has no map of its texts."
    show_others("Similar texts", browser.neighbours(pair["row"]), f"near_{pair_id}", nothing)
