"""The self-test: its rows, what they say of evidence that is good or poor, and when it is done again."""

import numpy as np
import pandas as pd
import pytest

from curate.config import DiagnoseConfig, SelftestConfig
from curate.detect import FUSED, GROUPED, ORACLE, RANDOM, UNFITTED, VOTES
from curate.diagnosing import diagnose
from curate.errors import RunError
from curate.evidence import gather
from curate.metrics import METRICS
from curate.progress import Quiet
from curate.schema import SELFTEST
from curate.selftest import _sampled, measure, promise, selftest
from curate.slices import read_votes
from curate.store import read_metadata
from curate.view import RunView

QUICK = DiagnoseConfig(folds=4, repeats=1)
SHORT = SelftestConfig(noise=(0.0, 0.2), plans=(), seeds=2)
SHARES = {*METRICS, "rate", "false_alarms", "called_precision", "called_recall", "found", "in_interval"}
DIFFERENCES = {"auroc_above_length", "rate_error"}


def table(run):
    with RunView(run.path) as view:
        return view.table("selftest")


def value(rows, metric, signal=FUSED, folds=GROUPED, noise="random", rate=0.2):
    place = {"noise": noise, "rate": rate, "folds": folds, "signal": signal, "metric": metric}
    found = rows[np.logical_and.reduce([rows[name] == wanted for name, wanted in place.items()])]
    assert len(found) == 1, place
    return found["mean"].iloc[0]


@pytest.fixture(scope="module")
def full(make_world, write_scored, tmp_path_factory):
    """All kinds of noise in clean data with good evidence; some pairs are ties."""
    world = make_world(240, flips=0.0, seed=1)
    for at, row in enumerate(world.rows):
        row["won"] = "tie" if at < 24 else "a"
    world.gap_N[:24] = 0
    columns = {"prompt": "prompt", "response_a": "chosen", "response_b": "rejected", "label": "won"}
    run = write_scored(tmp_path_factory.mktemp("full"), world, columns={**columns, "annotator": "annotator"})
    diagnose(run, QUICK)
    selftest(run, SelftestConfig(noise=(0.0, 0.1, 0.2, 0.4), seeds=2))
    return run


@pytest.fixture(scope="module")
def rows(full):
    return table(full)


def test_tidy_rows(full, rows):
    assert list(rows.columns) == SELFTEST.names == ["noise", "rate", "folds", "signal", "metric", "mean", "low", "high"]
    assert not rows[["noise", "rate", "folds", "signal", "metric", "mean"]].isna().any().any()
    assert not rows.duplicated(["noise", "rate", "folds", "signal", "metric"]).any()
    assert set(rows["metric"]) == SHARES | DIFFERENCES | {"auroc_of_weak_evidence"}
    assert set(rows["folds"]) == {GROUPED, RANDOM, UNFITTED}
    rates = rows.groupby("noise")["rate"].unique().map(sorted).to_dict()
    assert rates == {
        "random": [0, 0.1, 0.2, 0.4],
        "hard": [0.05, 0.1, 0.2, 0.3],
        "hard_fused": [0.05, 0.1, 0.2, 0.3],
        "longer": [pytest.approx(0.2, abs=0.003)],
        "annotator": [0.4],
        "ties": [0.1],
    }


def test_metrics_are_in_range(rows):
    for _, row in rows.iterrows():
        least = -1 if row["metric"] in DIFFERENCES else 0
        assert least <= row["mean"] <= 1, row
        if not np.isnan(row["low"]):
            assert least <= row["low"] <= row["mean"] + 1e-12, row
            assert row["mean"] - 1e-12 <= row["high"] <= 1, row
    missing = rows[rows["low"].isna()]
    assert missing["noise"].str.startswith("hard").all()  # planted once, not drawn
    assert (rows["low"].isna() == rows["high"].isna()).all()


def test_every_signal_is_measured_under_every_kind_of_folds(full, rows):
    with RunView(full.path) as view:
        signals = view.columns("signals")[2:]
    for rate in (0.1, 0.2, 0.4):
        part = rows[(rows["noise"] == "random") & (rows["rate"] == rate) & (rows["metric"] == "auroc")]
        assert set(part["signal"]) == set(signals) - {"fused_random_folds"}
        assert part["signal"].value_counts().isin([1, 2]).all()
    gains = rows[rows["metric"] == "auroc_above_length"]
    assert not set(gains["signal"]) & {"length", *VOTES}


