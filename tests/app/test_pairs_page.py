"""The page Pairs: what is chosen is a predicate in the URL, the counts are the library's, and decisions are noted."""

import pytest

from app import filters, pairs_table
from curate.browsing import Browser, Order, Wanted
from curate.decisions import Decisions
from curate.saved_views import SavedView, saved_views
from curate.view import RunView


@pytest.fixture
def view(own_run):
    with RunView(own_run) as opened:
        yield opened


@pytest.fixture
def decisions(view):
    return Decisions(view)


@pytest.fixture
def browser(view, decisions):
    return Browser(view, decisions)


def where(at):
    return asked(at, "where")


def asked(at, name):
    """A parameter of the URL."""
    value = at.query_params.get(name, "")
    return value if isinstance(value, str) else value[0]


def shown_pairs(at):
    return int(next(it for it in at.metric if it.label == "Pairs").value.replace(",", ""))


def table(at):
    """The shown page of pairs."""
    return at.dataframe[0].value


def test_at_first_all_pairs_are_shown_the_most_doubtful_first(own_run, open_page, browser):
    at = open_page(own_run, "pairs")
    expected = browser.page(Wanted(order=Order("p_flip", descending=True)), 0, 50)
    assert shown_pairs(at) == browser.count(Wanted()) == 240
    assert table(at)["p_flip"].tolist() == expected["p_flip"].tolist()
    assert not {"row", "pair_id"} & set(table(at))


def test_filters_meet_in_the_url_and_the_url_fills_the_filters(own_run, open_page, browser):
    at = open_page(own_run, "pairs")
    at.multiselect(key="filter_checks").set_value(["empty", "identical"]).run()
    assert where(at) == '"empty" in checks or "identical" in checks'
    at.multiselect(key="filter_annotators").set_value(["ann-1"]).run()
    at.text_input(key="search").set_value("The").run()
    expected = filters.with_search(
        filters.with_values(
            filters.with_values("", "checks", ["empty", "identical"], listed=True), "annotators", ["ann-1"], listed=True
        ),
        "the",
    )
    assert where(at) == expected
    assert shown_pairs(at) == browser.count(Wanted(expected))
    again = open_page(own_run, "pairs", where=expected)
    assert again.multiselect(key="filter_checks").value == ["empty", "identical"]
    assert again.text_input(key="search").value == "the"
    assert shown_pairs(again) == shown_pairs(at)


def test_a_chip_that_is_taken_off_leaves_the_others(own_run, open_page):
    at = open_page(own_run, "pairs", where='kind = "defective" and margin < 0 and tie')
    chips = at.multiselect(key="chips")
    assert chips.value == ['kind = "defective"', "margin < 0", "tie"]
    chips.set_value(['kind = "defective"', "tie"]).run()
    assert where(at) == 'kind = "defective" and tie'
    assert at.multiselect(key="filter_kind").value == ["defective"]


def test_the_predicate_is_shown_to_be_copied_and_can_be_written(own_run, open_page, browser):
    at = open_page(own_run, "pairs", where="margin < 0")
    assert "when margin < 0 then drop" in [it.value for it in at.code]
    at.text_area(key="predicate").set_value("abs(margin) < 1").run()
    assert where(at) == "abs(margin) < 1"
    assert shown_pairs(at) == browser.count(Wanted("abs(margin) < 1"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"where": "p_flop > 1"}, "column 1: no column 'p_flop': did you mean p_flip?"),
        ({"where": "margin <"}, "expected a column, a number or a text"),
        ({"sort": "p_flop"}, "sorted by: column 1: no column 'p_flop'"),
        ({"sort": "'); DROP TABLE pairs; --"}, "sorted by: "),
        ({"state": "'"}, "choose one of all, undecided, decided"),
    ],
)
def test_a_url_that_means_nothing_is_explained_and_can_be_mended(own_run, open_page, query, said):
    at = open_page(own_run, "pairs", **query)
    assert any(said in it.value for it in at.code)
    next(it for it in at.button if it.label == "Show all pairs").click().run()
    if "where" in query:
        assert shown_pairs(at) == 240


