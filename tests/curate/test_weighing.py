"""Weights from a scores table written by hand: no model is near."""

import json
import math

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate import weighing
from curate.config import WeighConfig
from curate.errors import ConfigError, RunError
from curate.gamma import gamma_weights
from curate.schema import NOISE_FLOOR, PAIRS, SCORES, WEIGHTS
from curate.store import Run, read_metadata, write_table
from curate.weighing import weigh

SIDES = ("chosen", "rejected")

#: Per pair: policy (chosen, rejected), reference (chosen, rejected), tokens (chosen, rejected), tie.
#: The row of the last is 9: rows 6 to 8 were refused.
BY_HAND = [
    ((-2.0, -6.0), (-3.0, -3.0), (2, 3), False),
    ((-8.0, -4.0), (-6.0, -8.0), (4, 2), False),
    ((-3.0, -3.0), (-3.0, -6.0), (1, 3), True),
    (None, None, None, False),
    ((0.0, -5.0), (0.0, -4.0), (0, 5), False),
    ((-1.0, -1.0), (-2.0, -1.0), (1, 1), False),
    ((-9.0, -2.0), (-9.0, -4.0), (3, 2), False),
]
ROW = [0, 1, 2, 3, 4, 5, 9]

#: β = 1, worked out on paper.
MARGINS = {
    "dpo": [1 + 3, -2 - 4, 0 - 3, None, 0 + 1, 1 - 0, 0 - 2],
    "dpo_norm": [1 / 2 + 3 / 3, -2 / 4 - 4 / 2, 0 - 3 / 3, None, None, 1 - 0, 0 - 2 / 2],
    "simpo": [-2 / 2 + 6 / 3, -8 / 4 + 4 / 2, -3 + 3 / 3, None, None, -1 + 1, -9 / 3 + 2 / 2],
}
MEMBERS = {"dpo": [0, 1, 4, 5, 6], "dpo_norm": [0, 1, 5, 6], "simpo": [0, 1, 5, 6]}


def columns_of(pairs):
    """The scores table's columns."""
    columns = {"pair_id": [f"id{i}" for i in range(len(pairs))], "row": ROW[: len(pairs)]}
    for number, side in enumerate(SIDES):
        columns[f"policy_{side}_logp"] = [pair[0] and pair[0][number] for pair in pairs]
        columns[f"reference_{side}_logp"] = [pair[1] and pair[1][number] for pair in pairs]
        columns[f"{side}_tokens"] = [pair[2] and pair[2][number] for pair in pairs]
    return columns


def write_run(folder, pairs=BY_HAND, *, reference=True, rescored=(), key="scored"):
    """A scored run. rescored: position and what is added to the four log-probs when scored again."""
    run = Run.create(folder)
    columns = columns_of(pairs)
    if not reference:
        columns |= {f"reference_{side}_logp": [None] * len(pairs) for side in SIDES}
    width = len(pairs)
    run.pairs_path.mkdir(exist_ok=True)
    table = {name: columns.get(name, [None] * width) for name in PAIRS.names} | {"tie": [pair[3] for pair in pairs]}
    write_table(run.pairs_path / "00000.parquet", pa.table(table, schema=PAIRS))
    write_table(run.scores_path, pa.table({name: columns.get(name, [None] * width) for name in SCORES.names}, SCORES))
    names = ("policy", "reference") if reference else ("policy",)
    for model, name in enumerate(names):
        again = {"pair_id": [f"id{at}" for at, _ in rescored], "row": [ROW[at] for at, _ in rescored]}
        for number, side in enumerate(SIDES):
            before = columns[f"{name}_{side}_logp"]
            again[f"{side}_logp"] = [
                None if before[at] is None else before[at] + change[2 * model + number] for at, change in rescored
            ]
        (run.path / name).mkdir(exist_ok=True)
        write_table(run.path / name / "noise_floor.parquet", pa.table(again, NOISE_FLOOR))
    run.record("ingest", "read", {"pairs": width})
    run.record("score", key, {"pairs": width, "passes": {name: {"folder": name} for name in names}})
    return run


def weights(run):
    return pq.read_table(run.weights_path)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


# --- values ---


@pytest.mark.parametrize("beta", [1.0, 2.5])
@pytest.mark.parametrize("kind", MARGINS)
def test_margins_are_those_by_hand(run, kind, beta):
    record = weigh(run, WeighConfig(margin=kind, beta=beta))
    expected = [None if margin is None else beta * margin for margin in MARGINS[kind]]
    assert weights(run)["margin"].to_pylist() == pytest.approx(expected, abs=1e-12)
    assert (record["margin"], record["beta"], record["population"]) == (kind, beta, len(MEMBERS[kind]))


