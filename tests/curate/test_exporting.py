"""The stage export: what decisions make of pairs, splits, what was removed and why, the card, and what is refused."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import exporting, sinks
from curate.config import DiagnoseConfig, ExportConfig, IngestConfig
from curate.decisions import Decisions
from curate.diagnosing import diagnose
from curate.entries import PairDecision, this_user
from curate.errors import ConfigError, RunError, StorageError
from curate.exporting import export
from curate.pairs import ingest
from curate.plans import Plan
from curate.store import Run, read_metadata
from curate.view import RunView


@pytest.fixture(scope="module")
def diagnosed(make_world, write_scored, tmp_path_factory):
    """A run with a reference, diagnosed, whose data have ratings, annotators and ties."""
    world = make_world(pairs=60, per_prompt=2)
    for at, row in enumerate(world.rows):
        row |= {"score_chosen": 5.0 - at % 2, "score_rejected": 2.0}
    run = write_scored(tmp_path_factory.mktemp("export"), world, passes=("policy", "reference"))
    diagnose(run, DiagnoseConfig())
    return run


@pytest.fixture
def run(diagnosed, tmp_path):
    """A copy to decide about."""
    shutil.copytree(diagnosed.path, tmp_path / "run")
    return Run.open(tmp_path / "run")


def decided(run, *decisions, **config):
    """Decide by row, export, and give the report and the pairs."""
    with RunView(run.path) as view:
        if decisions:
            table = pd.DataFrame(decisions, columns=["row", "action", "value", "reason"][: len(decisions[0])])
            Decisions(view).decide_all(table, origin="test")
        report = export(view, run.path.parent / "out", ExportConfig(**config))
    return report, pd.read_parquet(run.path.parent / "out" / "train.parquet").set_index("row")


def removed_of(run):
    return pq.read_table(run.path.parent / "out" / "_removed.parquet").to_pandas()


def table(run, name):
    with RunView(run.path) as view:
        return view.table(name).set_index("row")


def tied(tmp_path, actions=()):
    """A run of four pairs, of which the first three are ties, and one row that is no pair."""
    rows = [{"q": "?", "a": f"a{at}", "b": "b", "won": "tie" if at < 3 else "a"} for at in range(4)]
    rows.append({"q": "?", "a": 7, "b": "b", "won": "a"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"prompt": "q", "response_a": "a", "response_b": "b", "label": "won"}
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "data.jsonl"),), columns=columns), run)
    return run


# --- decisions ---


def test_without_decisions_all_is_exported_as_it_is_labelled(run):
    report, pairs = decided(run)
    assert (report["rows"], report["exported"], report["removed"], report["decided"]) == (60, 60, {}, 0)
    assert report["actions"] == {"none": 60}
    assert (pairs["weight"] == 1).all()
    assert (pairs["p_flip"] == 0).all()
    assert not pairs["flipped"].any()
    weights, diagnosis, scores = (table(run, name) for name in ("weights", "diagnosis", "scores"))
    np.testing.assert_array_equal(pairs["target_margin"], weights["target_margin"])
    np.testing.assert_array_equal(pairs["diagnosed_p_flip"], diagnosis["p_flip"])
    np.testing.assert_array_equal(pairs["ref_chosen_logps"], scores["reference_chosen_logp"])
    np.testing.assert_array_equal(pairs["rejected_tokens"], scores["rejected_tokens"])
    assert "nothing was decided" in (run.path.parent / "out" / "README.md").read_text()


def test_a_dropped_pair_leaves_with_its_reason(run):
    report, pairs = decided(run, (3, "drop", None, "wrong | way\nround"), (5, "drop", None, ""))
    assert list(pairs.index) == [row for row in range(60) if row not in (3, 5)]
    assert report["removed"] == {"decision": 2}
    removed = removed_of(run)
    assert removed["row"].tolist() == [3, 5]
    assert removed["reason"].tolist() == ["wrong | way\nround", ""]
    assert removed["gone"].tolist() == ["decision"] * 2
    assert set(removed["who"]) == {this_user()}
    assert removed["chosen"][0][0]["content"] == table(run, "pairs")["chosen"][3][0]["content"]
    assert r"wrong \| way\\nround" in (run.path.parent / "out" / "README.md").read_text()


def test_a_flip_turns_all_that_has_sides(run):
    _, pairs = decided(run, (4, "flip", None))
    before, scores, diagnosis = (table(run, name).loc[4] for name in ("pairs", "scores", "diagnosis"))
    pair = pairs.loc[4]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (
        before["rejected"][0]["content"],
        before["chosen"][0]["content"],
    )
    assert (pair["score_chosen"], pair["score_rejected"]) == (2.0, 5.0)
    assert (pair["votes_for"], pair["votes_against"]) == (0, 1)
    assert pair["ref_chosen_logps"] == scores["reference_rejected_logp"]
    assert pair["ref_rejected_logps"] == scores["reference_chosen_logp"]
    assert (pair["chosen_tokens"], pair["rejected_tokens"]) == (scores["rejected_tokens"], scores["chosen_tokens"])
    assert pair["prompt_tokens"] == scores["prompt_tokens"]
    assert np.isnan(pair["target_margin"])
    assert pair["diagnosed_p_flip"] == pytest.approx(1 - diagnosis["p_flip"], abs=1e-15)
    assert (pair["flipped"], pair["decision"], pair["weight"], pair["p_flip"]) == (True, "flip", 1.0, 0.0)
    assert pair["pair_id"] != before["pair_id"]
    assert pairs.loc[5, "pair_id"] == table(run, "pairs").loc[5, "pair_id"]


def test_soft_and_weight_are_what_is_trained_with(run):
    report, pairs = decided(
        run, (0, "soft", 0.75), (1, "weight", 0.25), (2, "weight", 0.0), (3, "keep", None), (4, "review", None)
    )
    assert pairs["p_flip"].head(5).tolist() == [0.25, 0, 0, 0, 0]
    assert pairs["weight"].head(5).tolist() == [1, 0.25, 0, 1, 1]
    assert pairs["decision"].head(6).tolist() == ["soft", "weight", "weight", "keep", "review", "none"]
    assert report["actions"] == {"soft": 1, "weight": 2, "keep": 1, "review": 1, "none": 55}
    assert pairs["target_margin"].notna().all()


def test_the_latest_decision_counts_and_an_undo_takes_it_back(run):
    with RunView(run.path) as view:
        decisions = Decisions(view)
        bulk = decisions.apply(
            Plan.from_toml('name = "all"\n[[rules]]\nwhen = "row >= 0"\nthen = "drop"'), origin="all.toml"
        )
        kept = view.table("pairs", ["pair_id"])["pair_id"][7]
        decisions.decide([PairDecision(kept, "keep", reason="it is fine", origin="page pairs")], who="ann")
        report = export(view, run.path.parent / "out")
        assert (report["exported"], report["removed"]) == (1, {"decision": 59})
        assert report["reasons"] == [{"gone": "decision", "reason": "row >= 0", "origin": "all, rule 1", "pairs": 59}]
        assert [it["plan"] for it in report["plans"]] == [bulk.said["plan"]]
        card = (run.path.parent / "out" / "README.md").read_text()
        assert bulk.said["plan"].strip() in card
        assert "| page pairs | keep | it is fine | ann | 1 |" in card
        decisions.undo(bulk.id)
        assert export(view, run.path.parent / "out")["exported"] == 60


def test_a_plans_target_margin_is_that_of_the_export(run):
    plan = 'name = "own"\ntarget_margin = "2 * target_margin"\n[[rules]]\nwhen = "row = 9"\nthen = "drop"'
    with RunView(run.path) as view:
        Decisions(view).apply(Plan.from_toml(plan), origin="own.toml")
    _, pairs = decided(run)
    margins = table(run, "weights")["target_margin"].drop(9)
    np.testing.assert_allclose(pairs["target_margin"], 2 * margins)
    assert read_metadata(run.path.parent / "out" / "train.parquet") == {}, "the run's settings do not hold for these"


def test_the_footer_says_with_which_settings_target_margins_were_made(run):
    decided(run, (3, "keep", None))
    assert read_metadata(run.path.parent / "out" / "train.parquet") == {
        "target_margin": {name: run.require("weigh")[name] for name in ("margin", "beta", "gamma0", "tau")}
    }


def test_decisions_about_pairs_that_are_not_in_the_run_are_counted(run):
    with RunView(run.path) as view:
        decisions = Decisions(view)
        known = view.table("pairs", ["pair_id"])["pair_id"][0]
        decisions.decide([PairDecision(known, "drop")])
    log = run.path / "decisions.jsonl"
    log.write_text(log.read_text().replace(known, "0" * 32))
    report, _ = decided(run)
    assert (report["exported"], report["decided_elsewhere"]) == (60, 1)
    assert "names 1 pairs that are not in the run" in (run.path.parent / "out" / "README.md").read_text()


# --- ties, refused rows, references ---


def test_ties_leave_unless_something_says_what_they_are_worth(tmp_path):
    run = tied(tmp_path)
    report, pairs = decided(run)
    assert list(pairs.index) == [3]
    assert report["removed"] == {"refused": 1, "tie": 3}
    removed = removed_of(run)
    assert removed["gone"].tolist() == ["tie"] * 3 + ["refused"]
    assert json.loads(removed["original"][3])["a"] == 7
    assert removed["pair_id"].isna().tolist() == [False] * 3 + [True]
    assert "a is a number (7), not text" in removed["reason"][3]
    report, pairs = decided(run, (0, "keep", None), (1, "soft", 0.75), (2, "weight", 2.0))
    assert pairs["p_flip"].tolist() == [0.5, 0.25, 0.5, 0.0]
    assert pairs["weight"].tolist() == [1, 1, 2, 1]
    assert report["removed"] == {"refused": 1}


@pytest.mark.parametrize("action", ["flip", "review"])
def test_a_tie_that_is_not_decided_leaves(tmp_path, action):
    report, _ = decided(tied(tmp_path), (0, action, None))
    assert report["removed"] == {"refused": 1, "tie": 3}


def test_the_references_log_probs_are_written_where_all_pairs_have_them(make_world, write_scored, tmp_path):
    world = make_world(pairs=12)
    run = write_scored(tmp_path, world, passes=("policy", "reference"), unscored=(3,))
    report, pairs = decided(run)
    assert "ref_chosen_logps" not in pairs
    assert report["notes"] == ["ref_* are left out: 1 of the pairs have no log-prob of the reference"]
    report, pairs = decided(run, (3, "drop", None))
    assert pairs["ref_chosen_logps"].notna().all()
    assert report["notes"] == []


@pytest.mark.parametrize("passes", [("policy",), ("policy", "reference")])
def test_no_reference_and_another_template_bring_no_log_probs(passes, make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(pairs=12), passes=passes)
    facts = run.require("score")
    run.record("score", "again", {**facts, "template": "plain"})
    assert not any(name.startswith("ref_") or name.endswith("_tokens") for name in decided(run)[1])


def test_what_a_trainer_does_not_read_is_said(run):
    report, _ = decided(
        run, (0, "soft", 0.75), (1, "weight", 0.25), (2, "soft", 1.0), format="axolotl", container="parquet"
    )
    assert report["notes"] == [
        "1 pairs have a weight that Axolotl does not read: it takes them as they are labelled",
        "1 pairs have a p_flip that Axolotl does not read: it takes them as they are labelled",
    ]


@pytest.mark.parametrize("name", ["trl", "trl-standard"])
def test_trls_own_trainer_misreads_ties_and_the_note_counts_them(tmp_path, name):
    report, pairs = decided(
        tied(tmp_path), (0, "keep", None), (1, "soft", 0.75), (2, "weight", 2.0), (3, "soft", 0.5), format=name
    )
    assert pairs["tie"].tolist() == [True, True, True, False]
    assert report["notes"] == [
        "4 pairs have a p_flip that training.trl.GammaDPOTrainer does not read: it takes them as they are labelled, "
        "3 ties in the order of the file",
        "1 pairs have a weight that TRL's own DPOTrainer does not read: it takes them as they are labelled",
        "4 pairs have a p_flip that TRL's own DPOTrainer does not read: it takes them as they are labelled, "
        "3 ties in the order of the file",
    ]


@pytest.mark.parametrize("name", ["llamafactory", "axolotl", "openrlhf", "ms-swift"])
def test_ties_leave_where_the_trainer_reads_no_soft_label(tmp_path, name):
    run = tied(tmp_path)
    with RunView(run.path) as view:
        table = pd.DataFrame({"row": range(3), "action": ["keep", "soft", "weight"], "value": [None, 0.75, 2.0]})
        Decisions(view).decide_all(table, origin="test")
        report = export(view, tmp_path / "out", ExportConfig(name))
    assert (report["exported"], report["removed"]) == (1, {"format": 3, "refused": 1})
    assert report["reasons"][0]["reason"] == "a tie, and the trainer reads no soft label"
    (line,) = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 3


# --- a margin for trainers that need one of every pair ---


@pytest.mark.parametrize("name", ["openrlhf", "ms-swift"])
def test_a_pair_without_a_target_margin_has_gamma0(run, tmp_path, name):
    with RunView(run.path) as view:
        Decisions(view).decide_all(pd.DataFrame({"row": [4], "action": ["flip"]}), origin="test")
        assert export(view, tmp_path / "out", ExportConfig(name))["notes"] == []
    pairs = pd.read_json(tmp_path / "out" / "train.jsonl", lines=True).set_index("row")
    known = table(run, "weights")["target_margin"]
    known[4] = run.require("weigh")["gamma0"]
    np.testing.assert_allclose(pairs["margin"], known)
    assert pairs.index[pairs["target_margin"].isna()].tolist() == [4]


def test_margins_of_a_plan_leave_no_gamma0_for_others(run, tmp_path):
    plan = 'name = "own"\ntarget_margin = "2 * target_margin"\n[[rules]]\nwhen = "row = 9"\nthen = "drop"'
    with RunView(run.path) as view:
        decisions = Decisions(view)
        decisions.apply(Plan.from_toml(plan), origin="own.toml")
        decisions.decide_all(pd.DataFrame({"row": [4], "action": ["flip"]}), origin="test")
        report = export(view, tmp_path / "out", ExportConfig("ms-swift"))
        assert "margin" not in report["columns"]
        assert report["notes"] == [
            "margin is left out: 1 of the pairs have no target margin, and decisions set those of others"
        ]
        decisions.decide_all(pd.DataFrame({"row": [4], "action": ["drop"]}), origin="test")
        assert "margin" in export(view, tmp_path / "out", ExportConfig("ms-swift"))["columns"]


# --- splits ---


def test_a_split_keeps_prompts_together_and_each_prompt_in_its_place(run):
    report, train = decided(run, test_share=0.3, seed=1)
    out = run.path.parent / "out"
    test = pd.read_parquet(out / "test.parquet").set_index("row")
    assert [file["pairs"] for file in report["files"]] == [len(train), len(test)]
    assert sorted([*train.index, *test.index]) == list(range(60))
    prompts = [{it[0]["content"] for it in part["prompt"]} for part in (train, test)]
    assert len(prompts[0]) + len(prompts[1]) == 30
    assert not prompts[0] & prompts[1]
    _, again = decided(run, *((row, "drop", None) for row in range(20)), test_share=0.3, seed=1)
    assert set(again.index) == {row for row in train.index if row >= 20}
    assert set(decided(run, test_share=0.3, seed=2)[1].index) != set(again.index)


def test_the_split_is_a_hash_that_anybody_can_compute(run):
    _, train = decided(run, test_share=0.3, seed=5)
    for row, pair in table(run, "pairs").iterrows():
        (turn,) = pair["prompt"]
        text = f"5/{turn['role']}:{len(turn['content'])}:{turn['content']}"
        drawn = int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")
        assert (row in train.index) == (drawn >= 0.3 * 2**64)


def test_a_split_without_pairs_is_refused(run):
    with pytest.raises(ConfigError, match=r"--test-share 0.0001 --seed 0: none of 60 pairs is in the test split"):
        decided(run, test_share=0.0001)
    with pytest.raises(ConfigError, match=r"--test-share is 1: it must be 0 or more, and below 1"):
        ExportConfig(test_share=1)


# --- the folder ---


def test_an_earlier_export_is_replaced_and_nothing_else_is(run, tmp_path):
    out = tmp_path / "out"
    decided(run, format="llamafactory", container="parquet")
    assert (out / "dataset_info.json").is_file()
    decided(run)
    assert sorted(it.name for it in out.iterdir()) == ["README.md", "_export.json", "_removed.parquet", "train.parquet"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    with RunView(run.path) as view:
        with pytest.raises(RunError, match="mine: the folder holds something that is no export"):
            export(view, tmp_path / "mine")
        with pytest.raises(RunError, match=r"thesis.txt: that is a file; name a folder"):
            export(view, tmp_path / "mine" / "thesis.txt")
        with pytest.raises(RunError, match="that is within the run"):
            export(view, run.path / "out")
        (tmp_path / "new").mkdir()
        export(view, tmp_path / "new")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"


@pytest.mark.parametrize("format_name", ["trl", "llamafactory", "source"])
def test_files_that_are_not_the_exports_own_stay(run, tmp_path, format_name):
    out = tmp_path / "out"
    with RunView(run.path) as view:
        assert export(view, str(out))["holds"] == sorted(it.name for it in out.iterdir())
        export(view, out, ExportConfig(format_name))
        export(view, out, ExportConfig(format_name))
        (out / "model").mkdir()
        (out / "model" / "weights.bin").write_bytes(b"dear")
        with pytest.raises(RunError, match=r"out: the folder holds model/weights.bin beside the earlier export; move"):
            export(view, out)
        (out / "link").symlink_to(tmp_path)
        with pytest.raises(RunError, match=r"the folder holds link and 1 more files beside"):
            export(view, out)
    assert (out / "model" / "weights.bin").read_bytes() == b"dear"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"holds": 3}'])
def test_a_report_that_does_not_list_its_files_protects_them(run, tmp_path, text):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "_export.json").write_text(text)
    with RunView(run.path) as view, pytest.raises(RunError, match="does not say which files the earlier export wrote"):
        export(view, tmp_path / "out")


def test_paths_are_resolved(run, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    monkeypatch.chdir(tmp_path / "here")
    with RunView(run.path) as view:
        for place in (".", "x/..", "", tmp_path / "here", "/"):
            with pytest.raises(RunError, match="you are in this folder, which the export would replace"):
                export(view, place)
        export(view, "../new/../clean")
        export(view, tmp_path / "link")
    assert (tmp_path / "clean" / "train.parquet").is_file()
    assert (tmp_path / "far" / "train.parquet").is_file()
    assert (tmp_path / "link").is_symlink()


def test_what_killed_exports_left_is_removed_and_what_others_write_is_not(run, tmp_path):
    names = [".out.0123abcd.tmp", ".out.0123abcd.old.tmp", ".out.89abcdef.tmp", ".out.b.0123abcd.tmp", ".out.mine.tmp"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.parquet").write_text("half")
    with RunView(run.path) as view, open_folder(tmp_path / names[2]) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        export(view, tmp_path / "out")
    assert sorted(it.name for it in tmp_path.glob(".out*")) == sorted(names[2:])


@contextlib.contextmanager
def open_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("container", ["parquet", "jsonl"])
def test_an_export_that_is_cut_off_leaves_what_was_there(run, tmp_path, monkeypatch, container):
    decided(run)
    before = {it.name: it.read_bytes() for it in (tmp_path / "out").iterdir()}
    listed = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sinks._ParquetSink, "write", full)
    monkeypatch.setattr(sinks._JsonSink, "write", full)
    with RunView(run.path) as view, pytest.raises(StorageError, match="the disk is full"):
        export(view, tmp_path / "out", ExportConfig(container=container))
    assert {it.name: it.read_bytes() for it in (tmp_path / "out").iterdir()} == before
    assert sorted(tmp_path.iterdir()) == listed


def test_pairs_that_get_lost_are_noticed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(sinks._ParquetSink, "write", lambda self, batch: None)
    with RunView(run.path) as view, pytest.raises(AssertionError, match=r"60 pairs and rows; {'train': 60} to write"):
        export(view, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_changes_meanwhile_is_noticed(run, tmp_path, monkeypatch):
    read = exporting.refused_rows

    def changed(of):
        run.record("weigh", "another", {})
        return read(of)

    monkeypatch.setattr(exporting, "refused_rows", changed)
    with RunView(run.path) as view, pytest.raises(RunError, match="the run changed while it was exported"):
        export(view, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_left_is_an_error(run):
    with pytest.raises(RunError, match="no pair is left to export as trl: 60 of 60 are gone, for no good"):
        decided(run, *((row, "drop", None, "no good") for row in range(60)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"container": "csv"}, "--container csv: trl is written as parquet or jsonl"),
        (
            {"format": "llm-comparator", "container": "parquet"},
            "--container parquet: llm-comparator is written as json",
        ),
        ({"format": "source", "container": "parquet"}, "--container parquet: the source's own schema keeps"),
        ({"format": "TRL"}, "--format TRL: unknown; choose one of trl, trl-standard"),
    ],
)
def test_settings_that_cannot_be(run, config, message):
    with RunView(run.path) as view, pytest.raises(ConfigError, match=message):
        export(view, run.path.parent / "out", ExportConfig(**config))


def test_the_report_is_in_the_folder_and_the_card_has_its_figures(run, tmp_path):
    report, _ = decided(run, (0, "drop", None, "no"), test_share=0.3)
    assert json.loads((tmp_path / "out" / "_export.json").read_text()) == report
    assert report["holds"] == sorted(it.name for it in (tmp_path / "out").iterdir())
    card = (tmp_path / "out" / "README.md").read_text()
    ingested = run.require("ingest")["inputs"][0]
    for part in (ingested["sha256"], "| **pairs exported** | 59 |", "tiny policy", "gamma0 4.0", "seed 0"):
        assert part in card
    assert card.startswith("---\nconfigs:\n")


def test_the_hubs_loader_takes_an_export_folder(run, tmp_path):
    datasets = pytest.importorskip("datasets")
    decided(run, (0, "drop", None), test_share=0.3)
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in found.items()} == {
        "train": len(pd.read_parquet(tmp_path / "out" / "train.parquet")),
        "test": len(pd.read_parquet(tmp_path / "out" / "test.parquet")),
    }


def test_curate_reads_an_export_folder_without_what_was_removed(run, tmp_path):
    decided(run, (0, "drop", None), test_share=0.3)
    again = Run.create(tmp_path / "again")
    assert ingest(IngestConfig((str(tmp_path / "out"),)), again)["pairs"] == 59


def test_types_of_columns_do_not_depend_on_the_pairs(run, tmp_path):
    decided(run, test_share=0.3)
    schemas = [pq.read_schema(tmp_path / "out" / f"{split}.parquet") for split in ("train", "test")]
    assert schemas[0] == schemas[1]
    assert schemas[0].field("prompt").type == pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
