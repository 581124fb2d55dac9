"""RunView: what it shows is what the run's files hold; what it cannot show it says."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from curate import audit, pairs, store
from curate.config import AuditConfig, ComputeConfig, DiagnoseConfig, IngestConfig, ScoreConfig, WeighConfig
from curate.diagnosing import diagnose
from curate.engines import score
from curate.errors import ConfigError, RunError
from curate.pairs import ingest
from curate.schema import DIAGNOSIS, PAIRS, REFUSED, SCORES, WEIGHTS
from curate.store import Run
from curate.view import RunView
from curate.weighing import weigh

TABLES = {"pairs": PAIRS, "refused": REFUSED, "scores": SCORES, "weights": WEIGHTS}
CPU = ComputeConfig(device="cpu")
#: Closes no answer, so that an empty one has no token.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"

#: Rows 3 and 8 are refused; rows 1 and 5 are the same pair; a side of row 6 has no token.
ROWS: list[dict[str, object]] = [
    {"prompt": f"q{i} ", "chosen": f"good {i}", "rejected": f"bad {i}", "source": "odd"[: i % 4]} for i in range(10)
]
ROWS[5] = ROWS[1]
ROWS[3], ROWS[8] = {"prompt": "q", "chosen": 1, "rejected": None}, {"prompt": "q", "chosen": "good"}
ROWS[6] = {"prompt": "q6 ", "chosen": "", "rejected": 'it\'s 100% "quoted"; DROP TABLE pairs --'}
THERE = [0, 1, 2, 4, 5, 6, 7, 9]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_policy):
    """An audited run: pairs in files of 4, shards of 3."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "template.jinja").write_text(TEMPLATE)
    config = AuditConfig(
        IngestConfig((str(folder / "pairs.jsonl"),), format="trl_standard"),
        ScoreConfig(policy=str(tiny_policy), template=str(folder / "template.jinja"), shard_pairs=3),
        CPU,
    )
    with pytest.MonkeyPatch.context() as patch:
        for module in (pairs, store):
            patch.setattr(module, "PART_PAIRS", 4)
            patch.setattr(module, "GROUP_PAIRS", 2)
        audit(config, folder / "run")
    return folder / "run"


@pytest.fixture
def view(whole):
    with RunView(whole) as opened:
        yield opened


@pytest.fixture
def read(tmp_path):
    """A run whose pairs were read, no more."""
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(data),), format="trl_standard"), run)
    return run


# --- tables ---


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_the_files_hold(view, whole, name):
    files = sorted((whole / "pairs").iterdir()) if name == "pairs" else [whole / f"{name}.parquet"]
    assert len(files) == (2 if name == "pairs" else 1)
    expected = pd.concat([pq.read_table(file).to_pandas() for file in files], ignore_index=True)
    found = view.table(name)
    assert list(found.columns) == TABLES[name].names
    assert found["row"].tolist() == ([3, 8] if name == "refused" else THERE)
    for column in expected:
        texts = [[json.dumps(value, default=list) for value in one[column]] for one in (found, expected)]
        if pd.api.types.is_float_dtype(found[column]):
            np.testing.assert_array_equal(found[column], expected[column])
        elif column not in ("prompt", "chosen", "rejected", "votes"):
            assert found[column].astype(str).tolist() == expected[column].astype(str).tolist(), column
        else:
            assert texts[0] == texts[1]


def test_rows_stand_in_the_inputs_order_whatever_the_file_says(whole, tmp_path):
    moved = shutil.copytree(whole, tmp_path / "run")
    shuffled = pq.read_table(moved / "weights.parquet").take([3, 0, 7, 1, 2, 6, 5, 4])
    pq.write_table(shuffled, moved / "weights.parquet")
    assert RunView(moved).table("weights")["row"].tolist() == THERE


def test_some_columns_in_the_order_asked_for(view):
    found = view.table("weights", ["weight", "row"])
    assert list(found.columns) == ["weight", "row"]
    assert found["row"].tolist() == THERE
    assert found["weight"].mean() == pytest.approx(1)


@pytest.mark.parametrize(("limit", "rows"), [(None, THERE), (0, []), (1, [0]), (3, [0, 1, 2]), (99, THERE)])
def test_a_limit(view, limit, rows):
    assert view.table("scores", ["row"], limit=limit)["row"].tolist() == rows


@pytest.mark.parametrize("ask", ["table", "has"])
@pytest.mark.parametrize("name", ["", "weight", "features", "weights; DROP TABLE pairs"])
def test_an_unknown_table(view, ask, name):
    with pytest.raises(ConfigError, match=r"no table .*: choose one of pairs, refused, scores, weights"):
        getattr(view, ask)(name)


