"""Several people with the same run open, and a run that changes under an open page."""

import pytest

import curate
import curate.config
import curate.diagnosing
from curate.decision_log import DecisionLog
from curate.decisions import Decisions
from curate.entries import PairDecision


@pytest.fixture
def ids(own_run):
    with curate.RunView(own_run) as view:
        return view.sql("SELECT pair_id FROM pairs GROUP BY pair_id HAVING count(*) = 1 ORDER BY pair_id LIMIT 3")[
            "pair_id"
        ].to_list()


def test_decisions_of_both_survive(own_run, ids, open_page):
    pages = {who: open_page(own_run, "pair", id=pair_id) for who, pair_id in zip(("ann", "bob"), ids, strict=False)}
    for who, page in pages.items():
        page.text_input(key="who").set_value(who).run()
    with curate.RunView(own_run) as view:  # and somebody on the command line
        Decisions(view).decide([PairDecision(ids[2], "keep", reason="fine", origin="command line")], who="cleo")
    pages["ann"].button(key=f"drop_{ids[0]}").click().run()
    pages["bob"].button(key=f"review_{ids[1]}").click().run()
    found = {
        entry.who: (entry.said["pair_id"], entry.said["action"])
        for entry in DecisionLog(curate.Run.open(own_run)).entries()
    }
    assert found == {"ann": (ids[0], "drop"), "bob": (ids[1], "review"), "cleo": (ids[2], "keep")}


def test_a_page_opens_what_a_stage_has_made_anew(own_run, open_page, on_screen):
    page = open_page(own_run)
    before = on_screen(page)["Flipped"][0]
    curate.diagnosing.diagnose(curate.Run.open(own_run), curate.config.DiagnoseConfig(p_flip=0.99))
    page.run()
    with curate.RunView(own_run) as view:
        flipped = view.stage("diagnose")["kinds"]["flipped"]
    assert on_screen(page)["Flipped"][0] == str(flipped) != before


def test_a_run_that_is_gone_is_an_error_in_one_line(own_run, open_page):
    page = open_page(own_run)
    own_run.rename(own_run.with_name("gone"))
    page.run()
    assert page.error
    assert "not a run (no manifest.json)" in page.code[0].value
