"""Noise by slice: the bad source and the bad annotator are found, small slices are shrunk, counts are right."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from curate.config import DiagnoseConfig, IngestConfig
from curate.diagnosing import diagnose
from curate.pairs import ingest
from curate.schema import KINDS, SLICES
from curate.slices import divided, make_slices, read_votes
from curate.store import Run
from curate.view import RunView

QUICK = DiagnoseConfig(folds=5, repeats=2)


def slices_of(run, config=QUICK):
    diagnose(run, config)
    with RunView(run.path) as view:
        return view.table("slices"), view.table("diagnosis")


def row_of(slices, by, value):
    (at,) = np.flatnonzero((slices["by"] == by) & (slices["value"] == value))
    return slices.iloc[at]


@pytest.mark.parametrize(("by", "value"), [("source", "books"), ("annotator", "ann-2")])
def test_the_noisy_one_is_found(make_world, write_scored, tmp_path, by, value):
    world = make_world(500, flips=0.05, noisy=(by, value, 0.4), seed=5, strength=5)
    slices, _ = slices_of(write_scored(tmp_path, world))
    same = slices[slices["by"] == by]
    assert same.iloc[0]["value"] == value  # the worst comes first
    for _, one in same.iterrows():
        truth = world.flipped[[row[by] == one["value"] for row in world.rows]].mean()
        assert one["low"] <= truth <= one["high"]
        assert one["low"] <= one["rate"] <= one["high"]
    others = same[same["value"] != value]
    assert same.iloc[0]["low"] > others["rate"].max()


def test_counts_and_order(planted):
    with RunView(planted.run.path) as view:
        slices, diagnosis, pairs = (view.table(name) for name in ("slices", "diagnosis", "pairs"))
    assert list(slices.columns) == SLICES.names
    assert list(dict.fromkeys(slices["by"])) == ["source", "cluster", "length", "turns", "annotator"]
    assert (slices[list(KINDS)].sum(axis=1) == slices["pairs"]).all()
    for by, part in slices.groupby("by"):
        assert part["pairs"].sum() == len(pairs), by
        assert part["rate"].is_monotonic_decreasing
    expected = pd.crosstab(pairs["source"], diagnosis["kind"])
    for source, counts in expected.iterrows():
        assert {kind: row_of(slices, "source", source)[kind] for kind in counts.index} == counts.to_dict()
    assert row_of(slices, "turns", "1 turn")["pairs"] == len(pairs)
    assert row_of(slices, "length", "under 50 tokens")["pairs"] == len(pairs)


def test_clusters_are_the_topics(planted):
    with RunView(planted.run.path) as view:
        diagnosis, slices = view.table("diagnosis"), view.table("slices")
    topics = [row["prompt"].split()[1].rstrip(":") for row in planted.world.rows]
    assert pd.crosstab(diagnosis["cluster"], topics).to_numpy().max(axis=0).tolist() == [100] * 4
    names = planted.diagnosed["clusters"]
    assert set(slices.loc[slices["by"] == "cluster", "value"]) == set(names)
    for cluster, topic in zip(diagnosis["cluster"], topics, strict=True):
        assert topic in names[cluster]


# --- by hand ---


@pytest.fixture(scope="module")
def small(tmp_path_factory, write_scored, make_world):
    """Six pairs by three annotators (0 is a tie, 1 and 2 the sides), and what the majority makes of them."""
    choices = [(1, 1, 1), (2, 2, 2), (1, 1, 2), (2, 2, 0), (1, 2, 0), (0, 0, 0)]
    world = make_world(6)
    world.rows = [
        {
            **{"instruction": row["prompt"], "input": "", "response1": row["chosen"], "response2": row["rejected"]},
            **{f"annotator{number}": choice for number, choice in enumerate(votes, 1)},
        }
        for row, votes in zip(world.rows, choices, strict=True)
    ]
    return write_scored(tmp_path_factory.mktemp("votes"), world, features=False)


def test_votes(small):
    """Votes for a tie, and those on ties, say nothing of a label; a vote against the majority is −1."""
    with RunView(small.path) as view:
        votes = read_votes(view)
    assert votes.names == ("annotator1", "annotator2", "annotator3")
    found = list(zip(votes.pair_V.tolist(), votes.annotator_V.tolist(), votes.vote_V.tolist(), strict=True))
    assert sorted(found) == [
        *[(0, who, 1) for who in range(3)],
        *[(1, who, 1) for who in range(3)],
        *[(2, 0, 1), (2, 1, 1), (2, 2, -1)],
        *[(3, 0, 1), (3, 1, 1)],
    ]
    assert divided(votes, 6).tolist() == [False, False, True, False, False, False]


def test_votes_follow_positions_not_rows(tmp_path):
    lines = ['{"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "x"}', '{"prompt": null}']
    (tmp_path / "a.jsonl").write_text("\n".join([lines[0], lines[1], lines[0].replace('"x"', '"y"'), ""]))
    run = Run.create(tmp_path / "run")
    ingest(IngestConfig((str(tmp_path / "a.jsonl"),), format="trl_standard"), run)
    with RunView(run.path) as view:
        votes = read_votes(view)
        assert view.table("pairs")["row"].tolist() == [0, 2]
    assert (votes.pair_V.tolist(), votes.names) == ([0, 1], ("x", "y"))


class Fake:
    """A view of one column of numbers, for slices by hand."""

    def __init__(self, sources, turns=1, tokens=20.0):
        self.frame = pd.DataFrame({"source": sources, "turns": turns, "tokens": tokens})

    def sql(self, query, **_):
        return self.frame.copy()


NO_VOTES = type("Votes", (), {"names": ()})()


def made(sources, log_odds_N, learns_N=None, kind_N=None, can_tell=True, clusters=None, **fake):
    count = len(sources)
    learns_N = np.ones(count, bool) if learns_N is None else learns_N
    kind_N = np.zeros(count, np.int8) if kind_N is None else kind_N
    return make_slices(
        Fake(sources, **fake), NO_VOTES, log_odds_N, learns_N, kind_N, clusters, can_tell=can_tell
    ).to_pandas()


def test_a_tiny_slice_is_shrunk_towards_the_whole():
    """Three wrong labels of three are no proof of a rate of one; 300 of 300 are."""
    rng = np.random.default_rng(0)
    good = np.where(rng.random(2_000) < 0.05, -6.0, 6.0)
    names = [f"s{at % 10}" for at in range(2_000)]
    tiny = made([*names, *["tiny"] * 3], np.append(good, [-6.0] * 3))
    huge = made([*names, *["huge"] * 300], np.append(good, [-6.0] * 300))
    assert row_of(tiny, "source", "tiny")["rate"] < 0.8 < row_of(huge, "source", "huge")["rate"]
    assert row_of(tiny, "source", "tiny")["low"] < 0.5
    assert row_of(tiny, "source", "s0")["rate"] == pytest.approx((good[::10] < 0).mean(), abs=0.02)


def test_rates_of_calibrated_evidence():
    rng = np.random.default_rng(1)
    log_odds = rng.normal(0, 3, 3_000)
    better = rng.random(3_000) < expit(log_odds)
    flipped = rng.random(3_000) < np.repeat([0.1, 0.3], 1_500)
    sign = np.where(better != flipped, 1, -1)  # the label is for the better side unless it is flipped
    found = made(["a"] * 1_500 + ["b"] * 1_500, sign * log_odds)
    for name, rate in (("a", 0.1), ("b", 0.3)):
        assert row_of(found, "source", name)["low"] <= rate <= row_of(found, "source", name)["high"]


def test_pairs_without_evidence_or_label_have_no_say():
    log_odds = np.array([5.0] * 40 + [-5.0] * 40 + [np.nan] * 40)
    learns = np.array([True] * 40 + [False] * 40 + [True] * 40)
    found = row_of(made(["a"] * 120, log_odds, learns), "source", "a")
    assert found["pairs"] == 120
    assert found["rate"] < 0.1
    only = row_of(made(["a"] * 80 + ["b"] * 40, np.append(log_odds[:40], [np.nan] * 80)), "source", "b")
    assert (only["pairs"], np.isnan(only["rate"])) == (40, True)


def test_where_nothing_can_be_told_there_is_no_rate():
    found = made(["a", "b"] * 20, np.full(40, 3.0), can_tell=False, clusters=(np.arange(40) % 2, ["x", "y"]))
    assert found[["rate", "low", "high"]].isna().all().all()
    assert found.loc[found["by"] == "cluster", "pairs"].tolist() == [20, 20]


def test_ways_of_slicing():
    kind = np.arange(8, dtype=np.int8) % 5
    found = made(
        ["a", None, "a", "b", "b", "b", None, "a"],
        np.full(8, 3.0),
        kind_N=kind,
        turns=[0, 1, 2, 3, 4, 5, 6, 20],
        tokens=[0, 49.5, 50, 99, 400, 799, 800, np.nan],
        clusters=(np.array([0, 0, 1, 1, 1, -1, -1, 0]), ["cats", "dogs"]),
    )
    counts = {(one["by"], one["value"]): one["pairs"] for _, one in found.iterrows()}
    assert counts == {
        ("source", "a"): 3,
        ("source", "b"): 3,
        ("cluster", "cats"): 3,
        ("cluster", "dogs"): 3,
        ("length", "under 50 tokens"): 2,
        ("length", "50 to 100 tokens"): 2,
        ("length", "400 to 800 tokens"): 2,
        ("length", "800 tokens and more"): 1,
        ("turns", "0 turns"): 1,
        ("turns", "1 turn"): 1,
        ("turns", "2 turns"): 1,
        ("turns", "3 turns"): 1,
        ("turns", "4 turns"): 1,
        ("turns", "5 or more turns"): 3,
    }
    dogs = row_of(found, "cluster", "dogs")
    assert [dogs[name] for name in KINDS] == [0, 0, 1, 1, 1]