@pytest.mark.parametrize("kind", MARGINS)
def test_ties_and_pairs_without_a_margin_stay_out_of_the_population(run, kind):
    weigh(run, WeighConfig(margin=kind, beta=2.0, tau=3.0))
    members = MEMBERS[kind]
    margins = np.array([2.0 * MARGINS[kind][at] for at in members])
    expected = gamma_weights(margins, gamma0=0.8, tau=3.0)
    table = weights(run).to_pydict()
    for name, values in (("weight", expected.weight), ("target_margin", expected.target_margin)):
        assert [at for at, value in enumerate(table[name]) if value is not None] == members
        np.testing.assert_allclose([table[name][at] for at in members], values, rtol=0, atol=1e-12)


def test_weights_have_mean_one_and_follow_the_margins(run):
    record = weigh(run, WeighConfig(margin="dpo", tau=1.0))
    table = weights(run).take(MEMBERS["dpo"]).to_pydict()
    assert np.mean(table["weight"]) == pytest.approx(1, abs=1e-12)
    assert np.mean(table["target_margin"]) == pytest.approx(4.0, abs=1e-11)
    assert np.array_equal(np.argsort(table["weight"], kind="stable"), np.argsort(table["margin"], kind="stable"))
    assert record["residual"] < 1e-12


@pytest.mark.parametrize(("reference", "kind"), [(True, "dpo_norm"), (False, "simpo")])
def test_the_default_margin(tmp_path, reference, kind):
    run = write_run(tmp_path / "run", reference=reference)
    assert weigh(run, WeighConfig())["margin"] == kind
    expected = [None if margin is None else 10 * margin for margin in MARGINS[kind]]
    assert weights(run)["margin"].to_pylist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kind", ["dpo", "dpo_norm"])
def test_a_margin_without_its_reference(tmp_path, kind):
    run = write_run(tmp_path / "run", reference=False)
    with pytest.raises(ConfigError, match="score with --reference, or use --margin simpo"):
        weigh(run, WeighConfig(margin=kind))
    assert run.stage("weigh") is None
    assert not run.weights_path.exists()


def test_rows_stand_in_the_scores_order(run):
    weigh(run, WeighConfig())
    assert weights(run).schema.remove_metadata().equals(WEIGHTS)
    assert weights(run)["row"].to_pylist() == ROW
    assert weights(run)["pair_id"].to_pylist() == [f"id{at}" for at in range(7)]


def test_the_settings_are_in_the_footer_and_in_the_manifest(run):
    config = WeighConfig(margin="simpo", beta=2.0, gamma_beta_ratio=0.3, tau=5.0)
    record = weigh(run, config)
    facts = {name: record[name] for name in record if name not in ("fingerprint", "finished", "versions", "seconds")}
    assert read_metadata(run.weights_path) == facts
    assert facts["config"] == {"margin": "simpo", "beta": 2.0, "gamma_beta_ratio": 0.3, "tau": 5.0}
    assert (facts["gamma0"], facts["tau"], facts["population"]) == (0.6, 5.0, 4)


def test_settings_that_replace_others_are_said(run):
    said = []
    for config in (WeighConfig(), WeighConfig(), WeighConfig(beta=2.0, tau=3.0), WeighConfig()):
        weigh(run, config, said.append)
    assert said == [
        "weights: computed again with beta 10.0 → 2.0, tau 10.0 → 3.0",
        "weights: computed again with beta 2.0 → 10.0, tau 3.0 → 10.0",
    ]


@pytest.mark.parametrize(
    "pairs",
    [
        [(None, None, None, False)],
        [((-1.0, -2.0), (-1.0, -1.0), (1, 1), True)],
        [((0.0, -2.0), (0.0, -1.0), (0, 1), False)],
    ],
    ids=["unscored", "tie", "empty"],
)
def test_no_pair_to_weigh(tmp_path, pairs):
    run = write_run(tmp_path / "run", pairs)
    with pytest.raises(RunError, match="no pair has a dpo_norm margin, so there is nothing to weigh"):
        weigh(run, WeighConfig())
    assert run.stage("weigh") is None


