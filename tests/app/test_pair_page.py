"""The page Pair: everything known of one pair, decisions by key, the next one at once, undo."""

import re

import pytest

from curate.browsing import Browser, Order, Wanted
from curate.decisions import Decisions
from curate.entries import PairDecision
from curate.view import RunView

SUSPECTS = Wanted(order=Order("p_flip", descending=True))


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


def asked(at):
    value = at.query_params.get("id", "")
    return value if isinstance(value, str) else value[0]


def pressed(at, action, pair_id):
    at.button(key=f"{action}_{pair_id}").click().run()
    assert not at.exception
    return at


def html_of(at):
    return "".join(it.proto.body for it in at.get("html"))


def metric(at, label):
    return next(it.value for it in at.metric if it.label == label)


def test_the_first_suspect_is_shown_with_what_is_known(own_run, open_page, view, browser):
    at = open_page(own_run, "pair")
    first = browser.page(SUSPECTS, 0, 1).iloc[0]
    pair = view.pair(first["pair_id"])
    assert metric(at, "P(flipped)") == f"{pair['p_flip']:.2f}"
    assert metric(at, "Margin") == f"{pair['margin']:.2f}"
    assert metric(at, "Kind") == pair["kind"].capitalize()
    signals = next(it.value for it in at.dataframe if "Signal" in it.value)
    assert signals.set_index("Signal")["Value"]["Evidence"] == pytest.approx(pair["evidence"])
    assert all(any(reason in it.value for it in at.text) for reason in pair["reasons"])
    assert pair["prompt"][0]["content"][:20] in html_of(at)


def test_differences_are_marked_until_plain_texts_are_asked_for(own_run, open_page):
    at = open_page(own_run, "pair")
    assert "<ins>" in html_of(at)
    at.segmented_control(key="marked").set_value("Plain").run()
    assert "<ins>" not in html_of(at)


@pytest.mark.parametrize("action", ["keep", "drop", "flip", "review"])
def test_a_decision_is_noted_and_the_next_suspect_comes(own_run, open_page, browser, decisions, action):
    first, second = browser.page(SUSPECTS, 0, 2)["pair_id"]
    at = open_page(own_run, "pair", id=first)
    at.text_input(key=f"note_{first}").set_value("read it").run()
    pressed(at, action, first)
    noted = decisions.current().iloc[0]
    assert (noted["pair_id"], noted["action"], noted["reason"]) == (first, action, "read it")
    assert asked(at) == second
    assert at.button(key=f"{action}_{second}").label


def test_a_soft_label_takes_its_number(own_run, open_page, browser, decisions):
    at = open_page(own_run, "pair")
    first = browser.page(SUSPECTS, 0, 1)["pair_id"][0]
    at.number_input(key="soft_label").set_value(0.3).run()
    pressed(at, "soft", first)
    assert decisions.current()[["action", "value"]].values.tolist() == [["soft", 0.3]]


def test_every_action_has_its_key(own_run, open_page, browser):
    first = browser.page(SUSPECTS, 0, 1)["pair_id"][0]
    at = open_page(own_run, "pair")
    keys = {button.key.removesuffix(f"_{first}"): button.proto.shortcut for button in at.button if button.key}
    expected = {"keep": "k", "drop": "d", "flip": "f", "soft": "s", "review": "v", "undo": "u", "next": "n"}
    assert {name: keys[name] for name in expected} == expected


def test_undo_takes_back_and_history_says_so(own_run, open_page, browser, decisions):
    first = browser.page(SUSPECTS, 0, 1)["pair_id"][0]
    at = open_page(own_run, "pair", id=first)
    at.checkbox(key="go_on").set_value(False).run()
    pressed(at, "flip", first)
    assert metric(at, "Decision") == "Flip"
    pressed(at, "undo", first)
    assert metric(at, "Decision") == "None"
    assert decisions.is_empty()
    history = next(it.value for it in at.dataframe if "Stands" in it.value)
    assert history[["Action", "Stands"]].values.tolist() == [["Flip", False]]


def test_the_way_leads_through_what_is_filtered(own_run, open_page, browser):
    sources = browser.groups("source", Wanted())["value"]
    wanted = Wanted(f'source = "{sources[0]}"', Order("margin"))
    ids = browser.page(wanted, 0, 3)["pair_id"].tolist()
    at = open_page(own_run, "pair", id=ids[1], where=wanted.where, sort="margin")
    pressed(at, "next", ids[1])
    assert asked(at) == ids[2]
    pressed(at, "previous", ids[2])
    assert asked(at) == ids[1]


def test_another_persons_decision_is_seen_and_both_survive(own_run, open_page, browser, decisions):
    first, second = browser.page(SUSPECTS, 0, 2)["pair_id"]
    at = open_page(own_run, "pair", id=first)
    decisions.decide([PairDecision(second, "drop", reason="elsewhere")], who="ann")
    pressed(at, "keep", first)
    assert asked(at) not in (first, second)  # somebody has decided about the second one already
    assert dict(decisions.current()[["pair_id", "action"]].values) == {first: "keep", second: "drop"}


def test_others_of_the_prompt_are_there(own_run, open_page, view, browser):
    row = view.sql("SELECT min(row) AS row FROM pairs GROUP BY prompt HAVING count(*) > 1 ORDER BY row LIMIT 1")["row"][
        0
    ]
    pair_id = view.sql("SELECT pair_id FROM pairs WHERE row = $row", row=int(row))["pair_id"][0]
    at = open_page(own_run, "pair", id=pair_id)
    tables = [it.value for it in at.dataframe if "prompt" in it.value]
    assert len(tables[0]) == len(browser.siblings(int(row))) > 0


def test_token_heat_comes_from_a_job_of_its_own(own_run, open_page, browser):
    from app import state

    first = browser.page(SUSPECTS, 0, 1)["pair_id"][0]
    at = open_page(own_run, "pair", id=first)
    at.segmented_control(key="marked").set_value("Token heat").run()
    at.button(key=f"heat_{first}").click().run()
    job = state.jobs().all()[0]
    assert job.process.wait(120) == 0, job.output()
    at.run()
    assert re.search(r'class="token" style="background:rgba\([\d,.]+\)"', html_of(at))


@pytest.mark.parametrize("pair_id", ["ffffffff", "../../etc/passwd", "<script>", "'; DROP TABLE pairs", "![x](//evil)"])
def test_an_id_that_is_none_is_said_to_be_none(own_run, open_page, pair_id):
    at = open_page(own_run, "pair", id=pair_id)
    assert any("no pair has an id that starts with" in it.value for it in at.code)
    assert not any(pair_id in it.value for it in (*at.markdown, *at.error))


def test_read_only_decides_nothing(own_run, open_page):
    at = open_page(own_run, "pair", read_only=True)
    assert {button.key.split("_")[0] for button in at.button if not button.disabled} <= {"next", "previous"}
    assert all(it.disabled for it in at.text_input if (it.key or "").startswith("note_"))