def test_good_evidence_finds_what_was_planted(rows):
    assert value(rows, "auroc") > 0.85
    assert value(rows, "auroc", folds=RANDOM) > 0.85
    assert value(rows, "average_precision") > 0.6
    assert value(rows, "precision_at_top_5_percent") > 0.7
    assert abs(value(rows, "auroc", signal="length") - 0.5) < 0.15
    gain = value(rows, "auroc") - value(rows, "auroc", signal="length")
    assert value(rows, "auroc_above_length") == pytest.approx(gain, abs=1e-9)
    for rate, error in ((0.1, 0.1), (0.2, 0.1), (0.4, 0.25)):  # of 216 pairs, planted twice
        assert abs(value(rows, "rate_error", rate=rate)) < error
        assert value(rows, "rate", rate=rate) - rate == pytest.approx(value(rows, "rate_error", rate=rate), abs=3e-3)
    assert value(rows, "rate", rate=0.1) < value(rows, "rate", rate=0.2) < value(rows, "rate", rate=0.4)


def test_clean_data(rows):
    assert value(rows, "false_alarms", rate=0.0) <= 0.02
    assert value(rows, "rate", rate=0.0) == pytest.approx(0, abs=0.02)
    assert value(rows, "auroc", signal=ORACLE, rate=0.0) == 1 - value(rows, "rate", rate=0.0)


def test_annotators_and_ties(rows):
    assert value(rows, "found", noise="annotator", rate=0.4) == 1
    assert abs(value(rows, "rate_error", noise="annotator", rate=0.4)) < 0.12
    assert value(rows, "auroc_of_weak_evidence", noise="ties", rate=0.1) > 0.6
    assert value(rows, "false_alarms", noise="ties", rate=0.1) <= 0.3


def test_more_evidence_finds_more(make_world, write_scored, tmp_path):
    found = []
    for strength in (0.3, 1.0, 4.0):
        run = write_scored(tmp_path / str(strength), make_world(200, flips=0.0, seed=2, strength=strength))
        with RunView(run.path) as view:
            rows = measure(gather(view), read_votes(view), SHORT, QUICK, Quiet())
        found.append(value(pd.DataFrame(list(rows)), "auroc"))
    assert found[0] + 0.05 < found[1] < found[2] - 0.05


def test_the_same_seeds_give_the_same_rows(planted):
    again = []
    for _ in range(2):
        with RunView(planted.run.path) as view:
            found = measure(gather(view), read_votes(view), SHORT, DiagnoseConfig(), Quiet())
        again.append(pd.DataFrame(list(found), columns=SELFTEST.names))
    pd.testing.assert_frame_equal(again[0], again[1])
    pd.testing.assert_frame_equal(again[0].astype({"low": float, "high": float}), table(planted.run), check_exact=False)


def test_noise_that_was_there_lowers_the_ceiling(planted):
    rows, noise = table(planted.run), planted.diagnosed["noise"]
    assert value(rows, "auroc", signal=ORACLE, rate=0.0) == pytest.approx(1 - noise["rate"], abs=1e-6)
    assert value(rows, "rate", rate=0.0) == pytest.approx(noise["rate"], abs=1e-6)
    called = planted.diagnosed["kinds"]["flipped"] / 400
    assert value(rows, "false_alarms", rate=0.0) == pytest.approx(called, abs=1e-9)
    assert value(rows, "auroc") < value(rows, "auroc", signal=ORACLE, rate=0.0) + 0.03


def test_what_is_on_record(planted, full):
    assert planted.tested["pairs"] == 400
    assert planted.tested["config"] == {"noise": [0.0, 0.2], "plans": [], "seeds": 2, "pairs": 5000}
    facts = read_metadata(planted.run.path / "selftest.parquet")
    assert facts == {"config": planted.tested["config"], "pairs": 400}
    assert full.require("selftest")["pairs"] == 216  # without the ties


