"""Pairs a page at a time: the same as one would get from the whole tables, in any order, whatever is decided."""

import numpy as np
import pandas as pd
import pytest

from curate.browsing import EXCERPT, Browser, Order, Wanted
from curate.decisions import Decisions
from curate.entries import PairDecision
from curate.errors import ConfigError
from curate.expressions import Kind
from curate.view import RunView


@pytest.fixture(scope="module")
def view(planted):
    with RunView(planted.run.path) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser(view):
    return Browser(view, Decisions(view))


@pytest.fixture(scope="module")
def whole(view):
    """All that can be listed, in the input's order."""
    tables = [view.table(name).drop(columns="pair_id") for name in ("scores", "weights", "diagnosis")]
    frame = view.table("pairs")
    for table in tables:
        frame = frame.merge(table, on="row")
    return frame


def test_a_page_is_a_part_of_the_sorted_whole(browser, whole):
    wanted = Wanted("margin < 0", Order.parse("p_flip desc"))
    expected = whole[whole["margin"] < 0].sort_values(["p_flip", "row"], ascending=[False, True], na_position="last")
    found = pd.concat([browser.page(wanted, start, 7) for start in range(0, len(expected), 7)], ignore_index=True)
    assert found["row"].tolist() == expected["row"].tolist()
    assert browser.count(wanted) == len(expected) > 20
    np.testing.assert_array_equal(found["p_flip"], expected["p_flip"])
    assert found["chosen"].tolist() == [turns[-1]["content"][:EXCERPT] for turns in expected["chosen"]]
    assert found["kind"].tolist() == expected["kind"].tolist()