@pytest.mark.parametrize("column", ["", "chosen_logp", "ROW", 'row" FROM weights; --'])
def test_an_unknown_column(view, column):
    with pytest.raises(
        ConfigError, match=r"has no column .*: it has pair_id, row, margin, target_margin, weight"
    ) as caught:
        view.table("weights", ["row", column])
    assert repr(column) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "command"), [("scores", "curate score"), ("weights", "curate weigh")], ids=["scores", "weights"]
)
def test_a_table_whose_stage_is_not_done(read, name, command):
    view = RunView(read.path)
    assert [table for table in TABLES if view.has(table)] == ["pairs", "refused"]
    with pytest.raises(RunError, match=f"no {name} yet; run {command} {read.path}"):
        view.table(name)
    assert view.table("pairs")["row"].tolist() == THERE


@pytest.mark.parametrize("name", ["score", "weigh"])
def test_a_stage_that_is_not_done(read, name):
    with pytest.raises(RunError, match=f"the stage {name} is not done; run curate {name} {read.path}"):
        RunView(read.path).stage(name)


def test_no_pairs_yet(tmp_path):
    view = RunView(Run.create(tmp_path / "run").path)
    assert not any(map(view.has, TABLES))
    with pytest.raises(RunError, match="no pairs yet; run curate ingest"):
        view.table("pairs")


def test_no_run(tmp_path):
    with pytest.raises(RunError, match=r"not a run \(no manifest.json\)"):
        RunView(tmp_path)


def test_no_progress_bar_comes_between_what_is_printed(whole):
    with RunView(whole) as view:
        for connection in (view, view.cursor()):
            shows = connection.sql("SELECT current_setting('enable_progress_bar') AS shows")
            assert not (shows if connection is view else shows.df())["shows"][0]


def test_path_manifest_and_stages(view, whole):
    assert view.path == whole
    assert view.manifest == json.loads((whole / "manifest.json").read_text())
    assert view.stage("ingest") == view.manifest["stages"]["ingest"]
    assert (view.stage("ingest")["pairs"], view.stage("ingest")["refused"]) == (8, 2)


@pytest.mark.parametrize("name", ["a[1]", "[ab]*?", "it's", "a {b}", "日本"])
def test_a_folder_of_any_name(whole, tmp_path, name):
    moved = shutil.copytree(whole, tmp_path / name / "run")
    with RunView(moved) as view:
        assert view.table("pairs", ["row"])["row"].tolist() == THERE
        assert view.table("weights", ["row"])["row"].tolist() == THERE


# --- one pair ---


def test_a_pair_and_all_that_is_known_of_it(view, whole):
    (pair_id,) = view.sql("SELECT pair_id FROM pairs WHERE row = 7")["pair_id"]
    pair = view.pair(pair_id)
    signals = view.columns("signals")
    assert pair.keys() == {*PAIRS.names, *SCORES.names, *WEIGHTS.names, *signals, *DIAGNOSIS.names}
    assert {"margin", "log_prob", "token_difference"} <= set(signals)
    assert (pair["row"], pair["line"], pair["source"]) == (7, 8, "odd")
    assert [dict(turn) for turn in pair["chosen"]] == [{"role": "assistant", "content": "good 7"}]
    for name in ("scores", "weights", "signals"):
        stored = next(row for row in pq.read_table(whole / f"{name}.parquet").to_pylist() if row["row"] == 7)
        for column, value in stored.items():
            assert pd.isna(pair[column]) if value is None else pair[column] == value, column


@pytest.mark.parametrize("length", [6, 31, 32])
def test_the_beginning_of_an_id_is_enough(view, length):
    for pair_id, row in view.table("pairs", ["pair_id", "row"]).itertuples(index=False):
        found = view.pair(pair_id[:length])
        assert (found["pair_id"], found["row"]) == (pair_id, 1 if row == 5 else row)


def test_a_beginning_that_several_ids_share(view, whole):
    with pytest.raises(RunError, match=f"{whole}: 7 pairs have ids that start with ''"):
        view.pair("")


@pytest.mark.parametrize("pair_id", ["zz", "%", "_", "' OR 1=1 --", "0" * 33])
def test_an_id_that_is_not_there(view, whole, pair_id):
    with pytest.raises(RunError, match=f"{whole}: no pair has an id that starts with "):
        view.pair(pair_id)


def test_a_pair_of_a_run_that_is_only_read(read):
    view = RunView(read.path)
    pair_id = view.table("pairs")["pair_id"][2]
    assert view.pair(pair_id).keys() == set(PAIRS.names)


# --- queries ---


