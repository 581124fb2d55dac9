"""Decisions about a run's pairs: the latest that stands decides, an undo restores exactly, all can be replayed."""

import contextlib
import json
import shutil
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from curate import choices
from curate import entries as entries_module
from curate.config import IngestConfig
from curate.decision_log import DecisionLog
from curate.decisions import Decisions
from curate.entries import BulkDecision, Entry, PairDecision
from curate.errors import ConfigError, RunError, StorageError
from curate.pairs import ingest
from curate.plans import Plan
from curate.schema import DECIDED, DIAGNOSIS, FINDINGS, SLICES, WEIGHTS, signals_schema
from curate.store import Run, write_table
from curate.view import RunView

#: Rows 0, 4 and 6 are the same pair, and so are 1 and 7.
QUESTIONS = ["a", "b", "c", "d", "a", "e", "a", "b"]
DROP = 'name = "sure"\n[[rules]]\nwhen = "p_flip > 0.55"\nthen = "drop"\nreason = "wrong way round"\n'
THREE = (
    DROP
    + '[[rules]]\nwhen = "p_flip > 0.35"\nthen = "soft"\n[[rules]]\nwhen = "p_flip > 0.15"\nthen = "weight(p_flip)"'
)


def make_run(folder, questions=QUESTIONS, p_flip=None, stages=("weigh", "diagnose")):
    """A run with a pair for each question; margin 0, 1, 2, … and p_flip 0.1, 0.2, … by row."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"prompt": f"{it}?", "chosen": f"good {it}", "rejected": f"bad {it}"} for it in questions]
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = Run.create(folder / "run")
    ingest(IngestConfig((str(data),), format="trl_standard"), run)
    rescore(run, p_flip, stages)
    return run


def rescore(run, p_flip=None, stages=("weigh", "diagnose")):
    keys = run.read_pairs(0, run.count_pairs(), ["pair_id", "row"])
    count = len(keys)
    values = {"margin": np.arange(count, dtype=float), "p_flip": p_flip or (np.arange(count) + 1) / 10}
    for name, schema in {"weights": WEIGHTS, "diagnosis": DIAGNOSIS}.items():
        columns = {it.name: values.get(it.name, pa.nulls(count, it.type)) for it in schema}
        columns |= {name: keys[name] for name in keys.column_names}
        write_table(run.table_path(name), pa.table(columns, schema=schema))
    for name, schema in {"signals": signals_schema(()), "findings": FINDINGS, "slices": SLICES}.items():
        write_table(run.table_path(name), schema.empty_table())
    for stage in stages:
        run.record(stage, f"{stage} {p_flip}", {})


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path)


@pytest.fixture
def view(run):
    with RunView(run.path) as opened:
        yield opened


@pytest.fixture
def decisions(view):
    return Decisions(view)


@pytest.fixture
def ids(view):
    return view.table("pairs")["pair_id"].tolist()


def by_row(decisions, column="action"):
    return dict(decisions.current().set_index("row")[column])


def choice(rows, action="drop", **columns):
    return pd.DataFrame({"row": list(rows), "action": action, **columns})


# --- single pairs ---


def test_a_decision_is_noted_with_all_that_belongs_to_it(decisions, ids):
    (entry,) = decisions.decide([PairDecision(ids[3], "soft", 0.25, "it is a joke", "page pairs")], "ann")
    assert entry.said == {
        **{"pair_id": ids[3], "action": "soft", "value": 0.25, "reason": "it is a joke", "origin": "page pairs"},
        **{"copy": None, "row": 3, "margin": 3.0, "p_flip": 0.4},
    }
    (line,) = decisions.current().to_dict("records")
    assert np.isnan(line.pop("target_margin"))
    assert line == {
        **{"row": 3, "pair_id": ids[3], "action": "soft", "value": 0.25, "reason": "it is a joke"},
        **{"origin": "page pairs", "margin": 3.0, "p_flip": 0.4},
        **{"entry": entry.id, "decided_at": entry.at, "who": "ann"},
    }
    assert json.loads(decisions.log.path.read_text())["margin"] == 3.0


def test_the_latest_decides_and_undo_uncovers_the_one_before(decisions, ids):
    first, second, third = (
        decisions.decide([PairDecision(ids[2], action)])[0] for action in ("drop", "flip", "review")
    )
    assert by_row(decisions) == {2: "review"}
    undo = decisions.undo(third.id)
    assert by_row(decisions) == {2: "flip"}
    decisions.undo(first.id)
    assert by_row(decisions) == {2: "flip"}
    decisions.undo(second.id)
    assert by_row(decisions) == {}
    decisions.undo(undo.id)
    assert by_row(decisions) == {2: "review"}


def test_a_decision_holds_for_all_copies_or_for_one(decisions, ids):
    decisions.decide([PairDecision(ids[0], "drop")])
    assert by_row(decisions) == {0: "drop", 4: "drop", 6: "drop"}
    (one,) = decisions.decide([PairDecision(ids[0], "keep", copy=1)])
    assert one.decision.row == 4
    assert by_row(decisions) == {0: "drop", 4: "keep", 6: "drop"}
    decisions.decide([PairDecision(ids[0], "flip")])
    assert by_row(decisions) == {0: "flip", 4: "flip", 6: "flip"}
    decisions.undo(decisions.log.entries()[-1].id)
    assert by_row(decisions) == {0: "drop", 4: "keep", 6: "drop"}


@pytest.mark.parametrize(("pair_id", "copy"), [("f" * 32, None), (None, 3)])
def test_a_pair_that_is_not_there(decisions, ids, pair_id, copy):
    with pytest.raises(RunError, match=rf"no pair has the id {pair_id or ids[0]}{', copy 3' if copy else ''}"):
        decisions.decide([PairDecision(ids[1], "drop"), PairDecision(pair_id or ids[0], "drop", copy=copy)])
    assert decisions.log.entries() == []
    assert by_row(decisions) == {}


def test_no_decision_is_none(decisions):
    assert decisions.decide([]) == []
    assert decisions.current().empty
    assert decisions.gone().empty
    assert decisions.history("0" * 32).empty


@pytest.mark.parametrize("stages", [(), ("weigh",)])
def test_before_margins_and_diagnosis(tmp_path, stages):
    with RunView(make_run(tmp_path, stages=stages).path) as view:
        decisions = Decisions(view)
        (entry,) = decisions.decide([PairDecision(view.table("pairs")["pair_id"][2], "drop")])
        assert (entry.decision.margin, entry.decision.p_flip) == (2.0 if stages else None, None)
        entry = decisions.decide_all(choice([1, 5]), origin="page")
        assert set(entry.decision.stages) == {"ingest", *stages}
        margins = [1, 2, 5] if stages else [np.nan] * 3
        assert decisions.current()["margin"].tolist() == pytest.approx(margins, nan_ok=True)


def test_scores_that_are_no_numbers_are_null(tmp_path):
    run = make_run(tmp_path, p_flip=[float("nan")] * 8)
    with RunView(run.path) as view:
        decisions = Decisions(view)
        (entry,) = decisions.decide([PairDecision(view.table("pairs")["pair_id"][2], "drop")])
        assert entry.decision.p_flip is None
        decisions.decide_all(choice([3]), origin="page")
        assert decisions.current()["p_flip"].isna().all()


def test_tables_in_another_order(tmp_path):
    run = make_run(tmp_path)
    for name in ("weights", "diagnosis"):
        table = pq.read_table(run.table_path(name))
        write_table(run.table_path(name), table.take([3, 0, 7, 1, 2, 6, 5, 4]))
    with RunView(run.path) as view:
        decisions = Decisions(view)
        decisions.decide([PairDecision(view.table("pairs")["pair_id"][2], "drop")])
        decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
        found = decisions.current()
    assert found["row"].tolist() == found["margin"].tolist() == [2, 5, 6, 7]
    assert found["p_flip"].tolist() == pytest.approx([0.3, 0.6, 0.7, 0.8])


def test_a_run_without_pairs(tmp_path):
    run = Run.create(tmp_path / "run")
    with RunView(run.path) as view, pytest.raises(RunError, match="the stage ingest is not done"):
        Decisions(view)


# --- many pairs ---


def test_a_plan_is_one_entry(decisions, run, ids):
    entry = decisions.apply(Plan.from_toml(THREE), origin="three.toml", who="ann")
    assert len(decisions.log.path.read_bytes().splitlines()) == 1
    stages = {name: run.stage(name)["fingerprint"] for name in ("ingest", "weigh", "diagnose")}
    actions = {"drop": 3, "soft": 2, "weight": 2}
    digest = entry.said["digest"]
    assert entry.decision == BulkDecision(Plan.from_toml(THREE).toml(), "three.toml", 7, actions, digest, stages)
    found = decisions.current()
    assert found["row"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found["pair_id"].tolist() == ids[1:]
    assert found["action"].tolist() == ["weight"] * 2 + ["soft"] * 2 + ["drop"] * 3
    assert found["value"].tolist() == pytest.approx([0.2, 0.3, 0.6, 0.5] + [np.nan] * 3, nan_ok=True)
    assert found["reason"].tolist()[-1] == "wrong way round"
    assert found["origin"].tolist() == [f"sure, rule {rule}" for rule in (3, 3, 2, 2, 1, 1, 1)]
    assert found["margin"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found["p_flip"].tolist() == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert set(found["entry"]) == {entry.id}
    assert set(found["who"]) == {"ann"}


def test_the_pairs_of_a_bulk_entry_are_a_table_of_the_run(decisions):
    entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    table = pq.read_table(decisions.log.file(entry))
    assert table.schema.equals(DECIDED)
    assert table["row"].to_pylist() == [5, 6, 7]
    assert table["copy"].to_pylist() == [0, 2, 1]
    assert [path.stem for path in decisions.log.folder.glob("*.parquet")] == [entry.id]


def test_a_plan_applied_twice_changes_nothing_the_second_time(decisions):
    plan = Plan.from_toml(THREE)
    entry = decisions.apply(plan, origin="three.toml")
    before, log = decisions.current(), decisions.log.path.read_bytes()
    assert decisions.apply(plan, origin="three.toml", who="somebody else") == entry
    pd.testing.assert_frame_equal(decisions.current(), before)
    assert decisions.log.path.read_bytes() == log
    assert len(list(decisions.log.folder.glob("*.parquet"))) == 1


def test_a_plan_applied_twice_is_found_in_batches_too(decisions, monkeypatch):
    monkeypatch.setattr(choices, "_BATCH_PAIRS", 2)
    entry = decisions.apply(Plan.from_toml(THREE), origin="three.toml")
    assert decisions.apply(Plan.from_toml(THREE), origin="three.toml") == entry
    assert entry.decision.actions == {"drop": 3, "soft": 2, "weight": 2}


def test_a_choice_made_twice_changes_nothing_the_second_time(decisions):
    tables = [choice([1]), choice([2]), choice([3, 4])]
    entries = [decisions.decide_all(table, origin="page") for table in tables]
    assert [decisions.decide_all(table, origin="page") for table in tables] == entries
    assert decisions.decide_all(choice([4, 3]), origin="page") == entries[2]
    assert decisions.decide_all(choice([3, 4]), origin="another page") not in entries


@pytest.mark.parametrize("change", [{"action": "keep"}, {"reason": "x"}, {"origin": "x"}, {"target_margin": 1.0}])
def test_another_choice_is_another_entry(decisions, change):
    first = decisions.decide_all(choice([1, 2]), origin="page")
    assert decisions.decide_all(choice([1, 2]).assign(**change), origin="page") != first


@pytest.mark.parametrize("what", ["a pair", "a plan", "an undo", "scores"])
def test_a_plan_is_applied_anew_when_something_has_changed(decisions, run, ids, what):
    first = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    match what:
        case "a pair":
            decisions.decide([PairDecision(ids[5], "keep")])
        case "a plan":
            decisions.decide_all(choice([6], "flip"), origin="page")
        case "an undo":
            decisions.undo(first.id)
        case "scores":
            rescore(run, [0.9] * 8)
    again = Decisions(RunView(run.path)).apply(Plan.from_toml(DROP), origin="sure.toml")
    assert again != first
    expected = range(8) if what == "scores" else (5, 6, 7)
    assert by_row(decisions) == dict.fromkeys(expected, "drop")


def test_a_plan_that_nothing_overlaps_is_not_applied_anew(decisions, ids):
    plans = [Plan.from_toml(text) for text in (DROP, DROP.replace("> 0.55", "< 0.15"))]
    entries = [decisions.apply(plan, origin="sure.toml") for plan in plans]
    decisions.decide([PairDecision(ids[2], "keep")])
    assert [decisions.apply(plan, origin="sure.toml") for plan in plans] == entries


def test_a_plan_that_matches_nothing(decisions):
    plan = Plan.from_toml(DROP.replace("0.55", "0.95"))
    entry = decisions.apply(plan, origin="sure.toml")
    assert (entry.decision.pairs, entry.decision.actions) == (0, {})
    assert decisions.current().empty
    assert decisions.apply(plan, origin="sure.toml") == entry


def test_reviewed_pairs_can_be_spared(decisions, ids):
    decisions.decide([PairDecision(ids[5], "keep"), PairDecision(ids[1], "keep", copy=1)])
    entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml", spare_reviewed=True)
    assert entry.decision.pairs == 1
    assert by_row(decisions) == {5: "keep", 6: "drop", 7: "keep"}
    decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}


def test_a_review_made_meanwhile_is_spared_too(decisions, run, ids, monkeypatch):
    """It waits for the bulk entry, and is the later one."""
    write, waited = choices.Choices.write, []

    def slowly(*args, **settings):
        other = Decisions(stack.enter_context(RunView(run.path)))
        waited.append(threading.Thread(target=other.decide, args=([PairDecision(ids[5], "keep")],)))
        waited[0].start()
        waited[0].join(0.3)
        return write(*args, **settings)

    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(choices.Choices, "write", slowly)
        decisions.apply(Plan.from_toml(DROP), origin="sure.toml", spare_reviewed=True)
        waited[0].join()
    assert by_row(decisions) == {5: "keep", 6: "drop", 7: "drop"}


def test_a_writer_killed_between_pairs_and_line_leaves_a_table_that_nothing_reads(decisions, view, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decisions.log, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    (orphan,) = decisions.log.folder.glob("*.parquet")
    assert Decisions(view).is_empty()
    entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}
    assert {it.stem for it in decisions.log.folder.glob("*.parquet")} == {orphan.stem, entry.id}
    assert decisions.gone().empty


def test_undo_of_a_bulk_entry_restores_exactly(decisions, ids):
    decisions.apply(Plan.from_toml(THREE), origin="three.toml")
    decisions.decide([PairDecision(ids[5], "keep", reason="fine"), PairDecision(ids[0], "flip", copy=2)])
    before = decisions.current()
    bulk = decisions.decide_all(choice(range(8), "review"), origin="page")
    assert by_row(decisions) == dict.fromkeys(range(8), "review")
    undo = decisions.undo(bulk.id)
    pd.testing.assert_frame_equal(decisions.current(), before)
    decisions.undo(undo.id)
    assert by_row(decisions) == dict.fromkeys(range(8), "review")


def test_a_choice_of_any_pairs(decisions):
    table = pd.DataFrame(
        {
            "action": ["weight", "drop", "soft"],
            "row": [7, 2, 4],
            "value": [2, np.nan, 1],
            "reason": pd.Series(["\ud800\0\n", None, "é"], [9, 8, 7], dtype=object),
            "origin": ["x", "y", None],
            "target_margin": [4.5, np.nan, np.nan],
            "more": 1,
        },
        index=[9, 8, 7],
    )
    decisions.decide_all(table, origin="page")
    found = decisions.current()
    assert found["row"].tolist() == [2, 4, 7]
    assert found["action"].tolist() == ["drop", "soft", "weight"]
    assert found["value"].tolist() == pytest.approx([np.nan, 1, 2], nan_ok=True)
    assert found["target_margin"].tolist() == pytest.approx([np.nan, np.nan, 4.5], nan_ok=True)
    assert found["reason"].tolist() == ["", "é", "\\ud800\0\n"]
    assert found["origin"].tolist() == ["y", "", "x"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame({"row": [1]}), "choices need a column 'action': they have row"),
        (choice([1, 2, 1]), "the pair of row 1 is chosen twice"),
        (choice([1, 99]), "no pair stands in row 99"),
        (choice([1], "explode"), "no action 'explode'"),
        (choice([1], "weight"), "the action weight has the value None"),
        (choice([1], "soft", value=2), "the action soft has the value 2.0"),
        (choice([1], "weight", value=np.inf), "the action weight has the value inf"),
        (choice([1], "drop", value=1), "the action drop has the value 1.0"),
        (choice([1], None), "no action ''"),
    ],
)
def test_an_impossible_choice_leaves_nothing(decisions, table, message):
    with pytest.raises(ConfigError, match=message):
        decisions.decide_all(table, origin="page")
    assert not decisions.log.path.exists()
    assert not decisions.log.folder.exists() or {it.name for it in decisions.log.folder.iterdir()} == {".bulk.lock"}


def test_target_margins_stay_with_pairs_that_keep_their_label(decisions, ids):
    plan = Plan.from_toml('target_margin = "margin + 0.5"\n' + DROP)
    entry = decisions.apply(plan, origin="sure.toml")
    assert entry.decision.actions == {"drop": 3, "keep": 5}
    decisions.decide([PairDecision(ids[2], "keep"), PairDecision(ids[3], "flip"), PairDecision(ids[5], "weight", 2.0)])
    found = decisions.current().set_index("row")
    assert found.loc[[0, 1, 2, 4], "target_margin"].tolist() == [0.5, 1.5, 2.5, 4.5]
    assert found.loc[[3, 5, 6, 7], "target_margin"].isna().all()
    assert found.loc[[0, 5], "origin"].tolist() == ["sure", ""]


def test_a_writer_that_fails_before_the_log_speaks_of_the_pairs(decisions, view, monkeypatch):
    before = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")

    def no_space(*_):
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(decisions.log, "append", no_space)
        with pytest.raises(StorageError):
            decisions.decide_all(choice([1]), origin="page")
    (decisions.log.folder / ".killed.parquet.tmp").write_bytes(b"PAR1")
    assert Decisions(view).log.entries() == [before]
    assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}
    decisions.decide_all(choice([1]), origin="page")
    assert by_row(decisions) == {1: "drop", 5: "drop", 6: "drop", 7: "drop"}
    assert not list(decisions.log.folder.glob(".*.tmp"))


def test_a_decision_about_a_pair_reads_no_file_of_a_bulk_entry(decisions, ids):
    entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    decisions.log.file(entry).unlink()
    (single,) = decisions.decide([PairDecision(ids[5], "keep")])
    assert by_row(decisions) == {5: "keep", 6: "drop", 7: "drop"}
    decisions.undo(single.id)
    assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}


# --- damage ---


def test_without_the_file_of_a_bulk_entry(decisions, run):
    entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    file = decisions.log.file(entry)
    whole = file.read_bytes()
    for damage in (None, b"", whole[:-9], whole[:100] + bytes(100) + whole[200:]):
        file.unlink(missing_ok=True)
        if damage is not None:
            file.write_bytes(damage)
        with RunView(run.path) as view, pytest.raises(RunError, match="damaged"):
            Decisions(view)
    file.unlink()
    DecisionLog(run).undo(entry.id)
    with RunView(run.path) as view:
        assert Decisions(view).current().empty
        assert Decisions(view).history(view.table("pairs")["pair_id"][5]).empty


def test_a_file_of_another_entry(decisions):
    entries = [decisions.decide_all(choice(rows), origin="page") for rows in ([1], [2, 3])]
    shutil.copy(decisions.log.file(entries[0]), decisions.log.folder / f"{entries[1].id}.parquet")
    with pytest.raises(RunError, match=f"{entries[1].id}.parquet: missing or damaged"):
        decisions.log.file(entries[1])


def test_after_a_fault_the_rest_is_followed(decisions, run, ids):
    other = Decisions(RunView(run.path))
    entry = other.apply(Plan.from_toml(DROP), origin="sure.toml")
    moved = other.log.file(entry).rename(run.path / "moved")
    for _ in range(2):
        with pytest.raises(RunError, match="missing or damaged"):
            decisions.refresh()
    moved.rename(decisions.log.folder / f"{entry.id}.parquet")
    assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}


def test_another_log_in_its_place(decisions, ids):
    decisions.decide([PairDecision(ids[2], "drop")])
    kept = decisions.log.path.read_bytes()
    decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    decisions.log.path.write_bytes(kept)
    assert by_row(decisions) == {2: "drop"}


def test_a_folder_with_odd_letters(tmp_path):
    run = make_run(tmp_path / "it's [1]* é")
    with RunView(run.path) as view:
        decisions = Decisions(view)
        entry = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
        assert decisions.apply(Plan.from_toml(DROP), origin="sure.toml") == entry
        assert by_row(decisions) == {5: "drop", 6: "drop", 7: "drop"}
        assert decisions.compare(entry.id).empty


# --- several readers and writers ---


def test_readers_follow_what_others_decide(decisions, run, ids):
    with RunView(run.path) as view:
        other = Decisions(view)
        single = decisions.decide([PairDecision(ids[2], "flip")])[0]
        bulk = decisions.decide_all(choice([2, 3]), origin="page")
        assert by_row(other) == {2: "drop", 3: "drop"}
        other.undo(bulk.id)
        other.undo(single.id)
        assert by_row(decisions) == by_row(other) == {}


def test_the_table_is_there_for_the_views_own_queries(decisions, view, ids):
    decisions.decide_all(choice([1, 2, 3]), origin="page")
    decisions.decide([PairDecision(ids[2], "keep")])
    found = view.sql(
        "SELECT action, count(*) AS pairs, sum(weights.margin) AS margin "
        "FROM weights JOIN decisions USING (pair_id, row) GROUP BY action ORDER BY action"
    )
    assert found.to_dict("list") == {"action": ["drop", "keep"], "pairs": [2, 1], "margin": [4.0, 2.0]}


def test_two_on_one_view_do_not_disturb_each_other(decisions, view, ids):
    other = Decisions(view)
    decisions.decide([PairDecision(ids[1], "keep")])
    assert by_row(decisions) == {1: "keep", 7: "keep"}
    decisions.undo(decisions.log.entries()[0].id)
    decisions.decide([PairDecision(ids[2], "drop")])
    other.decide_all(choice([3]), origin="page")
    decisions.refresh()
    for each in (decisions, other):
        assert by_row(each) == {2: "drop", 3: "drop"}


def test_threads(decisions, ids):
    def work(nth):
        decisions.decide([PairDecision(ids[nth], "drop", copy=0)])
        decisions.decide_all(choice([nth + 4]), origin="page")
        decisions.current()

    threads = [threading.Thread(target=work, args=(nth,)) for nth in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert by_row(decisions) == dict.fromkeys(range(8), "drop")


# --- replay ---


@pytest.mark.parametrize(
    "questions",
    [
        ["b", "a", "e", "a", "d", "c", "b", "a"],
        ["x", "a", "b", "y", "c", "d", "a", "e", "z", "a", "b"],
        ["a", "b", "c", "d", "a", "e", "a", "b", "a", "a"],
    ],
)
def test_decisions_hold_for_the_same_pairs_in_other_data(decisions, ids, tmp_path, questions):
    decisions.apply(Plan.from_toml(DROP), origin="sure.toml")  # e, the third a, the second b
    decisions.decide([PairDecision(ids[2], "flip", reason="c"), PairDecision(ids[1], "keep", copy=0)])
    decisions.decide_all(choice([3], "weight", value=0.5), origin="page")
    other = make_run(tmp_path / "other", questions)
    with RunView(other.path) as view:
        moved = Decisions(view)
        assert moved.take_over(decisions.log) == (decisions.log.entries(), None)
        assert moved.take_over(decisions.log) == ([], None)
        found = by_row(moved)
        assert {(questions[row], questions[:row].count(questions[row])): found[row] for row in found} == {
            ("e", 0): "drop",
            ("a", 2): "drop",
            ("b", 1): "drop",
            ("b", 0): "keep",
            ("c", 0): "flip",
            ("d", 0): "weight",
        }
        assert moved.gone().empty


def at_minute(monkeypatch, minute):
    """What is decided from now on is decided at that minute."""
    now = datetime(2026, 1, 1, 9, minute, tzinfo=UTC)
    monkeypatch.setattr(entries_module, "datetime", type("Clock", (), {"now": lambda _: now}))


def test_what_was_decided_here_later_stays_on_top(decisions, ids, tmp_path, monkeypatch):
    """Of all entries the latest about a pair decides; one undo lets those that were taken over."""
    with RunView(make_run(tmp_path / "other", QUESTIONS).path) as view:
        here = Decisions(view)
        at_minute(monkeypatch, 10)
        here.decide([PairDecision(ids[5], "review")])
        here.decide_all(choice([2], "keep"), origin="page")
        at_minute(monkeypatch, 20)
        decisions.decide_all(choice([1, 2, 3, 5]), origin="old")
        at_minute(monkeypatch, 30)
        here.decide([PairDecision(ids[3], "soft", 0.25, "a joke", "page pairs"), PairDecision(ids[1], "keep", copy=0)])
        new, again = here.take_over(decisions.log, "ann")
        assert (new, again.who, again.said["actions"]) == (decisions.log.entries(), "ann", {"keep": 1, "soft": 1})
        assert by_row(here) == {1: "keep", 2: "drop", 3: "soft", 5: "drop"}
        lines = here.current().set_index("row")
        assert (lines["value"][3], lines["reason"][3], lines["origin"][3]) == (0.25, "a joke", "page pairs")
        assert here.take_over(decisions.log) == ([], None)
        here.undo(again.id)
        assert by_row(here) == {1: "drop", 2: "drop", 3: "drop", 5: "drop"}


def test_what_both_logs_hold_is_not_repeated(decisions, ids, tmp_path):
    decisions.decide([PairDecision(ids[2], "drop")])
    with RunView(make_run(tmp_path / "other", QUESTIONS).path) as view:
        here = Decisions(view)
        here.take_over(decisions.log)
        here.decide([PairDecision(ids[2], "keep")])
        decisions.decide([PairDecision(ids[3], "flip")])
        assert here.take_over(decisions.log) == (decisions.log.entries(1), None)
        assert by_row(here) == {2: "keep", 3: "flip"}


def test_the_same_run_read_again_in_another_order(decisions, run, ids, tmp_path):
    decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    decisions.decide([PairDecision(ids[2], "flip")])
    data = tmp_path / "data.jsonl"
    data.write_text("".join(reversed(data.read_text().splitlines(keepends=True))))
    ingest(IngestConfig((str(data),), format="trl_standard"), run)
    rescore(run)
    with RunView(run.path) as view:
        assert by_row(Decisions(view)) == {2: "drop", 5: "flip", 7: "drop", 6: "drop"}


def test_what_is_gone_is_said(decisions, ids, tmp_path):
    bulk = decisions.apply(Plan.from_toml(DROP), origin="sure.toml")
    kept, lost, copy = decisions.decide(
        [PairDecision(ids[2], "flip"), PairDecision(ids[3], "drop"), PairDecision(ids[1], "keep", copy=1)], "ann"
    )
    undone = decisions.decide_all(choice([3]), origin="page")
    decisions.undo(undone.id)
    with RunView(make_run(tmp_path / "other", ["c", "a", "a", "a", "b"]).path) as view:
        moved = Decisions(view)
        moved.take_over(decisions.log)
        found = moved.gone()
        assert by_row(moved) == {0: "flip", 3: "drop"}
    assert found["entry"].tolist() == [bulk.id, lost.id, copy.id]
    assert found["kind"].tolist() == ["bulk", "pair", "pair"]
    assert found["pairs"].tolist() == [3, 1, 1]
    assert found["gone"].tolist() == [2, 1, 1]
    assert found["who"].tolist()[1:] == ["ann", "ann"]
    assert kept.id not in found["entry"].tolist()


def test_other_scores_change_no_decision_and_are_compared(decisions, run, ids):
    decisions.decide([PairDecision(ids[3], "flip")])
    entry = decisions.apply(Plan.from_toml(THREE), origin="three.toml")
    assert decisions.compare(entry.id[:8]).empty
    before = decisions.current()
    rescore(run, [0.9, 0.2, 0.3, 0.1, 0.45, 0.6, 0.7, 0.05])
    with RunView(run.path) as view:
        again = Decisions(view)
        pd.testing.assert_frame_equal(again.current(), before)
        found = again.compare(entry.id)
    assert found["row"].tolist() == [0, 3, 4, 7]
    assert found["pair_id"].tolist() == [ids[row] for row in (0, 3, 4, 7)]
    assert found["was"].fillna("-").tolist() == ["-", "soft", "soft", "drop"]
    assert found["now"].fillna("-").tolist() == ["drop", "-", "soft", "-"]
    assert found["was_value"].tolist() == pytest.approx([np.nan, 0.6, 0.5, np.nan], nan_ok=True)
    assert found["now_value"].tolist() == pytest.approx([np.nan, np.nan, 0.55, np.nan], nan_ok=True)


@pytest.mark.parametrize("what", ["pair", "choice"])
def test_nothing_to_compare(decisions, ids, what):
    (pair,) = decisions.decide([PairDecision(ids[3], "flip")])
    entry = pair if what == "pair" else decisions.decide_all(choice([1]), origin="page")
    with pytest.raises(RunError, match=f"entry {entry.id} has no plan"):
        decisions.compare(entry.id)


def test_the_history_of_a_pair(decisions, ids):
    (first,) = decisions.decide([PairDecision(ids[1], "drop", reason="rude", copy=1)], "ann")
    bulk = decisions.apply(Plan.from_toml(THREE), origin="three.toml", who="bob")
    decisions.undo(first.id)
    (last,) = decisions.decide([PairDecision(ids[1], "review")], "cy")
    found = decisions.history(ids[1])
    assert found["entry"].tolist() == [first.id, bulk.id, bulk.id, last.id]
    assert found["who"].tolist() == ["ann", "bob", "bob", "cy"]
    assert found["stands"].tolist() == [False, True, True, True]
    assert found["action"].tolist() == ["drop", "weight", "drop", "review"]
    assert found["copy"].fillna(-1).tolist() == [1, 0, 1, -1]
    assert found["reason"].tolist() == ["rude", "p_flip > 0.15", "wrong way round", ""]
    assert found["margin"].tolist() == [7, 1, 7, 1]
    assert found["kind"].tolist() == ["pair", "bulk", "bulk", "pair"]


# --- against a model ---


@dataclass
class Told:
    """What the model knows of an entry: what it decides by row, or what it takes back."""

    entry: Entry
    rows: dict = field(default_factory=dict)
    of: int | None = None


class Machine(RuleBasedStateMachine):
    """Random decisions about single pairs, choices, plans, undos and redos, by two writers, against a dict."""

    @initialize(folder=st.builds(object))
    def start(self, folder):
        self.told, self.count = [], len(QUESTIONS)
        self.views = [RunView(self.template) for _ in range(2)]
        self.writers = [Decisions(view) for view in self.views]
        self.ids = self.views[0].table("pairs")["pair_id"].tolist()
        self.copies = [QUESTIONS[:row].count(question) for row, question in enumerate(QUESTIONS)]

    @property
    def template(self):
        raise NotImplementedError

    def teardown(self):
        for view in getattr(self, "views", ()):
            view._connection.close()

    def add(self, entry, rows):
        self.told.append(Told(entry, {row: (*said, entry.id) for row, said in rows.items()}))

    actions = st.sampled_from([("drop", None), ("keep", None), ("flip", None), ("soft", 0.25), ("weight", 2.0)])
    writers_of = st.integers(0, 1)
    rows_of = st.integers(0, len(QUESTIONS) - 1)

    @rule(who=writers_of, row=rows_of, said=actions, alone=st.booleans())
    def decide(self, who, row, said, alone):
        copy = self.copies[row] if alone else None
        (entry,) = self.writers[who].decide([PairDecision(self.ids[row], *said, copy=copy)])
        rows = [row] if alone else [at for at, pair_id in enumerate(self.ids) if pair_id == self.ids[row]]
        self.add(entry, dict.fromkeys(rows, said))

    @rule(who=writers_of, chosen=st.dictionaries(rows_of, actions))
    def decide_all(self, who, chosen):
        table = pd.DataFrame([(row, *said) for row, said in chosen.items()], columns=["row", "action", "value"])
        entry = self.writers[who].decide_all(table, origin="page")
        if entry.id not in {told.entry.id for told in self.told}:
            self.add(entry, chosen)
        else:
            assert {row: it[:2] for row, it in self.expected().items() if it[2] == entry.id} == chosen

    @rule(who=writers_of, limit=st.integers(0, 8), spare=st.booleans())
    def apply(self, who, limit, spare):
        reviewed = {row for told in self.standing() if told.entry.kind == "pair" for row in told.rows}
        plan = Plan.from_toml(DROP.replace("0.55", f"0.{limit}5"))
        entry = self.writers[who].apply(plan, origin="sure.toml", spare_reviewed=spare)
        rows = {row: ("drop", None) for row in range(limit, self.count) if not (spare and row in reviewed)}
        if entry.id not in {told.entry.id for told in self.told}:
            self.add(entry, rows)
        else:
            assert {row: it[:2] for row, it in self.expected().items() if it[2] == entry.id} == rows

    @precondition(lambda self: bool(getattr(self, "told", None)))
    @rule(who=writers_of, data=st.data())
    def undo(self, who, data):
        at = data.draw(st.integers(0, len(self.told) - 1))
        stood = at not in self.void()
        entry = self.writers[who].undo(self.told[at].entry.id)
        if stood:
            self.told.append(Told(entry, of=at))
        else:
            assert entry.id in {told.entry.id for told in self.told if told.of == at}

    @rule(who=writers_of)
    def open_again(self, who):
        self.writers[who] = Decisions(self.views[who])

    def void(self):
        void = set()
        for at, told in reversed(list(enumerate(self.told))):
            if told.of is not None and at not in void:
                void.add(told.of)
        return void

    def standing(self):
        void = self.void()
        return [told for at, told in enumerate(self.told) if at not in void]

    def expected(self):
        rows = {}
        for told in self.standing():
            rows.update(told.rows)
        return rows

    @invariant()
    def the_table_is_what_the_model_says(self):
        for writer in getattr(self, "writers", ()):
            found = writer.current()
            values = [None if np.isnan(value) else value for value in found["value"].astype(float)]
            said = zip(found["action"], values, found["entry"], strict=True)
            assert dict(zip(found["row"], said, strict=True)) == self.expected()


def test_random_decisions_against_a_dict(tmp_path):
    template = make_run(tmp_path).path
    runs = iter(range(10**9))

    class OnACopy(Machine):
        @property
        def template(self):
            if not hasattr(self, "_folder"):
                self._folder = shutil.copytree(template, tmp_path / f"copy {next(runs)}")
            return self._folder

    OnACopy.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
    OnACopy.TestCase().runTest()