@pytest.mark.parametrize("order", ["row", "row desc", "margin", "p_flip desc", "kind", "abs(margin) desc", "tie"])
@pytest.mark.parametrize("where", ["", 'source = "web"'])
def test_next_and_previous_follow_the_pages(browser, where, order):
    wanted = Wanted(where, Order.parse(order))
    page = browser.page(wanted, 0, 1000)
    ids, rows = page["pair_id"].tolist(), page["row"].tolist()
    for place in (0, 1, len(ids) // 2, len(ids) - 2, len(ids) - 1):
        assert browser.following(wanted, rows[place]) == (ids[place + 1] if place + 1 < len(ids) else None)
        assert browser.preceding(wanted, rows[place]) == (ids[place - 1] if place else None)


def test_next_of_a_pair_that_is_not_among_the_wanted(browser, whole):
    wanted = Wanted('kind = "flipped"', Order.parse("p_flip desc"))
    clean = whole[whole["kind"] == "clean"]["row"].iloc[0]
    assert browser.following(wanted, int(clean)) is None  # all flipped pairs have a higher p_flip
    last = browser.page(wanted, 0, 1000)["pair_id"].tolist()[-1]
    assert browser.preceding(wanted, int(clean)) == last


def test_pairs_without_a_value_come_last_and_are_walked_through(write_scored, make_world, tmp_path):
    with RunView(write_scored(tmp_path, make_world(pairs=20), unscored=(3, 7)).path) as view:
        browser = Browser(view, Decisions(view))
        for order in ("margin", "margin desc"):
            wanted = Wanted(order=Order.parse(order))
            page = browser.page(wanted, 0, 20)
            ids, rows = page["pair_id"].tolist(), page["row"].tolist()
            assert rows[-2:] == [3, 7]
            walked = [browser.following(wanted, row) for row in rows]
            assert walked == [*ids[1:], None]
            assert [browser.preceding(wanted, row) for row in rows] == [None, *ids[:-1]]


def test_what_is_decided_can_be_left_out(write_scored, make_world, tmp_path):
    with RunView(write_scored(tmp_path, make_world(pairs=20)).path) as view:
        decisions = Decisions(view)
        browser = Browser(view, decisions)
        first, second, *_ = browser.page(Wanted(), 0, 20)["pair_id"]
        decisions.decide([PairDecision(first, "flip", reason="read")])
        assert browser.count(Wanted(state="undecided")) == 19
        assert browser.page(Wanted(state="undecided"), 0, 1)["pair_id"][0] == second
        assert browser.page(Wanted(state="decided"), 0, 5)[["pair_id", "action"]].values.tolist() == [[first, "flip"]]
        assert browser.following(Wanted(state="undecided"), 0) == second
        assert browser.bins("margin", Wanted(state="decided"))["matching"].sum() == 1


def test_bins_hold_all_pairs_and_those_that_match(browser, whole):
    bins = browser.bins("p_flip", Wanted('source = "web"'), most=10)
    expected, edges = np.histogram(whole["p_flip"], 10)
    web, _ = np.histogram(whole.loc[whole["source"] == "web", "p_flip"], edges)
    counts = bins.set_index(np.round((bins["low"] - edges[0]) / (edges[1] - edges[0])).astype(int))
    assert counts["pairs"].reindex(range(10), fill_value=0).tolist() == expected.tolist()
    assert counts["matching"].reindex(range(10), fill_value=0).tolist() == web.tolist()


def test_bins_of_a_constant_and_of_nothing(browser):
    one = browser.bins("margin - margin", Wanted())
    assert one[["low", "high", "pairs"]].values.tolist() == [[0.0, 0.0, 400]]
    assert browser.bins("margin / 0", Wanted()).empty


def test_groups_count_values_and_entries_of_lists(browser, whole):
    sources = browser.groups("source", Wanted())
    assert dict(zip(sources["value"], sources["pairs"], strict=True)) == whole["source"].value_counts().to_dict()
    checks = browser.groups("checks", Wanted('kind = "clean"'))
    clean = whole.loc[whole["kind"] == "clean", "checks"].explode().dropna().value_counts()
    assert dict(zip(checks["value"], checks["pairs"], strict=True)) == clean.to_dict()
    annotators = browser.groups("annotators", Wanted())
    assert sorted(annotators["value"]) == [f"ann-{number}" for number in range(4)]
    assert annotators["pairs"].sum() == 400


def test_siblings_share_the_prompt(browser, whole):
    same = whole["prompt"].map(lambda turns: turns[0]["content"])
    others = whole[(same == same.iloc[0]) & (whole["row"] != 0)]["row"].tolist()
    assert browser.siblings(0)["row"].tolist() == others == [1]


def test_neighbours_are_the_nearest_of_the_cluster(browser, whole):
    one = whole.iloc[0]
    others = whole[(whole["cluster"] == one["cluster"]) & (whole["row"] > 1)]  # row 1 has the same prompt
    distance = (others["x"] - one["x"]) ** 2 + (others["y"] - one["y"]) ** 2
    assert browser.neighbours(0, 3)["row"].tolist() == others.assign(d=distance).nsmallest(3, "d")["row"].tolist()


def test_a_run_that_is_not_diagnosed_can_be_read(write_scored, make_world, tmp_path):
    with RunView(write_scored(tmp_path, make_world(pairs=20)).path) as view:
        browser = Browser(view, Decisions(view))
        assert browser.page(Wanted(), 0, 3)["p_flip"].isna().all()
        assert browser.neighbours(0).empty
        assert browser.known()["margin"] is Kind.NUMBER
        assert "p_flip" not in browser.known()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted("p_flop > 1"), "column 1: no column 'p_flop': did you mean p_flip?"),
        (Wanted(order=Order("p_flop")), "sorted by: column 1: no column 'p_flop': did you mean p_flip?"),
        (Wanted(order=Order("row); DROP TABLE pairs")), r"sorted by: .*"),
        (Wanted("margin"), "margin is a number, where yes or no is needed"),
    ],
)
def test_faults_are_named(browser, wanted, said):
    with pytest.raises(ConfigError, match=said):
        browser.page(wanted, 0, 1)


@pytest.mark.parametrize("text", ["p_flip desc", "p_flip", "abs(margin - 1) desc", "row"])
def test_orders_read_back(text):
    assert str(Order.parse(text)) == text