# --- when it runs, and on what ---


@pytest.fixture
def run(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path / "r", make_world(60, seed=3), features=False)
    diagnose(run, QUICK)
    selftest(run, SHORT)
    return run


def test_it_runs_once(run):
    path, known = run.path / "selftest.parquet", run.require("selftest")
    written = path.stat().st_mtime_ns
    assert selftest(run, SHORT) == known
    assert path.stat().st_mtime_ns == written
    other = selftest(run, SelftestConfig(noise=(0.0, 0.1), plans=(), seeds=2))
    assert other["fingerprint"] != known["fingerprint"]
    assert set(table(run)["rate"]) == {0.0, 0.1}


def test_a_lost_table_is_made_again(run):
    path = run.path / "selftest.parquet"
    known = pd.read_parquet(path)
    path.unlink()
    selftest(run, SHORT)
    pd.testing.assert_frame_equal(table(run), known)


def test_a_kill_before_it_is_on_record(run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("curate.store.Run.record", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            selftest(run, SelftestConfig(noise=(0.0, 0.3), plans=(), seeds=2))
    assert run.stage("selftest") is None  # the old record would speak of another table
    selftest(run, SHORT)
    assert set(table(run)["rate"]) == {0.0, 0.2}


def test_progress_counts_the_plantings(run):
    done = []

    class Counts(Quiet):
        def advance(self, pairs):
            done.append(pairs)

    config = SelftestConfig(noise=(0.0, 0.1, 0.4), plans=("hard", "longer"), seeds=3)
    selftest(run, config, Counts())
    assert sum(done) == config.plantings == 3 * 2 + 2 * 4 + 3


def test_too_few_pairs(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(20), features=False)
    diagnose(run, QUICK)
    with pytest.raises(RunError, match="20 labelled pairs are too few for a self-test: it needs 30 of several"):
        selftest(run, SHORT)
    assert run.stage("selftest") is None
    assert not (run.path / "selftest.parquet").exists()


def test_a_run_that_is_not_diagnosed(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(20), features=False)
    with pytest.raises(RunError, match=f"the stage diagnose is not done; run curate diagnose {run.path}"):
        selftest(run, SHORT)


def test_a_sample_is_of_whole_prompts_and_counts_what_can_be_learnt_from(planted):
    with RunView(planted.run.path) as view:
        evidence = gather(view)
    at = _sampled(evidence, 100)
    assert len(at) == 100
    assert set(np.unique(evidence.prompt_N[at], return_counts=True)[1]) == {2}
    assert _sampled(evidence, 400).tolist() == list(range(400))
    assert len(_sampled(evidence, 1)) == 6  # three prompts at least
    few = evidence.take(np.arange(400))
    few.learns_N[80:] = False
    sample = few.take(_sampled(few, 60))
    assert 58 <= len(sample.learners) <= 60


# --- in words ---


def quoted(recall, top=0.5, rate=0.2):
    place = {"noise": "random", "rate": rate, "folds": GROUPED, "signal": FUSED}
    metrics = {"recall_at_80_precision": recall, "precision_at_top_5_percent": top}
    return [{**place, "metric": metric, "mean": mean} for metric, mean in metrics.items()]


@pytest.mark.parametrize(
    ("recall", "said"),
    [
        (1.0, "on your data this finds 10 of 10 planted flips at 80 % precision"),
        (0.62, "on your data this finds 6 of 10 planted flips at 80 % precision"),
        (0.06, "on your data this finds 1 of 10 planted flips at 80 % precision"),
        (0.05, "on your data 50 % of the most suspicious 5 % are planted flips, where chance gives 20 %"),
        (0.0, "on your data 50 % of the most suspicious 5 % are planted flips, where chance gives 20 %"),
    ],
)
def test_the_promise(recall, said):
    assert promise(quoted(recall)) == said


def test_the_promise_is_that_of_grouped_folds_at_twenty_percent(rows):
    assert promise([]) is None
    assert promise(quoted(0.5, rate=0.1)) is None
    said = promise(rows.to_dict("records"))
    recall = value(rows, "recall_at_80_precision")
    assert said == promise(quoted(recall, value(rows, "precision_at_top_5_percent")))
