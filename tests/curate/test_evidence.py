"""What is gathered of a run's pairs: columns, blocks and codes, against pandas on the run's files."""

import numpy as np
import pandas as pd
import pytest

from curate.config import IngestConfig
from curate.errors import RunError
from curate.evidence import gather
from curate.pairs import ingest
from curate.store import Run
from curate.view import RunView

ALL = ("policy", "reference", "policy_unconditional", "reward_model")


def odd_world(make_world):
    """Pair 0 is a tie, 1 has the same sides, 2 is pair 3 the other way round, 4 is unscored, 5 has ratings."""
    world = make_world(40)
    for row in world.rows:
        row["won"] = "a"
    rows = world.rows
    rows[0]["won"] = "tie"
    rows[1]["rejected"] = rows[1]["chosen"]
    rows[2] |= {"prompt": rows[3]["prompt"], "chosen": rows[3]["rejected"], "rejected": rows[3]["chosen"]}
    rows[5] |= {"good": 4, "bad": 1.5}
    return world


@pytest.fixture(scope="module")
def run(make_world, write_scored, rated_columns, tmp_path_factory):
    world = odd_world(make_world)
    return write_scored(tmp_path_factory.mktemp("e"), world, passes=ALL, unscored=[4], columns=rated_columns)


@pytest.fixture(scope="module")
def evidence(run):
    with RunView(run.path) as view:
        return gather(view)


def test_columns_are_the_tables(run, evidence):
    tables = pd.concat(
        [pd.read_parquet(run.path / f"{name}.parquet") for name in ("scores", "weights")]
        + [pd.read_parquet(run.pairs_path)[["rating_chosen", "rating_rejected"]]],
        axis=1,
    )
    assert {"margin", "reference_chosen_logp", "reward_rejected", "rating_chosen"} <= evidence.columns.keys()
    for name, values in evidence.columns.items():
        np.testing.assert_array_equal(values, tables[name].to_numpy(dtype=float, na_value=np.nan), err_msg=name)


def test_who_may_be_learnt_from(evidence):
    assert evidence.learners.tolist() == [2, 3, *range(5, 40)]
    assert evidence.tie_N.tolist() == [True] + 39 * [False]


def test_codes(evidence):
    assert evidence.prompt_N[2] == evidence.prompt_N[3]
    assert evidence.content_N[2] == evidence.content_N[3]  # the same pair, whichever is chosen
    assert len(np.unique(evidence.prompt_N)) == 20
    assert len(np.unique(evidence.content_N)) == 39


def test_a_pair_the_other_way_round_has_the_opposite_differences(evidence):
    """Features and reference were drawn apart for the two, but lengths are the texts'."""
    np.testing.assert_allclose(evidence.blocks["length"][2], -evidence.blocks["length"][3], rtol=1e-6)


def test_blocks(evidence):
    shapes = {name: block.shape for name, block in evidence.blocks.items()}
    # 5 log-probs (policy, two others, minus each), whole and per token; the reward model is the one second opinion
    assert shapes == {
        "length": (40, 2),
        "likelihood": (40, 10),
        "given": (40, 1),
        "hidden_middle": (40, 12),
        "hidden_last": (40, 12),
    }
    assert all(np.isfinite(block).all() for block in evidence.blocks.values())
    assert all(not block[4].any() for block in evidence.blocks.values())  # unscored: zeros


@pytest.mark.parametrize(
    ("passes", "width"),
    [(("policy",), 2), (("policy", "reference"), 6), (("policy", "policy_unconditional"), 6), (ALL, 10)],
)
def test_each_pass_adds_what_it_knows(make_world, write_scored, tmp_path, passes, width):
    run = write_scored(tmp_path, make_world(10), features=False, passes=passes)
    with RunView(run.path) as view:
        found = gather(view)
    assert found.blocks["likelihood"].shape == (10, width)
    assert ("given" in found.blocks) == ("reward_model" in passes)
    assert not any(name.startswith("hidden") for name in found.blocks)
    assert ("prompt_gain" in found.signals) == ("policy_unconditional" in passes)


def test_hidden_blocks_are_the_features_turned(run, evidence):
    """A linear map gives the differences back: nothing is lost, and shards are put together in order."""
    with RunView(run.path) as view:
        features = view.features()
    raw = features["chosen_last"].astype(float) - features["rejected_last"].astype(float)
    block = evidence.blocks["hidden_last"].astype(float)
    back = block @ np.linalg.lstsq(block, raw, rcond=None)[0]
    np.testing.assert_allclose(back, raw, atol=1e-4)


def test_shards_are_put_together_in_order(planted):
    with RunView(planted.run.path) as view:
        block = gather(view).blocks["hidden_middle"]
        assert len(list(view.feature_shards("middle"))) == 2
    found = np.abs(np.corrcoef(np.column_stack([planted.world.gap_N, block]).T)[0, 1:])
    assert found.max() > 0.5  # with the rows out of step there would be nothing


def test_some_of_the_pairs(evidence):
    at = np.array([7, 2, 0])
    some = evidence.take(at)
    assert some.learners.tolist() == [0, 1]
    np.testing.assert_array_equal(some.columns["margin"], evidence.columns["margin"][at])
    np.testing.assert_array_equal(some.blocks["length"], evidence.blocks["length"][at])
    assert some.prompt_N.tolist() == evidence.prompt_N[at].tolist()


def test_imported_signals_come_along(run):
    judge = np.full(40, np.nan)
    judge[7] = -1
    with RunView(run.path) as view:
        found = gather(view, {"judge": judge})
    assert found.imported["judge"][7] == -1
    assert np.isnan(np.delete(found.imported["judge"], 7)).all()
    assert found.blocks["given"].shape == (40, 2)


def test_a_run_that_is_not_weighed(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "chosen": "c", "rejected": "r"}\n')
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "a.jsonl"),)), run)
    with RunView(run.path) as view, pytest.raises(RunError, match="no scores yet; run curate score"):
        gather(view)
