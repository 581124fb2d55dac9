"""The page Pairs: filters and what they leave, a page at a time; decisions about the selection or all of it.

The URL holds the view: `where` (a predicate of docs/rules.md), `sort`, `state` and `page`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from app import filters, histograms, pairs_table, parts, queries, state
from app.deciding import ask, decide_all_button, decide_button
from curate.browsing import STATES, Order, Wanted
from curate.errors import ConfigError
from curate.expressions import Kind
from curate.saved_views import LONGEST_NAME, SavedView, forget_view, save_view, saved_views
from curate.schema import KINDS

PAGE_PAIRS = 50
PAGE = "page pairs"
BRUSHED = ("p_flip", "margin")
_SORTS = (
    "p_flip desc",
    "p_flip",
    "margin",
    "margin desc",
    "abs(margin)",
    "abs(evidence)",
    "weight",
    "weight desc",
    "row",
    "chosen_tokens desc",
    "rejected_tokens desc",
    "source",
    "cluster",
)
_STATE_NAMES = {"all": "All", "undecided": "Undecided", "decided": "Decided"}


def set_view(where: str | None = None, sort: str | None = None, shown: str | None = None) -> None:
    """Look at other pairs: the URL says so, from their first page on."""
    given = {"where": where, "sort": sort, "state": shown}
    for name, value in (*given.items(), ("page", "")):
        if value:
            st.query_params[name] = value
        elif value is not None:
            st.query_params.pop(name, None)


def follow(key: str, change: str, column: str = "", *, listed: bool = False) -> None:
    """Take what a widget holds over into the predicate."""
    value, where = st.session_state[key], st.query_params.get("where", "")
    if change == "values":
        set_view(filters.with_values(where, column, value, listed=listed))
    elif change == "number":
        set_view(filters.with_number(where, column, value))
    elif change == "search":
        set_view(filters.with_search(where, value or ""))
    else:
        kept = [place for place, part in enumerate(filters.conditions(where)) if str(part) in value]
        set_view(filters.joined([filters.conditions(where)[place] for place in kept]))


def choose_where(known: Mapping[str, Kind], where: str) -> None:
    """Widgets for what is often filtered by, each for one condition of the predicate."""
    with st.container(horizontal=True, gap="small"):
        if "kind" in known:
            choose_values(where, "kind", "Kind", list(KINDS))
        if "checks" in known:
            choose_values(where, "checks", "Check", listed=True)
        choose_values(where, "source", "Source")
        choose_values(where, "annotators", "Annotator", listed=True)
        if "cluster" in known:
            choose_cluster(where)
        st.session_state["search"] = filters.searched(where)
        st.text_input("Text", key="search", width=220, on_change=follow, args=("search", "search"))


def choose_values(
    where: str, column: str, label: str, options: list[str] | None = None, *, listed: bool = False
) -> None:
    """One or more values of a column of texts; nothing where the run has none."""
    chosen = filters.chosen_values(where, column)
    options = options or queries.values(column)
    if not options and not chosen:
        return
    key = f"filter_{column}"
    st.session_state[key] = chosen
    st.multiselect(
        label,
        list(dict.fromkeys([*options, *chosen])),
        key=key,
        width=220,
        placeholder="any",
        on_change=follow,
        args=(key, "values", column),
        kwargs={"listed": listed},
    )


def choose_cluster(where: str) -> None:
    """A cluster by its name, which is made of its prompts' words."""
    names = state.view().stage("diagnose").get("clusters") or []
    if not names:
        return
    st.session_state["filter_cluster"] = filters.chosen_number(where, "cluster")
    st.selectbox(
        "Cluster",
        range(len(names)),
        index=None,
        format_func=lambda number: f"{number}  {names[number]}" if number < len(names) else str(number),
        key="filter_cluster",
        width=220,
        placeholder="any",
        on_change=follow,
        args=("filter_cluster", "number", "cluster"),
    )


def show_conditions(where: str) -> None:
    """The predicate as chips that can be taken off, to be edited, and to be copied as a rule."""
    if where:
        st.session_state["chips"] = chips = [str(part) for part in filters.conditions(where)]
        st.multiselect("Conditions", chips, key="chips", on_change=follow, args=("chips", "chips"))
    with st.expander("As a rule", icon=":material/rule:"):
        st.session_state["predicate"] = where
        st.text_area(
            "Predicate",
            key="predicate",
            height=80,
            placeholder='kind = "flipped" and p_flip > 0.8',
            on_change=lambda: set_view(st.session_state["predicate"]),
        )
        if where:
            parts.code(f"when {where} then drop")
            st.page_link("app_pages/curate.py", label="Make a plan of it", query_params=parts.query(rule=where))


