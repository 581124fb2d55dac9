"""The stage on runs whose truth is known: what it finds, what it says where it cannot tell, and when it runs again."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from curate import diagnosing
from curate.config import DiagnoseConfig, WeighConfig
from curate.detect import CONTROLLED, FUSED, FUSED_RANDOM, VOTES
from curate.diagnosing import diagnose
from curate.errors import InputError, RunError
from curate.metrics import auroc
from curate.schema import DIAGNOSIS, FINDINGS, KINDS, SLICES
from curate.signals import SIGNALS
from curate.store import DIAGNOSED, Run
from curate.verdict import noise_sentence
from curate.view import RunView
from curate.weighing import weigh

QUICK = DiagnoseConfig(folds=4, repeats=2)


def table(run, name="diagnosis"):
    with RunView(run.path) as view:
        return view.table(name)


# --- what it finds ---


def test_the_rate_is_found(planted):
    noise, truth = planted.diagnosed["noise"], planted.world.flipped
    assert noise["can_tell"]
    assert noise["pairs"] == planted.diagnosed["learners"] == len(truth)
    assert noise["low"] <= truth.mean() <= noise["high"]
    assert noise["low"] <= noise["rate"] <= noise["high"]


def test_flipped_pairs_rank_first(planted):
    diagnosis, truth = table(planted.run), planted.world.flipped
    suspects = np.argsort(-diagnosis["p_flip"], kind="stable")[:30]
    assert truth[suspects].mean() > 0.9
    assert auroc(-diagnosis["p_flip"], truth) > 0.85
    assert auroc(diagnosis["evidence"], truth) > 0.85
    called = diagnosis["kind"] == "flipped"
    assert truth[called].mean() > 0.6
    assert called[truth].mean() > 0.6
    easy = np.abs(planted.world.gap_N) > 3
    assert called[truth & easy].mean() > 0.9


def test_kinds_are_counted(planted):
    counts = table(planted.run)["kind"].value_counts()
    assert planted.diagnosed["kinds"] == {kind: counts.get(kind, 0) for kind in KINDS}
    assert sum(planted.diagnosed["kinds"].values()) == 400


def test_tables(planted):
    run, pairs = planted.run, table(planted.run, "pairs")
    for name, schema in (("diagnosis", DIAGNOSIS), ("findings", FINDINGS), ("slices", SLICES)):
        assert list(table(run, name).columns) == schema.names
    for name in ("diagnosis", "signals"):
        assert table(run, name)["row"].tolist() == pairs["row"].tolist()
        assert table(run, name)["pair_id"].tolist() == pairs["pair_id"].tolist()
    diagnosis = table(run)
    assert diagnosis["p_flip"].between(0, 1).all()
    assert ((diagnosis["kind"] == "flipped") <= (diagnosis["p_flip"] >= 0.5)).all()
    # the calibrated evidence is the fused signal on another scale, and p_flip falls with it
    signals = table(run, "signals")
    slope = planted.diagnosed["noise"]["slope"]
    np.testing.assert_allclose(diagnosis["evidence"], slope * signals[FUSED], rtol=1e-9)
    order = np.argsort(signals[FUSED])
    assert np.all(np.diff(diagnosis["p_flip"].to_numpy()[order]) <= 1e-12)


def test_signals_are_explained(planted):
    signals = table(planted.run, "signals")
    explained = planted.diagnosed["signals"]
    assert list(signals.columns) == ["pair_id", "row", *explained]
    assert {"margin", "log_prob", "token_difference", "length", FUSED, *VOTES} <= explained.keys()
    assert "imported" not in explained.values()
    weights, scores = table(planted.run, "weights"), table(planted.run, "scores")
    np.testing.assert_array_equal(signals["margin"], weights["margin"])
    np.testing.assert_array_equal(
        signals["token_difference"], scores["chosen_tokens"].astype(float) - scores["rejected_tokens"]
    )


def test_the_curve_is_that_of_the_fused_signal(planted):
    curve, signals = planted.diagnosed["curve"], table(planted.run, "signals")
    assert sum(curve["pairs_G"]) == 400
    agree = np.dot(curve["agreement_G"], curve["pairs_G"])
    assert agree == pytest.approx((signals[FUSED] > 0).sum())


def test_clean_data_stays_clean(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(300, flips=0.0, seed=2))
    noise = diagnose(run, QUICK)["noise"]
    assert (noise["rate"], noise["low"]) == (pytest.approx(0, abs=0.02), 0.0)
    assert table(run)["kind"].eq("flipped").mean() <= 0.02


def test_labels_that_are_coins(make_world, write_scored, tmp_path):
    """Nobody could know: no pair is called flipped, and the rate is said to be unknown."""
    run = write_scored(tmp_path, make_world(300, flips=0.5, seed=3))
    facts = diagnose(run, QUICK)
    assert not facts["noise"]["can_tell"]
    assert facts["kinds"] == {"clean": 0, "flipped": 0, "ambiguous": 0, "defective": 0, "unresolved": 300}
    assert noise_sentence(facts["noise"], facts["learners"]).startswith("cannot tell: anything from ")
    for texts in table(run)["reasons"]:
        assert texts[-1].endswith("the evidence cannot tell right labels from wrong ones in this dataset")
    slices = table(run, "slices")
    assert slices.loc[slices["by"] != "annotator", "rate"].isna().all()


def test_too_few_pairs(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(29))
    facts = diagnose(run, QUICK)
    assert (facts["noise"], facts["curve"], facts["length_share"], facts["learners"]) == (None, None, None, 29)
    assert facts["kinds"]["flipped"] == 0
    assert facts["kinds"]["unresolved"] == 29
    assert noise_sentence(None, 29) == "cannot tell: 29 labelled pairs are too few to learn from"
    assert table(run)["p_flip"].isna().all()
    assert list(table(run, "signals").columns[2:]) == ["margin", "log_prob", "token_difference"]


def test_one_prompt_is_too_few(make_world, write_scored, tmp_path):
    run = write_scored(tmp_path, make_world(40, per_prompt=40))
    assert diagnose(run, QUICK)["noise"] is None


# --- each kind ---


@pytest.fixture(scope="module")
def odd(make_world, write_scored, rated_columns, tmp_path_factory):
    """Pair 0 is a tie, 1 has the same sides, 2 equal ratings, 3 no score, 4 and 5 contradict one another."""
    world = make_world(120, flips=0.1, seed=4)
    rows = world.rows
    for row in rows:
        row |= {"won": "a", "good": 5, "bad": 1}
    rows[0]["won"] = "tie"
    rows[1]["rejected"] = rows[1]["chosen"]
    rows[2] |= {"good": 3, "bad": 3}
    rows[5] |= {"prompt": rows[4]["prompt"], "chosen": rows[4]["rejected"], "rejected": rows[4]["chosen"]}
    rows[6]["chosen"] = " "
    run = write_scored(tmp_path_factory.mktemp("odd"), world, unscored=[3], columns=rated_columns)
    return run, diagnose(run, QUICK), table(run)


def test_hand_made_pairs_are_of_their_kinds(odd):
    _, _, diagnosis = odd
    kinds = dict(enumerate(diagnosis["kind"][:7]))
    assert kinds == {
        0: "ambiguous",
        1: "defective",
        2: kinds[2] if kinds[2] == "flipped" else "ambiguous",
        3: "unresolved",
        4: "defective",
        5: "defective",
        6: "defective",
    }
    reasons = [list(texts) for texts in diagnosis["reasons"]]
    assert reasons[0] == ["the data calls it a tie"]
    assert "both sides have the same rating" in reasons[2]
    assert reasons[3] == ["there is no evidence for either side"]
    assert all(reasons[at] for at in (1, 4, 5, 6))
    assert list(diagnosis["checks"][0]) == ["tie"]
    assert list(diagnosis["checks"][1]) == ["identical"]
    assert "opposite_label" in diagnosis["checks"][4]


def test_what_has_no_evidence(odd):
    _, facts, diagnosis = odd
    assert np.flatnonzero(diagnosis["evidence"].isna()).tolist() == [0, 1, 3, 6]
    assert (diagnosis["p_flip"].isna() == diagnosis["evidence"].isna()).all()
    assert facts["learners"] == 116
    assert facts["kinds"] == {kind: int((diagnosis["kind"] == kind).sum()) for kind in KINDS}


def test_checks_are_counted(odd):
    run, facts, diagnosis = odd
    found = table(run, "findings")["check"].value_counts()
    assert {name: count for name, count in facts["checks"].items() if count} == found.to_dict()
    assert sum(map(len, diagnosis["checks"])) == len(table(run, "findings"))


def test_every_pair_that_is_not_clean_says_why(odd, planted):
    for diagnosis in (odd[2], table(planted.run)):
        unclean = diagnosis["kind"] != "clean"
        assert (diagnosis["reasons"].str.len() > 0)[unclean].all()
        against = diagnosis["kind"].eq("clean") & (diagnosis["evidence"] < 0)
        assert (diagnosis["reasons"].str.len() > 0)[against].all()


def test_reasons_tell_the_truth(planted):
    """Odds and voices as the tables have them."""
    diagnosis, signals = table(planted.run), table(planted.run, "signals")
    names = {"length": "length", "log-probs": "likelihood"}
    names |= {f"hidden states ({layer} layer)": f"hidden_{layer}" for layer in ("middle", "last")}
    flipped = np.flatnonzero(diagnosis["kind"] == "flipped")
    for at in flipped:
        odds, *rest = diagnosis["reasons"][at]
        expected = np.exp(-diagnosis["evidence"][at])
        if "leans" in odds:
            assert expected < 1.5
        else:
            number = float(odds.split(" to 1")[0].split()[-1].replace(",", ""))
            assert number == pytest.approx(min(expected, 1000), abs=0.51)
        for text in rest:
            if text.startswith(("for the label: ", "against the label: ")):
                for name in text.partition(": ")[2].split(", "):
                    assert (signals[names[name]][at] < 0) == text.startswith("against"), text


def test_divided_annotators(make_world, write_scored, tmp_path):
    """Two of three is as good as divided; without a majority there is no label."""
    world = make_world(60, flips=0.0, seed=6)
    votes = [(1, 1, 2), (1, 2, 0)] + [(1, 1, 1)] * 58
    world.rows = [
        {
            **{"instruction": row["prompt"], "input": "", "response1": row["chosen"], "response2": row["rejected"]},
            **{f"annotator{number}": choice for number, choice in enumerate(choices, 1)},
        }
        for row, choices in zip(world.rows, votes, strict=True)
    ]
    run = write_scored(tmp_path, world)
    diagnose(run, QUICK)
    diagnosis = table(run)
    assert diagnosis["kind"][:2].tolist() == ["ambiguous", "ambiguous"]
    assert list(diagnosis["reasons"][0]) == ["its annotators are divided"]
    assert list(diagnosis["reasons"][1]) == ["the data calls it a tie"]
    assert diagnosis["kind"][2:].eq("clean").mean() > 0.7


# --- what a run may have and lack ---


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"features": False}, set()),
        ({"passes": ("policy", "reference")}, {"hidden_middle", "hidden_last"}),
        (
            {"passes": ("policy", "policy_unconditional")},
            {"prompt_gain", "ifd", "ifd_gap", "hidden_middle", "hidden_last"},
        ),
        ({"passes": ("policy", "reward_model"), "features": False}, {"reward_model"}),
    ],
    ids=["bare", "reference", "unconditional", "reward"],
)
def test_what_was_scored_decides_what_there_is(make_world, write_scored, tmp_path, settings, more):
    run = write_scored(tmp_path, make_world(100, seed=8), **settings)
    facts = diagnose(run, QUICK)
    signals = table(run, "signals")
    always = {"margin", "log_prob", "token_difference", "length", "likelihood", FUSED, CONTROLLED, FUSED_RANDOM, *VOTES}
    assert set(signals.columns[2:]) == always | more
    assert more & SIGNALS.keys() == facts["signals"].keys() & SIGNALS.keys() - always
    assert ("hidden_middle" in signals) == (facts["clusters"] is not None) == settings.get("features", True)
    assert table(run)["x"].notna().all() == settings.get("features", True)


def test_an_imported_signal_that_knows_the_truth_helps(make_world, write_scored, tmp_path):
    world = make_world(200, seed=9)
    run = write_scored(tmp_path / "a", world, features=False)
    diagnose(run, QUICK)
    before = auroc(table(run, "signals")[FUSED], world.flipped)
    said = world.gap_N + np.random.default_rng(0).normal(0, 1, 200)
    frame = pd.DataFrame({"id": [row["id"] for row in world.rows], "referee": said})
    frame[:180].to_csv(tmp_path / "judge.csv", index=False)
    facts = diagnose(run, DiagnoseConfig(signals=(str(tmp_path / "judge.csv"),), folds=4, repeats=2))
    signals = table(run, "signals")
    assert facts["signals"]["referee"] == "imported"
    np.testing.assert_equal(signals["referee"].to_numpy(), [*said[:180], *[np.nan] * 20])
    assert auroc(signals[FUSED], world.flipped) > max(before, 0.75) + 0.1
    texts = [text for texts in table(run)["reasons"] for text in texts]
    assert any(text.startswith("against the label: ") and text.endswith("referee") for text in texts)


# --- when it runs again ---


def states(run):
    return {path.name: path.stat().st_mtime_ns for path in run.path.iterdir() if path.name != ".lock"}


@pytest.fixture
def run(make_world, write_scored, tmp_path):
    """A diagnosed run of forty pairs, with a self-test on record."""
    run = write_scored(tmp_path / "r", make_world(40, seed=10), features=False)
    diagnose(run, QUICK)
    run.record("selftest", "as if", {})
    (run.path / "selftest.parquet").write_bytes((run.path / "slices.parquet").read_bytes())
    return run


def test_nothing_changed(run):
    before, known = states(run), run.manifest()
    assert diagnose(run, QUICK) == known["stages"]["diagnose"]
    assert (states(run), run.manifest()) == (before, known)


@pytest.mark.parametrize("change", [{"p_flip": 0.7}, {"folds": 5}, {"repeats": 1}, {"near_tie": 0.1}], ids=str)
def test_other_settings_redo_it_and_strike_the_self_test(run, change):
    diagnose(run, DiagnoseConfig(**{"folds": 4, "repeats": 2, **change}))
    assert list(run.manifest()["stages"]) == ["ingest", "score", "weigh", "diagnose"]
    name, value = next(iter(change.items()))
    assert run.require("diagnose")["config"][name] == value


def test_other_weights_redo_it(run):
    before = run.require("diagnose")["fingerprint"]
    weigh(run, WeighConfig(beta=2.0))
    assert run.stage("diagnose") is None
    assert diagnose(run, QUICK)["fingerprint"] != before


def test_a_changed_file_of_signals_redoes_it(run, tmp_path):
    file = tmp_path / "judge.csv"
    file.write_text("row,judge\n0,1\n")
    config = DiagnoseConfig(signals=(str(file),), folds=4, repeats=2)
    first = diagnose(run, config)
    assert diagnose(run, config) == first
    file.write_text("row,judge\n0,-1\n")
    assert diagnose(run, config)["fingerprint"] != first["fingerprint"]
    assert table(run, "signals")["judge"][0] == -1


@pytest.mark.parametrize("content", [None, "row,judge\n0,what\n"])
def test_a_bad_file_leaves_all_as_it_was(run, tmp_path, content):
    if content:
        (tmp_path / "judge.csv").write_text(content)
    before, known = states(run), run.manifest()
    with pytest.raises(InputError, match=r"judge\.csv"):
        diagnose(run, DiagnoseConfig(signals=(str(tmp_path / "judge.csv"),)))
    assert (states(run), run.manifest()) == (before, known)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
@pytest.mark.parametrize("name", [*DIAGNOSED, "selftest"])
def test_a_lost_table_is_made_again(run, name, damage):
    known = {table: (run.path / f"{table}.parquet").read_bytes() for table in DIAGNOSED}
    path = run.path / f"{name}.parquet"
    path.unlink() if damage == "missing" else path.write_bytes(b"PAR1 what")
    with pytest.raises(RunError, match=rf"{name}\.parquet: missing or damaged"):
        RunView(run.path)
    config = QUICK if name != "selftest" else DiagnoseConfig(folds=5, repeats=2)
    diagnose(run, config)
    RunView(run.path)
    if name != "selftest":
        assert {table: (run.path / f"{table}.parquet").read_bytes() for table in DIAGNOSED} == known


@pytest.mark.parametrize("killed_at", range(len(DIAGNOSED) + 1))
def test_a_kill_between_two_tables(run, monkeypatch, killed_at):
    """The stage is struck before the first table is replaced, so that a reader never mixes old and new."""
    write, calls = diagnosing.write_table, []

    def dying(*args):
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(args)
        write(*args)

    monkeypatch.setattr(diagnosing, "write_table", dying)
    other = DiagnoseConfig(folds=4, repeats=2, p_flip=0.6)
    if killed_at < len(DIAGNOSED):
        with pytest.raises(KeyboardInterrupt):
            diagnose(run, other)
        assert run.stage("diagnose") is None
        assert run.stage("selftest") is None
        with RunView(run.path) as view:
            assert not view.has("diagnosis")
    monkeypatch.undo()
    diagnose(run, other)
    assert len(table(run)) == 40


def test_a_run_that_is_not_weighed(tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match=f"the stage weigh is not done; run curate weigh {run.path}"):
        diagnose(run, QUICK)


def test_the_manifest_is_json(planted):
    text = (planted.run.path / "manifest.json").read_text(encoding="utf-8")

    def refuse(constant):
        raise ValueError(constant)

    json.loads(text, parse_constant=refuse)
    assert planted.first["fingerprint"] == planted.diagnosed["fingerprint"]


def test_twenty_thousand_pairs_without_features(make_world, write_scored, tmp_path):
    """A few seconds on an idle core; a busy machine is given some more."""
    world = make_world(2_000, seed=11)
    world.rows = [{**row, "prompt": f"{copy} {row['prompt']}"} for copy in range(10) for row in world.rows]
    world.gap_N = np.tile(world.gap_N, 10)
    run = write_scored(tmp_path, world, features=False)
    started = time.process_time()
    facts = diagnose(run, DiagnoseConfig())
    assert time.process_time() - started < 30
    assert sum(facts["kinds"].values()) == 20_000