def test_a_query_over_several_tables(view):
    found = view.sql(
        "SELECT row, policy_chosen_logp / chosen_tokens - policy_rejected_logp / rejected_tokens AS h, margin "
        "FROM scores JOIN weights USING (pair_id, row) WHERE margin IS NOT NULL ORDER BY row"
    )
    assert found["row"].tolist() == [row for row in THERE if row != 6]
    np.testing.assert_allclose(10 * found["h"], found["margin"], rtol=1e-12)


@pytest.mark.parametrize("text", ['it\'s 100% "quoted"; DROP TABLE pairs --', "good 7", "' OR 1=1 --"])
def test_parameters_are_values_and_nothing_else(view, text):
    found = view.sql("SELECT row FROM pairs WHERE rejected[1].content = $text OR chosen[1].content = $text", text=text)
    expected = [row for row in THERE if text in (ROWS[row]["chosen"], ROWS[row]["rejected"])]
    assert found["row"].tolist() == expected


def test_parameters_have_types(view):
    found = view.sql("SELECT row FROM weights WHERE row BETWEEN $low AND $high ORDER BY row", low=2, high=5)
    assert found["row"].tolist() == [2, 4, 5]


# --- features ---


def test_features_stand_in_the_pairs_order(view, whole):
    found = view.features()
    assert found.keys() == {"chosen_middle", "chosen_last", "rejected_middle", "rejected_last"}
    assert {(values.shape, values.dtype.name) for values in found.values()} == {((8, 32), "float16")}
    (folder,) = (whole / "scores").iterdir()
    stored = [pair for file in sorted((folder / "features").iterdir()) for pair in pq.read_table(file).to_pylist()]
    assert [pair["row"] for pair in stored] == THERE
    for name, values in found.items():
        for vector, pair in zip(values, stored, strict=True):
            np.testing.assert_array_equal(vector, np.zeros(32) if pair[name] is None else pair[name])
    assert not found["chosen_last"][THERE.index(6)].any()
    assert found["rejected_last"][THERE.index(6)].any()
    np.testing.assert_array_equal(found["chosen_middle"][1], found["chosen_middle"][4])


def test_features_that_were_not_kept(read, tiny_policy):
    score(read, ScoreConfig(policy=str(tiny_policy), features=False), CPU)
    with pytest.raises(RunError, match="scored with --no-features; score again with --features"):
        RunView(read.path).features()


def test_features_before_the_scores(read):
    with pytest.raises(RunError, match="the stage score is not done; run curate score"):
        RunView(read.path).features()


# --- audit ---


def test_audit_returns_the_run_and_does_nothing_twice(read, tiny_policy):
    """`read` holds the pairs already; what audit makes of it is what the stages make of it."""
    manifest = read.manifest()
    (entry,) = read.require("ingest")["inputs"]
    config = AuditConfig(
        IngestConfig((entry["path"],), format="trl_standard"), ScoreConfig(policy=str(tiny_policy)), CPU
    )
    view = audit(config, read.path)
    assert view.path == read.path
    assert view.stage("ingest") == manifest["stages"]["ingest"]
    known = view.table("weights")
    stages = view.manifest
    assert audit(config, read.path).manifest == stages
    weigh(read, WeighConfig(tau=1.0))
    audit(config, read.path)
    pd.testing.assert_frame_equal(RunView(read.path).table("weights"), known)


def test_audit_leaves_a_run_of_other_data_alone(read, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(RunError, match="choose another folder with -o, or say --replace"):
        audit(AuditConfig(IngestConfig((str(other),))), read.path)
    assert RunView(read.path).table("pairs")["row"].tolist() == THERE


# --- what users name ---


def test_a_signal_of_any_name(make_world, write_scored, tmp_path):
    """Names come from files; each is found under its own, and none hides a column of ours."""
    run = write_scored(tmp_path, make_world(12), features=False)
    names = ['a "b"', "select", "prompt tokens", "naïve 猫"]
    pd.DataFrame({"row": range(12), **{name: float(at) for at, name in enumerate(names)}}).to_parquet(
        tmp_path / "s.parquet"
    )
    diagnose(run, DiagnoseConfig((str(tmp_path / "s.parquet"),)))
    with RunView(run.path) as view:
        assert view.table("signals", names).iloc[0].tolist() == [0, 1, 2, 3]
        assert set(names) <= set(view.table("signals").columns)
        (pair_id, *_) = view.table("pairs", ["pair_id"])["pair_id"]
        assert [view.pair(pair_id)[name] for name in names] == [0, 1, 2, 3]


def test_arrow_is_sql_without_pandas(whole):
    query = "SELECT pair_id, prompt FROM pairs WHERE row > $least ORDER BY row"
    with RunView(whole) as view:
        found = view.arrow(query, least=3)
        assert found.column_names == ["pair_id", "prompt"]
        assert found["pair_id"].to_pylist() == view.sql(query, least=3)["pair_id"].tolist()