def test_a_run_that_is_not_scored(tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(RunError, match=f"the stage score is not done; run curate score {run.path}"):
        weigh(run, WeighConfig())


# --- the noise floor ---

#: Pairs 0, 1, 3 (unscored), 4 (a side without tokens) and 6, and how their log-probs come out the second time.
RESCORED = [
    (0, (0.5, 0.0, 0.0, 0.25)),
    (1, (0.0, -0.25, 0.5, 0.0)),
    (3, (1.0, 1.0, 1.0, 1.0)),
    (4, (0.0, 0.5, 0.0, -0.5)),
    (6, (-0.75, 0.5, 0.0, 0.5)),
]
#: What that does to the margin at β = 1; None where there is none.
MOVED = {
    "dpo": [0.5 + 0.25, -0.5 + 0.25, None, -0.5 - 0.5, -0.75 - 0.5 + 0.5],
    "dpo_norm": [0.5 / 2 + 0.25 / 3, -0.5 / 4 + 0.25 / 2, None, None, -0.75 / 3],
    "simpo": [0.5 / 2, 0.25 / 2, None, None, -0.75 / 3 - 0.5 / 2],
}


@pytest.mark.parametrize("kind", MOVED)
def test_sigma_is_the_root_mean_square_of_what_the_margin_moves(tmp_path, kind):
    run = write_run(tmp_path / "run", rescored=RESCORED)
    noise = weigh(run, WeighConfig(margin=kind, beta=3.0))["noise_floor"]
    moved = [3.0 * value for value in MOVED[kind] if value is not None]
    assert noise["pairs"] == len(moved)
    assert noise["sigma"] == pytest.approx(math.sqrt(sum(value**2 for value in moved) / len(moved)), rel=1e-12)


def test_sigma_without_a_reference(tmp_path):
    run = write_run(tmp_path / "run", reference=False, rescored=RESCORED)
    assert weigh(run, WeighConfig(beta=1.0))["noise_floor"]["sigma"] == pytest.approx(
        math.sqrt((0.25**2 + 0.125**2 + 0.5**2) / 3), rel=1e-12
    )


def test_no_sigma_where_no_rescored_pair_has_a_margin(tmp_path):
    run = write_run(tmp_path / "run", rescored=[(3, (0.0, 0.0, 0.0, 0.0))])
    assert weigh(run, WeighConfig())["noise_floor"] == {"pairs": 0, "sigma": None}


# --- what is done again ---


def states(run):
    """Every file's time and size, but for the lock."""
    files = (path for path in run.path.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(run.path)): path.stat().st_mtime_ns for path in files}


def test_the_same_settings_are_not_weighed_again(run):
    record = weigh(run, WeighConfig())
    before = states(run)
    assert weigh(run, WeighConfig()) == record
    assert states(run) == before


@pytest.mark.parametrize(
    "change",
    [{"beta": 2.0}, {"tau": 1.0}, {"gamma_beta_ratio": 0.5}, {"margin": "simpo"}],
    ids="".join,
)
def test_other_settings_redo_the_weights_alone(run, change):
    weigh(run, WeighConfig())
    before, known = states(run), weights(run)
    stages = run.manifest()["stages"]
    weigh(run, WeighConfig(**change))
    written = {name for name, when in states(run).items() if when != before.get(name)}
    assert written == {"weights.parquet", "manifest.json"}
    assert not weights(run)["weight"].equals(known["weight"])
    assert {name: run.manifest()["stages"][name] for name in ("ingest", "score")} == {
        name: stages[name] for name in ("ingest", "score")
    }
    weigh(run, WeighConfig())
    assert weights(run).equals(known)


def test_other_scores_redo_the_weights(tmp_path, run):
    weigh(run, WeighConfig())
    other = [((-4.0, -6.0), *BY_HAND[0][1:]), *BY_HAND[1:]]
    write_run(run.path, other, key="scored anew")
    weigh(run, WeighConfig())
    assert weights(run)["margin"][0].as_py() == pytest.approx(10 * (-1 / 2 + 3 / 3))


def test_a_lost_table_is_written_again(run):
    weigh(run, WeighConfig())
    known = weights(run)
    run.weights_path.unlink()
    weigh(run, WeighConfig())
    assert weights(run).equals(known)


def test_one_process_weighs_at_a_time(run, monkeypatch):
    def watched(*args, **settings):
        with pytest.raises(filelock.Timeout):
            filelock.FileLock(run.path / ".lock", timeout=0).acquire()
        return gamma_weights(*args, **settings)

    monkeypatch.setattr(weighing, "gamma_weights", watched)
    assert weigh(run, WeighConfig()) == run.require("weigh")


def test_settings_that_fail_leave_the_weights_as_they_were(tmp_path):
    run = write_run(tmp_path / "run", reference=False)
    record = weigh(run, WeighConfig())
    known = weights(run)
    with pytest.raises(ConfigError):
        weigh(run, WeighConfig(margin="dpo"))
    assert run.require("weigh") == record
    assert weights(run).equals(known)
    assert json.loads(run.manifest_path.read_text())["stages"]["weigh"] == record
