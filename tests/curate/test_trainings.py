"""Trainings are read as they are or grow."""

import json

import pyarrow as pa
import pytest

from curate import Run, RunView
from curate.errors import RunError
from curate.store import write_table
from curate.trainings import Training, comparisons, stamp


@pytest.fixture
def folder(tmp_path):
    said = {"settings": {"loss": "dpo"}, "data": {"files": {"x.jsonl": "0" * 64}}}
    (tmp_path / "training.json").write_text(json.dumps(said))
    return tmp_path


def test_a_folder_without_one_says_how_to_make_it(tmp_path):
    with pytest.raises(RunError, match=r"not a training .* curate train RUN -o"):
        Training.open(tmp_path)


@pytest.mark.parametrize("text", ["{", '{"settings": {}}', "[]", '{"settings": 1, "data": 2}'])
def test_a_damaged_one_is_said_in_one_line(text, tmp_path):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(RunError, match="damaged") as said:
        Training.open(tmp_path)
    assert "\n" not in str(said.value)


def test_one_that_has_just_begun(folder):
    training = Training.open(folder)
    assert training.report() is None
    assert training.metrics().empty
    assert not training.has_dynamics()


def test_a_half_written_line_waits(folder):
    training, file = Training.open(folder), folder / "metrics.jsonl"
    file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert training.metrics().to_dict("list") == {"step": [1], "loss": [0.5]}
    file.write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n')
    assert training.metrics()["loss"].to_list() == [0.5, 0.4]


def test_of_a_step_that_was_done_again_the_last_line_counts(folder):
    lines = [
        {"step": 2, "loss": 0.6},
        {"step": 2, "eval_loss": 0.7},
        {"step": 2, "loss": 0.5},
        {"step": 1, "loss": 0.9},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = Training.open(folder).metrics()
    assert found["step"].to_list() == [1, 2, 2]
    assert found["loss"].dropna().to_list() == [0.9, 0.5]
    assert found["eval_loss"].dropna().to_list() == [0.7]


def test_the_stamp_follows_the_files(folder):
    before = stamp(folder)
    assert stamp(folder) == before
    (folder / "metrics.jsonl").write_text("")
    assert stamp(folder) != before


def test_dynamics_stand_beside_the_kinds(folder, planted):
    with RunView(planted.run.path) as view:
        keys = view.table("diagnosis", ["pair_id", "row", "kind"])
        table = keys[["pair_id", "row"]].assign(
            in_sample_mean=range(len(keys)), in_sample_variability=[-0.5 * it for it in range(len(keys))]
        )
        write_table(folder / "signals.parquet", pa.Table.from_pandas(table.iloc[:100], preserve_index=False))
        training = Training.open(folder)
        found = training.dynamics(view, 1000).sort_values("row")
        assert len(found) == 100
        assert found["kind"].to_list() == keys["kind"][:100].to_list()
        assert found["mean"].to_list() == list(range(100))
        assert found["variability"].to_list() == [0.5 * it for it in range(100)]
        assert len(training.dynamics(view, 10)) == 10
        (folder / "signals.parquet").write_bytes(b"PAR1")
        with pytest.raises(RunError, match="missing or damaged"):
            training.dynamics(view, 10)


def test_a_training_knows_its_data(folder, planted):
    with RunView(planted.run.path) as view:
        assert not Training.open(folder).is_of(view)
        (entry,) = view.stage("ingest")["inputs"]
        (folder / "training.json").write_text(
            json.dumps({"settings": {}, "data": {"files": {"elsewhere.jsonl": entry["sha256"]}}})
        )
        assert Training.open(folder).is_of(view)


def test_comparisons_are_found_and_a_damaged_one_is_said(tmp_path):
    run = Run.create(tmp_path / "run")
    assert comparisons(run) == []
    file = run.path / "compare" / "abc" / "results.parquet"
    file.parent.mkdir(parents=True)
    write_table(file, pa.table({"arm": ["raw"]}), {"config": {"beta": 1.0}, "compare": {"plant": 0.0}})
    (found,) = comparisons(run)
    assert (found.key, found.config, found.compared) == ("abc", {"beta": 1.0}, {"plant": 0.0})
    assert found.results["arm"].to_list() == ["raw"]
    file.write_bytes(b"")
    with pytest.raises(RunError, match="curate compare"):
        comparisons(run)