def choose_saved(run: Path, where: str, sort: str, shown: str) -> None:
    """Open, save and forget views."""
    with st.popover("Saved views", icon=":material/bookmark:"):
        views = {view.name: view for view in saved_views(run)}
        if not views:
            st.caption("None yet: filter, then save the view under a name.")
        else:
            name = st.selectbox("View", list(views), index=None, placeholder="choose one")
            if name is not None:
                view = views[name]
                parts.code(f"{view.where or 'all pairs'}, sorted by {view.sort}, {view.state}")
                st.button("Open", on_click=set_view, args=(view.where, view.sort, view.state), key="open_view")
                st.button(
                    "Forget", on_click=forget_view, args=(run, name), key="forget_view", disabled=state.read_only()
                )
        new = st.text_input("Save this view as", max_chars=LONGEST_NAME, key="new_view")
        if st.button("Save", disabled=state.read_only() or not new.strip(), key="save_view"):
            save_view(run, SavedView(new.strip(), where, sort, shown))
            st.rerun()


def choose_order(known: Mapping[str, Kind], sort: str) -> None:
    """What the pairs are sorted by, and whether decided ones are shown."""
    sorts = [it for it in _SORTS if it.split(" ")[0].removeprefix("abs(").removesuffix(")") in known]
    more = [name for name, kind in known.items() if kind is Kind.NUMBER and name not in sorts]
    options = list(dict.fromkeys([*sorts, *more, *(f"{name} desc" for name in more), sort]))
    st.session_state["sort"] = sort
    st.selectbox(
        "Sorted by",
        options,
        key="sort",
        width=260,
        format_func=order_in_words,
        on_change=lambda: set_view(sort=st.session_state["sort"]),
    )


def order_in_words(sort: str) -> str:
    """An order as the page names it."""
    order = Order.parse(sort)
    return f"{pairs_table.name_of(order.by)}, {'highest' if order.descending else 'lowest'} first"


def choose_state(shown: str) -> None:
    """Whether decided pairs are shown."""
    st.session_state["state"] = shown
    st.segmented_control(
        "Decided",
        list(STATES),
        key="state",
        required=True,
        format_func=_STATE_NAMES.__getitem__,
        on_change=lambda: set_view(shown=st.session_state["state"]),
    )


def show_pairs(wanted: Wanted, count: int) -> None:
    """A page of pairs, and what can be done with those that are selected or with all."""
    pages = max(1, math.ceil(count / PAGE_PAIRS))
    number = min(max(_whole(st.query_params.get("page", "1")), 1), pages)
    page = queries.page(wanted, (number - 1) * PAGE_PAIRS, PAGE_PAIRS)
    look = parts.query(where=wanted.where, sort=str(wanted.order), state=wanted.state)
    selected = pairs_table.show(page, "pairs")
    first = selected[0] if selected else str(page["pair_id"][0])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        label = "Read the selected pair" if selected else "Read from the first one on"
        st.page_link("app_pages/pair.py", label=label, icon=":material/compare:", query_params=look | {"id": first})
        if pages > 1:
            key = f"turn_{number}_{pages}"
            st.pagination(pages, default=number, key=key, on_change=_turn, args=(key,))
    if not state.read_only():
        act(wanted, selected, count)


def act(wanted: Wanted, selected: list[str], count: int) -> None:
    """Decide about the selection, or about all that match; the count comes first."""
    with st.container(border=True):
        of = st.segmented_control(
            "Decide about",
            ["selection", "all"],
            default="selection",
            required=True,
            format_func={"selection": f"{len(selected):,} selected", "all": f"all {count:,} that match"}.__getitem__,
            key="decide_about",
        )
        choice = ask("pairs")
        if of == "selection":
            decide_button(selected, choice, PAGE)
        elif wanted.state != "all":
            st.caption("A rule does not know what is decided: show all pairs to decide about all that match.")
        else:
            decide_all_button(wanted.where, count, choice, PAGE)


def _turn(key: str) -> None:
    st.query_params["page"] = str(st.session_state[key])


def _whole(written: str) -> int:
    return int(written) if written.isascii() and written.isdigit() and len(written) < 10 else 1


st.title("Pairs")
where, sort = st.query_params.get("where", ""), st.query_params.get("sort", "")
shown = st.query_params.get("state", "all")
run, browser = state.run_path(), queries.browser()
known = browser.known()
sort = sort or ("p_flip desc" if "p_flip" in known else "row")
try:
    if shown not in STATES:
        raise ConfigError(f"state={shown}: choose one of {', '.join(STATES)}")
    wanted = Wanted(where, Order.parse(sort), shown)
    browser.check(wanted)
    count = queries.count(wanted)
except ConfigError as error:
    parts.fault(str(error))
    st.text_area("Predicate", where, key="broken", on_change=lambda: set_view(st.session_state["broken"]))
    st.button("Show all pairs", on_click=set_view, args=("", "", ""))
    st.stop()

choose_where(known, where)
show_conditions(where)
histograms.show(wanted, [name for name in BRUSHED if name in known], set_view)
with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
    st.metric("Pairs", f"{count:,}")
    choose_order(known, sort)
    choose_state(shown)
    choose_saved(run, where, sort, shown)
if count:
    show_pairs(wanted, count)
else:
    parts.empty("No pair matches. Take a condition off, or show decided pairs too.")