def test_order_and_page_are_in_the_url(own_run, open_page, browser):
    at = turned(open_page(own_run, "pairs", sort="margin"), "2")
    assert table(at)["margin"].tolist() == browser.page(Wanted(order=Order("margin")), 50, 50)["margin"].tolist()
    at.selectbox(key="sort").set_value("margin desc").run()
    assert asked(at, "sort") == "margin desc"
    assert "page" not in at.query_params
    assert len(table(turned(at, "999999"))) == 40
    assert len(table(turned(at, "-1; DROP"))) == 50


def turned(at, page):
    at.query_params["page"] = page
    return at.run()


def select(at, browser, *places, order=""):
    """Select lines of the first page, as a click does."""
    page = browser.page(Wanted(order=Order.parse(order or "p_flip desc")), 0, 50)
    key = pairs_table.key_of(page, "pairs")
    at.session_state[key] = {"selection": {"rows": list(places), "columns": [], "cells": []}}
    return at.run()


def test_the_selection_is_decided_about(own_run, open_page, browser, decisions):
    at = select(open_page(own_run, "pairs", sort="row"), browser, 0, 2, order="row")
    at.selectbox(key="action_pairs").set_value("soft").run()
    at.number_input(key="number_pairs_soft").set_value(0.7).run()
    at.text_input(key="reason_pairs").set_value("read both").run()
    button = at.button(key="decide_selected")
    assert button.label == "Soft label: 2 selected"
    button.click().run()
    assert not at.exception
    found = decisions.current()
    assert found[["row", "action", "value", "reason"]].values.tolist() == [
        [0, "soft", 0.7, "read both"],
        [2, "soft", 0.7, "read both"],
    ]


def test_all_that_match_are_decided_about_with_one_entry(own_run, open_page, browser, decisions):
    predicate = '"empty" in checks or "identical" in checks'
    at = open_page(own_run, "pairs", where=predicate)
    at.segmented_control(key="decide_about").set_value("all").run()
    button = at.button(key="decide_all")
    assert button.label == f"Drop: all {shown_pairs(at)} that match"
    button.click().run()
    assert not at.exception
    assert len(decisions.current()) == browser.count(Wanted(predicate)) == 4
    assert [entry.kind for entry in decisions.log.entries()] == ["bulk"]
    assert at.dataframe[0].value["action"].tolist() == ["drop"] * 4


def test_a_flip_of_all_needs_two_signals(own_run, open_page, browser, decisions):
    at = open_page(own_run, "pairs", where="p_flip > 0.5")
    at.segmented_control(key="decide_about").set_value("all").run()
    at.selectbox(key="action_pairs").set_value("flip").run()
    at.button(key="decide_all").click().run()
    assert any("flip" in it.value and "signal" in it.value for it in at.code)
    assert decisions.is_empty()


def test_what_is_decided_can_be_left_out(own_run, open_page, browser):
    at = select(open_page(own_run, "pairs"), browser, 0)
    at.button(key="decide_selected").click().run()
    at.segmented_control(key="state").set_value("undecided").run()
    assert asked(at, "state") == "undecided"
    assert shown_pairs(at) == 239
    at.segmented_control(key="decide_about").set_value("all").run()
    assert all(button.key != "decide_all" for button in at.button)


def test_views_are_saved_under_a_name(own_run, open_page):
    at = open_page(own_run, "pairs", where="margin < 0", sort="margin")
    at.text_input(key="new_view").set_value("against").run()
    at.button(key="save_view").click().run()
    assert saved_views(own_run) == [SavedView("against", "margin < 0", "margin")]


def test_read_only_shows_all_and_decides_nothing(own_run, open_page):
    at = open_page(own_run, "pairs", read_only=True)
    assert shown_pairs(at) == 240
    assert all(button.disabled for button in at.button)
    assert not {"decide_selected", "decide_all"} & {button.key for button in at.button}


def test_no_match_says_what_to_do(own_run, open_page):
    at = open_page(own_run, "pairs", where="margin > 1e9")
    assert shown_pairs(at) == 0
    assert any("Take a condition off" in it.value for it in at.markdown)
