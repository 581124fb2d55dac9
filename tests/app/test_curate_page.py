"""The page Curate: a plan's preview is the library's, deciding and taking back are entries, the export is a job."""

import pytest

from curate.decisions import Decisions
from curate.entries import PairDecision
from curate.plans import Plan, Rule
from curate.preview import preview
from curate.view import RunView

DEFECTS = 'name = "mine"\n\n[[rules]]\nwhen = \'kind = "defective"\'\nthen = "drop"\nreason = "a defect"\n'


@pytest.fixture
def view(own_run):
    with RunView(own_run) as opened:
        yield opened


@pytest.fixture
def decisions(view):
    return Decisions(view)


def metric(at, label):
    return next(it.value for it in at.metric if it.label == label)


def button(at, key):
    return at.button(key=key)


def test_before_anything_is_planned_it_says_what_to_do(own_run, open_page, view):
    at = open_page(own_run, "curate")
    assert any("Choose a ready-made plan" in it.value for it in at.markdown)
    assert any("Nothing was decided yet" in it.value for it in at.markdown)
    assert metric(at, "Pairs that stay") == f"{preview(view, Plan('')).staying:,}"


def test_a_plans_preview_is_the_librarys(own_run, open_page, view, decisions):
    at = open_page(own_run, "curate")
    at.text_area(key="plan_text").set_value(DEFECTS).run()
    expected = preview(view, Plan.from_toml(DEFECTS), decisions)
    assert metric(at, "Pairs that stay") == f"{expected.staying:,}" == "228"
    shown = at.dataframe[0].value
    assert shown[["Pairs", "Reason"]].values.tolist() == expected.actions[["pairs", "reason"]].values.tolist()


def test_deciding_makes_an_entry_that_can_be_taken_back(own_run, open_page, decisions):
    at = open_page(own_run, "curate")
    at.text_area(key="plan_text").set_value(DEFECTS).run()
    button(at, "apply").click().run()
    assert len(decisions.current()) == 12
    button(at, "apply").click().run()
    assert len(decisions.log.entries()) == 1  # the same again is no entry
    log = next(it.value for it in at.dataframe if "Entry" in it.value)
    assert log[["What", "From", "Stands"]].values.tolist() == [["drop 12", "page curate", True]]
    button(at, "undo").click().run()
    assert decisions.is_empty()
    assert button(at, "undo").disabled


def test_a_ready_made_plan_fills_the_editor(own_run, open_page):
    at = open_page(own_run, "curate")
    next(it for it in at.selectbox if it.label == "Ready-made plan").set_value("conservative").run()
    at.number_input(key="set_sure").set_value(0.9).run()
    next(it for it in at.button if it.label == "Use it").click().run()
    assert "p_flip >= 0.9" in at.text_area(key="plan_text").value
    assert button(at, "apply").label == "Decide so"


def test_a_filter_becomes_a_plan(own_run, open_page):
    at = open_page(own_run, "curate", rule="p_flip > 0.5 and margin < 0")
    assert Plan.from_toml(at.text_area(key="plan_text").value).rules == (
        Rule.parse("when p_flip > 0.5 and margin < 0 then drop"),
    )


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[[rules]", "no TOML"),
        ('[[rules]]\nwhen = "p_flop > 1"\nthen = "drop"', "rule 1, when: column 1: no column 'p_flop'"),
        ('[[rules]]\nwhen = "p_flip > 0.5"\nthen = "flip"', "flip"),
        ('[[rules]]\nwhen = "tie"\nthen = "weight(-1)"', "weight"),
    ],
)
def test_a_plan_that_does_not_fit_is_explained_and_cannot_be_applied(own_run, open_page, written, said):
    at = open_page(own_run, "curate")
    at.text_area(key="plan_text").set_value(written).run()
    assert any(said in it.value for it in at.code)
    assert all(it.key != "apply" for it in at.button)


def test_what_was_decided_by_hand_can_be_spared(own_run, open_page, view, decisions):
    pair_id = view.sql("SELECT pair_id FROM diagnosis WHERE kind = 'defective' ORDER BY row LIMIT 1")["pair_id"][0]
    decisions.decide([PairDecision(pair_id, "keep", reason="fine")], who="ann")
    at = open_page(own_run, "curate")
    at.text_area(key="plan_text").set_value(DEFECTS).run()
    at.checkbox(key="spare").set_value(True).run()
    button(at, "apply").click().run()
    assert dict(decisions.current()[["pair_id", "action"]].values)[pair_id] == "keep"


@pytest.mark.parametrize("folder", ["/etc/out", "../../../elsewhere/x", "/nowhere/at/all"])
def test_exports_stay_within_the_roots(own_run, open_page, folder):
    at = open_page(own_run, "curate", roots=[own_run.parent])
    at.text_input(key="export_folder").set_value(folder).run()
    button(at, "export").click().run()
    assert any("give a path under" in it.value for it in at.code)


def test_an_export_is_a_job_whose_output_is_shown(own_run, open_page):
    from app import state

    at = open_page(own_run, "curate", roots=[own_run.parent])
    button(at, "export").click().run()
    job = state.jobs().all()[0]
    expected = [
        "export",
        str(own_run),
        "-o",
        f"{own_run}-export",
        "--format",
        "trl",
        "--test-share",
        "0",
        "--seed",
        "0",
    ]
    assert list(job.arguments) == expected
    job.process.wait(120)
    at.run()
    assert any(job.output() == it.value for it in at.code)


def test_read_only_decides_and_starts_nothing(own_run, open_page):
    at = open_page(own_run, "curate", read_only=True)
    at.text_area(key="plan_text").set_value(DEFECTS).run()
    assert button(at, "apply").disabled
    assert button(at, "export").disabled
